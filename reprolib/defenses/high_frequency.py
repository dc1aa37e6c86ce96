"""High Frequency (Wang et al. 2020): the first layer's filters smoothed after training, so that they see less of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from reprolib.attacks.inputs import check_number
from reprolib.defenses.base import Change


@dataclass(frozen=True)
class HighFrequency(Change):
    """Each weight of the first convolution gains rho times the sum of its eight neighbours; borders are repeated."""

    rho: float

    def __post_init__(self) -> None:
        check_number("rho", self.rho)

    def __call__(self, model: nn.Module) -> nn.Module:
        changed = copy.deepcopy(model)
        first = next((m for m in changed.modules() if isinstance(m, nn.Conv2d)), None)
        if first is None:
            raise ValueError(f"{type(model).__name__} has no convolution whose filters could be smoothed")
        mask = torch.full((1, 1, 3, 3), self.rho, dtype=first.weight.dtype, device=first.weight.device)
        mask[0, 0, 1, 1] = 1
        with torch.no_grad():
            maps = F.pad(first.weight.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
            first.weight.copy_(F.conv2d(maps, mask).view_as(first.weight))
        return changed
