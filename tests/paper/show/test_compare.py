"""Two records side by side: same places, differences in points, settings that differ; names that lead nowhere."""

import pytest

from reprolib.paper import run, show
from reprolib.paper.files import RecordError
from reprolib.paper.plan import Cell

PLAIN = {"row": "PGD", "column": "7-P1", "protocol": "logits", "decision": "last", "n": 100, "low": 0.0, "high": 100.0}


def write(folder: str, record: str, amounts: dict, *cells: Cell) -> run.Stored:
    return run.read_record(run.write_record(record, {"profile": folder, "amounts": amounts}, list(cells)))


@pytest.fixture(autouse=True)
def two(results):
    clean = Cell(value=80.0, **PLAIN | {"row": "Clean"})
    write("custom/a", "tiny", {"steps": 5, "seed": 0}, Cell(value=40.0, **PLAIN), clean)
    write("custom/b", "tiny", {"steps": 9, "seed": 0, "eps": 0.1}, Cell(value=32.5, **PLAIN),
          Cell(claim="T1", value=32.5, **PLAIN), Cell(value=7.0, **PLAIN | {"protocol": "margin"}))  # fmt: skip
    write("cpu", "tiny", {"steps": 5, "seed": 0}, Cell(value=41.0, **PLAIN))


def test_each_number_stands_beside_that_of_the_same_place():
    table = show.compare("a", "b").set_index(["attack", "protocol"])
    assert table.loc[("PGD", "logits"), ["a", "b", "difference"]].tolist() == [
        "40.00 [0.00, 100.00]", "32.50 [0.00, 100.00]", "-7.50"]  # fmt: skip
    assert table.loc[("Clean", "logits"), ["b", "difference"]].tolist() == ["", ""]
    assert table.loc[("PGD", "margin"), ["a", "difference"]].tolist() == ["", ""]
    assert table.loc[("setting: steps", ""), ["a", "b"]].tolist() == ["5", "9"]
    assert table.loc[("setting: eps", ""), ["a", "b"]].tolist() == ["", "0.1"]
    assert len(table) == 5, "no setting that is the same, no number twice"


def test_a_profile_a_record_and_a_file_can_be_compared_too(results):
    for first in ("cpu", run.read_record(results / "cpu" / "tiny.json"), results / "cpu" / "tiny.json"):
        for second in ("a", results / "custom" / "a" / "tiny.json"):
            table = show.compare(first, second)
            assert table["difference"].tolist() == ["-1.00", ""] and table.columns[4:6].tolist() == ["cpu", "a"]
    assert show.compare("a", "a").columns[4:6].tolist() == ["a (first)", "a (second)"]


def test_runs_of_other_lengths_and_seeds_are_compared_at_their_ends():
    """Along the epochs, each one with its like, and the last with the last."""
    for folder, last, seed in (("custom/e", 60, 0), ("custom/f", 2, 3)):
        ends = [Cell(value=float(last), epoch=last, seeds=[seed + more], **PLAIN) for more in (0, 1)]
        along = [Cell(value=float(epoch), epoch=epoch, **PLAIN | {"column": "along"}) for epoch in {1, last // 2, last}]
        write(folder, "long", {"seed": seed, "finetune": last}, *ends, *along)
    table = show.compare("e", "f").set_index("network")
    assert table.loc[["7-P1", "7-P1, seed 1"], "difference"].tolist() == ["-58.00", "-58.00"]
    assert table.loc["along, 1 epochs", "difference"] == "+0.00" and table.loc["along, 30 epochs", "f"] == ""
    assert table.loc["along, 60 and 2 epochs", "difference"] == "-58.00"
    settings = table[table["attack"] == "setting: finetune"]
    assert settings.index.tolist() == ["(each run at its last epoch)"] and settings["e"].tolist() == ["60"]


def test_of_several_pages_one_must_be_named():
    write("custom/a", "other", {}, Cell(value=1.0, **PLAIN))
    assert len(show.compare("a", "b")) == 5, "they have one in common"
    write("custom/b", "other", {}, Cell(value=3.0, **PLAIN))
    with pytest.raises(RecordError, match="both have other, tiny; say which, as `page`"):
        show.compare("a", "b")
    assert show.compare("a", "b", "other")["difference"].tolist() == ["+2.00"]
    with pytest.raises(RecordError, match="cpu has no record 'other'; it has tiny"):
        show.compare("a", "cpu", "other")


@pytest.mark.parametrize("first, second, words", [
    ("c", "a", "there are no results of 'c' in .*; known: a, b, quick, cpu"),
    ("a", "quik", "did you mean 'quick'"),
])  # fmt: skip
def test_a_run_that_there_is_not(first, second, words):
    with pytest.raises(RecordError, match=words):
        show.compare(first, second)


def test_records_of_different_pages_are_not_compared(results):
    write("custom/d", "another", {}, Cell(value=1.0, **PLAIN | {"row": "FGSM"}))
    with pytest.raises(RecordError, match="cannot compare a with d: they have no page in common"):
        show.compare("a", "d")
    with pytest.raises(RecordError, match="no number in common"):
        show.compare(results / "custom" / "a" / "tiny.json", results / "custom" / "d" / "another.json")
