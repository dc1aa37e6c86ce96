"""PGD adversarial training (Madry et al. 2018): each step on the worst images that PGD finds for the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from reprolib import attacks, streams
from reprolib.defenses.base import Defence

if TYPE_CHECKING:
    from reprolib.training import Batch, Run


@dataclass(frozen=True)
class PGDAT(Defence):
    """PGD starts at random in the ball and climbs cross-entropy; batch normalisation is in eval mode meanwhile. Unlike
    an attack that judges a network, it makes all steps on every image, also on those that are wrong as they are."""

    eps: float
    alpha: float
    steps: int

    def __post_init__(self) -> None:
        attacks.pgd(nn.Identity(), self.eps, self.alpha, self.steps)  # which refuses what makes no sense

    def images(self, run: Run, batch: Batch) -> Tensor:
        clean = super().images(run, batch)
        low, high = (clean - self.eps).clamp(min=0), (clean + self.eps).clamp(max=1)
        start = 2 * streams.uniform(run.step_seed(), batch.rows, 0, tuple(clean.shape[1:])) - 1
        shown, gradients = (clean + self.eps * start).clamp(low, high), attacks.Gradients(run.model)
        with attacks.untouched(run.model):
            for _ in range(self.steps):
                _, _, gradient = gradients(shown, lambda z: attacks.loss_per_image(z, batch.labels, "logits"))
                shown = (shown + self.alpha * gradient.sign()).clamp(low, high)
        return shown
