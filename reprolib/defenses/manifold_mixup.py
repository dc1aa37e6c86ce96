"""Manifold Mixup (Verma et al. 2019, arXiv:1806.05236): Mixup of hidden states, in a layer drawn for each step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reprolib.defenses.base import Defence
from reprolib.defenses.mixup import Mixup

if TYPE_CHECKING:
    from reprolib.training import Run


@dataclass(frozen=True)
class ManifoldMixup(Defence):
    """What is mixed is the network's input or what goes into its second or third stage (`stages`), at even odds, with
    one share per batch, drawn from Beta(alpha, alpha).

    The loss is the mixture of two cross-entropies, as in the paper; the authors' code takes the binary cross-entropy of
    soft-max outputs and mixed labels instead. Raises ValueError for a network without a second stage."""

    alpha: float = 2.0

    def __post_init__(self) -> None:
        Mixup(self.alpha)  # which refuses what makes no sense

    def begin(self, run: Run) -> None:
        if not stages(run.model):
            found = f"{type(run.model).__name__} has no second stage whose input could be mixed"
            raise ValueError(f"{found} (after a pool, in a block that strides, a second convolution); use Mixup")

    def loss(self, run: Run, images: Tensor, labels: Tensor) -> Tensor:
        random = run.step_random()
        share, other = random.beta(self.alpha, self.alpha), torch.from_numpy(random.permutation(len(images)))
        other = other.to(images.device)
        places = [run.model, *stages(run.model)]

        def mixed(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            return (share * inputs[0] + (1 - share) * inputs[0][other],)

        with places[random.integers(len(places))].register_forward_pre_hook(mixed):
            logits = run.logits(images)
        return share * run.cross_entropy(logits, labels) + (1 - share) * run.cross_entropy(logits, labels[other])


def stages(model: nn.Module) -> list[nn.Module]:
    """The layers with which a network's second and third stage begin, as far as it has them: residual blocks that
    stride; without such, what follows a pooling layer; without such, all convolutions but the first."""
    layers = list(_layers(model))
    strides = [m for m in layers if not isinstance(m, nn.Conv2d) and any(map(_is_strided, m.modules()))]
    pooled = [after for before, after in pairwise(layers) if isinstance(before, (nn.MaxPool2d, nn.AvgPool2d))]
    convolutions: list[nn.Module] = [module for module in layers if isinstance(module, nn.Conv2d)]
    return (strides or pooled or convolutions[1:])[:2]


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """Layers and blocks in the order in which they stand in the network."""
    for module in model.children():
        if isinstance(module, nn.Sequential):
            yield from _layers(module)
        else:
            yield module


def _is_strided(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and max(module.stride) > 1
