"""The attack's sanity ladder: what must hold for any attack that works, climbed before a verdict is given.

It is climbed on the undefended network, where no defence can be the reason if a rung breaks.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from torch import Tensor

from reprolib.attacks import LinfAttack

# rung -> by how many points it may be missed: none where one run is part of the other, one where two searches differ
RUNGS = {
    "eps 0 leaves the clean accuracy": 0.0,
    "a larger eps leaves no more": 1.0,
    "more steps leave no more": 0.0,
    "an iterated attack leaves no more than one step": 1.0,
    "more restarts leave no more": 0.0,
}
LOSSES_BEHIND = {"sound": ("margin", "logits"), "logits": ("logits",), "probabilities": ("probabilities",)}


def climb(attack: LinfAttack, images: Tensor, labels: Tensor) -> list[dict]:
    """One cell of a record per rung: by how many points of accuracy it was missed, 0 where it holds.

    attack: a PGD on the undefended network; its eps, alpha and steps are varied here, under the any-iterate rule.
    Images float32 [B, C, H, W] in [0, 1], labels int64 [B].
    """

    def accuracy(**changed) -> float:
        found = replace(attack, decision="any", **changed).run(images, labels)
        return 100 * float(found.robust().double().mean())

    clean, full = accuracy(eps=0.0, alpha=0.0, steps=0, restarts=0), accuracy()
    by_eps = [accuracy(eps=f * attack.eps, alpha=f * attack.alpha) for f in (0.25, 0.5)] + [full]
    by_steps = [accuracy(steps=max(attack.steps // part, 1)) for part in (10, 2)] + [full]
    missed = (
        abs(accuracy(eps=0.0) - clean),
        _largest_rise(by_eps),
        _largest_rise(by_steps),
        max(full - accuracy(alpha=attack.eps, steps=1, restarts=0), 0.0),
        max(full - accuracy(restarts=min(attack.restarts, 1)), 0.0),
    )
    return [
        {
            "claim": None,
            "row": rung,
            "column": attack.loss,
            "epoch": None,
            "protocol": "ladder",
            "decision": "any",
            "value": round(points, 2),
            "low": None,
            "high": None,
            "n": len(images),
            "seeds": [attack.seed],
        }
        for rung, points in zip(RUNGS, missed, strict=True)
    ]


def _largest_rise(accuracies: list[float]) -> float:
    return max(0.0, *(later - earlier for earlier, later in pairwise(accuracies)))


def fault(cells: list[dict], protocol: str) -> str:
    """Why a record's numbers under a protocol earn no verdict, in one sentence; empty when the ladder holds."""
    for loss in LOSSES_BEHIND.get(protocol, ()):
        rungs = [c for c in cells if c["protocol"] == "ladder" and c["column"] == loss]
        if {c["row"] for c in rungs} != set(RUNGS):
            return f"The sanity ladder was not climbed for the loss {loss}."
        for rung in rungs:
            if rung["value"] > RUNGS[rung["row"]]:
                return f"The attack with the loss {loss} fails its sanity ladder: {rung['row']}, missed by {rung['value']:g}."
    return ""
