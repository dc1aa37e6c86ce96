"""A page's cells as pictures, all in one look."""

from __future__ import annotations

import io
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reprolib.paper.plan import Cell, Plan
from reprolib.paper.run.measure import CLEAN
from reprolib.paper.show.selection import (
    asked,
    followed,
    given,
    given_rows,
    interval,
    main_rows,
    networks_of,
    page_network,
    printed,
    printed_curve,
    where,
)
from reprolib.paper.show.tables import given_label

# Okabe-Ito: colours that colour-blind readers can tell apart
PALETTE = {
    "paper": "#000000",
    "probabilities": "#E69F00",
    "logits": "#56B4E9",
    "sound": "#0072B2",
    "clean": "#009E73",
    "saturated": "#999999",
}
MORE = ("#999999", "#CC79A7", "#F0E442", "#D55E00")
LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")  # for what has no colour of its own
# white around it, so that it can be told from what it lies on; whole where it lies on the edge of a panel
PRINTED: dict[str, Any] = {"color": PALETTE["paper"], "markeredgecolor": "white", "markersize": 6, "zorder": 5,
                           "clip_on": False, "label": "printed in the paper"}  # fmt: skip


def style() -> None:
    """One look for all figures: white ground in light and dark surroundings, readable sizes, `LINES`' colours."""
    plt.style.use("seaborn-v0_8-whitegrid")  # matplotlib's copy: to import seaborn takes a second of every page
    plt.rcParams.update(
        {
            "axes.prop_cycle": plt.cycler(color=LINES),
            "font.sans-serif": ["DejaVu Sans"],  # which matplotlib brings
            **dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize", "legend.title_fontsize"), 12),
            **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 11),
            "axes.linewidth": 1.25,
            "grid.linewidth": 1,
            "legend.frameon": True,
            "patch.edgecolor": "white",
            "patch.force_edgecolor": True,
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.dpi": 100,
            "savefig.dpi": 110,
            "svg.fonttype": "none",  # text stays text
            "svg.hashsalt": "reprolib",  # equal figures are equal files
        }
    )


def png(figure: Figure, alt: str) -> bytes:
    """A figure as a PNG file that carries its text alternative."""
    return _file(figure, "png", {"Description": alt, "Software": None})


def svg(figure: Figure, alt: str) -> bytes:
    """A figure as an SVG file that carries its text alternative."""
    return _file(figure, "svg", {"Description": alt, "Date": None, "Creator": None})


def _file(figure: Figure, kind: str, metadata: dict[str, str | None]) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=kind, bbox_inches="tight", metadata=metadata)
    return file.getvalue()


def bar(
    axis: Axes, x: float, cells: list[Cell], colour: str, label: str | None, width: float, text: str | None = "center"
) -> None:
    """A bar for one number with its interval, or for the mean over seeds with their span.

    text: how its height stands above it, in the "center" or, smaller, to the right of what is on its "left"; None: not
    at all.
    """
    value, low, high = interval(cells)
    error = [[max(value - low, 0)], [max(high - value, 0)]]
    looks: dict[str, Any] = {"color": colour, "edgecolor": "black", "linewidth": 0.4, "error_kw": {"linewidth": 0.8}}
    axis.bar(x, value, width, yerr=error, label=label, **looks)
    if text:  # a bar of height 0 would look like a missing one
        narrow = text == "left"
        axis.text(x - (width / 4 if narrow else 0), high + 1, f"{value:.1f}", ha=text, size=7 if narrow else 8)


def legend_below(figure: Figure, axis: Axes, columns: int = 2) -> None:
    """What one axis says of its colours, below the whole figure."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize="small", frameon=False)


def plot_attacks(cells: list[Cell], plan: Plan) -> Figure:
    """One panel per attack: the paper's number, ours under `probabilities` and `logits`, the sound robust accuracy."""
    attacks, networks = main_rows(plan), networks_of(plan)
    shape = (2, (len(attacks) + 1) // 2)
    figure, axes = plt.subplots(*shape, figsize=(12, 7), sharex=True, sharey=True, squeeze=False, layout="constrained")
    bars = [
        ("probabilities", "last", "measured, loss from clipped probabilities, last iterate"),
        ("logits", "any", "measured, loss from logits, any iterate"),
        ("sound", "any", "measured, sound: survives margin and logits"),
    ]
    for axis, attack in zip(axes.flat, attacks, strict=False):
        for place, at in enumerate(networks):
            for index, (protocol, decision, label) in enumerate(bars):
                found = asked(at.of(cells), protocol, decision, row=attack)
                if found:
                    x, named = place + 0.26 * (index - 1), None if place else label
                    # in a narrow panel it would run into the paper's mark before it
                    bar(axis, x, found[:1], PALETTE[protocol], named, 0.25, "left" if protocol == "sound" else None)
        claims = [printed(plan.page, attack, at.column, at.epoch) for at in networks]
        known = [(place, claim.number) for place, claim in enumerate(claims) if claim]
        if known:
            axis.plot(*zip(*known, strict=True), "D", **PRINTED)
        axis.set(title=attack, xticks=range(len(networks)), xticklabels=[at.label for at in networks], ylim=(0, 105))
        if len(networks) * shape[1] > 12:  # names side by side would run into each other
            # anchored so that they end at their bars
            plt.setp(axis.get_xticklabels(), rotation=60, ha="right", rotation_mode="anchor")
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy under attack (%)")
    if len(attacks) % 2:  # the place below the last panel is empty, so that panel has the networks' names itself
        axes[1, -1].remove()
        axes[0, -1].tick_params(labelbottom=True)
    legend_below(figure, axes[0, 0])
    return figure


def plot_given(cells: list[Cell], plan: Plan) -> Figure:
    """Per network: clean accuracy, and the accuracy left by each attack for each thing that it is given."""
    networks = networks_of(plan)
    bars: list[tuple[str, str, str | None, str, str]] = [(CLEAN, "clean", None, "clean", PALETTE["clean"])]
    for index, attack in enumerate(given_rows(plan)):
        for loss, protocol in given(plan, attack).items():
            colour = MORE[index - 1] if index else PALETTE[protocol]
            bars.append((attack, protocol, "any", given_label(attack, loss, protocol), colour))
    figure, axis = plt.subplots(figsize=(max(8, 2 * len(networks)), 4.5), layout="constrained")
    for place, at in enumerate(networks):
        places: dict[str, list[float]] = {}
        for index, (row, protocol, decision, label, colour) in enumerate(bars):
            x = place + 0.2 * (index - (len(bars) - 1) / 2)
            found = asked(at.of(cells), protocol, decision, row=row)
            bar(axis, x, found[:1], colour, None if place else label, 0.19)
            places.setdefault(row, []).append(x)
        for attack in given_rows(plan):  # the paper does not say what its attack was given
            claim = printed(plan.page, attack, at.column, at.epoch)
            if claim:
                axis.plot(sum(places[attack]) / len(places[attack]), claim.number, "D", **PRINTED)
    axis.set(xticks=range(len(networks)), xticklabels=[at.label for at in networks], ylim=(0, 112))
    axis.set(ylabel="test images (%)", title=page_network(plan))
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))  # one for all marks of a kind
    below: dict[str, Any] = {
        "loc": "upper center",
        "bbox_to_anchor": (0.5, -0.08),
        "ncols": 2,
        "fontsize": "small",
        "frameon": False,
    }
    axis.legend(handles.values(), handles.keys(), **below)
    return figure


def plot_epochs(cells: list[Cell], plan: Plan) -> Figure:
    """Accuracy along the epochs beside the share of saturated images, under the attacks that the paper's row answers.

    Where the paper prints no such row, under all of the page's attacks.
    """
    curve, attacks = printed_curve(plan.page), main_rows(plan)
    named = [answer.row for answer in plan.page.claims if answer.row in attacks]
    lines: list[tuple[str, str, str | None, str]] = [(CLEAN, "saturated", None, "share of saturated images")]
    for attack in dict.fromkeys(named or attacks):
        lines += [
            (attack, "probabilities", "last", f"{attack}, probabilities"),
            (attack, "sound", "any", f"{attack}, sound"),
        ]
    figure, axis = plt.subplots(figsize=(8, 6), layout="constrained")
    if curve and min(curve) <= max(plan.epochs()):  # else it would press what was measured into a corner
        axis.plot(list(curve), list(curve.values()), "D--", color=PALETTE["paper"], label="printed in the paper")
    for column, looks in zip(followed(plan), ("o-", "s:", "^--", "v-."), strict=False):
        for row, protocol, decision, name in lines:
            found = asked(cells, protocol, decision, row=row, column=column)
            along(axis, found, looks, PALETTE[protocol], f"{column}: {name}")
    axis.set(xlabel="fine-tuning epochs", ylabel="test images (%)", ylim=(-2, 100))
    legend_below(figure, axis)
    return figure


def along(axis: Axes, cells: list[Cell], looks: str, colour: str, label: str) -> None:
    """A curve over the epochs: with one seed the intervals, with several a band from the lowest to the highest."""
    by_epoch = {epoch: where(cells, epoch=epoch) for epoch in sorted({cell.epoch or 0 for cell in cells})}
    points = [interval(found) for found in by_epoch.values()]
    values, lows, highs = ([point[i] for point in points] for i in range(3))
    if len({cell.seed for cell in cells}) > 1:
        axis.plot(list(by_epoch), values, looks, color=colour, label=label)
        axis.fill_between(list(by_epoch), lows, highs, color=colour, alpha=0.2)
        return
    error = [[max(v - low, 0) for v, low in zip(values, lows, strict=True)],
             [max(high - v, 0) for v, high in zip(values, highs, strict=True)]]  # fmt: skip
    axis.errorbar(list(by_epoch), values, yerr=error, fmt=looks, color=colour, label=label)


def plot_scoreboard(board: pd.DataFrame) -> Figure:
    """Every measured claim in percent: what the paper prints against what was measured, coloured by protocol."""
    figure, axis = plt.subplots(figsize=(7, 6.5), layout="constrained")
    markers = {"clean": "s", "sound": "o", "logits": "^", "probabilities": "D"}
    shown = board[board["measured"].notna() & board["protocol"].isin(list(markers))]
    shown = shown.loc[[isinstance(p, (int, float)) for p in shown["printed"]]]
    axis.plot([0, 100], [0, 100], color="grey", linewidth=1, linestyle="--", label="measured = printed")
    for protocol, marker in markers.items():
        part = shown[shown["protocol"] == protocol]
        looks: dict[str, Any] = {"marker": marker, "color": PALETTE[protocol], "edgecolor": "black", "linewidth": 0.5}
        points = part["printed"].astype(float), part["measured"].astype(float)
        axis.scatter(*points, s=45, alpha=0.85, label=f"{protocol} ({len(part)})", **looks)
    axis.set(xlabel="printed in the paper (%)", ylabel="measured here (%)", xlim=(-2, 102), ylim=(-2, 102))
    axis.set_aspect("equal")
    axis.legend(loc="upper left", fontsize="small")
    return figure
