"""Restricting the Hidden Space (Mustafa et al. 2019, arXiv:1904.00887): features are drawn to their class's prototype
and pushed away from those of other classes."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reprolib.defenses.base import Defence
from reprolib.networks.layers import seeded

if TYPE_CHECKING:
    from reprolib.training import Batch, Run

UNITS = 1024
OWN, OTHER = 1.0, 1e-4  # weights in the loss of the distances to the own class's prototype and to others
RATES = {"own": 0.5, "other": 1e-4}  # of the gradient descent on the prototypes, without those weights


@dataclass(frozen=True)
class HiddenSpace(Defence):
    """The network's last layer becomes two, with 1024 units between; what goes into each of them is a vector of
    features f, and the loss is, over both,

        cross-entropy + sum of (OWN * mean ||f - c_label||^2 - OTHER * mean over other classes k of ||f - d_k||^2)

    with prototypes c and d, learnt apart from each other, by their own rates. As in the authors' second stage, give it
    a network that has been trained plainly. They train its 1024 units in the first stage already; here they are added
    now, so that the network answers as before. Rates stay as they are, as in their code, in which no decay happens. The
    loss begins at some hundreds, since prototypes begin at random: with the authors' rate of 0.01 for the network a
    quarter-wide VGG-16 ended in NaN, with Adam and 0.001 it did not."""

    def network(self, model: nn.Module) -> nn.Module:
        """A copy with two last layers. Raises ValueError for a network without a linear layer."""
        layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        if not layers:
            raise ValueError(f"{type(model).__name__} has no linear layer before which {UNITS} units could stand")
        network = copy.deepcopy(model)
        name, last = layers.popitem()
        network.set_submodule(name, seeded(partial(Head, last), 0))
        return network

    def begin(self, run: Run) -> None:
        head, random = head_of(run.model), torch.Generator().manual_seed(run.seed)
        for number, size in enumerate(head.sizes):
            for kind in RATES:
                table = torch.randn(head.classes, size, generator=random)
                run.memory[f"{kind}.{number}"] = table.to(run.images.device)

    def loss(self, run: Run, images: Tensor, labels: Tensor) -> Tensor:
        features: list[Tensor] = []
        with ExitStack() as hooks:
            for layer in head_of(run.model):
                hook = layer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].float()))
                hooks.enter_context(hook)
            loss = run.cross_entropy(run.logits(images), labels)
        for number, found in enumerate(features):
            own, other = distances(found, run.memory[f"own.{number}"]), distances(found, run.memory[f"other.{number}"])
            is_own = torch.zeros_like(own).scatter(1, labels[:, None], 1).bool()
            loss = loss + OWN * own[is_own].mean() - OTHER * other[~is_own].mean()
        return loss

    def step(self, run: Run, batch: Batch) -> Tensor:
        for table in run.memory.values():
            table.requires_grad_()
        loss = super().step(run, batch)
        with torch.no_grad():
            for name, table in run.memory.items():
                assert table.grad is not None  # the same backward pass gave it
                kind = name.partition(".")[0]
                table -= RATES[kind] / {"own": OWN, "other": OTHER}[kind] * table.grad
                table.grad = None
        return loss


class Head(nn.Sequential):
    """A network's last layer and, before it, 1024 linear units. It answers as the given layer, for the first units do,
    and the others, which are random, do not count yet."""

    def __init__(self, last: nn.Linear):
        first, second = nn.Linear(last.in_features, UNITS), nn.Linear(UNITS, last.out_features)
        with torch.no_grad():
            first.weight[: last.out_features] = last.weight.cpu()
            first.bias[: last.out_features] = 0 if last.bias is None else last.bias.cpu()
        nn.init.eye_(second.weight)
        nn.init.zeros_(second.bias)
        super().__init__(first, second)
        self.sizes, self.classes = (last.in_features, UNITS), last.out_features
        self.to(last.weight)


def head_of(network: nn.Module) -> Head:
    """The head that `HiddenSpace` gave a network."""
    return next(module for module in network.modules() if isinstance(module, Head))


def distances(features: Tensor, prototypes: Tensor) -> Tensor:
    """Squared distances [B, K] of features [B, D] from prototypes [K, D]."""
    return (features[:, None] - prototypes).square().sum(2)
