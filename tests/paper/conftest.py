"""What the apparatus' tests share: results of one's own, and pages whose outcomes were made by hand."""

from pathlib import Path

import matplotlib
import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from paper import made

from reprolib.paper import files, notebooks, plan, run

matplotlib.use("Agg")


@pytest.fixture
def results(monkeypatch, tmp_path) -> Path:
    """A results folder of one's own."""
    monkeypatch.setattr(files, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def notebook(results, monkeypatch, tmp_path):
    """notebook(name, *sources) writes a notebook into a folder of one's own: a text, a parameters cell, code cells."""
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(notebooks, "TABLES", tmp_path / "tables")
    (tmp_path / "notebooks" / "tables").mkdir(parents=True)
    (tmp_path / "tables").mkdir()

    def write(name: str, *sources: str, parameters: str = 'profile: str = "quick"  # which results') -> Path:
        cells = [
            new_markdown_cell("# A table\n\n[another](other_table.ipynb)"),
            new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            *map(new_code_cell, sources),
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = tmp_path / "notebooks" / "tables" / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
        return path

    return write


@pytest.fixture(scope="session")
def table_6(tiny, tmp_path_factory) -> run.Page:
    return made.fill(made.table_6(), tiny, tmp_path_factory.mktemp("table6"), made.outcome_of)


@pytest.fixture(scope="session")
def table_9(tiny, tmp_path_factory) -> run.Page:
    return made.fill(made.table_9(), tiny, tmp_path_factory.mktemp("table9"), made.outcome_of)


@pytest.fixture(scope="session")
def table_11(tiny, tmp_path_factory) -> run.Page:
    return made.fill(made.table_11(), tiny, tmp_path_factory.mktemp("table11"), made.outcome_of)


@pytest.fixture(scope="session")
def cells(table_6) -> list[plan.Cell]:
    return run.measure(table_6)


@pytest.fixture(scope="session")
def given_cells(table_9) -> list[plan.Cell]:
    return run.measure(table_9)


@pytest.fixture(scope="session")
def epoch_cells(table_11) -> list[plan.Cell]:
    return run.measure(table_11)


@pytest.fixture(scope="session")
def restarts(tiny, tmp_path_factory) -> tuple[run.Page, list[plan.Cell]]:
    """The page of the claims about restarts and its cells: of the first 20 or 60 images 1 or 3 fall in a restart."""

    def outcome(job: plan.Job) -> made.Tensors:
        runs = (torch.arange(made.TEST) % 20).to(torch.int16)
        runs[20 if job.column == "7-P1" else 60 :] = -1
        return {"correct": made.mask(100), "any_run": runs, "last_run": runs.clone()}

    planned = plan.Plan(
        plan.load_table("restarts_cifarconv")["cifarconv"], made.amounts(restarts=20, finetune=2), "cpu"
    )
    page = made.fill(planned, tiny, tmp_path_factory.mktemp("restarts"), outcome)
    return page, run.measure(page)
