"""The scoreboard counts a claim once per protocol, from the right record, and gives no verdict that was not earned."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from reprolib.paper import files, judge, run
from reprolib.paper.plan import LOSSES, Cell

LEDGER = judge.ledger()
CLAIM = "T6.FGSM.7-P1"
PRINTED = LEDGER[CLAIM].number
LADDER = [
    Cell(quantity="missed", row=rung, column=loss, protocol="ladder", decision="any", value=0.0, n=100, seeds=[0])
    for rung in run.RUNGS
    for loss in LOSSES
]


@pytest.fixture(autouse=True)
def results(monkeypatch, tmp_path) -> Path:
    """A results folder of one's own."""
    monkeypatch.setattr(files, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def entry(claim: str, protocol="sound", value=50.0, decision="any", column="7-P1", width=1.0, judged=True) -> Cell:
    interval = {"value": value, "low": value - width, "high": value + width, "n": 10_000}
    place = {"row": "FGSM", "column": column, "epoch": 20, "seeds": [0]}
    return Cell(claim=claim, protocol=protocol, decision=decision, judged=judged, **place, **interval)


def write(profile: str, cells: list[Cell], name: str = "table06_fashion_mnist") -> Path:
    return run.write_record(name, {"profile": profile, "seeds": [0]}, cells)


def row_of(board: pd.DataFrame, claim: str, protocol: str) -> SimpleNamespace:
    found = board[(board["claim"] == claim) & (board["protocol"] == protocol)].to_dict("records")
    assert len(found) == 1, (claim, protocol)
    return SimpleNamespace(**found[0])


def test_with_no_records_nothing_was_run():
    board = judge.scoreboard()
    assert board["claim"].tolist() == list(LEDGER) and set(board["verdict"]) == {"not run"}
    assert board["measured"].isna().all() and set(board["record"]) == {""}
    assert len(judge.verdict_counts(board[board["record"] != ""])) == 0


def test_quick_and_custom_never_count():
    for profile in ("quick", "custom"):
        write(profile, [entry(CLAIM, value=PRINTED), *LADDER])
    assert run.records() == {}
    assert set(judge.scoreboard()["verdict"]) == {"not run"}


def test_quick_earns_no_verdict_even_when_handed_in():
    record = run.Stored({}, [entry(CLAIM, value=PRINTED), *LADDER])
    assert set(judge.scoreboard({("quick", "table06_fashion_mnist"): record})["verdict"]) == {"not run"}


def test_what_is_not_judged_is_no_answer():
    """A protocol has other decision rules beside the one that is compared with the paper, and margin has none."""
    write("cpu", [
        entry(CLAIM, protocol, value, decision, judged=judged) for protocol, decision, value, judged in
        [("sound", "any", 2.0, True), ("sound", "last", 91.0, False), ("logits", "any", 92.0, False),
         ("logits", "last", 3.0, True), ("probabilities", "any", 93.0, False), ("probabilities", "last", 4.0, True),
         ("margin", "any", 94.0, False), ("margin", "last", 95.0, False), ("saturated", None, 96.0, False)]
    ])  # fmt: skip
    board = judge.scoreboard()
    found = {row["protocol"]: row["measured"] for row in board[board["claim"] == CLAIM].to_dict("records")}
    assert found == {"sound": 2.0, "logits": 3.0, "probabilities": 4.0}


@pytest.mark.parametrize("less, more", [("cpu", "gpu"), ("gpu", "paper"), ("cpu", "paper")])
def test_the_fullest_profile_comes_first(less, more):
    write(less, [entry(CLAIM, value=10.0), entry("T6.IFGSM.7-P1", value=11.0)])
    write(more, [entry(CLAIM, value=20.0)])
    board = judge.scoreboard()
    both, one = row_of(board, CLAIM, "sound"), row_of(board, "T6.IFGSM.7-P1", "sound")
    assert (both.measured, both.profile) == (20.0, more) and (one.measured, one.profile) == (11.0, less)


def test_a_second_reading_counts_until_the_first_one_has_been_run():
    """Table 3's file has vgg16 before resnet20 before resnet50, whatever their names sort as."""
    claim = "T3.ResNet.FGSM-v1.7-P1"
    for value, name in ((10.0, "table03_resnet50"), (20.0, "table03_resnet20"), (25.0, "table03_vgg16")):
        write("cpu", [entry(claim, value=value)], name)
        row = row_of(judge.scoreboard(), claim, "sound")
        assert (row.measured, row.record) == (value, name)
    write("paper", [entry(claim, value=30.0)], "table03_resnet50")
    assert row_of(judge.scoreboard(), claim, "sound").measured == 30.0  # a profile's rank comes first


def test_a_gain_is_judged_within_one_run():
    """An undefended network of another profile is no baseline."""
    baseline = entry("T6.FGSM.undefended", value=1.0, column="undefended", width=0.5)
    write("cpu", [baseline, *LADDER])
    write("paper", [entry(CLAIM, value=30.0), *LADDER])
    assert row_of(judge.scoreboard(), CLAIM, "sound").verdict == "not reproduced"
    write("paper", [entry(CLAIM, value=30.0), baseline, *LADDER])
    assert row_of(judge.scoreboard(), CLAIM, "sound").verdict == "trend only"


def test_a_gain_is_over_the_undefended_network_of_its_own_page():
    """ResNet-20's page, which stands first, has an undefended network that keeps more, and no 11-P1."""
    undefended, gain = "T3.ResNet.FGSM-v1.undefended", "T3.ResNet.FGSM-v1.11-P1"
    write("cpu", [entry(undefended, value=20.0, column="undefended"), *LADDER], "table03_resnet20")
    write(
        "cpu", [entry(undefended, value=1.0, column="undefended"), entry(gain, value=10.0), *LADDER], "table03_resnet50"
    )
    board = judge.scoreboard()
    assert row_of(board, undefended, "sound").record == "table03_resnet20"
    assert row_of(board, gain, "sound").verdict == "trend only"
    write("cpu", [entry(undefended, value=1.0, column="undefended"), *LADDER], "table03_resnet20")
    write("cpu", [entry(gain, value=10.0), *LADDER], "table03_resnet50")  # no undefended ResNet-50: over nothing
    assert row_of(judge.scoreboard(), gain, "sound").verdict == "not reproduced"


def test_no_verdict_without_a_ladder_and_none_when_a_rung_is_broken():
    measured = [entry(CLAIM, protocol, PRINTED, "last") for protocol in ("probabilities", "logits")]
    broken = [rung.model_copy(update={"value": 5.0}) if rung.column == "logits" else rung for rung in LADDER]
    for rungs, verdicts, word in (
        (LADDER, {"probabilities": "reproduced", "logits": "reproduced"}, "inside"),
        ([], {"probabilities": "not run", "logits": "not run"}, "not climbed"),
        (broken, {"probabilities": "reproduced", "logits": "not run"}, "missed by 5"),
    ):
        write("cpu", [*measured, *rungs])
        board = judge.scoreboard()
        for protocol, verdict in verdicts.items():
            assert row_of(board, CLAIM, protocol).verdict == verdict
        assert word in row_of(board, CLAIM, "logits").reason


def test_verdicts_on_known_cases():
    write("cpu", [
        entry(CLAIM, "probabilities", PRINTED, "last"), entry(CLAIM, "sound", 0.0, width=0.0),
        entry("T6.FGSM.undefended", "sound", 0.0, column="undefended", width=0.0),
        entry("T6.IFGSM.7-P1", "sound", 30.0),
        entry("T6.IFGSM.undefended", "sound", 1.0, column="undefended", width=0.5), *LADDER,
    ])  # fmt: skip
    board = judge.scoreboard()
    assert row_of(board, CLAIM, "probabilities").verdict == "reproduced"
    assert row_of(board, CLAIM, "sound").verdict == "not reproduced"
    trend = row_of(board, "T6.IFGSM.7-P1", "sound")  # far below the printed number, yet clear of the undefended network
    assert trend.verdict == "trend only" and trend.printed == LEDGER["T6.IFGSM.7-P1"].printed and trend.reason


def test_a_claim_that_nobody_measured_appears_once():
    write("cpu", [entry(CLAIM), entry(CLAIM, "logits", 40, "last")])
    board = judge.scoreboard()
    counts = board["claim"].value_counts()
    assert set(counts.index) == set(LEDGER) and counts.pop(CLAIM) == 2 and set(counts) == {1}
    missing = board[board["claim"] != CLAIM]
    assert set(missing["verdict"]) == {"not run"} and missing["measured"].isna().all()


def test_an_edited_record_stops_the_scoreboard():
    path = write("cpu", [entry(CLAIM)])
    path.write_text(path.read_text(encoding="utf-8").replace('"value": 50.0', '"value": 87.85'), encoding="utf-8")
    with pytest.raises(run.RecordError, match="table06_fashion_mnist.json"):
        judge.scoreboard()


def test_verdict_counts_add_up():
    protocols = [("sound", "any", 2.0), ("logits", "last", 60.0), ("probabilities", "last", PRINTED)]
    write("cpu", [entry(CLAIM, protocol, value, decision) for protocol, decision, value in protocols] + LADDER)
    board = judge.scoreboard()
    counts = judge.verdict_counts(board)
    assert counts.to_numpy().sum() == len(board) and set(counts.index) <= set(judge.VERDICTS)
    for verdict in counts.index:
        for protocol in counts.columns:
            here = (board["verdict"] == verdict) & (board["protocol"] == protocol.replace("all", ""))
            assert counts.loc[verdict, protocol] == here.sum()
    measured = board[board["record"] != ""]
    assert judge.verdict_counts(measured).to_numpy().sum() == len(measured) == 3
