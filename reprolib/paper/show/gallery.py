"""Pictures of images: Figure 2's operations on patches, and what an attack makes of an image."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from reprolib import attacks, patches
from reprolib.paper.plan import Evaluation
from reprolib.paper.run import Page, changed_patch
from reprolib.paper.run.evaluate import attacked

KINDS = ((7, 1), (11, 1), (7, 2), (11, 2))  # n-Pk: size and count
WRONG = "#D55E00"
SEEN = 100  # test images among which those to show are looked for


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


def plot_adversarial(
    model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor, classes: tuple[str, ...]
) -> Figure:
    """A column per image: the original, the change magnified (grey: none) and the adversarial image.

    Above an image stands what the model says, coloured where that is wrong, and how probable it finds the true class,
    which is named below.
    images, adversarial: float32 [n, C, H, W] in [0, 1]; labels: int64 [n]; classes: names by label.
    """
    change, factor = magnified(images, adversarial)
    figure, axes = plt.subplots(3, len(images), figsize=(1.35 * len(images), 5), layout="constrained", squeeze=False)
    rows = {"original": images, f"change, times {factor:.2g}": change, "after the attack": adversarial}
    for axis_row, (label, shown) in zip(axes, rows.items(), strict=True):
        axis_row[0].set_ylabel(label, fontsize=10)
        for axis, image in zip(axis_row, shown, strict=True):
            _picture(axis, image, [])
    for shown, axis_row in ((images, axes[0]), (adversarial, axes[2])):
        for axis, (said, right) in zip(axis_row, answers(model, shown, labels, classes), strict=True):
            axis.set_title(said, fontsize=9, color="black" if right else WRONG)
    for axis, label in zip(axes[2], labels.tolist(), strict=True):
        axis.set_xlabel(classes[label], fontsize=9)
    return figure


def attacked_images(page: Page, asked: Evaluation) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A network of the page; the first six test images that it classifies correctly, float32 [n, C, H, W] in [0, 1],
    filled up with others where it knows fewer; these after an attack of the page, made anew, since the store keeps
    none; and their labels, int64 [n].
    """
    test, model = page.dataset.test, page.shelf.load(asked.network)
    first = slice(min(asked.size, SEEN))
    right = attacks.is_right(model, test.images[first].float() / 255, test.labels[first])
    ids = (~right).long().argsort(stable=True)[:6]  # with its own id an image meets the random starts it had
    images, labels = test.images[ids], test.labels[ids]
    adversarial = attacked(model, asked, images, labels, ids).adversarial
    return model.cpu(), images.cpu().float() / 255, adversarial.cpu(), labels.cpu()


def magnified(images: Tensor, adversarial: Tensor) -> tuple[Tensor, float]:
    """The change of each pixel around 0.5, stretched until the largest of all is 0 or 1; and by how much."""
    change = adversarial - images
    factor = 0.5 / float(change.abs().max().clamp(min=1e-9))
    return (0.5 + factor * change).clamp(0, 1), factor if change.any() else 1.0


def answers(model: nn.Module, images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Per image what the model says, in two lines (class, probability of the true class), and whether it is right."""
    with attacks.untouched(model):
        p = attacks.Gradients(model).logits(images).softmax(1)
    for row, label in zip(p, labels.tolist(), strict=True):
        said = int(row.argmax())
        yield f"{classes[said]}\np(true) {row[label]:.3f}", said == label


def _boxes(images: Tensor, size: int, count: int) -> list[tuple[int, int]]:
    height, width = images.shape[2:]
    return patches.boxes(height, width, size, count)


def _picture(axis: Axes, image: Tensor, boxes: list[tuple[int, int]], size: int = 0) -> None:
    axis.imshow(image.permute(1, 2, 0).expand(-1, -1, 3), interpolation="none")
    axis.set(xticks=[], yticks=[])
    for top, left in boxes:
        axis.add_patch(plt.Rectangle((left - 0.5, top - 0.5), size, size, fill=False, edgecolor=WRONG, linewidth=1.2))
