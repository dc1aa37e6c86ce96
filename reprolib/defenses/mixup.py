"""Mixup (Zhang et al. 2018): each step on mixtures of two images, with the loss mixed alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reprolib.attacks.inputs import check_number
from reprolib.defenses.base import Defence

if TYPE_CHECKING:
    from reprolib.training import Run


@dataclass(frozen=True)
class Mixup(Defence):
    """One share per batch, drawn from Beta(alpha, alpha), as in the authors' code."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not check_number("alpha", self.alpha, "a number above 0"):
            raise ValueError("alpha is 0; expected a number above 0")

    def loss(self, run: Run, images: Tensor, labels: Tensor) -> Tensor:
        random = run.step_random()
        share, other = random.beta(self.alpha, self.alpha), torch.from_numpy(random.permutation(len(images)))
        other = other.to(images.device)
        logits = run.logits(share * images + (1 - share) * images[other])
        return share * run.cross_entropy(logits, labels) + (1 - share) * run.cross_entropy(logits, labels[other])
