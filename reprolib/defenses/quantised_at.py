"""A member of EMPIR-AT (Sen et al. 2020): a network of few bits, trained on clean images and PGD's alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reprolib.defenses.pgd_at import PGDAT
from reprolib.defenses.quantised import Quantised

if TYPE_CHECKING:
    from reprolib.training import Batch, Run


@dataclass(frozen=True)
class QuantisedAT(Quantised):
    """Loss: half the cross-entropy of the clean images, half that of PGD's, as in EMPIR's code; of 32 bits, its member
    of full precision.

    That code trains at eps 0.3, alpha 0.01 and 40 steps, but attacks at eps 0.1. We train at the radius of the attack:
    eps 0.1, alpha 0.025, 7 steps. Its first 10 epochs are clean: give the network a `Quantised` one as parent."""

    eps: float
    alpha: float
    steps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._attack()  # which refuses what makes no sense

    def images(self, run: Run, batch: Batch) -> Tensor:
        """Clean ones, then PGD's, float32 [2B, C, H, W]."""
        return torch.cat([super().images(run, batch), self._attack().images(run, batch)])

    def loss(self, run: Run, images: Tensor, labels: Tensor) -> Tensor:
        return super().loss(run, images, labels.repeat(2))  # the mean over both halves

    def _attack(self) -> PGDAT:
        return PGDAT(self.eps, self.alpha, self.steps)
