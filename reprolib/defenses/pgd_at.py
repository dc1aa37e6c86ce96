"""PGD adversarial training (Madry et al. 2018): each step on the worst images that PGD finds for the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from reprolib import attacks, streams
from reprolib.attacks.slots import ball
from reprolib.defenses.base import Defence
from reprolib.devices import has_fast_bfloat16

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
        start = random_start(run, batch, clean, self.eps)
        return climbed(run, batch, clean, start, self.eps, self.alpha, self.steps)


def random_start(run: Run, batch: Batch, clean: Tensor, eps: float) -> Tensor:
    """Uniform in the eps-ball around clean images float32 [B, C, H, W], not cut off at 0 and 1; anew in each step."""
    return clean + eps * (2 * streams.uniform(run.step_seed(), batch.rows, 0, tuple(clean.shape[1:])) - 1)


def climbed(run: Run, batch: Batch, clean: Tensor, start: Tensor, eps: float, alpha: float, steps: int) -> Tensor:
    """`start` after so many steps of size alpha that climb cross-entropy, in the eps-ball around `clean` and in [0, 1].

    All images are float32 [B, C, H, W]. The network is in eval mode meanwhile, and as in training its layers calculate
    in bfloat16 where that is faster: this is training's work, and no attack that judges."""
    low, high = ball(clean, eps)
    shown = start.clamp(low, high)
    gradients = attacks.Gradients(run.model, bfloat16=has_fast_bfloat16(clean.device))
    with attacks.untouched(run.model):
        for _ in range(steps):
            _, _, gradient = gradients(shown, lambda z: attacks.loss_per_image(z, batch.labels, "logits"))
            shown = (shown + alpha * gradient.sign()).clamp(low, high)
    return shown
