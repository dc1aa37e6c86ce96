"""Fast adversarial training (Wong, Rice, Kolter 2020): one step of FGSM from a random point of the ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from reprolib.defenses.base import Defence
from reprolib.defenses.pgd_at import PGDAT

if TYPE_CHECKING:
    from reprolib.training import Batch, Run


@dataclass(frozen=True)
class FastAT(Defence):
    """The step, alpha, is published as 1.25 times the radius, and cut off at the ball's border."""

    eps: float
    alpha: float

    def __post_init__(self) -> None:
        PGDAT(self.eps, self.alpha, steps=1)  # which refuses what makes no sense

    def images(self, run: Run, batch: Batch) -> Tensor:
        return PGDAT(self.eps, self.alpha, steps=1).images(run, batch)
