"""Tables show every number that was measured beside the one that is printed, and nothing else."""

import pandas as pd
import pytest
from paper.made import ATTACKS, TEST, amounts, only, page_of

from reprolib import networks
from reprolib.paper import judge, plan, run, show
from reprolib.paper.plan import LOSSES, Cell

LEDGER = judge.ledger()


def line(table: pd.DataFrame, attack: str, protocol: str, decision: str | None = None) -> dict:
    found = table[(table["attack"] == attack) & (table["protocol"] == protocol)]
    if decision is not None:
        found = found[found["decision"] == decision]
    assert len(found) == 1, (attack, protocol, decision)
    return found.to_dict("records")[0]


# --- the paper's table and ours -------------------------------------------------------------------------------------


def test_table_shows_the_printed_number_beside_ours(cells, table_6):
    table = show.table(cells, table_6.plan)
    for attack in ("Clean", *ATTACKS):
        printed = line(table, attack, "paper")
        assert printed["no patches"] == ""
        for column in ("undefended", "7-P1"):
            assert float(printed[column]) == LEDGER[f"T6.{attack}.{column}"].printed
    sound = line(table, "FGSM", "sound", "any")
    found = only(cells, row="FGSM", column="7-P1", epoch=20, protocol="sound")
    assert sound["7-P1"] == f"20.00 [{found.low:.2f}, {found.high:.2f}]" and sound["images"] == str(TEST)
    assert line(table, "IFGSM", "margin", "last")["images"] == str(TEST)
    assert line(table, "Clean", "clean")["7-P1"].startswith("80.00")


def test_table_has_every_row_that_was_measured(cells, table_6):
    """And a gain, which stands in the same place as an accuracy, is not taken for one."""
    table = show.table(cells, table_6.plan)
    shown = set(zip(table["attack"], table["protocol"], table["decision"], strict=True))
    measured = {(c.row, c.protocol, c.decision or "") for c in cells if c.quantity == "accuracy"}
    assert measured == {row for row in shown if row[1] != "paper"}
    assert line(table, "All attacks", "sound")["7-P1"].startswith("10.00")
    assert line(table, "PGD-v2, first start only", "probabilities", "last")["7-P1"].startswith("80.00")
    assert line(table, "IFGSM", "sound", "any")["7-P1"].startswith("70.00")


def test_a_table_shows_the_end_of_the_training(epoch_cells, table_11):
    table = show.table(epoch_cells, table_11.plan)
    assert line(table, "Clean", "clean")["7-P1"].startswith("60.00")  # of epoch 30, not of 20


@pytest.mark.parametrize(
    "table, network, attack, number",
    [
        ("table03", "vgg16", "Clean", "86.71"),  # Table 3 calls clean images natural ones
        ("table06_fashion_mnist", "fmnistconv", "Clean", "90.47"),
        ("restarts_cifarconv", "cifarconv", "Clean", None),  # what the text alone claims stands in no row
        ("restarts_cifarconv", "cifarconv", "PGD-v2, 20 restarts", None),
    ],
)
def test_the_paper_has_a_row_only_where_it_prints_something(table, network, attack, number):
    planned = plan.load_plan(table, network, "quick")
    epoch = planned.amounts.finetune
    cell = Cell(row=attack, column="7-P1", epoch=epoch, protocol="sound", decision="any", value=1.0, n=9, seeds=[0])
    shown = show.table([cell], planned)
    rows = shown[(shown["attack"] == attack) & (shown["protocol"] == "paper")]["7-P1"].tolist()
    assert rows == ([] if number is None else [number])


def test_summary_keeps_the_printed_row_and_two_of_ours(cells, table_6):
    short = show.summary(cells, table_6.plan)
    kept = sorted(zip(short["attack"], short["protocol"], strict=True))
    ours = [(attack, protocol) for attack in ATTACKS for protocol in ("paper", "probabilities", "sound")]
    assert kept == sorted([("Clean", "paper"), ("Clean", "clean"), *ours])
    assert line(short, "FGSM", "sound")["7-P1"] == "20.00" and line(short, "FGSM", "paper")["7-P1"] == "87.85"
    assert line(short, "FGSM", "probabilities")["7-P1"] == "75.00"  # the five even ones below 10 break


# --- other forms ----------------------------------------------------------------------------------------------------


def test_epochs_table(epoch_cells, table_11):
    table = show.epochs_table(epoch_cells, table_11.plan)
    assert table["epochs"].tolist() == ["10", "20", "30"] and "seeds" not in table
    printed = [LEDGER[f"T11.FMNIST.{epoch}"].printed for epoch in (10, 20, 30)]
    assert [float(text) for text in table["paper: PGD-v2"]] == printed
    values = [text.split(" ")[0] for text in table["PGD-v2 sound"]]
    assert values == ["50.00", "60.00", "50.00"]  # 60 - 10 early and late, 80 - 20 at epoch 20
    assert all(text.startswith("25.00") for text in table["saturated"])


def test_table_9_for_people(given_cells, table_9):
    rows = {row["network"]: row for row in show.given_table(given_cells, table_9.plan).to_dict("records")}
    proposed, control = rows["7-P1"], rows["no patches"]
    assert proposed["paper: AutoAttack"] == "86.70" and control["paper: AutoAttack"] == ""
    assert proposed["AutoAttack, given logits (sound)"].startswith("32.00 [")
    assert proposed["AutoAttack, given probabilities"].startswith("59.00 [")
    assert proposed["Square, given logits (sound)"].startswith("50.00 [")
    assert proposed["clean"].startswith("80.00 [") and proposed["images"] == "100"
    parts = show.parts_table(given_cells, table_9.plan)
    assert len(parts) == 6 and parts.iloc[0]["broken by APGD-CE"] == "40.00"
    assert parts[["network", "given"]].drop_duplicates().shape == (6, 2)


def test_claims_about_restarts(restarts):
    """X13 is the cell after 20 restarts; X14 and X15 subtract the pre-trained network's, of which 60 images fall."""
    page, cells = restarts
    table = show.claims_table(cells, page.plan)
    assert table["printed"].tolist() == ["44.88", "36", "35"]
    assert table["cell"][1] == "PGD-v2, 20 restarts, 7-P1 minus undefended"
    assert [text.split(" ")[0] for text in table["probabilities"]] == ["80.00", "40.00", "40.00"]
    assert [text.split(" ")[0] for text in table["sound"]] == ["80.00", "40.00", "40.00"]
    assert table["transfer"][0].startswith("80.00 [") and table["transfer"][1] == ""  # not to the network it is made on


def test_the_ladder_for_people(cells):
    table = show.ladder_table(cells)
    assert table["rung"].tolist() == list(run.RUNGS) and table.shape == (len(run.RUNGS), 5)
    assert all(set(table[loss]) == {"0"} for loss in LOSSES)


def test_contingency_for_people():
    parts = {"saturated, survives": 60.0, "saturated, falls": 5.0, "not saturated, survives": 10.0}
    parts["not saturated, falls"] = 25.0
    cells = [
        Cell(quantity="share", row="IFGSM", column="7-P1", part=part, protocol="probabilities", value=value, n=80)
        for part, value in parts.items()
    ]
    (row,) = show.contingency_table(cells).to_dict("records")
    assert row["network"] == "7-P1" and row["images"] == "80" and row["one predicts the other"] == "85.00"
    assert row["saturated, falls"] == "5.00"


def test_where_nothing_differs_nothing_predicts_anything():
    parts = dict.fromkeys(("saturated, survives", "saturated, falls", "not saturated, survives"), 0.0)
    cells = [
        Cell(quantity="share", row="IFGSM", column="7-P1", part=part, protocol="probabilities", value=value, n=46)
        for part, value in (parts | {"not saturated, falls": 100.0}).items()
    ]
    (row,) = show.contingency_table(cells).to_dict("records")
    assert row["not saturated, falls"] == "100.00" and row["one predicts the other"] == "nothing to compare"


# --- what is known before any training ------------------------------------------------------------------------------


def test_table_of_the_attacks_covers_table_2():
    table = show.attack_table()
    assert len(table) == sum(len(plan.attacks_of(d)) for d in ("cifar-10", "fashion-mnist", "imagenet-subset"))
    rows = {(row["data set"], row["attack"]): row for row in table.to_dict("records")}
    numbers = [rows["fashion-mnist", "PGD-v2"][k] for k in ("eps", "alpha", "iterations", "restarts", "calls")]
    assert numbers == ["0.3", "0.01", "100", "10", "1010"]
    fgsm = rows["cifar-10", "FGSM-v2"]
    assert [fgsm[k] for k in ("eps", "alpha", "iterations", "restarts")] == ["0.03", "0.03", "1", "0"]


def test_layers_add_up():
    table = show.layer_table(["fmnistconv", "cifarconv"])
    counted = table.assign(parameters=table["parameters"].str.replace(",", "").astype(int))
    for name, count in counted.groupby("network")["parameters"].sum().items():
        assert count == networks.parameter_count(networks.build(name))
    first = table.iloc[0]
    assert (first["kernel"], first["stride"], first["outputs"]) == ("8x8", "2", "64")


def test_operations_for_people(tiny):
    table = show.operations_table(run.measure_operations(tiny.train.images[:50], size=7, seed=0))
    assert len(table) == 9 and set(table["images"]) == {"50"} and "salt and pepper" in set(table["operation"])


def test_contradictions_for_people():
    assert len(show.contradictions_table()) == len(judge.load_contradictions())


def test_the_scoreboard_for_people(cells):
    board = judge.scoreboard({("cpu", "table06_fashion_mnist"): run.Stored({}, cells)})
    table = show.board_table(board)
    assert len(table) == (board["record"] != "").sum() > 0
    assert set(table["page"]) == {"[table06_fashion_mnist](../results/cpu/table06_fashion_mnist.ipynb)"}
    measured = {c.claim for c in cells if c.claim}
    assert show.missing_table(board)["not yet run"].sum() == len(LEDGER) - len(measured)


def test_nothing_measured_is_a_table_too():
    board = judge.scoreboard({})
    for empty in (show.verdict_counts(board[board["record"] != ""]).reset_index(), show.board_table(board)):
        assert len(empty) == 0 and show.markdown(empty).strip()
    assert show.missing_table(board)["not yet run"].sum() == len(LEDGER)


def test_seeds_of_a_column_stand_side_by_side():
    planned = plan.Plan(page_of("saturation", shown=["7-P1"]), amounts(), "cpu")
    cells = [
        Cell(row="Clean", column="7-P1", epoch=20, protocol="clean", value=float(seed), n=9, seeds=[seed])
        for seed in (3, 4, 5)
    ]
    row = line(show.table(cells, planned), "Clean", "clean")
    assert [row[name].split(" ")[0] for name in ("7-P1", "7-P1, seed 1", "7-P1, seed 2")] == ["3.00", "4.00", "5.00"]


def test_an_attack_that_is_not_for_a_column_leaves_its_place_empty(table_9, given_cells):
    """A row may name its columns."""
    cells = [cell for cell in given_cells if (cell.row, cell.column) != ("AutoAttack", "7-P1")]
    found = show.given_table(cells, table_9.plan).set_index("network")
    columns = [column for column in found.columns if column.startswith("AutoAttack, given")]
    assert (
        len(columns) == 2
        and set(found.loc["7-P1", columns]) == {""}
        and "" not in set(found.loc["undefended", columns])
    )
