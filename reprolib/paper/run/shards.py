"""One evaluation as several steps: the test set in parts, which merge to the result of the whole, bit for bit.

An attack draws each image's random numbers from the image's id, whatever stands beside it, so a part's rows are the
whole's. A part is an artefact of its own, `evaluation/<key>/2-of-8`, under the whole's key.
"""

from __future__ import annotations

import math
import re

import torch

from reprolib.paper.plan import Evaluation
from reprolib.paper.run.store import Store

LONG = 300  # seconds, estimated; a longer evaluation is split into parts that take about so long
FEWEST = 128  # images of a part: as many as a CPU attacks at a time
PART = re.compile(r"(?P<whole>evaluation/[0-9a-f]+)/(?P<number>\d+)-of-(?P<count>\d+)")


def count(evaluation: Evaluation, seconds: float) -> int:
    """How many parts a batch makes of an evaluation that is thought to take so long; 1 leaves it whole.

    Other libraries draw per batch, so their results would change; and those who make a transfer attack's images share
    that work already.
    """
    if evaluation.engine != "reprolib" or evaluation.source is not None:
        return 1
    return max(min(math.ceil(seconds / LONG), evaluation.size // FEWEST), 1)


def names(whole: str, count: int) -> list[str]:
    """The parts of an evaluation, by their names in the store."""
    return [f"{whole}/{number}-of-{count}" for number in range(1, count + 1)]


def whole(name: str) -> str:
    """The evaluation that a name in the store, perhaps a part's, belongs to."""
    found = PART.fullmatch(name)
    return found["whole"] if found else name


def rows(name: str, size: int) -> slice:
    """The images of a part among `size` test images; all of them for an evaluation's own name."""
    found = PART.fullmatch(name)
    number, count = (int(found["number"]), int(found["count"])) if found else (1, 1)
    return slice(size * (number - 1) // count, size * number // count)


def begun(store: Store, whole: str) -> int:
    """Into how many parts somebody has begun to split this evaluation, 0 if nobody has; the most complete split."""
    there = {path.stem.removesuffix("-unfinished") for path in (store.root / whole).glob("*.safetensors")}
    found = [PART.fullmatch(f"{whole}/{name}") for name in there]
    counts = [int(part["count"]) for part in found if part]
    return max(counts, key=lambda each: counts.count(each) / each, default=0)


def merge(store: Store, whole: str, count: int) -> None:
    """Put the parts together; `calls` and `seconds` are those of all, and what else differs between them is listed."""
    parts = [store.load(part) for part in names(whole, count)]
    tensors = {name: torch.cat([tensors[name] for tensors, _ in parts]) for name in parts[0][0]}
    meta = {name: _together([meta[name] for _, meta in parts]) for name in parts[0][1]}
    meta["calls"], meta["seconds"] = (sum(meta[name] for _, meta in parts) for name in ("calls", "seconds"))
    store.save(whole, tensors, meta)
    store.path(f"{whole}-unfinished").unlink(missing_ok=True)


def _together(values: list) -> object:
    return values[0] if len(set(values)) == 1 else "; ".join(sorted({str(value) for value in values}))


def cut(tensors: dict[str, torch.Tensor], meta: dict, part: str) -> tuple[dict[str, torch.Tensor], dict]:
    """A part of what was made, or begun, in one go; with its share of the calls and the seconds."""
    size = len(tensors["correct"])
    chosen = rows(part, size)
    share = (chosen.stop - chosen.start) / size
    spent = {"calls": round(meta["calls"] * share), "seconds": round(meta["seconds"] * share, 2)}
    return {name: tensor[chosen] for name, tensor in tensors.items()}, meta | spent
