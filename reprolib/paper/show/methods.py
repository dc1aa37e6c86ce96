"""Pages that compare methods: a row per method, and what each costs beside what it keeps."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from functools import partial
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reprolib import attacks, diagnostics
from reprolib.paper.plan import PARAMS, Cell, Plan, epoch_of, read_yaml
from reprolib.paper.run import Page
from reprolib.paper.run.measure import CLEAN
from reprolib.paper.show.pictures import LINES, PALETTE, legend_below
from reprolib.paper.show.selection import (
    Shown,
    asked,
    followed,
    given_rows,
    interval,
    main_rows,
    networks_of,
    number,
    printed,
    where,
)

ASKED = (("probabilities", "last"), ("logits", "any"), ("sound", "any"), ("transfer", "last"))
MARKERS = "osD^vPX*<>ph"
# with darker ones of Tol's; the markers tell apart what colours may not
COLOURS = [*LINES, "#882255", "#44AA99", "#332288", "#DDCC77"]
FOUND_ON = "cifar-10"  # what RobustBench lists
FOUND = "found by others (RobustBench, AutoAttack at 8/255)"
EXAMINED = 50  # images that the doctor is handed: as few as it judges on


def methods_table(cells: list[Cell], plan: Plan, attack: str) -> pd.DataFrame:
    """A row per method: clean accuracy; under one attack the paper's number, ours by each way of asking, and by
    transfer; and what AutoAttack leaves.
    """
    rows = []
    for at in networks_of(plan):
        here = at.of(cells)
        claim = printed(plan.page, attack, at.column, at.epoch)
        row = {
            "method": at.label,
            "clean": _shown(here, "clean", None),
            "paper": f"{claim.number:.2f}" if claim else "",
        }
        for protocol, decision in (
            ("probabilities", "last"),
            ("logits", "any"),
            ("sound", "any"),
            ("transfer", "last"),
        ):
            row[protocol] = _shown(here, protocol, decision, row=attack)
        row |= {other: _shown(here, "sound", "any", row=other) for other in given_rows(plan)}
        rows.append(row)
    return pd.DataFrame(rows)


def _shown(cells: list[Cell], protocol: str, decision: str | None, **wanted: Any) -> str:
    found = asked(cells, protocol, decision, **wanted)
    return number(found[0]) if found else ""


def costs_table(cells: list[Cell], plan: Plan) -> pd.DataFrame:
    """A row per method: what it starts from, its epochs, passes and seconds, and what others found for it, if
    any did on the page's data set."""
    rows, known = [], independent() if plan.page.dataset == FOUND_ON else {}
    for at in networks_of(plan):
        alone, whole = (spent(cells, at, part) for part in ("alone", "with its parents"))
        column, other = plan.page.columns[at.column], known.get(at.column)
        rows.append(
            {
                "method": at.label,
                "starts from": column.parent or column.of or ("its members" if column.members else "fresh weights"),
                "passes per image": alone[0],
                "seconds": alone[1],
                "passes with what it starts from": whole[0],
                FOUND: ""
                if other is None
                else f"{other['autoattack']:.2f} ({other['network']}, clean {other['clean']:.2f})",
            }
        )
    table = pd.DataFrame(rows)
    return table if table[FOUND].any() else table.drop(columns=FOUND)


def spent(cells: Iterable[Cell], at: Shown, part: str) -> tuple[str, str]:
    """(passes per image, seconds) of a network at an epoch, see `run.measure_training`; "" for what nobody noted."""
    here = where(at.of(cells), part=part, protocol="cost")
    found = [where(here, row=row) for row in ("Passes per image", "Seconds")]
    passes, seconds = (f"{cells[0].value:.0f}" if cells else "" for cells in found)
    return passes, seconds


@functools.cache
def independent() -> dict[str, dict[str, Any]]:
    """What others found for a method of this name."""
    return read_yaml(PARAMS / "independent.yaml")


def verdicts_table(page: Page, attack: str) -> pd.DataFrame:
    """What the doctor says of each method, if it claimed what this attack leaves by clipped probabilities."""
    plan, split = page.plan, page.dataset.test
    given = split.images[:EXAMINED].float() / 255, split.labels[:EXAMINED]
    parent = None if plan.page.transfer_from is None else page.shelf.load(_network(plan, plan.page.transfer_from))
    declared = plan.attack(plan.page.rows[attack].attack)
    made = partial(attacks.named()[declared.name], **declared.parameters, loss="probabilities", decision="last")
    rows = []
    for at in networks_of(plan):
        report = diagnostics.check(page.shelf.load(at.network), parent, given, made, progress=False)
        rows.append({"method": at.label, "the claim is": report.verdict, "because": report.reason})
    return pd.DataFrame(rows)


def _network(plan: Plan, column: str) -> Any:
    return plan.network(plan.page.columns[column], plan.amounts.seed)


# --- pictures ---


def plot_methods(cells: list[Cell], plan: Plan) -> Figure:
    """A panel per attack, a line per method: the paper's number and ours, by three ways of asking, as points."""
    attacks, networks = main_rows(plan), networks_of(plan)
    size = 4 * len(attacks) + 1, 0.42 * len(networks) + 1.6
    figure, axes = plt.subplots(1, len(attacks), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axis, attack in zip(axes.flat, attacks, strict=True):
        for place, at in enumerate(networks):
            for offset, (protocol, decision) in zip((-0.2, 0.0, 0.2), ASKED[:3], strict=True):
                for cell in asked(at.of(cells), protocol, decision, row=attack)[:1]:
                    value, low, high = interval([cell])
                    error, label = [[max(value - low, 0)], [max(high - value, 0)]], None if place else protocol
                    looks: dict[str, Any] = {"color": PALETTE[protocol], "markersize": 5, "linewidth": 1}
                    axis.errorbar(value, place + offset, xerr=error, fmt="o", label=label, **looks)
            if claim := printed(plan.page, attack, at.column, at.epoch):
                axis.plot(claim.number, place, "D", color=PALETTE["paper"], markersize=5, label="printed", zorder=5)
        axis.set(title=attack, xlabel="accuracy (%)", xlim=(-3, 103), yticks=range(len(networks)))
        axis.set_yticklabels([at.label for at in networks])
    axes[0, 0].invert_yaxis()
    handles = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels()), strict=True))  # one for all marks of a kind
    looks = {"loc": "outside lower center", "ncols": 4, "fontsize": "small", "frameon": False}
    figure.legend(handles.values(), handles.keys(), **looks)
    return figure


def plot_along_epochs(cells: list[Cell], plan: Plan, row: str, protocol: str, decision: str) -> Figure:
    """Accuracy under one attack after each epoch that the page looks at, a line per method."""
    figure, axis = plt.subplots(figsize=(8, 5.5), layout="constrained")
    for (column, _), marker, colour in zip(followed(plan).items(), MARKERS, COLOURS, strict=False):
        found = asked(cells, protocol, decision, row=row, column=column, seeds=[plan.amounts.seed])
        points = sorted((cell.epoch or 0, cell.value) for cell in found)
        if points:
            axis.plot(*zip(*points, strict=True), marker=marker, color=colour, label=column)
    axis.set(xlabel="epochs of fine-tuning", ylabel=f"accuracy under {row} (%)", ylim=(-2, None), xticks=plan.epochs())
    legend_below(figure, axis, 3)
    return figure


def budget_table(cells: list[Cell], plan: Plan) -> pd.DataFrame:
    """A row per method and look: what it cost, what it keeps, and its clean accuracy."""
    rows = []
    for (column, _), network in plan.networks.items():
        for epoch in [epoch_of(looked_at) for looked_at in plan.looks(network)]:
            here = where(cells, column=column, epoch=epoch)
            (alone,) = where(here, row="Passes per image", part="alone")
            (whole,) = where(here, row="Passes per image", part="with its parents")
            row = {"method": column, "epochs": str(epoch), "passes per image": f"{alone.value:.0f}"}
            row |= {"with pre-training": f"{whole.value:.0f}", "clean": _shown(here, "clean", None)}
            rows.append(row | {name: _shown(here, "sound", "any", row=name) for name in given_rows(plan)})
    return pd.DataFrame(rows)


def plot_budget(cells: list[Cell], plan: Plan, row: str) -> Figure:
    """Two panels, passes without and with pre-training: accuracy under an attack and clean, and the Pareto front."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 5.5), sharey=True, layout="constrained")
    said = {"alone": "fine-tuning alone", "with its parents": "with pre-training"}
    for axis, (part, words) in zip(axes, said.items(), strict=True):
        points, started_from = [], {each.parent for each in plan.page.columns.values()}
        for column, marker, colour in zip(plan.page.shown or plan.page.columns, MARKERS, COLOURS, strict=False):
            curve = budget_points(cells, column, row, part)
            if part == "alone" and column in started_from:  # what the others go on from costs them nothing more
                curve = [(0.0, kept, clean) for _, kept, clean in curve]
            if curve:
                spent_on, kept, clean = zip(*curve, strict=True)
                axis.plot(spent_on, kept, marker=marker, color=colour, label=column)
                axis.plot(spent_on, clean, marker=marker, color=colour, linestyle=":", alpha=0.4)
            points += [(passes, value) for passes, value, _ in curve]
        front = pareto(points)
        axis.step(
            *zip(*front, strict=True), where="post", color=PALETTE["paper"], linewidth=1, zorder=3, label="Pareto front"
        )
        axis.set(xlabel=f"passes per training image, {words}", ylim=(-3, 103))
    axes[0].set_ylabel(f"solid: accuracy under {row} (%); dotted: clean")
    legend_below(figure, axes[0], 4)
    return figure


def budget_points(cells: list[Cell], column: str, row: str, part: str) -> list[tuple[float, float, float]]:
    """Along a method's epochs: (passes per image, accuracy under the attack, clean accuracy)."""
    found = []
    for cell in asked(cells, "sound", "any", row=row, column=column):
        here = where(cells, column=column, epoch=cell.epoch, seeds=cell.seeds)
        (passes,) = where(here, row="Passes per image", part=part)
        (clean,) = where(here, row=CLEAN, protocol="clean")
        found.append((passes.value, cell.value, clean.value))
    return sorted(found)


def pareto(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, worth), those that no other beats in both: sorted by cost, with rising worth."""
    front: list[tuple[float, float]] = []
    for cost, worth in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or worth > front[-1][1]:
            front.append((cost, worth))
    return front


def plot_worth(cells: list[Cell], plan: Plan) -> Figure:
    """Three panels with a bar per training: minutes, passes per image, and the accuracy that is kept for them."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3), sharey=True, layout="constrained")
    (attack,) = given_rows(plan)
    names = list(plan.page.shown)
    minutes = [where(cells, row="Minutes", column="AT" if name == names[-1] else name) for name in names]
    passes = [where(cells, row="Passes per image", column=name, part="alone") for name in names]
    kept = [asked(cells, "sound", "any", row=attack, column=name) for name in names]
    titles = "minutes, in turn on one machine", "passes per training image", f"accuracy left by {attack} (%)"
    for axis, found, title in zip(axes, (minutes, passes, kept), titles, strict=True):
        values = [each[0].value for each in found]
        axis.bar_label(axis.barh(names, values, color=COLOURS[0]), [f" {value:.3g}" for value in values])
        axis.set(xlabel=title, xlim=(0, 1.25 * max(values)) if found is not kept else (0, 100))
    axes[0].invert_yaxis()
    return figure


def plot_times(cells: list[Cell], plan: Plan) -> Figure:
    """Table 8's minutes as bars: the paper's and ours, on axes of their own, since the machines differ."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    names = ("proposed", "AT")
    claims = {name: printed(plan.page, "Minutes", name, None) for name in names}
    axes[0].bar(names, [claim.number if claim else 0 for claim in claims.values()], color=PALETTE["paper"])
    axes[0].set(title="printed, minutes")
    before, after = (where(cells, row="Minutes", column=name)[0] for name in plan.page.shown[:2])
    axes[1].bar("proposed", before.value, color=PALETTE["clean"], label="pre-training")
    axes[1].bar("proposed", after.value, bottom=before.value, color=PALETTE["sound"], label="fine-tuning")
    _bar_with_interval(axes[1], "AT", where(cells, row="Minutes", column="AT"))
    axes[1].set(title="measured, minutes")
    axes[1].legend(fontsize="small")
    return figure


def _bar_with_interval(axis: Axes, name: str, cells: list[Cell]) -> None:
    value, low, high = interval(cells)
    axis.bar(name, value, yerr=[[value - low], [high - value]], color=PALETTE["probabilities"])


def times_table(cells: list[Cell], plan: Plan) -> pd.DataFrame:
    """Table 8: printed and measured, with the steps behind the minutes."""
    rows = []
    for cell in where(cells, quantity="count"):
        if cell.row in ("Minutes", "Reduction", "Epochs", "Milliseconds per step"):
            claim = printed(plan.page, "Minutes", cell.column, None) if cell.claim else None
            measured = (
                f"{cell.value:.4g}" if cell.low is None else f"{cell.value:.4g} [{cell.low:.4g}, {cell.high:.4g}]"
            )
            paper = f"{claim.number:g}" if claim else ""
            rows.append({"": cell.row, "training": cell.column, "paper": paper, "measured": measured})
    return pd.DataFrame(rows)
