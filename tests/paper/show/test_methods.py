"""Pages that compare methods: what stands in a row, and which points no other beats."""

import copy
from types import SimpleNamespace

import pytest
from paper.made import COLUMNS, EPOCHS, SEED

from reprolib import diagnostics
from reprolib.paper import run, show
from reprolib.paper.plan import Cell
from reprolib.paper.show import methods, notebook


def test_a_row_per_method_with_the_papers_number_and_ours(table_6, cells):
    found = show.methods_table(cells, table_6.plan, "PGD-v2").set_index("method")
    assert set(COLUMNS) <= set(found.index)
    assert found.loc["7-P1", "paper"] == "52.69" and found.loc["no patches", "paper"] == ""
    sound = [c for c in cells if (c.row, c.column, c.protocol, c.seeds) == ("PGD-v2", "7-P1", "sound", [SEED])]
    assert found.loc["7-P1", "sound"].startswith(f"{sound[0].value:.2f} [")
    assert found.loc["undefended", "transfer"] == "" != found.loc["7-P1", "transfer"]


@pytest.mark.parametrize("folder", ["quick", "custom/mine"])
def test_the_doctor_is_not_asked_of_what_hardly_learnt(table_6, monkeypatch, folder):
    plan = copy.copy(table_6.plan)
    plan.folder, plan.amounts = folder, plan.amounts.model_copy(update={"data": "sample"})
    monkeypatch.setattr(notebook, "verdicts_table", lambda *_: pytest.fail("asked"))
    shown = []
    monkeypatch.setattr(notebook, "display", shown.append)
    show.ask_doctor(SimpleNamespace(plan=plan), "FGSM")
    assert "Not asked" in shown[0]
    plan.amounts = plan.amounts.model_copy(update={"data": "full"})
    monkeypatch.setattr(notebook, "verdicts_table", lambda *_: "the table")
    show.ask_doctor(SimpleNamespace(plan=plan), "FGSM")
    assert shown[1] == "the table"


def test_costs_say_where_a_method_starts(table_6, cells):
    found = show.costs_table([*cells, *run.measure_training(table_6)], table_6.plan).set_index("method")
    assert (
        found.loc["undefended", "starts from"] == "fresh weights" and found.loc["7-P1", "starts from"] == "undefended"
    )
    assert found.loc["7-P1", "seconds"] == str(7 * EPOCHS["7-P1"])


def test_what_others_found_names_its_network_and_is_no_measurement_of_ours():
    for name, row in methods.independent().items():
        assert set(row) == {"network", "clean", "autoattack"} and 0 <= row["autoattack"] < row["clean"] <= 100, name


@pytest.mark.parametrize(
    "points, front",
    [
        ([(1, 5), (2, 4), (3, 6)], [(1, 5), (3, 6)]),
        ([(2, 4), (1, 4)], [(1, 4)]),
        ([(1, 1), (1, 2)], [(1, 2)]),
        ([], []),
    ],
)
def test_pareto_front(points, front):
    assert methods.pareto(points) == front


def cell(column: str, row: str, protocol: str, value: float, epoch: int, part: str | None = None) -> Cell:
    quantity = "count" if part else "accuracy"
    decision = "any" if protocol == "sound" else None
    return Cell(
        quantity=quantity, row=row, column=column, protocol=protocol, decision=decision, value=value, epoch=epoch,
        part=part, seeds=[0],
    )  # fmt: skip


def test_points_of_the_budget_join_cost_and_worth_of_the_same_epoch():
    cells = [
        cell("A", "Cascade", "sound", 20.0, 4), cell("A", "Cascade", "sound", 10.0, 2),
        cell("A", "Clean", "clean", 80.0, 4), cell("A", "Clean", "clean", 85.0, 2),
        cell("A", "Passes per image", "cost", 8.0, 4, "alone"), cell("A", "Passes per image", "cost", 4.0, 2, "alone"),
        cell("A", "Passes per image", "cost", 18.0, 4, "with its parents"),
    ]  # fmt: skip
    assert methods.budget_points(cells, "A", "Cascade", "alone") == [(4.0, 10.0, 85.0), (8.0, 20.0, 80.0)]


def test_the_doctor_sees_every_method(table_6):
    found = methods.verdicts_table(table_6, "FGSM")
    assert list(found["method"]) == list(COLUMNS) and set(found["the claim is"]) <= set(diagnostics.VERDICTS)
    assert all(found["because"])


@pytest.mark.parametrize("dataset, is_shown", [("cifar-10", True), ("fashion-mnist", False)])
def test_what_others_found_stands_beside_their_data_set_alone(table_6, cells, monkeypatch, dataset, is_shown):
    plan = copy.copy(table_6.plan)
    plan.page = plan.page.model_copy(update={"dataset": dataset})
    monkeypatch.setattr(methods, "independent", lambda: {"7-P1": {"network": "N", "clean": 80.0, "autoattack": 40.0}})
    found = show.costs_table([*cells, *run.measure_training(table_6)], plan)
    assert (methods.FOUND in found) == is_shown
    if is_shown:
        assert found.set_index("method").loc["7-P1", methods.FOUND] == "40.00 (N, clean 80.00)"
