"""FGSM adversarial training (Goodfellow et al. 2015): one full step from the clean image.

It risks catastrophic overfitting (Wong, Rice, Kolter 2020): within an epoch the network can learn to defeat this one
step and lose what it withstands of PGD. So look at a PGD accuracy of each epoch, never at FGSM's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from reprolib import attacks
from reprolib.defenses.base import Defence
from reprolib.defenses.ifgsm_at import IFGSMAT

if TYPE_CHECKING:
    from reprolib.training import Batch, Run


@dataclass(frozen=True)
class FGSMAT(Defence):
    """The step is as long as the radius; on adversarial images alone, without the clean half of the first paper."""

    eps: float

    def __post_init__(self) -> None:
        attacks.fgsm(nn.Identity(), self.eps)  # which refuses what makes no sense

    def images(self, run: Run, batch: Batch) -> Tensor:
        return IFGSMAT(self.eps, alpha=self.eps, steps=1).images(run, batch)
