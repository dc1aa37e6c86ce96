"""Adversarial fine-tuning: a stand-in for Jeddi, Shafiee and Wong (2021), whose code and rates this project lacks.

The project's reading: PGD-AT of a naturally trained parent at a learning rate of slow start and fast decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from reprolib.defenses.pgd_at import PGDAT

if TYPE_CHECKING:
    from reprolib.training import Batch, Run


RISE = 5  # epochs in which the learning rate climbs to the recipe's


@dataclass(frozen=True)
class AFT(PGDAT):
    """PGD-AT at `share(epoch)` of the recipe's learning rate, set before each step; ten epochs are meant, and a parent.
    Raises ValueError at the start of a training whose recipe has a cycle, which would be another schedule."""

    def begin(self, run: Run) -> None:
        if run.recipe.cycle is not None:
            raise ValueError(
                f"the recipe's cycle is {run.recipe.cycle}; expected None, as AFT sets the learning rate itself"
            )

    def step(self, run: Run, batch: Batch) -> Tensor:
        batches = -(-len(run.images) // run.recipe.batch_size)
        for group in run.optimizer.param_groups:
            group["lr"] = run.recipe.lr * share(run.epoch + run.batch / batches)
        return super().step(run, batch)


def share(epoch: float) -> float:
    """Of the recipe's rate: from 0.1 to 1 in a straight line while it rises, then times 0.3 with each further epoch."""
    return 0.1 + 0.9 * epoch / RISE if epoch < RISE else 0.3 ** (epoch - RISE)
