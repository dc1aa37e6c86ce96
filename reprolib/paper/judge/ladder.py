"""The veto: a protocol whose attack misses a rung of the sanity ladder earns no verdict (the rungs: run/measure.py)."""

from __future__ import annotations

from collections.abc import Iterable

from reprolib.paper.plan import Cell
from reprolib.paper.run import RUNGS

LOSSES_BEHIND = {"sound": ("margin", "logits"), "logits": ("logits",), "probabilities": ("probabilities",)}


def fault(cells: Iterable[Cell], protocol: str) -> str:
    """Why a record's numbers under a protocol earn no verdict, in one sentence; empty when the ladder holds."""
    missed = {(cell.column, cell.row): cell.value for cell in cells if cell.quantity == "missed"}
    for loss in LOSSES_BEHIND.get(protocol, ()):
        if any((loss, rung) not in missed for rung in RUNGS):
            return f"The sanity ladder was not climbed for the loss {loss}."
        for rung, allowed in RUNGS.items():
            points = missed[loss, rung]
            if points > allowed:
                return f"The attack with the loss {loss} fails its sanity ladder: {rung}, missed by {points:g}."
    return ""
