"""The saturation study: curves over epochs, losses, radii and seeds, and who survives, from a study's records.

A column named "7-P1, seed 1" is the column "7-P1" with another seed; curves show all seeds of a column together.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure

from reprolib import claims, data, evaluation, report, store, training
from reprolib.specs import Plan

SATURATED = "p(true) > 1-1e-7"
SEEN = {  # protocol and decision rule of a curve -> its name and colour
    ("probabilities", "last"): ("probabilities, last iterate", report.PALETTE["probabilities"]),
    ("logits", "any"): ("logits, any iterate", report.PALETTE["logits"]),
    ("margin", "any"): ("margin, any iterate", report.PALETTE["sound"]),
}


def base(column: str) -> str:
    """The column without its seed."""
    return column.split(", seed ")[0]


def over_seeds(cells: list[dict], row: str, column: str, protocol: str, decision: str | None) -> pd.DataFrame:
    """Per epoch: mean, smallest and largest value over the seeds of a column, and how many seeds there are."""
    found = {
        (c["column"], c["epoch"]): c["value"]
        for c in cells
        if (c["row"], base(c["column"]), c["protocol"], c["decision"]) == (row, column, protocol, decision)
    }
    frame = pd.DataFrame([{"epoch": epoch, "value": value} for (_, epoch), value in found.items()])
    if frame.empty:
        return pd.DataFrame(columns=["epoch", "mean", "min", "max", "seeds"])
    grouped = frame.groupby("epoch")["value"].agg(["mean", "min", "max", "count"])
    return grouped.rename(columns={"count": "seeds"}).reset_index()


def headline(cells: list[dict], plan: Plan) -> pd.DataFrame:
    """Per column and epoch, over its seeds: saturated share, and accuracy under each attack, probabilities and sound."""
    rows = []
    for column in dict.fromkeys(base(c) for c in plan.ablation_columns()):
        for epoch in plan.ablation_epochs():
            row = {"column": column, "epochs": str(epoch)}
            wanted = [("saturated", SATURATED, "saturated", None)]
            for attack in plan.grid.ablation_attacks:
                wanted += [(f"{attack} {p}", attack, p, d) for p, d in (("probabilities", "last"), ("sound", "any"))]
            for name, measured, protocol, decision in wanted:
                found = over_seeds(cells, measured, column, protocol, decision).query("epoch == @epoch")
                row["seeds"] = str(int(found["seeds"].iloc[0]))
                low, mean, high = (f"{found[k].iloc[0]:.1f}" for k in ("min", "mean", "max"))
                row[name] = mean if low == high else f"{mean} ({low} to {high})"
            rows.append(row)
    return pd.DataFrame(rows)


def plot_saturation(cells: list[dict], plan: Plan) -> Figure:
    """The share of saturated test images against epochs: one line per column, a band from its lowest to highest seed."""
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    for column in dict.fromkeys(base(c) for c in plan.ablation_columns()):
        found = over_seeds(cells, SATURATED, column, "saturated", None)
        count = found["seeds"].max()
        name = f"{column} ({count} seed{'s' if count > 1 else ''})"
        (line,) = axis.plot(found["epoch"], found["mean"], "o-", label=name)
        axis.fill_between(found["epoch"].astype(float), found["min"], found["max"], color=line.get_color(), alpha=0.2)
    axis.set(
        xlabel="fine-tuning epochs", ylabel="saturated test images (%)", ylim=(-2, 100), xticks=plan.ablation_epochs()
    )
    axis.legend(fontsize="small")
    return figure


def plot_losses(cells: list[dict], plan: Plan, columns: tuple[str, ...] = ("7-P1", "no patches")) -> Figure:
    """One panel per attack: accuracy against epochs by loss, with patches (solid) and without (dotted)."""
    attacks = plan.grid.ablation_attacks
    figure, axes = plt.subplots(1, len(attacks), figsize=(5 * len(attacks), 5), sharey=True, layout="constrained")
    for axis, attack in zip(axes, attacks, strict=True):
        for column, dashes in zip(columns, ("-", ":"), strict=True):
            share = over_seeds(cells, SATURATED, column, "saturated", None)
            axis.plot(share["epoch"], share["mean"], dashes, color="#999999", label=f"{column}: saturated")
            for (protocol, decision), (name, colour) in SEEN.items():
                found = over_seeds(cells, attack, column, protocol, decision)
                axis.plot(found["epoch"], found["mean"], dashes, marker="o", color=colour, label=f"{column}: {name}")
                low, high = found["min"].astype(float), found["max"].astype(float)
                axis.fill_between(found["epoch"].astype(float), low, high, color=colour, alpha=0.2)
        axis.set(title=attack, xlabel="fine-tuning epochs", ylim=(-2, 100), xticks=plan.ablation_epochs())
    printed = {
        int(name.rsplit(".", 1)[1]): claim.printed
        for name, claim in claims.load_claims().items()
        if name.startswith("T11.FMNIST.")
    }
    last = max(plan.ablation_epochs())
    row = {epoch: value for epoch, value in printed.items() if epoch <= last}
    axes[-1].plot(list(row), list(row.values()), "D--", color="black", label="Table 11, printed")
    axes[0].set_ylabel("test images (%)")
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small", frameon=False)
    return figure


def plot_sweep(cells: list[dict], plan: Plan) -> Figure:
    """One panel per network: accuracy against the radius eps, by loss."""
    sweep = plan.grid.sweep
    figure, axes = plt.subplots(1, len(sweep.columns), figsize=(13, 4.5), sharey=True, layout="constrained")
    for axis, column in zip(axes, sweep.columns, strict=True):
        for (protocol, decision), (name, colour) in SEEN.items():
            values = {
                eps: c["value"]
                for eps in sweep.eps
                for c in cells
                if (c["row"], c["column"]) == (f"{sweep.attack}, eps {eps:g}", column)
                and (c["protocol"], c["decision"]) == (protocol, decision)
            }
            axis.plot(list(values), list(values.values()), "o-", color=colour, label=name)
        axis.set(title=column, xlabel=r"radius $\epsilon$", ylim=(-2, 100))
    axes[0].set_ylabel(f"accuracy under {sweep.attack} (%)")
    axes[0].legend(fontsize="small")
    return figure


def measure_contingency(
    plan: Plan, column: str, attack: str, dataset: data.Dataset, artefacts: store.Store
) -> list[dict]:
    """Four cells, shares of the correctly classified images: saturated before the attack or not, by survived or not.

    The attack takes its loss from probabilities, by the last iterate: what saturation is said to stop.
    """
    (job,) = [
        job
        for job in plan.jobs
        if (job.column, job.attack) == (column, attack) and job.evaluation.attack.loss == "probabilities"
    ]
    spec, size = job.evaluation, job.evaluation.size
    network = training.checkpoint(spec.training, spec.epoch, dataset, artefacts).model
    found = evaluation.outcome(spec, dataset, artefacts)
    before = _saturated(network, dataset.test.images[:size], dataset.test.labels[:size])[found.correct]
    after = found.robust("last")[found.correct]
    names = {True: "saturated", False: "not saturated"}, {True: "survives", False: "falls"}
    return [
        report.cell(
            f"{names[0][sure]}, {names[1][stands]}",
            column,
            spec.epoch,
            "probabilities",
            "last",
            report.share((before == sure) & (after == stands)),
            spec.training.seed,
        )
        for sure in (True, False)
        for stands in (True, False)
    ]


def contingency_table(cells: list[dict]) -> pd.DataFrame:
    """Per network: of the correctly classified images, those saturated before or not, by survived or not, in %."""
    rows = []
    for column in dict.fromkeys(c["column"] for c in cells):
        shares = {c["row"]: c for c in cells if c["column"] == column}
        agree = shares["saturated, survives"]["value"] + shares["not saturated, falls"]["value"]
        rows.append(
            {
                "network": column,
                "images": str(shares["saturated, survives"]["n"]),
                **{row: f"{c['value']:.2f}" for row, c in shares.items()},
                "one predicts the other": f"{agree:.2f}",
            }
        )
    return pd.DataFrame(rows)


@torch.no_grad()
def _saturated(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """bool [B]: the true class's probability is above 1 - 1e-7, as in `training.clean_accuracy`."""
    logits = torch.cat([network(some.float() / 255) for some in images.split(500)])
    rest = logits.double().softmax(1).scatter(1, labels[:, None], 0.0).sum(1)
    return rest < training.SATURATED


def plot_optimizers(cells: list[dict], plan: Plan) -> Figure:
    """Figure 3: per attack and optimiser a bar for each loss and one for the saturated share, means over the seeds.

    The line on a bar spans the seeds; with one seed, the interval over the test images.
    """
    columns = [column for column in plan.networks if base(column) == column and column != "undefended"]
    figure, axes = plt.subplots(1, len(plan.grid.attacks), figsize=(11, 4.6), sharey=True, layout="constrained")
    bars = [(protocol, decision, name, colour) for (protocol, decision), (name, colour) in SEEN.items()]
    bars += [("saturated", None, "share of saturated images", "#999999")]
    for axis, attack in zip(axes, plan.grid.attacks, strict=True):
        for place, column in enumerate(columns):
            for index, (protocol, decision, name, colour) in enumerate(bars):
                row = SATURATED if protocol == "saturated" else attack
                seen = [
                    c
                    for c in cells
                    if (c["row"], base(c["column"]), c["protocol"], c["decision"]) == (row, column, protocol, decision)
                ]
                mean = sum(c["value"] for c in seen) / len(seen)
                low, high = (
                    (min(c["value"] for c in seen), max(c["value"] for c in seen))
                    if len(seen) > 1
                    else (seen[0]["low"], seen[0]["high"])
                )
                x = place + 0.2 * (index - (len(bars) - 1) / 2)
                error = [[max(mean - low, 0)], [max(high - mean, 0)]]
                label = name if place == 0 else None
                axis.bar(x, mean, 0.19, color=colour, edgecolor="black", linewidth=0.4, yerr=error, label=label)
                axis.text(x, high + 1, f"{mean:.1f}", ha="center", size=8)
        axis.set(title=attack, xticks=range(len(columns)), xticklabels=columns, ylim=(0, 106))
    axes[0].set_ylabel("test images (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    return figure
