"""Free adversarial training (Shafahi et al. 2019): one backward pass moves the network and the perturbation alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reprolib.attacks.inputs import check_count, check_eps
from reprolib.defenses.base import Defence

if TYPE_CHECKING:
    from reprolib.training import Batch, Run


@dataclass(frozen=True)
class FreeAT(Defence):
    """Each batch is replayed; the perturbation outlives it and is where the next batch starts. An epoch costs `replays`
    times as much as a plain one, so give it as many times fewer of them."""

    eps: float
    replays: int = 8

    def __post_init__(self) -> None:
        check_eps(self.eps)
        check_count("replays", self.replays, 1)

    def begin(self, run: Run) -> None:
        run.memory["delta"] = torch.zeros(run.recipe.batch_size, *run.images.shape[1:], device=run.images.device)

    def step(self, run: Run, batch: Batch) -> Tensor:
        clean, delta = self.images(run, batch), run.memory["delta"][: len(batch.labels)]
        for _ in range(self.replays):
            shown = (clean + delta).clamp(0, 1).requires_grad_()
            loss = self.loss(run, shown, batch.labels)
            run.descend(loss)
            assert shown.grad is not None  # the same backward pass gave it
            delta.add_(self.eps * shown.grad.sign()).clamp_(-self.eps, self.eps)
        return loss.detach()
