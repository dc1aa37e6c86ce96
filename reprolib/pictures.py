"""Records as pictures, all in one look, each with a text alternative."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from reprolib import claims, files, patches
from reprolib.measures import changed_patch, of
from reprolib.specs import Plan, Settings

PALETTE = {"paper": "#000000", "probabilities": "#E69F00", "logits": "#56B4E9", "sound": "#0072B2"}  # Okabe-Ito


def style() -> None:
    """One look for all figures: white ground, readable sizes, colours that colour-blind readers can tell apart."""
    sns.set_theme(style="whitegrid", context="notebook")
    plt.rcParams.update(
        {"figure.facecolor": "white", "savefig.facecolor": "white", "figure.dpi": 100, "savefig.dpi": 110}
    )


def show(figure: Figure, alt: str, name: str | None = None, settings: Settings | None = None) -> None:
    """Display a figure with its text alternative; with a name, also write results/<folder>/<name>.png. Closes it."""
    from IPython.display import display

    if name is not None:
        picture = io.BytesIO()
        figure.savefig(picture, format="png", bbox_inches="tight", metadata={"Description": alt, "Software": None})
        files.write_atomically(files.RESULTS / settings.folder / f"{name}.png", picture.getvalue())
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def plot_attacks(
    cells: list[dict], columns: list[str], epochs: dict[str, int], attacks: list[str], prefix: str
) -> Figure:
    """One panel per attack: the paper's number, ours under `probabilities`, and the sound robust accuracy."""
    ledger = claims.load_claims()
    figure, axes = plt.subplots(
        2, (len(attacks) + 1) // 2, figsize=(12, 7), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    bars = [
        ("probabilities", "last", "measured, loss from clipped probabilities, last iterate"),
        ("logits", "any", "measured, loss from logits, any iterate"),
        ("sound", "any", "measured, sound: survives margin and logits"),
    ]
    for axis, attack in zip(axes.flat, attacks, strict=False):
        for index, (protocol, decision, label) in enumerate(bars):
            found = {
                c["column"]: c
                for c in cells
                if c["row"] == attack
                and epochs.get(c["column"]) == c["epoch"]
                and (c["protocol"], c["decision"]) == (protocol, decision)
            }
            for place, column in enumerate(columns):
                if column in found:
                    value, low, high = (found[column][k] for k in ("value", "low", "high"))
                    axis.bar(
                        place + 0.26 * (index - 1),
                        value,
                        0.25,
                        color=PALETTE[protocol],
                        edgecolor="black",
                        linewidth=0.4,
                        label=label if place == 0 else None,
                        yerr=[[max(value - low, 0)], [max(high - value, 0)]],
                        error_kw={"linewidth": 0.8},
                    )
                    if protocol == "sound":  # a bar of height 0 would look like a missing one
                        axis.text(place + 0.26, high + 1, f"{value:.1f}", ha="center", size=8, color=PALETTE[protocol])
        printed = [ledger.get(f"{prefix}.{attack}.{column}") for column in columns]
        known = [(place, claim.printed) for place, claim in enumerate(printed) if claim]
        if known:
            looks = {"color": PALETTE["paper"], "markersize": 6, "zorder": 5, "label": "printed in the paper"}
            axis.plot(*zip(*known, strict=True), "D", **looks)
        axis.set(title=attack, xticks=range(len(columns)), xticklabels=columns, ylim=(0, 100))
        if len(columns) * axes.shape[1] > 12:  # names side by side would run into each other
            plt.setp(axis.get_xticklabels(), rotation=60, ha="right", rotation_mode="anchor")  # they end at their bars
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy under attack (%)")
    if len(attacks) % 2:  # the place below the last panel is empty, so that panel has the networks' names itself
        axes[1, -1].remove()
        axes[0, -1].tick_params(labelbottom=True)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def plot_ensemble(cells: list[dict], plans: dict[str, Plan]) -> Figure:
    """Per network: clean accuracy, AutoAttack given logits and given probabilities, Square alone, the printed number."""
    ledger = claims.load_claims()
    networks = [(plan, column) for plan in plans.values() for column in plan.grid.ensemble.columns]
    figure, axis = plt.subplots(figsize=(max(8, 2 * len(networks)), 4.5), layout="constrained")
    bars = [
        ("Clean", "clean", "clean", "#009E73"),
        ("Square", "sound", "Square alone", "#999999"),
        ("AutoAttack", "probabilities", "AutoAttack, given probabilities", PALETTE["probabilities"]),
        ("AutoAttack", "sound", "AutoAttack, given logits (sound)", PALETTE["sound"]),
    ]
    for place, (plan, column) in enumerate(networks):
        for index, (row, protocol, label, colour) in enumerate(bars):
            (found,) = [c for c in of(plan, cells) if (c["row"], c["column"], c["protocol"]) == (row, column, protocol)]
            x = place + 0.2 * (index - 1.5)
            error = [[max(found["value"] - found["low"], 0)], [max(found["high"] - found["value"], 0)]]
            axis.bar(
                x,
                found["value"],
                0.19,
                color=colour,
                edgecolor="black",
                linewidth=0.4,
                yerr=error,
                error_kw={"linewidth": 0.8},
                label=label if place == 0 else None,
            )
            axis.text(x, found["high"] + 1, f"{found['value']:.1f}", ha="center", size=8)
        printed = ledger.get(f"{plan.grid.ensemble.claims}.{plan.grid.ensemble.columns[column]}")
        if printed:
            label = "printed in the paper" if place == 0 else None
            axis.plot(place + 0.3, printed.printed, "D", color=PALETTE["paper"], label=label, zorder=5)
    axis.set(
        xticks=range(len(networks)),
        xticklabels=[f"{plan.model_name}\n{column}" for plan, column in networks],
        ylabel="test images (%)",
        ylim=(0, 112),
    )
    axis.legend(ncols=2, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)
    return figure


def plot_epochs(cells: list[dict], plan: Plan) -> Figure:
    """Accuracy under the claimed attack along the epochs, beside the share of saturated images and the printed row."""
    ledger, cells = claims.load_claims(), of(plan, cells)
    columns, attack, prefix = plan.grid.ablation_columns, plan.grid.ablation_claimed[1], plan.grid.ablation_claims
    figure, axis = plt.subplots(figsize=(8, 6), layout="constrained")
    printed = {int(c.rsplit(".", 1)[1]): claim.printed for c, claim in ledger.items() if c.startswith(f"{prefix}.")}
    axis.plot(list(printed), list(printed.values()), "D--", color=PALETTE["paper"], label="printed in the paper")
    for column, dashes, marker in zip(columns, ("-", ":"), ("o", "s"), strict=False):
        for protocol, decision, name, colour in (
            ("probabilities", "last", f"{attack}, probabilities", PALETTE["probabilities"]),
            ("sound", "any", f"{attack}, sound", PALETTE["sound"]),
            ("saturated", None, "share of saturated images", "#999999"),
        ):
            by_epoch = {
                c["epoch"]: c
                for c in cells  # a number that answers two claims is one point
                if c["column"] == column
                and (c["protocol"], c["decision"]) == (protocol, decision)
                and c["row"] in (attack, "p(true) > 1-1e-7")
            }
            found = [by_epoch[epoch] for epoch in sorted(by_epoch)]
            axis.errorbar(
                [c["epoch"] for c in found],
                [c["value"] for c in found],
                linestyle=dashes,
                marker=marker,
                color=colour,
                label=f"{column}: {name}",
                yerr=[[max(c["value"] - c["low"], 0) for c in found], [max(c["high"] - c["value"], 0) for c in found]],
            )
    axis.set(xlabel="fine-tuning epochs", ylabel="test images (%)", ylim=(-2, 100))
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    return figure


def plot_operations(images: Tensor, size: int, seed: int) -> Figure:
    """The nine operations on nine images (uint8 [9, C, H, W]): original above, one patch of size x size changed below."""
    figure, axes = plt.subplots(2, len(patches.OPERATIONS), figsize=(14, 3.6), layout="constrained")
    box = patches.boxes(*images.shape[2:], size, 1)
    for index, operation in enumerate(patches.OPERATIONS):
        changed = patches.paste(
            images[index : index + 1],
            changed_patch(images[index : index + 1], index, size, seed)[:, None],
            torch.tensor([True]),
        )
        axes[0, index].set_title(operation.__name__.replace("_", " "), fontsize=10)
        _picture(axes[0, index], images[index], [])
        _picture(axes[1, index], changed[0], box, size)
    return figure


def plot_pipeline(images: Tensor, seed: int) -> Figure:
    """Originals and their copies under n-Pk, as fine-tuning sees them; frames mark the patches."""
    kinds = [(7, 1), (11, 1), (7, 2), (11, 2)]
    figure, axes = plt.subplots(1 + len(kinds), len(images), figsize=(1.3 * len(images), 7.2), layout="constrained")
    ids = torch.arange(len(images))
    for place, image in enumerate(images):
        _picture(axes[0, place], image, [])
    for row, (size, count) in enumerate(kinds, start=1):
        copies = patches.paste(images, patches.make_patches(images, ids, size, count, seed), ids >= 0)
        for place, copy in enumerate(copies):
            _picture(axes[row, place], copy, patches.boxes(*images.shape[2:], size, count), size)
    for row, label in enumerate(["original", *(f"{size}-P{count}" for size, count in kinds)]):
        axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


def _picture(axis: plt.Axes, image: Tensor, boxes: list[tuple[int, int]], size: int = 0) -> None:
    axis.imshow(image.permute(1, 2, 0).expand(-1, -1, 3), interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    for top, left in boxes:
        axis.add_patch(
            plt.Rectangle((left - 0.5, top - 0.5), size, size, fill=False, edgecolor="#D55E00", linewidth=1.2)
        )
