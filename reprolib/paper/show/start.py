"""The start page: accuracy under one attack by its loss, and the gradient that vanishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor, nn

from reprolib import attacks, training
from reprolib.paper.judge import ledger
from reprolib.paper.plan import Cell
from reprolib.paper.run.measure import CLEAN, share
from reprolib.paper.show.pictures import PALETTE, PRINTED, bar, legend_below
from reprolib.paper.show.selection import number, where

LOSSES = {"probabilities": "probabilities", "logits": "logits", "margin": "sound"}  # in the order of the story


def measure_losses(
    row: str,
    networks: Mapping[str, nn.Module],
    attack: Callable[..., attacks.LinfAttack],
    images: Tensor,
    labels: Tensor,
) -> list[Cell]:
    """Per network the clean accuracy, the share of saturated images, and what the attack leaves by each loss.

    row: the attack's name; networks: by column; attack: makes it from a network and a `loss`; images float32
    [n, C, H, W] in [0, 1] and labels int64 [n]. An image is lost if any iterate is misclassified.
    """
    cells = []
    for column, model in networks.items():
        logits = _asked(model, images, labels, "margin")[0]
        saturated = training.is_saturated(logits, labels)
        cells += [
            Cell(row=CLEAN, column=column, protocol="clean", **share(logits.argmax(1) == labels)),
            Cell(row=CLEAN, column=column, protocol="saturated", quantity="saturated", **share(saturated)),
        ]
        for loss in LOSSES:
            left = attack(model, loss=loss).run(images, labels).robust()
            cells.append(Cell(row=row, column=column, protocol=loss, decision="any", **share(left)))
    return cells


def losses_table(cells: list[Cell]) -> pd.DataFrame:
    """What `measure_losses` found, a column per network, below what Table 6 prints for the attack."""
    columns = list(dict.fromkeys(cell.column for cell in cells))
    attacked = [cell.row for cell in cells if cell.row != CLEAN][:1]
    printed = {f"{row}, printed in the paper": {c: _printed(row, c) for c in columns} for row in attacked}
    rows = {name: {c: "" if p is None else f"{p:.2f}" for c, p in found.items()} for name, found in printed.items()}
    for cell in cells:
        name = cell.protocol if cell.row == CLEAN else f"{cell.row}, {cell.protocol}"
        rows.setdefault(name, {})[cell.column] = number(cell)
    return pd.DataFrame([{"images (%)": name} | found for name, found in rows.items()])


def plot_by_loss(cells: list[Cell]) -> Figure:
    """What `measure_losses` found as bars, a group per network, beside what Table 6 prints for the attack."""
    columns = list(dict.fromkeys(cell.column for cell in cells))
    names = {"clean": "clean accuracy", "saturated": "saturated: p(true) above 1 - 1e-7"}
    names |= {loss: f"left by the attack on {loss}" for loss in LOSSES}
    figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
    for index, (protocol, name) in enumerate(names.items()):
        colour = PALETTE[LOSSES.get(protocol, protocol)]
        for place, column in enumerate(columns):
            found = where(cells, column=column, protocol=protocol)
            bar(axis, place + 0.17 * (index - 2), found, colour, None if place else name, 0.16)
    attack = next(cell.row for cell in cells if cell.row != CLEAN)
    known = {place: _printed(attack, column) for place, column in enumerate(columns)}
    marks = {place: value for place, value in known.items() if value is not None}
    axis.plot(list(marks), list(marks.values()), "D", **PRINTED)
    axis.set(xticks=range(len(columns)), xticklabels=columns, ylim=(0, 112), ylabel="test images (%)", title=attack)
    legend_below(figure, axis)
    return figure


def _printed(row: str, column: str) -> float | None:
    claim = ledger().get(f"T6.{row}.{column}")
    return claim.number if claim else None


def gradients_table(model: nn.Module, images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> pd.DataFrame:
    """Per image the probability of the true class and, by loss, the largest gradient of a pixel, zero in words."""
    p = _asked(model, images, labels, "margin")[0].softmax(1).gather(1, labels[:, None]).squeeze(1)
    found = {"image": [classes[label] for label in labels.tolist()], "p(true class)": [f"{one:.7f}" for one in p]}
    for loss in LOSSES:
        largest = _asked(model, images, labels, loss)[1].abs().flatten(1).amax(1).tolist()
        found[f"largest gradient, {loss}"] = [f"{one:.2g}" if one else "exactly 0" for one in largest]
    return pd.DataFrame(found)


def plot_steps(model: nn.Module, images: Tensor, labels: Tensor) -> Figure:
    """A row per image: itself, then for each loss where a step of the attack moves each pixel: up, down or nowhere."""
    figure, axes = plt.subplots(len(images), 4, figsize=(10, 2.7 * len(images)), layout="constrained", squeeze=False)
    for loss, axis_column in zip(LOSSES, axes.T[1:], strict=True):
        signs = _asked(model, images, labels, loss)[1].sign().mean(1)
        axis_column[0].set_title(f"step by {loss}")
        for axis, sign in zip(axis_column, signs, strict=True):
            drawn = axis.imshow(sign, cmap="PuOr", vmin=-1, vmax=1)
    for axis, image in zip(axes[:, 0], images, strict=True):
        axis.imshow(image.permute(1, 2, 0).expand(-1, -1, 3))
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    key = figure.colorbar(drawn, ax=axes, ticks=[-1, 0, 1], shrink=0.7)
    key.ax.set_yticklabels(["darker", "stays", "brighter"])
    return figure


def _asked(model: nn.Module, images: Tensor, labels: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """Logits [n, K], and the gradient of a loss with respect to the images [n, C, H, W]."""
    with attacks.untouched(model):
        found = attacks.Gradients(model)(images, lambda logits: attacks.loss_per_image(logits, labels, loss))
    return found[0], found[2]
