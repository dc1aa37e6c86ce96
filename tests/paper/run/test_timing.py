"""What trainings cost: passes that can be counted by hand, and minutes from steps of a known length."""

import pytest
import torch
from paper.made import EPOCHS, SEED

from reprolib import defenses
from reprolib.paper import plan, run
from reprolib.paper.plan import Trained
from reprolib.paper.run import timing
from reprolib.training import Recipe


def trained(defence: defenses.Defence, parent: Trained | None = None, epochs: int = 5) -> Trained:
    return Trained(
        architecture="fmnistconv", data="fashion-mnist", recipe=Recipe(), defence=defence, parent=parent, epochs=epochs
    )


@pytest.mark.parametrize(
    "defence, passes",
    [
        (defenses.Defence(), 1),
        (defenses.Patched(7, 1), 2),
        (defenses.Unmodified(), 2),
        (defenses.PGDAT(0.1, 0.02, steps=7), 8),
        (defenses.FastAT(0.1, 0.12), 2),
        (defenses.FreeAT(0.1, replays=4), 4),
        (defenses.Mixup(), 1),
    ],
)
def test_passes_of_methods_whose_passes_are_known(defence, passes):
    assert timing.passes(trained(defence)) == passes


def test_cost_is_that_of_the_training_alone_and_with_its_parents(table_6):
    cells = run.measure_training(table_6)

    def value(row: str, column: str, part: str) -> float:
        (cell,) = [c for c in cells if (c.row, c.column, c.part, c.seeds) == (row, column, part, [SEED])]
        return cell.value

    for column, passes in (("undefended", 1), ("7-P1", 2), ("no patches", 2)):
        assert value("Passes per image", column, "alone") == passes * EPOCHS[column]
        assert value("Seconds", column, "alone") == 7 * EPOCHS[column]
    assert value("Passes per image", "7-P1", "with its parents") == EPOCHS["undefended"] + 2 * EPOCHS["7-P1"]
    assert value("Seconds", "7-P1", "with its parents") == 7 * (EPOCHS["undefended"] + EPOCHS["7-P1"])
    assert value("Seconds", "undefended", "with its parents") == 7 * EPOCHS["undefended"]


def test_seconds_that_nobody_noted_are_left_out_and_not_taken_for_zero(table_6, monkeypatch):
    known = run.networks.Shelf.checkpoint

    def without(shelf, network):
        tensors, meta = known(shelf, network)
        return tensors, {k: v for k, v in meta.items() if k != "seconds" or network.parent is not None}

    monkeypatch.setattr(run.networks.Shelf, "checkpoint", without)
    found = {(c.column, c.part) for c in run.measure_training(table_6) if c.row == "Seconds" and c.seeds == [SEED]}
    assert ("7-P1", "alone") in found and not found & {("undefended", "alone"), ("7-P1", "with its parents")}


def test_minutes_follow_from_steps_epochs_and_passes(tiny, monkeypatch, tmp_path):
    """With steps of 1, 2 and 8 seconds, which a slow round makes thrice as long."""
    planned = plan.load_plan("table08", "fmnistconv", "cpu", train=len(tiny.train), test=50)
    page = run.Page(planned, store=run.Store(tmp_path), dataset=tiny)
    for training, epochs in planned.trainings.values():
        meta = {"history": [{"epoch": e + 1} for e in range(max(epochs))], "seconds": 1.0}
        for epoch in epochs:
            page.store.save(f"{page.shelf.name(training)}/epoch-{epoch:04d}", {"x": torch.zeros(1)}, meta)
    calls = []

    def step(begun) -> float:
        calls.append(type(begun.defence))
        slow = 3 if len(calls) in (4, 5, 6) else 1
        return slow * {defenses.Defence: 1.0, defenses.Patched: 2.0, defenses.PGDAT: 8.0}[type(begun.defence)]

    monkeypatch.setattr(timing, "_seconds_of_a_step", step)
    cells = run.measure_times(page, "undefended", "7-P1", "PGD AT")
    assert calls[:6] == [defenses.Defence, defenses.Patched, defenses.PGDAT] * 2  # in turn

    found = {(c.row, c.column): c for c in cells}
    batches = -(-len(tiny.train) // 128), -(-2 * len(tiny.train) // 128)
    pretrain, finetune = planned.amounts.pretrain, planned.amounts.finetune
    before, after, instead = pretrain * batches[0] / 60, finetune * batches[1] * 2 / 60, pretrain * batches[0] * 8 / 60
    assert found["Minutes", "undefended"].value == pytest.approx(before, abs=1e-3)
    assert found["Minutes", "7-P1"].value == pytest.approx(after, abs=1e-3)
    assert found["Minutes", "proposed"].value == pytest.approx(before + after, abs=1e-3)
    assert found["Minutes", "AT"].value == pytest.approx(instead, abs=1e-3)
    reduction = found["Reduction", "reduction"]
    assert (reduction.low, reduction.value, reduction.high) == pytest.approx([instead / (before + after)] * 3, abs=1e-3)
    assert (
        found["Milliseconds per step", "PGD AT"].value
        == 8000
        < (found["Milliseconds per step", "PGD AT"].high or 0) + 1
    )
    claims = {c.claim for c in cells if c.judged}
    assert claims == {f"T8.F-MNIST/F-MNISTconv.{name}" for name in ("AT", "proposed", "reduction")}


def test_the_median_has_its_interval_from_order_statistics():
    values = [5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0, 4.0, 6.0]
    # of 9 values, the 2nd and the 8th enclose the median with 1 - 2 * (1 + 9) / 512 = 96 %
    assert timing._median(values) == {"value": 5.0, "low": 2.0, "high": 8.0, "n": 9}


def test_a_step_is_timed_on_the_data_it_is_for(tiny):
    begun = timing._begun(
        run.Page(plan.load_plan("table08", "fmnistconv", "cpu"), dataset=tiny), trained(defenses.Patched(7, 1))
    )
    assert begun.defence == defenses.Patched(7, 1) and 0 < timing._seconds_of_a_step(begun) < 60
