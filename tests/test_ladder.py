"""The sanity ladder holds for attacks that work, and each of its rungs breaks for one that doesn't."""

from dataclasses import dataclass

import pytest
import torch
from conftest import TOY_EPS

from reprolib import ladder
from reprolib.attacks import LOSSES, AttackResult, pgd

RUNGS = list(ladder.RUNGS)


@dataclass(frozen=True)
class Fake:
    """An attack on 100 images that leaves as many robust as `leaves` says."""

    leaves: object
    eps: float = 0.2
    alpha: float = 0.02
    steps: int = 100
    restarts: int = 2
    loss: str = "logits"
    decision: str = "last"
    seed: int = 7

    def run(self, images, labels):
        any_run = torch.full((100,), -1, dtype=torch.int16)
        any_run[self.leaves(self) :] = 0
        return AttackResult(torch.ones(100, dtype=torch.bool), any_run, any_run.clone(), any_run.clone(), images)


def climbed(leaves) -> dict[str, float]:
    cells = ladder.climb(Fake(leaves), torch.zeros(100, 1, 1, 1), torch.zeros(100, dtype=torch.int64))
    assert {(c["column"], c["protocol"], c["n"], *c["seeds"]) for c in cells} == {("logits", "ladder", 100, 7)}
    return {c["row"]: c["value"] for c in cells}


def working(attack) -> int:
    """Leaves less the further it can go; never less than with more steps, eps or runs."""
    return round(100 - 300 * min(attack.eps, attack.alpha * attack.steps))


def test_every_rung_holds_for_a_working_attack():
    assert climbed(working) == dict.fromkeys(RUNGS, 0.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_rung_holds_for_pgd_on_real_networks(brittle, sturdy, held_out, loss):
    for net in (brittle, sturdy):
        cells = ladder.climb(pgd(net, TOY_EPS, 0.02, 20, 2, loss=loss), *held_out)
        assert [c["row"] for c in cells] == RUNGS and all(c["value"] <= ladder.RUNGS[c["row"]] for c in cells)


@pytest.mark.parametrize("rung, points, leaves", [
    (0, 30, lambda a: 70 if a.steps and not a.eps else working(a)),  # moves where it must not
    (1, 40, lambda a: 80 if a.eps == 0.2 and a.restarts else (working(a) if a.eps != 0.1 else 40)),
    (2, 20, lambda a: 60 if a.steps == 100 and a.restarts else (40 if a.steps < 100 and a.restarts else working(a))),
    (3, 15, lambda a: 25 if a.steps == 1 else 40),
    (4, 10, lambda a: 30 if a.restarts == 1 else working(a)),
])
def test_each_rung_can_break(rung, points, leaves):
    assert climbed(leaves)[RUNGS[rung]] == points


def cells(loss: str, **missed) -> list[dict]:
    values = {rung: missed.get(f"rung{i}", 0.0) for i, rung in enumerate(RUNGS)}
    return [{"row": rung, "column": loss, "protocol": "ladder", "value": value} for rung, value in values.items()]


ALL = cells("margin") + cells("logits") + cells("probabilities")


@pytest.mark.parametrize("protocol", ["sound", "logits", "probabilities", "clean", "transfer", "time"])
def test_no_fault_where_every_rung_holds(protocol):
    assert ladder.fault(ALL, protocol) == ""


@pytest.mark.parametrize("protocol, loss", [("sound", "margin"), ("sound", "logits"), ("logits", "logits"),
                                            ("probabilities", "probabilities")])
def test_a_broken_rung_is_a_fault_of_its_protocols(protocol, loss):
    others = [c for c in ALL if c["column"] != loss]
    assert "was not climbed" in ladder.fault(others, protocol) and loss in ladder.fault(others, protocol)
    assert "was not climbed" in ladder.fault(others + cells(loss)[:-1], protocol)
    for index, rung in enumerate(RUNGS):
        allowed = ladder.RUNGS[rung]
        assert ladder.fault(others + cells(loss, **{f"rung{index}": allowed}), protocol) == ""
        reason = ladder.fault(others + cells(loss, **{f"rung{index}": allowed + 0.5}), protocol)
        assert rung in reason and f"{allowed + 0.5:g}" in reason


@pytest.mark.parametrize("protocol", ["clean", "transfer", "time"])
def test_what_no_gradient_attack_measured_needs_no_ladder(protocol):
    assert ladder.fault([], protocol) == ""
