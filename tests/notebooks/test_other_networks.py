"""A notebook that makes several pages is executed for another network than the one that nbval checks."""

import nbformat
import pytest

from reprolib.paper import files, notebooks, plan, run

OTHERS = {"table03": "resnet20", "table09": "vgg16", "table11": "vgg16", "table08": "resnet20", "budget": "vgg16"}
OTHERS |= {"table07": "vgg16-imagenet", "figure04": "vgg16-imagenet", "xception_mobilenet": "mobilenet-v2"}


@pytest.fixture(scope="module")
def one_store(tmp_path_factory):
    """Pages share their networks."""
    return tmp_path_factory.mktemp("store")


def test_every_such_notebook_is_among_them():
    several = {table for table in plan.table_names() if len(plan.load_table(table)) > 1}
    assert several == set(OTHERS)
    for table, network in OTHERS.items():
        (notebook,) = {sheet.notebook for sheet in notebooks.sheets() if sheet.notebook.stem == table}
        assert notebooks.default_network(notebook) != network


@pytest.mark.slow
@pytest.mark.parametrize("table", OTHERS)
def test_another_networks_page_is_made_by_papermill(table, one_store, monkeypatch):
    monkeypatch.setenv("REPROLIB_STORE", str(one_store))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    page = plan.load_table(table)[OTHERS[table]]
    said = notebooks.run_notebook(page.record, "quick")
    assert said.startswith(f"{page.record}: ") and said.endswith(f"results/quick/{page.record}.html")
    record = run.read_record(files.RESULTS / "quick" / f"{page.record}.json")
    planned = plan.load_plan(table, page.network, "quick")
    assert {c.column for c in record.cells if c.quantity == "accuracy"} == {column for column, _ in planned.networks}
    assert record.provenance["amounts"] == plan.used(page, planned.amounts)
    executed = nbformat.read(files.RESULTS / "quick" / f"{page.record}.ipynb", as_version=4)
    shown = [output.data.get("text/markdown", "") for cell in executed.cells for output in cell.get("outputs", [])
             if "data" in output]  # fmt: skip
    assert any(text.startswith(f"## {page.title}") for text in shown)
    links = [cell.source for cell in executed.cells if cell.cell_type == "markdown"] + shown
    assert not any(f"]({table}.ipynb" in text for text in links), "links lead to pages, not back to the notebook"
