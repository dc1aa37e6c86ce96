"""Adversarial training with transferable adversarial examples (Zheng et al., CVPR 2020, arXiv 1912.11969).

Images that fooled the network in one epoch nearly fool it in the next, so few steps go on from there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprolib import attacks
from reprolib.defenses.base import Defence
from reprolib.defenses.pgd_at import climbed

if TYPE_CHECKING:
    from reprolib.training import Batch, Run


RESET = 10  # epochs after which all perturbations are forgotten, as the authors do


@dataclass(frozen=True)
class ATTA(Defence):
    """Each training image's perturbation is kept from epoch to epoch: int8 in units of eps/127, an image's size.

    It is kept in the frame of the image and moves with its crop and flip; what a crop leaves out stays as it was. The
    authors keep images padded by 4 pixels, so there the border's perturbation lives on too, and begin with noise of
    0.001, which TRADES' loss needs; the cross-entropy here is their other loss, and begins at the clean image."""

    eps: float
    alpha: float
    steps: int

    def __post_init__(self) -> None:
        attacks.ifgsm(nn.Identity(), self.eps, self.alpha, self.steps)  # which refuses what makes no sense

    def begin(self, run: Run) -> None:
        run.memory["delta"] = torch.zeros_like(run.images, dtype=torch.int8)

    def images(self, run: Run, batch: Batch) -> Tensor:
        clean, delta, unit = super().images(run, batch), run.memory["delta"], self.eps / 127
        if run.batch == 0 and run.epoch % RESET == 0:
            delta.zero_()
        start = clean + unit * moved(run, batch, delta[batch.rows])
        shown = climbed(run, batch, clean, start, self.eps, self.alpha, self.steps)

        height, width = clean.shape[2:]
        pixels = torch.arange(1, height * width + 1, dtype=torch.int32, device=clean.device).view(1, 1, height, width)
        seen = moved(run, batch, pixels.expand(len(clean), -1, -1, -1)).long()  # 0 where a crop looks beyond the border
        found = ((shown - clean) / (unit or 1)).round().to(torch.int8)
        kept = F.pad(delta[batch.rows].flatten(2), (1, 0))  # pixel 0 takes what has no place
        kept.scatter_(2, seen.flatten(2).expand(-1, clean.shape[1], -1), found.flatten(2))
        delta[batch.rows] = kept[..., 1:].view_as(found)
        return shown


def moved(run: Run, batch: Batch, maps: Tensor) -> Tensor:
    """Whole numbers [B, C, H, W] cropped and flipped as this epoch's images are, as float32; 0 comes in."""
    shown = run.augmented(replace(batch, images=maps))  # which divides by 255, as if they were pixels
    return (shown * 255).round()
