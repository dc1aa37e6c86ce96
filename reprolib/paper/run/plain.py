"""Numbers behind which no trained network stands: Table 1's parameter counts and what Figure 2's operations change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from reprolib import networks, patches
from reprolib.paper.plan import Cell
from reprolib.paper.run.measure import mean


def measure_parameters(names: Iterable[str]) -> list[Cell]:
    """The number of trained parameters of each network."""
    counts = {name: networks.parameter_count(networks.build(name)) for name in names}
    return [
        Cell(quantity="count", row=name, column="parameters", protocol="count", value=float(count))
        for name, count in counts.items()
    ]


def measure_operations(images: Tensor, size: int, seed: int) -> list[Cell]:
    """Mean absolute change of a pixel of the patch under each operation, on the scale [0, 1], with a 95 % interval.

    images: uint8 [n, C, H, W]; the patch is the centred one of size x size pixels.
    """
    before, cells = _centre(images, size), []
    for index, operation in enumerate(patches.OPERATIONS):
        change = mean((changed_patch(images, index, size, seed).float() / 255 - before).abs().flatten(1).mean(1))
        place: dict[str, Any] = {
            "row": operation.__name__,
            "column": f"patch {size}x{size}",
            "protocol": "change",
            "seeds": [seed],
        }
        cells.append(Cell(quantity="change", **place, **{name: round(number, 4) for name, number in change.items()}))
    return cells


def changed_patch(images: Tensor, operation: int, size: int, seed: int) -> Tensor:
    """The centred patch of uint8 images [n, C, H, W] after one operation, uint8 [n, C, size, size]."""
    drawn = patches.sample(torch.arange(len(images)), 1, seed)[0]
    forced = replace(drawn, operation=torch.full((len(images),), operation))
    return (patches.apply(_centre(images, size), forced) * 255).round().to(torch.uint8)


def _centre(images: Tensor, size: int) -> Tensor:
    height, width = images.shape[2:]
    ((top, left),) = patches.boxes(height, width, size, 1)
    return images[:, :, top : top + size, left : left + size].float() / 255
