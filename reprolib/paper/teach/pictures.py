"""Pictures of the lessons: images beside their attack, the loss around an image, accuracies along a dial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from reprolib import attacks
from reprolib.paper.show.pictures import MORE, PALETTE, legend_below
from reprolib.paper.teach.looks import gradient

COLOURS = (PALETTE["sound"], PALETTE["probabilities"], PALETTE["clean"], *MORE[1:])
GRID = 25  # points along a side of a loss surface
CLIPPED = 16.1  # the margin at which p(true) = 1 - 1e-7


def plot_attack(
    network: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, classes: Sequence[str]
) -> Figure:
    """Images float32 [n, 1, H, W] in [0, 1] above, what was added to them, magnified, and the sum below.

    Under each the network's answer and how sure it is of it, in red where it is wrong.
    """
    change = adversarial - images
    most = float(change.abs().max()) or 1.0
    figure, axes = plt.subplots(3, len(images), figsize=(1.6 * len(images), 5.8), squeeze=False, layout="constrained")
    for row, shown in ((0, images), (2, adversarial)):
        for axis, image, (said, sure), label in zip(axes[row], shown, _answers(network, shown), labels, strict=True):
            axis.imshow(image[0], cmap="gray", vmin=0, vmax=1)
            axis.set_xlabel(f"{classes[said]}\n{sure:.1%}", color="black" if said == label else "#B30000", fontsize=10)
    for axis, image in zip(axes[1], change, strict=True):
        axis.imshow(image[0], cmap="PuOr", vmin=-most, vmax=most)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[:, 0], ("original", f"added, x{1 / most:.0f}", "attacked"), strict=True):
        axis.set_ylabel(name)
    return figure


@torch.no_grad()
def _answers(network: nn.Module, images: Tensor) -> list[tuple[int, float]]:
    """Per image the class that the network names, and its probability."""
    sure, said = network(images).softmax(1).max(1)
    return list(zip(said.tolist(), sure.tolist(), strict=True))


def plot_surfaces(network: nn.Module, image: Tensor, label: Tensor, losses: Sequence[str], reach: float) -> Figure:
    """A panel per loss: its value around an image, float32 [1, 1, H, W], as far as `reach` along two directions.

    To the right every pixel goes uphill (the sign of the margin's gradient), upwards each one at random. The dashed
    line is where the network changes its mind.
    """
    uphill = gradient(network, image, label, "margin").sign()
    sideways = torch.randint(0, 2, image.shape, generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    at = torch.linspace(-reach, reach, GRID)
    b, a = torch.meshgrid(at, at, indexing="ij")
    points = (image + a.reshape(-1, 1, 1, 1) * uphill + b.reshape(-1, 1, 1, 1) * sideways).clamp(0, 1)
    with torch.no_grad():
        logits = network(points)
    labels = label.expand(len(points))
    wrong = attacks.loss_per_image(logits, labels, "margin").view(GRID, GRID)
    figure, axes = plt.subplots(1, len(losses), figsize=(4.4 * len(losses), 3.9), squeeze=False, layout="constrained")
    for axis, loss in zip(axes[0], losses, strict=True):
        _surface(axis, at, attacks.loss_per_image(logits, labels, loss).view(GRID, GRID), wrong)
        axis.set(title=f"loss: {loss}", xlabel="along the gradient's sign")
        figure.colorbar(axis.collections[0], ax=axis)
    axes[0, 0].set_ylabel("along random signs")
    return figure


def _surface(axis: Axes, at: Tensor, loss: Tensor, wrong: Tensor) -> None:
    axis.pcolormesh(at, at, loss, cmap="cividis", shading="nearest", rasterized=True)
    if wrong.min() < 0 < wrong.max():
        axis.contour(at, at, wrong, levels=[0.0], colors="white", linestyles="dashed")
    axis.plot(0, 0, "o", color="white", markeredgecolor="black")
    axis.grid(False)


def plot_curves(x: Sequence[float], curves: Mapping[str, Sequence[float]], xlabel: str) -> Figure:
    """Accuracies in percent against one number: a line for each name."""
    figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    for (name, values), colour, mark in zip(curves.items(), COLOURS, "osD^v", strict=False):
        axis.plot(x, values, f"{mark}-", color=colour, label=name)
    axis.set(xlabel=xlabel, ylabel="accuracy (%)", ylim=(-2, 102))
    legend_below(figure, axis, columns=len(curves))
    return figure


def plot_margins(margins: Mapping[str, Tensor]) -> Figure:
    """A histogram for each network: by how much the true logit exceeds the largest wrong one, float [B]."""
    figure, axes = plt.subplots(len(margins), 1, figsize=(7, 2 * len(margins)), sharex=True, layout="constrained")
    most = max(float(values.max()) for values in margins.values())
    for axis, (name, values), colour in zip(axes, margins.items(), COLOURS, strict=False):
        axis.hist(values.numpy(), bins=40, range=(-20, most), color=colour)
        axis.axvline(CLIPPED, color="black", linestyle="dashed", label="p(true) rounds to 1")
        axis.set(title=name, ylabel="images")
    axes[0].legend(fontsize="small")
    axes[-1].set_xlabel("true logit minus the largest wrong logit")
    return figure
