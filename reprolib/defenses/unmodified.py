"""The control that the paper lacks: its fine-tuning, with copies that nobody changed."""

from __future__ import annotations

from dataclasses import dataclass

from reprolib.defenses.base import Defence


@dataclass(frozen=True)
class Unmodified(Defence):
    """As many steps on the same images as `Patched`; the patches are the only difference."""

    passes = 2
