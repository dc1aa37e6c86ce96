"""Race functions against each other: in turn, several rounds, medians and ratios taken round by round."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable

import torch


def race(contestants: dict[str, Callable[[], dict]], rounds: int, *, warm_up: bool = True) -> list[dict]:
    """Time each contestant once per round, one after the other, so that a machine's mood meets all of them alike.

    A contestant returns what it found (an accuracy, say), which stands beside its time. A `warm_up` round, which is not
    counted, goes first, for whatever is done at a first call; where a call takes minutes, that is nothing. Per
    contestant: name, median seconds, the ratio to the first contestant (ours) with the lowest and highest of the
    rounds, and what it returned in the last round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    found: dict[str, dict] = {}
    for counted in [False] * warm_up + [True] * rounds:
        for name, run in contestants.items():
            elapsed, found[name] = _timed(run)
            if counted:
                seconds[name].append(elapsed)
    ours = seconds[next(iter(contestants))]
    rows = []
    for name, times in seconds.items():
        ratios = [theirs / mine for theirs, mine in zip(times, ours, strict=True)]
        rows.append(
            {
                "who": name,
                "seconds": round(statistics.median(times), 4),
                "ratio": round(statistics.median(ratios), 3),
                "ratio_low": round(min(ratios), 3),
                "ratio_high": round(max(ratios), 3),
                **found[name],
            }
        )
    return rows


def _timed(run: Callable[[], dict]) -> tuple[float, dict]:
    gc.collect()
    _wait_for_the_gpu()
    started = time.perf_counter()
    found = run()
    _wait_for_the_gpu()
    return time.perf_counter() - started, found


def _wait_for_the_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
