"""A broken or missing rung of the sanity ladder takes the verdict from the protocols behind it, and from no other."""

import pytest

from reprolib.paper.judge import fault
from reprolib.paper.plan import Cell
from reprolib.paper.run import RUNGS


def cells(loss: str, broken: str = "", points: float = 0.0) -> list[Cell]:
    return [
        Cell(quantity="missed", row=rung, column=loss, protocol="ladder", value=points if rung == broken else 0.0)
        for rung in RUNGS
    ]


ALL = cells("margin") + cells("logits") + cells("probabilities")


@pytest.mark.parametrize("protocol", ["sound", "logits", "probabilities", "clean", "transfer", "time"])
def test_no_fault_where_every_rung_holds(protocol):
    assert fault(ALL, protocol) == ""


@pytest.mark.parametrize(
    "protocol, loss",
    [("sound", "margin"), ("sound", "logits"), ("logits", "logits"), ("probabilities", "probabilities")],
)
def test_a_broken_rung_is_a_fault_of_its_protocols(protocol, loss):
    others = [c for c in ALL if c.column != loss]
    assert "was not climbed" in fault(others, protocol) and loss in fault(others, protocol)
    assert "was not climbed" in fault(others + cells(loss)[:-1], protocol)
    for rung, allowed in RUNGS.items():
        assert fault(others + cells(loss, rung, allowed), protocol) == ""
        reason = fault(others + cells(loss, rung, allowed + 0.5), protocol)
        assert rung in reason and f"{allowed + 0.5:g}" in reason


@pytest.mark.parametrize("protocol", ["clean", "transfer", "time"])
def test_what_no_gradient_attack_measured_needs_no_ladder(protocol):
    assert fault([], protocol) == ""


def test_no_other_cell_is_taken_for_a_rung():
    """A row of a table may be called anything."""
    (rung, *_) = RUNGS
    others = [Cell(row=rung, column="logits", protocol="logits", value=50.0)]
    assert fault([*ALL, *others], "logits") == ""
