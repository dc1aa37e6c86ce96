"""Fast adversarial training on the paper's patched copies as well: a recipe of this project's budget study.

It asks whether patches (section 3) add anything to a defence that works (Wong, Rice, Kolter 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from reprolib.defenses.fast_at import FastAT
from reprolib.defenses.patched import Patched
from reprolib.defenses.pgd_at import climbed, random_start

if TYPE_CHECKING:
    from reprolib.training import Batch, Run


@dataclass(frozen=True)
class PatchedAT(Patched):
    """Images and patched copies as in `Patched`, each moved by a step of size alpha from a random point of its ball."""

    eps: float
    alpha: float

    def __post_init__(self) -> None:
        super().__post_init__()
        FastAT(self.eps, self.alpha)  # which refuses what makes no sense

    def images(self, run: Run, batch: Batch) -> Tensor:
        clean = super().images(run, batch)
        return climbed(run, batch, clean, random_start(run, batch, clean, self.eps), self.eps, self.alpha, steps=1)
