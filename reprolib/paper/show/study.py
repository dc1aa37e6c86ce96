"""Curves over epochs, losses, radii and seeds, from cells: the studies of saturation and of seeds, and Figure 3."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from reprolib.paper.plan import Cell, Plan, load_table
from reprolib.paper.run.measure import CLEAN
from reprolib.paper.show.pictures import PALETTE, along, bar, legend_below
from reprolib.paper.show.selection import asked, followed, interval, main_rows, printed_curve, where

SEEN = {  # protocol and decision rule of a curve -> its name and colour
    ("probabilities", "last"): ("probabilities, last iterate", PALETTE["probabilities"]),
    ("logits", "any"): ("logits, any iterate", PALETTE["logits"]),
    ("margin", "any"): ("margin, any iterate", PALETTE["sound"]),
}


def plot_saturation(cells: list[Cell], plan: Plan) -> Figure:
    """The share of saturated test images against epochs: one line per fine-tuned column."""
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    for column, colour in zip(followed(plan), colours, strict=False):
        found = where(cells, column=column, quantity="saturated")
        count = len({cell.seed for cell in found})
        if found:  # a record may be older than a column
            along(axis, found, "o-", colour, f"{column} ({count} seed{'s' if count > 1 else ''})")
    axis.set(xlabel="fine-tuning epochs", ylabel="saturated test images (%)", ylim=(-2, 100), xticks=plan.epochs())
    legend_below(figure, axis)
    return figure


def plot_losses(cells: list[Cell], plan: Plan, columns: tuple[str, str], beside: str) -> Figure:
    """One panel per attack: accuracy against epochs by loss, for the first column (solid) and the second (dotted).

    beside: the table that prints the paper's row along the epochs for this network.
    """
    attacks = [name for name in main_rows(plan) if plan.page.rows[name].epochs]
    figure, axes = plt.subplots(1, len(attacks), figsize=(5 * len(attacks), 5), sharey=True, layout="constrained")
    page = load_table(beside)[plan.page.network]
    row = {epoch: value for epoch, value in printed_curve(page).items() if epoch <= max(plan.epochs())}
    for axis, attack in zip(axes, attacks, strict=True):
        for column, looks in zip(columns, ("o-", "o:"), strict=True):
            saturated = where(cells, column=column, quantity="saturated")
            along(axis, saturated, looks[1:], PALETTE["saturated"], f"{column}: saturated")
            for (protocol, decision), (name, colour) in SEEN.items():
                found = asked(cells, protocol, decision, row=attack, column=column)
                along(axis, found, looks, colour, f"{column}: {name}")
        if row and any(answer.row == attack for answer in page.claims):
            axis.plot(list(row), list(row.values()), "D--", color="black", label="printed in the paper")
        axis.set(title=attack, xlabel="fine-tuning epochs", ylim=(-2, 100), xticks=plan.epochs())
    axes[0].set_ylabel("test images (%)")
    legend_below(figure, max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[1])), columns=3)
    return figure


def plot_sweep(cells: list[Cell], plan: Plan) -> Figure:
    """One panel per network: accuracy against the radius eps, by loss, from the rows of some columns alone."""
    radii = {name: row.attack.get("eps") for name, row in plan.page.rows.items() if row.columns}
    columns = list(dict.fromkeys(column for name in radii for column in plan.page.rows[name].columns or []))
    figure, axes = plt.subplots(1, len(columns), figsize=(13, 4.5), sharey=True, layout="constrained")
    for axis, column in zip(axes, columns, strict=True):
        for (protocol, decision), (label, colour) in SEEN.items():
            found = {eps: asked(cells, protocol, decision, row=row, column=column) for row, eps in radii.items()}
            values = {eps: interval(some)[0] for eps, some in found.items() if some}
            axis.plot(list(values), list(values.values()), "o-", color=colour, label=label)
        axis.set(title=column, xlabel=r"radius $\epsilon$", ylim=(-2, 100))
    axes[0].set_ylabel("accuracy under attack (%)")
    legend_below(figure, axes[0], columns=3)
    return figure


def plot_over_seeds(cells: list[Cell], plan: Plan) -> Figure:
    """Per attack and fine-tuned column a bar for each loss and one for the saturated share, means over the seeds.

    The line on a bar spans the seeds; with one seed, the interval over the test images.
    """
    attacks, columns = main_rows(plan), list(followed(plan))
    figure, axes = plt.subplots(1, len(attacks), figsize=(11, 4.6), sharey=True, layout="constrained")
    bars: list[tuple[str, str | None, str, str]]
    bars = [(protocol, decision, name, colour) for (protocol, decision), (name, colour) in SEEN.items()]
    bars.append(("saturated", None, "share of saturated images", PALETTE["saturated"]))
    for axis, attack in zip(axes, attacks, strict=True):
        for place, column in enumerate(columns):
            for index, (protocol, decision, name, colour) in enumerate(bars):
                row = CLEAN if protocol == "saturated" else attack
                found = asked(cells, protocol, decision, row=row, column=column)
                x = place + 0.2 * (index - (len(bars) - 1) / 2)
                bar(axis, x, found, colour, None if place else name, 0.19)
        axis.set(title=attack, xticks=range(len(columns)), xticklabels=columns, ylim=(0, 106))
    axes[0].set_ylabel("test images (%)")
    legend_below(figure, axes[0])
    return figure
