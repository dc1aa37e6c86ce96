"""The paper's defence (section 3.1) with patches that grow with the pictures, as its 7 and 11 pixels may be meant for
ImageNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reprolib.defenses.patched import Patched

if TYPE_CHECKING:
    from reprolib.training import Run

SIDE = 32  # pixels of CIFAR-10's pictures, for which the sizes are printed


@dataclass(frozen=True)
class PatchedScaled(Patched):
    """n-Pk: each patch has the share of a picture that n x n pixels have of 32x32: 7 is 49 of 224, 28 of 128 pixels."""

    def begin(self, run: Run) -> None:
        Patched(scaled(self.size, run.images.shape[2]), self.count).begin(run)


def scaled(size: int, side: int) -> int:
    """Pixels of a patch in a picture of so many pixels a side: 7 and 11 become 49 and 77 at 224, 28 and 44 at 128."""
    return round(size * side / SIDE)
