"""Records as tables for people: data frames, and Markdown pages that say where their numbers come from."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from reprolib import claims, contradictions, files, ladder, specs, training
from reprolib.autoattack import STANDARD
from reprolib.measures import JUDGED, names_of, of
from reprolib.specs import Plan, Settings

BANNER = (
    "**Quick run on a small sample with weak attacks: shows that everything works, says nothing about the paper.** "
    "No verdict is drawn from it."
)
CUSTOM = "**Settings differ from every profile: an experiment of your own.** No verdict is drawn from it."


def banner(settings: Settings) -> str:
    """Markdown that every table of a run without verdicts carries; empty for the other profiles."""
    return {"quick": BANNER, "custom": CUSTOM}.get(settings.folder, "")


def scale(settings: Settings, plan: Plan) -> str:
    """What a run is made of, in Markdown: the banner where one is due, then sizes, epochs and what was reduced."""
    train_size = plan.train_size or specs.SIZES[plan.dataset][0]
    run = (
        f"Profile **{settings.folder}**: {plan.model_name} on {plan.dataset}, {train_size:,} training and "
        f"{plan.test_size:,} test images, {_trained(plan, plan.settings.finetune_epochs)}."
    )
    return "\n\n".join(filter(None, [banner(settings), run]))


def frame(cells: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(cells)


def number(found: dict) -> str:
    """A measured number with its interval, for people: 12.34 [11.71, 12.99]."""
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def markdown(data_frame: pd.DataFrame, heading: str = "") -> str:
    """A data frame as a Markdown table, under an optional line such as a banner."""
    body = data_frame.to_markdown(index=False, disable_numparse=True)
    return f"{heading}\n\n{body}\n" if heading else f"{body}\n"


def save_markdown(notebook: str, settings: Settings, text: str) -> Path:
    """Write results/<folder>/<notebook>.md, with the banner where one is due."""
    path = files.RESULTS / settings.folder / f"{notebook}.md"
    files.write_atomically(path, ("\n\n".join(filter(None, [banner(settings), text])).rstrip() + "\n").encode())
    return path


def display_markdown(content: pd.DataFrame | str) -> None:
    """Show a table or a text as Markdown, which JupyterLab, GitHub and a page all render, and nbval can compare."""
    from IPython.display import Markdown, display

    display(Markdown(content if isinstance(content, str) else markdown(content)))


def table(
    cells: list[dict], columns: list[str], epochs: dict[str, int], attacks: list[str], prefix: str
) -> pd.DataFrame:
    """The paper's table and ours in one: for each attack the printed row, if any, then a row per protocol and decision rule.

    An attack's first start alone, and all attacks together, follow where they were measured; the paper prints neither.
    """
    ledger, rows = claims.load_claims(), []
    with_starts = [row for attack in attacks for row in (attack, f"{attack}, first start only")]
    for attack in ["Clean", *with_starts, "All attacks"]:
        names = {c: [name for name in names_of(prefix, attack, c) if name in ledger] for c in columns}
        printed = {c: ledger[found[0]] if found else None for c, found in names.items()}
        if any(printed.values()):
            rows.append(
                {
                    "attack": attack,
                    "protocol": "paper",
                    "decision": "",
                    "images": "",
                    **{c: f"{p.printed:.2f}" if p else "" for c, p in printed.items()},
                }
            )
        here = [c for c in cells if c["row"] == attack and epochs.get(c["column"]) == c["epoch"]]
        for protocol, decision in dict.fromkeys((c["protocol"], c["decision"]) for c in here):
            found = {c["column"]: c for c in here if (c["protocol"], c["decision"]) == (protocol, decision)}
            rows.append(
                {
                    "attack": attack,
                    "protocol": protocol,
                    "decision": decision or "",
                    "images": str(max(c["n"] for c in found.values())),
                    **{c: number(found[c]) if c in found else "" for c in columns},
                }
            )
    return pd.DataFrame(rows)


def summary(
    cells: list[dict], columns: list[str], epochs: dict[str, int], attacks: list[str], prefix: str
) -> pd.DataFrame:
    """The table in three rows per attack: printed, under `probabilities` by the last iterate, and sound."""
    full = table(cells, columns, epochs, attacks, prefix)
    keep = [["paper", ""], ["clean", ""], ["probabilities", "last"], ["sound", "any"]]
    chosen = full[
        [
            attack in ("Clean", *attacks) and pair in keep
            for attack, *pair in zip(full["attack"], full["protocol"], full["decision"], strict=True)
        ]
    ].copy()
    for column in columns:
        chosen[column] = chosen[column].str.split(" ").str[0]
    return chosen.drop(columns="decision").reset_index(drop=True)


def epochs_table(cells: list[dict], plan: Plan) -> pd.DataFrame:
    """The study along the epochs: per column and epoch, the printed number and ours under each protocol."""
    ledger, rows, cells = claims.load_claims(), [], of(plan, cells)
    for column in plan.grid.ablation_columns:
        for epoch in plan.ablation_epochs():
            here = {
                (c["row"], c["protocol"], c["decision"]): c
                for c in cells
                if (c["column"], c["epoch"]) == (column, epoch)
            }
            printed = (
                ledger.get(f"{plan.grid.ablation_claims}.{epoch}") if column == plan.grid.ablation_claimed[0] else None
            )
            row = {
                "column": column,
                "epochs": str(epoch),
                "paper": f"{printed.printed:.1f}" if printed else "",
                "saturated": number(here["p(true) > 1-1e-7", "saturated", None]),
            }
            for attack in plan.grid.ablation_attacks:
                for protocol, decision in (("probabilities", "last"), ("sound", "any")):
                    if (attack, protocol, decision) in here:  # another engine has other protocols
                        row[f"{attack} {protocol}"] = number(here[attack, protocol, decision])
            rows.append(row)
    return pd.DataFrame(rows)


def claims_table(cells: list[dict], plan: Plan) -> pd.DataFrame:
    """What the text claims about a plan's networks, and what was measured: a row per claim, a column per protocol."""
    ledger, rows = claims.load_claims(), []
    for name, places in plan.grid.text_claims.items():
        found = {c["protocol"]: c for c in cells if c["claim"] == name and JUDGED.get(c["protocol"]) == c["decision"]}
        rows.append(
            {
                "claim": ledger[name].claim,
                "cell": " minus ".join(places),
                "printed": f"{ledger[name].printed:g}",
                **{protocol: number(c) for protocol, c in found.items()},
            }
        )
    return pd.DataFrame(rows).fillna("")


def ensemble_table(cells: list[dict], plans: dict[str, Plan]) -> pd.DataFrame:
    """Table 9 and ours in one: per network the printed number, clean, AutoAttack given logits and given probabilities,
    and Square alone."""
    ledger, rows = claims.load_claims(), []
    for plan in plans.values():
        for column, rest in plan.grid.ensemble.columns.items():
            found = {(c["row"], c["protocol"]): c for c in of(plan, cells) if c["column"] == column}
            printed = ledger.get(f"{plan.grid.ensemble.claims}.{rest}")
            rows.append(
                {
                    "network": f"{plan.model_name}, {column}",
                    "images": str(found["Clean", "clean"]["n"]),
                    "clean": number(found["Clean", "clean"]),
                    "paper: AutoAttack": f"{printed.printed:.2f}" if printed else "",
                    "AutoAttack, given logits (sound)": number(found["AutoAttack", "sound"]),
                    "AutoAttack, given probabilities": number(found["AutoAttack", "probabilities"]),
                    "Square alone": number(found["Square", "sound"]),
                }
            )
    return pd.DataFrame(rows)


def parts_table(cells: list[dict], plans: dict[str, Plan]) -> pd.DataFrame:
    """Which part of AutoAttack broke which share of the images, in %."""
    rows = []
    for plan in plans.values():
        for column in plan.grid.ensemble.columns:
            for protocol, given in (("sound", "logits"), ("probabilities", "probabilities")):
                found = {c["row"]: c for c in of(plan, cells) if (c["column"], c["protocol"]) == (column, protocol)}
                shares = {f"broken by {part}": f"{found[f'broken by {part}']['value']:.2f}" for part in STANDARD}
                rows.append({"network": f"{plan.model_name}, {column}", "given": given, **shares})
    return pd.DataFrame(rows)


def ladder_table(rungs: list[dict]) -> pd.DataFrame:
    """The sanity ladder: per rung the points by which each loss missed it, and how many are allowed."""
    missed = {(rung["row"], rung["column"]): rung["value"] for rung in rungs}
    return pd.DataFrame(
        [
            {"rung": row, "allowed": f"{allowed:g}", **{loss: f"{missed[row, loss]:g}" for loss in specs.LOSSES}}
            for row, allowed in ladder.RUNGS.items()
        ]
    )


def layer_table(networks: dict[str, torch.nn.Module]) -> pd.DataFrame:
    """The layers with weights of some networks: kernel, stride, output channels, number of parameters."""
    rows = []
    for name, network in networks.items():
        for layer, module in network.named_children():
            count = sum(p.numel() for p in module.parameters())
            if count:
                conv = isinstance(module, torch.nn.Conv2d)
                rows.append(
                    {
                        "network": name,
                        "layer": layer,
                        "kernel": "x".join(map(str, module.kernel_size)) if conv else "",
                        "stride": str(module.stride[0]) if conv else "",
                        "outputs": str(module.out_channels if conv else module.out_features),
                        "parameters": f"{count:,}",
                    }
                )
    return pd.DataFrame(rows)


def attack_table() -> pd.DataFrame:
    """Table 2: every attack with its numbers, and the model calls that one unbreakable image costs."""
    rows = []
    for dataset in ("cifar-10", "fashion-mnist", "imagenet-subset"):
        for name, attack in specs.attacks_of(dataset).items():
            loop = attack.loop()
            calls = max(loop["restarts"], 1) * (loop["steps"] + 1)
            rows.append(
                {
                    "data set": dataset,
                    "attack": name,
                    "eps": f"{attack.eps:g}",
                    "alpha": f"{loop['alpha']:g}",
                    "iterations": str(loop["steps"]),
                    "restarts": str(loop["restarts"]),
                    "calls": str(calls),
                }
            )
    return pd.DataFrame(rows)


def contradictions_table() -> pd.DataFrame:
    """Where the paper disagrees with itself, as a table."""
    return pd.DataFrame(
        [
            {
                "where": ", ".join(entry.places),
                "what is printed": entry.says,
                "why it matters": entry.why,
                "weight": entry.matters,
            }
            for entry in contradictions.load()
        ]
    )


def table_page(cells: list[dict], plan: Plan, origin: dict) -> str:
    """A table's Markdown page: every cell, and where the numbers come from."""
    columns = list(plan.networks)
    epochs = {column: epoch for column, (_, epoch) in plan.networks.items()}
    return "\n\n".join(
        [
            f"# {title(plan)}: {plan.model_name} on {plan.grid.dataset}",
            "Accuracy in %, with 95 % Wilson intervals; `images` is the number of test images behind a row. "
            + source_line(plan, origin, plan.settings.finetune_epochs),
            markdown(table(cells, columns, epochs, plan.grid.rows(), plan.grid.table)),
        ]
    )


def epochs_page(cells: list[dict], plans: dict[str, Plan], origins: list[dict]) -> str:
    """Table 11's Markdown page: for each of its rows every point of the curves."""
    parts = ["# Table 11: along the epochs of fine-tuning", "Accuracy in %, with 95 % Wilson intervals."]
    for plan, origin in zip(plans.values(), origins, strict=True):
        parts += [
            f"## {plan.model_name} on {plan.grid.dataset}",
            f"{plan.test_size:,} test images. " + source_line(plan, origin, plan.settings.ablation_epochs),
            markdown(epochs_table(cells, plan)),
        ]
    return "\n\n".join(parts)


def ensemble_page(cells: list[dict], plans: dict[str, Plan], origins: list[dict]) -> str:
    """Table 9's Markdown page."""
    sources = [
        source_line(plan, origin, plan.settings.finetune_epochs)
        for plan, origin in zip(plans.values(), origins, strict=True)
    ]
    steps = min(plan.settings.steps for plan in plans.values())
    version = f"AutoAttack cut short, to {steps} steps" if steps < specs.STANDARD_STEPS else "The standard AutoAttack"
    parts = ["# Table 9: AutoAttack", f"{version}. Accuracy in %, with 95 % Wilson intervals.", *sources]
    return "\n\n".join([*parts, markdown(ensemble_table(cells, plans)), markdown(parts_table(cells, plans))])


def source_line(plan: Plan, origin: dict, epochs: int) -> str:
    """Where the numbers of one plan come from, after so many epochs of fine-tuning."""
    seconds = ", ".join(f"{name} {value:,.0f} s" for name, value in origin["seconds"].items())
    return (
        f"{origin['data']['name']} ({origin['data']['source']}, {origin['data']['variant']}), "
        f"{_reduced(plan)}{_trained(plan, epochs)}{_missed(plan, origin)}, seed {plan.settings.seed}. "
        f"Device: {'; '.join(origin['devices'])}. Computing time: {seconds}. "
        f"torch {origin['torch']}, commit {origin['commit'][:10]}."
    )


def _missed(plan: Plan, origin: dict) -> str:
    """What a reader must know of a parent that is not as accurate as it was meant to be."""
    if plan.pretraining.target is None:
        return ""
    (last,) = origin["pretraining"]
    return "" if last.get("rests") else f", **which was missed: it came to {last['clean']:.2f} %**"


def _reduced(plan: Plan) -> str:
    """What a reader must know before anything else: a network that is not as wide as the paper's."""
    width = plan.pretraining.width
    return "" if width == 1 else f"**{width:g} of the network's channels**, "


def _trained(plan: Plan, epochs: int) -> str:
    return f"{_epochs(epochs)} of fine-tuning after {_pretraining(plan)}"


def _pretraining(plan: Plan) -> str:
    epochs, target = plan.settings.pretrain_epochs, plan.pretraining.target
    if target is None:
        return f"{_epochs(epochs)} of pre-training"
    near = f"within {training.NEAR:g} points ({_epochs(epochs)} at most)"
    return f"pre-training to {target:g} % of clean test accuracy {near}"


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


def title(plan: Plan) -> str:
    """The paper's table or figure, or what else the grid says it is: T3.VGG16 -> Table 3, F3 -> Figure 3."""
    name = plan.grid.table.split(".")[0]
    kind = {"T": "Table", "F": "Figure"}.get(name[0])
    return f"{kind} {name[1:]}" if kind and name[1:].isdigit() else name
