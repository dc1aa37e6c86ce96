"""What all defences have in common: images -> loss -> step, of which each method overrides what it changes.

A defence is a frozen record of its parameters. What happens while a network is trained with it is in `training.Run`,
which every hook is handed: the network, its optimiser, the training set, the place in the epoch, and `run.memory`."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from reprolib.training import Batch, Run


HOOKS = ("network", "begin", "images", "loss", "step")


@dataclass(frozen=True)
class Defence:
    """Plain training, and the skeleton of all others."""

    def __init_subclass__(cls) -> None:
        """Raises TypeError for a method that is nearly called like a hook: nothing would ever call it."""
        for name in [name for name, value in vars(cls).items() if callable(value) and name not in HOOKS]:
            if near := difflib.get_close_matches(name, HOOKS, n=1, cutoff=0.85):
                raise TypeError(f"{cls.__name__} has a method {name!r}, which nothing calls; did you mean {near[0]!r}?")

    passes: ClassVar[int] = 1  # how often an epoch shows each training image; the paper's union of images and copies: 2

    def network(self, model: nn.Module) -> nn.Module:
        """The network that is trained, attacked and saved, made from the given one; here that one itself."""
        return model

    def begin(self, run: Run) -> None:
        """Before the first step, and again before a killed run goes on. `run.notes` is for what can be worked out anew,
        `run.memory` for what is remembered: tensors by name, saved with the run and put back when it goes on."""

    def images(self, run: Run, batch: Batch) -> Tensor:
        """The images that a step trains on, float32 [B, C, H, W] in [0, 1]."""
        return run.augmented(batch)

    def loss(self, run: Run, images: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of a step, with its gradient."""
        return run.cross_entropy(run.logits(images), labels)

    def step(self, run: Run, batch: Batch) -> Tensor:
        """Move the network once, or more often; returns the mean loss, detached."""
        loss = self.loss(run, self.images(run, batch), batch.labels)
        run.descend(loss)
        return loss.detach()


@dataclass(frozen=True)
class Change:
    """A defence without training: made from a trained network, which stays as it is."""

    def __call__(self, model: nn.Module) -> nn.Module:
        raise NotImplementedError
