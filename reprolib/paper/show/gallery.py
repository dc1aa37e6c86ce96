"""Figure 2: the operations on patches, as pictures of images."""

from __future__ import annotations

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from reprolib import patches
from reprolib.paper.run import changed_patch

KINDS = ((7, 1), (11, 1), (7, 2), (11, 2))  # n-Pk: size and count


def plot_operations(images: Tensor, size: int, seed: int) -> Figure:
    """The nine operations on nine images, uint8 [9, C, H, W]: originals above, a patch of size x size changed below."""
    figure, axes = plt.subplots(2, len(patches.OPERATIONS), figsize=(14, 3.6), layout="constrained")
    box = _boxes(images, size, 1)
    for index, operation in enumerate(patches.OPERATIONS):
        image = images[index : index + 1]
        changed = patches.paste(image, changed_patch(image, index, size, seed)[:, None], torch.tensor([True]))
        axes[0, index].set_title(operation.__name__.replace("_", " "), fontsize=10)
        _picture(axes[0, index], image[0], [])
        _picture(axes[1, index], changed[0], box, size)
    return figure


def plot_pipeline(images: Tensor, seed: int) -> Figure:
    """Originals (uint8 [n, C, H, W]) and their copies under n-Pk, as fine-tuning sees them; frames mark the patches."""
    figure, axes = plt.subplots(1 + len(KINDS), len(images), figsize=(1.3 * len(images), 7.2), layout="constrained")
    ids = torch.arange(len(images))
    for place, image in enumerate(images):
        _picture(axes[0, place], image, [])
    for row, (size, count) in enumerate(KINDS, start=1):
        copies = patches.paste(images, patches.make_patches(images, ids, size, count, seed), ids >= 0)
        for place, copy in enumerate(copies):
            _picture(axes[row, place], copy, _boxes(images, size, count), size)
    for row, label in enumerate(["original", *(f"{size}-P{count}" for size, count in KINDS)]):
        axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


def _boxes(images: Tensor, size: int, count: int) -> list[tuple[int, int]]:
    height, width = images.shape[2:]
    return patches.boxes(height, width, size, count)


def _picture(axis: Axes, image: Tensor, boxes: list[tuple[int, int]], size: int = 0) -> None:
    axis.imshow(image.permute(1, 2, 0).expand(-1, -1, 3), interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    for top, left in boxes:
        axis.add_patch(
            plt.Rectangle((left - 0.5, top - 0.5), size, size, fill=False, edgecolor="#D55E00", linewidth=1.2)
        )
