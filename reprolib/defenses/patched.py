"""The paper's defence (section 3): fine-tuning on the images and on copies of them with changed patches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reprolib import patches
from reprolib.attacks.inputs import check_count
from reprolib.defenses.base import Defence

if TYPE_CHECKING:
    from reprolib.training import Batch, Run


@dataclass(frozen=True)
class Patched(Defence):
    """n-Pk: k patches of n x n pixels, changed by functions drawn once per image (sections 3.1 and 4.2)."""

    size: int
    count: int
    passes = 2

    def __post_init__(self) -> None:
        check_count("size", self.size, least=3)
        check_count("count", self.count, least=1, most=2)

    def begin(self, run: Run) -> None:
        ids = torch.arange(len(run.images), device=run.images.device)
        run.notes["patches"] = patches.make_patches(run.images, ids, self.size, self.count, run.seed)

    def images(self, run: Run, batch: Batch) -> Tensor:
        pasted = patches.paste(batch.images, run.notes["patches"][batch.rows], batch.copies)
        return super().images(run, replace(batch, images=pasted))
