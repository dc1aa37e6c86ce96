"""IFGSM adversarial training (Kurakin et al. 2017): PGD-AT whose search begins at the clean image, not at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from reprolib import attacks
from reprolib.defenses.base import Defence
from reprolib.defenses.pgd_at import climbed

if TYPE_CHECKING:
    from reprolib.training import Batch, Run


@dataclass(frozen=True)
class IFGSMAT(Defence):
    """`steps` steps of size alpha, each cut off at the ball's border."""

    eps: float
    alpha: float
    steps: int

    def __post_init__(self) -> None:
        attacks.ifgsm(nn.Identity(), self.eps, self.alpha, self.steps)  # which refuses what makes no sense

    def images(self, run: Run, batch: Batch) -> Tensor:
        clean = super().images(run, batch)
        return climbed(run, batch, clean, clean, self.eps, self.alpha, self.steps)
