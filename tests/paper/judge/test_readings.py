"""The study of readings: each number beside the printed one, and nothing explained that was not asked."""

import pytest

from reprolib.paper import judge, run, show
from reprolib.paper.judge import readings
from reprolib.paper.plan import Cell, load_table

PAGE = load_table("pipelines")["fmnistconv"]
LEDGER = judge.ledger()
EPOCHS = {"undefended": 5} | dict.fromkeys(PAGE.shown[1:], 40)


def cell(row: str, column: str, value: float, protocol="probabilities", decision="last", **fields) -> Cell:
    interval = {"value": value, "low": value, "high": value, "n": 100}
    place = {"row": row, "column": column, "epoch": EPOCHS[column], "protocol": protocol, "decision": decision}
    return Cell(**place, **interval, **fields)


def test_every_reading_of_a_group_that_is_attacked_anew_has_all_of_its_numbers():
    asked = [("margin", "any"), ("logits", "last"), ("probabilities", "last"), ("probabilities", "any")]
    cells = []
    for row, declared in PAGE.rows.items():
        for column in declared.columns or PAGE.shown:
            places = asked if declared.losses is None else [("transfer", "last")]
            cells += [cell(row, column, 50.0, *place) for place in places]
    frame = readings.study(cells, {})
    found, groups = readings.load_readings()
    counts = frame.groupby(["reading", "group"]).size().to_dict()
    anew = [name for name, group in groups.items() if group.attacked == "anew"]
    expected = {"Table 6": 20, "Table 9": 2, "Table 11, epoch 40": 1}
    assert counts == {(name, group): expected[group] for name, one in found.items() for group in one.groups
                      if group in anew}  # fmt: skip


def test_every_claim_group_has_claims():
    _, groups = readings.load_readings()
    assert all(any(group.has(claim) for claim in LEDGER) for group in groups.values())
    assert groups["Table 6"].has("T6.FGSM.7-P1") and not groups["Table 6"].has("T9.F-MNIST.F-MNISTconv.proposed")


def test_distance_and_tolerance():
    printed = LEDGER["T6.FGSM.7-P1"].number
    points = LEDGER["T6.FGSM.7-P1"].points
    cells = [
        cell("FGSM", "7-P1", printed - points),
        cell("FGSM, predicted labels", "7-P1", printed - points - 0.5, "predicted labels"),
    ]
    frame = readings.study(cells, {})
    assert frame["reading"].tolist() == ["probabilities", "predicted labels"]
    assert frame["distance"].tolist() == pytest.approx([points, points + 0.5])
    assert frame["within"].tolist() == [True, False]
    assert readings.nearest(frame, "T6.FGSM.7-P1") == "probabilities"
    assert readings.nearest(frame[1:], "T6.FGSM.7-P1") == "none of 1"
    assert readings.nearest(frame, "T6.FGSM.11-P1") == ""


def test_what_was_attacked_before_comes_from_the_first_record_that_has_it():
    fields = {"claim": "T11.FMNIST.50", "quantity": "accuracy"}
    first = run.Stored({}, [cell("PGD-v2", "7-P1", 30.0, **fields)])
    second = run.Stored(
        {}, [cell("PGD-v2", "7-P1", 40.0, **fields), cell("PGD-v2", "7-P1", 1.0, "margin", "any", **fields)]
    )
    frame = readings.study([], {("gpu", "a"): first, ("cpu", "b"): second})
    numbers = frame.set_index("reading")["measured"].to_dict()
    assert numbers == {"probabilities": 30.0, "margin": 1.0} and set(frame["group"]) == {"Table 11"}
    ignored = run.Stored({}, [cell("FGSM", "7-P1", 1.0, claim="T6.FGSM.7-P1")])
    assert not len(readings.study([], {("cpu", "a"): ignored})), "that group is attacked anew"


def test_a_contradiction_is_removed_by_one_reading_that_reaches_all_of_its_numbers():
    claims = ["T6.FGSM.7-P1", "T6.PGD-v2.7-P1", "T6.Clean.7-P1"]
    right = {name: LEDGER[name].number for name in claims}
    both = [cell("FGSM", "7-P1", right[claims[0]]), cell("PGD-v2", "7-P1", right[claims[1]])]
    assert show.readings.removal(readings.study(both, {}), claims).startswith("removed by probabilities: all 2")
    apart = [both[0], cell("PGD-v2, predicted labels", "7-P1", right[claims[1]]), cell("PGD-v2", "7-P1", 0.0)]
    said = show.readings.removal(readings.study(apart, {}), claims)
    assert (
        said
        == "not removed: of 2 numbers that were asked 2 come within tolerance by some reading, 1 by probabilities alone"
    )
    assert show.readings.removal(readings.study(both[:1], {}), claims) == "", "one number contradicts nothing"


def test_tables_of_a_study():
    claims = {"FGSM": "T6.FGSM.7-P1", "IFGSM": "T6.IFGSM.7-P1"}
    cells = [cell(row, "7-P1", LEDGER[claim].number) for row, claim in claims.items()]
    cells += [cell("FGSM, predicted labels", "7-P1", 1.0), cell("PGD-v2, predicted labels", "7-P1", 1.0)]
    frame = readings.study(cells, {})
    assert show.best_readings(frame)["most within tolerance"].tolist()[0] == "2: probabilities"
    assert set(show.unexplained_table(frame)["claim"]) == {"T6.PGD-v2.7-P1", "X18", "T11.FMNIST.40"} & set(
        frame["claim"]
    )
    axis = show.plot_readings(frame).axes[0]
    assert {text.get_text() for text in axis.texts} >= {"0.0 (2)"}


def test_the_scoreboard_names_the_readings_that_reach_what_is_not_reproduced():
    claim = "T6.FGSM.7-P1"
    judged = [cell("FGSM", "7-P1", 0.0, "sound", "any", claim=claim, judged=True)]
    ladder = [Cell(quantity="missed", row=rung, column=loss, protocol="ladder", decision="any", value=0.0, n=100)
              for rung in run.RUNGS for loss in ("margin", "logits", "probabilities")]  # fmt: skip
    study = [cell("FGSM, ART", "7-P1", LEDGER[claim].number)]
    found = {
        ("cpu", "table06_fashion_mnist"): run.Stored({}, judged + ladder),
        ("cpu", "pipelines"): run.Stored({}, study),
    }
    board = judge.scoreboard(found).set_index("claim")
    assert board.loc[claim, ["verdict", "reading"]].tolist() == ["not reproduced", "ART"]
    assert board.loc["T6.FGSM.11-P1", "reading"] == "", "nothing was measured"
