"""Networks that train in milliseconds; `register` makes them known by name, in this process alone."""

from __future__ import annotations

import os
import signal
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from reprolib import networks


class Small(nn.Module):
    """F-MNISTconv's first two layers and its last, with few filters: its files take no time to write.

    It counts the images that it is shown, and kills its process in the call numbered `fatal`.
    """

    seen: ClassVar[int] = 0
    calls: ClassVar[int] = 0
    fatal: ClassVar[int | None] = None

    def __init__(self) -> None:
        super().__init__()
        first, second = nn.Conv2d(1, 8, 8, stride=2, padding=3), nn.Conv2d(8, 8, 6, stride=2)
        self.layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 5 * 5, 10))

    def forward(self, images: Tensor) -> Tensor:
        Small.seen += len(images)
        Small.calls += 1
        if Small.calls == Small.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.layers(images)


class Normalised(nn.Module):
    """With batch normalisation, which attacks fold away, and a width."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        channels = networks.layers.scaled(8, width)
        self.normalize = networks.Normalize((0.5,), (0.25,), side=28)
        self.features = nn.Sequential(nn.Conv2d(1, channels, 5, stride=3), nn.BatchNorm2d(channels), nn.ReLU())
        self.fc = nn.Linear(channels * 64, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(self.normalize(images)).flatten(1))


class Spy(nn.Module):
    """A linear network that keeps what it is trained on, float32."""

    seen: ClassVar[list[Tensor]] = []

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(28 * 28, 10)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            Spy.seen.append(images.detach().clone())
        return self.fc(images.flatten(1))


ARCHITECTURES = {
    "small": "small_networks:Small",
    "normalised": "small_networks:Normalised",
    "spy": "small_networks:Spy",
}


def register(patched: pytest.MonkeyPatch | None = None) -> None:
    """Make them known to `networks.build`, until `patched` is undone."""
    for name, place in ARCHITECTURES.items():
        if patched is None:
            networks.ARCHITECTURES[name] = place
        else:
            patched.setitem(networks.ARCHITECTURES, name, place)


def new(kind: type[nn.Module] = Small, seed: int = 0) -> nn.Module:
    """A network with the same weights each time."""
    return networks.layers.seeded(kind, seed)


def bytes_of(images: Tensor) -> list[bytes]:
    """Each image of a batch in [0, 1], as the 8-bit image that it was."""
    return [bytes(image) for image in (images * 255).round().to(torch.uint8).numpy()]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether tensors by name are bitwise equal."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
