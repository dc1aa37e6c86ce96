"""Fast adversarial training (Wong, Rice, Kolter 2020): one step of FGSM from a random point of the ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from reprolib import attacks, streams
from reprolib.defenses.base import Defence

if TYPE_CHECKING:
    from reprolib.training import Batch, Run


@dataclass(frozen=True)
class FastAT(Defence):
    """The step, alpha, is published as 1.25 times the radius, and cut off at the ball's border."""

    eps: float
    alpha: float

    def __post_init__(self) -> None:
        attacks.pgd(nn.Identity(), self.eps, self.alpha, 1)  # which refuses what makes no sense

    def images(self, run: Run, batch: Batch) -> Tensor:
        clean = super().images(run, batch)
        low, high = (clean - self.eps).clamp(min=0), (clean + self.eps).clamp(max=1)
        start = 2 * streams.uniform(run.step_seed(), batch.rows, 0, tuple(clean.shape[1:])) - 1
        shown, gradients = (clean + self.eps * start).clamp(low, high), attacks.Gradients(run.model)
        with attacks.untouched(run.model):
            _, _, gradient = gradients(shown, lambda z: attacks.loss_per_image(z, batch.labels, "logits"))
        return (shown + self.alpha * gradient.sign()).clamp(low, high)
