"""What all networks have in common: a normalising layer, and initial weights that follow from a seed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Subtract the training set's mean and divide by its standard deviation, per channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A freshly initialised network; the same seed gives the same weights, and the global random numbers are untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every GPU as well
        return make().to(memory_format=torch.channels_last).eval()
