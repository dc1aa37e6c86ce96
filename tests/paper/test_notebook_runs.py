"""A notebook succeeds when it ran to its end and wrote its record; pages and their links; sentences, no tracebacks."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from reprolib.paper import files, kernels, notebooks, plan, run
from reprolib.paper.notebooks import NotebookError, UnknownName

KERNEL = {"name": "python3", "display_name": "Python 3"}
PARAMETERS = 'profile: str = "quick"  # which results'
SEVERAL = f'{PARAMETERS}\nnetwork: str = "ann"  # whose page'


@pytest.fixture(autouse=True)
def own_notebooks(notebook):
    """Notebooks and tables of one's own."""


@pytest.fixture
def several(notebook, tmp_path) -> Path:
    """A notebook whose table has three pages, of which the second is the one that it makes by default."""
    (tmp_path / "tables" / "table3.yaml").write_text("pages:\n  zoe:\n  ann: {title: hers}\n  tom: {record: toms}\n")
    return notebook("table3", parameters=SEVERAL)


def writes_record(results: Path, name: str) -> str:
    """A last cell that writes a record; that it is a valid one is the business of other tests."""
    return f"from pathlib import Path\n_ = Path({str(results / 'quick' / name)!r} + '.json').write_text('{{}}')"


def sentence(kind, action, *args) -> str:
    with pytest.raises(kind) as caught:
        action(*args)
    message = str(caught.value)
    assert message and "\n" not in message and "Traceback" not in message
    return message


# --- which notebook makes which page --------------------------------------------------------------------------------


def test_a_notebook_makes_a_page_for_each_network_of_its_table(several, notebook):
    notebook("00_scoreboard")
    lists = notebook("table1")
    assert [(sheet.record, sheet.notebook, sheet.network) for sheet in notebooks.sheets()[:4]] == [
        ("table1", lists, None),
        ("table3_zoe", several, "zoe"),
        ("table3_ann", several, "ann"),
        ("toms", several, "tom"),
    ]
    assert notebooks.sheets()[-1].record == "00_scoreboard", "which reads what the others wrote"


def test_pages_are_found_by_record_by_notebook_and_by_path(several):
    for name in ("toms", "results/quick/toms.ipynb"):
        assert notebooks.find_sheet(name).network == "tom"
    for name in ("table3", "table3.ipynb", several, "notebooks/tables/table3.ipynb", "table3_ann"):
        assert notebooks.find_sheet(name).network == "ann"
    assert "did you mean 'table3_ann'" in sentence(UnknownName, notebooks.find_sheet, "table3_an")


def test_a_checkpoint_of_jupyterlab_is_no_notebook(several):
    copy = several.parent / ".ipynb_checkpoints" / "table3-checkpoint.ipynb"
    copy.parent.mkdir()
    shutil.copy(several, copy)
    sentence(UnknownName, notebooks.find_sheet, "table3-checkpoint")


@pytest.mark.parametrize(
    "only, records",
    [
        ("", ["table1", "table3_zoe", "table3_ann", "toms", "00_scoreboard"]),
        ("table3", ["table3_zoe", "table3_ann", "toms"]),
        ("toms 00", ["toms", "00_scoreboard"]),
        ("table3_a  table1", ["table1", "table3_ann"]),
    ],
)
def test_pages_are_selected_by_the_beginnings_of_their_names(only, records, several, notebook):
    notebook("00_scoreboard")
    notebook("table1")
    assert [sheet.record for sheet in notebooks.wanted(only)] == records


def test_a_word_that_begins_no_name_is_refused(several):
    assert "did you mean 'table3'" in sentence(UnknownName, notebooks.wanted, "toms tabel3")


def test_the_names_are_those_of_the_plan(monkeypatch):
    """They are read here without the plan, which imports torch."""
    monkeypatch.undo()
    found = {
        (table, network, record)
        for table in plan.table_names()
        for network, record in notebooks.record_names(table).items()
    }
    assert found == {(page.table, page.network, page.record) for page in plan.all_pages()}


# --- parameters -----------------------------------------------------------------------------------------------------


def test_a_notebook_is_given_the_profile_and_the_network(several, notebook):
    assert notebooks.parameters_for(notebooks.find_sheet("toms"), "cpu") == {"profile": "cpu", "network": "tom"}
    notebook("table1", parameters=f"{PARAMETERS}\nseed: int = None  # as in the profile")
    assert notebooks.parameters_for(notebooks.find_sheet("table1"), "cpu") == {"profile": "cpu"}


@pytest.mark.parametrize("parameters, lacking", [("x, y = 1, 2", "profile"), (PARAMETERS, "network")])
def test_a_notebook_that_cannot_be_told_is_refused_before_it_runs(parameters, lacking, several, notebook, results):
    notebook("table3", writes_record(results, "toms"), parameters=parameters)
    message = sentence(UnknownName, notebooks.run_notebook, "toms", "quick")
    assert "table3.ipynb" in message and f"'{lacking}'" in message
    assert not results.exists()


@pytest.mark.parametrize("name, near", [("Seed", "seed"), ("epochs", None), ("restart", "restarts"), ("seeed", "seed")])
def test_a_parameter_that_there_is_not_is_refused_by_the_notebook(name, near):
    """Papermill puts it into the notebook whatever it is called, and warns at most."""
    message = sentence(plan.SpecError, run.open_page, "table03", {"profile": "quick", "network": "vgg16", name: 3})
    assert f"unknown parameter '{name}'" in message and (near is None or f"did you mean '{near}'" in message)


def test_a_notebook_of_another_checkout_is_refused(monkeypatch, tmp_path):
    copy = tmp_path / "copy"
    (copy / "reprolib" / "paper").mkdir(parents=True)
    (copy / "reprolib" / "paper" / "files.py").touch()
    (copy / "notebooks").mkdir()
    monkeypatch.chdir(copy / "notebooks")
    message = sentence(plan.SpecError, run.parameters, {"profile": "quick"})
    assert str(copy) in message and str(files.ROOT) in message


def test_the_projects_notebooks_can_be_told(monkeypatch):
    monkeypatch.undo()
    for sheet in notebooks.sheets():
        assert notebooks.parameters_for(sheet, "cpu")["profile"] == "cpu"
    made = {sheet.notebook.stem for sheet in notebooks.sheets()}
    assert set(plan.table_names()) <= made, "each declared table has a notebook that makes its pages"


# --- running --------------------------------------------------------------------------------------------------------


def test_a_notebook_that_succeeds(several, notebook, results):
    path = notebook(
        "table3",
        "import os, reprolib\nprint(profile, network, sorted(os.listdir()), reprolib.__file__)",
        "import sys\nprint(' 50%|#####     | 1/2', file=sys.stderr)",
        writes_record(results, "toms"),
        parameters=SEVERAL,
    )
    said = notebooks.run_notebook("toms", "quick")
    assert said.startswith("toms: ") and said.endswith("toms.html") and "\n" not in said
    assert sorted(file.name for file in (results / "quick").glob("[!.]*")) == ["toms.html", "toms.ipynb", "toms.json"]

    executed = nbformat.read(results / "quick" / "toms.ipynb", as_version=4)
    nbformat.validate(executed)
    printed = "".join(out.get("text", "") for c in executed.cells for out in c.get("outputs", []))
    here = str(files.ROOT / "reprolib" / "__init__.py")
    assert printed == f"quick tom ['table3.ipynb'] {here}\n", "nothing but notebooks in the folder; no bars; this code"
    text = (results / "quick" / "toms.ipynb").read_text()
    assert "papermill" not in executed.metadata and str(path) not in text
    page = (results / "quick" / "toms.html").read_text()
    assert "['table3.ipynb']" in page.replace("&#39;", "'") and 'href="other_table.html"' in page
    assert [file.name for file in path.parent.iterdir()] == ["table3.ipynb"], "sockets and such are not left behind"


OWN = f"{PARAMETERS}\nsteps: int = None  # how many\nloss: str = None  # which one\nrun_name: str = None  # whose"


def test_a_run_of_ones_own_keeps_record_notebook_and_page_under_its_name(notebook, results):
    folder = results / "custom" / "mine"
    last = f"from pathlib import Path\n_ = Path({str(results)!r}, 'custom', run_name, 'tiny.json').write_text('{{}}')"
    notebook("tiny", "print(profile, repr(steps), repr(loss))", last, parameters=OWN)
    said = notebooks.run_notebook("tiny", "cpu", "mine", ["steps=3", "loss=margin"])
    assert said.endswith("custom/mine/tiny.html")
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["tiny.html", "tiny.ipynb", "tiny.json"]
    assert "cpu 3 'margin'" in (folder / "tiny.ipynb").read_text() and not (results / "cpu").exists()
    message = sentence(UnknownName, notebooks.run_notebook, "tiny", "cpu", "mine", ["steps=4", "loss=margin"])
    assert "custom/mine has tiny with other settings (profile=cpu steps=3 loss=margin); choose another name" in message
    notebooks.run_notebook("tiny", "cpu", "mine", ["loss=margin", "steps=3"])  # the same again


@pytest.mark.parametrize("run_name, settings, words", [
    ("mine", ["stepz=3"], ["unknown parameter 'stepz'; did you mean 'steps'?"]), ("mine", ["steps"], ["steps=VALUE"]),
    ("", ["steps=3"], ["steps", "needs a name"]), ("a/b", ["steps=3"], ["run_name is 'a/b'; expected"]),
    ("mine", ["profile=cpu"], ["unknown parameter 'profile'"]),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused_before_the_notebook_runs(run_name, settings, words, notebook, results):
    notebook("tiny", "raise SystemExit", parameters=OWN)
    message = sentence(UnknownName, notebooks.run_notebook, "tiny", "quick", run_name, settings)
    assert all(word in message for word in words) and not results.exists()


def test_a_notebook_without_settings_makes_no_run_of_ones_own(notebook):
    notebook("tiny")
    assert "declares no run_name" in sentence(UnknownName, notebooks.run_notebook, "tiny", "quick", "mine")


def test_a_cell_that_fails(notebook, results):
    (results / "quick").mkdir(parents=True)
    earlier = {name: f"earlier {name}" for name in ("tiny.html", "tiny.ipynb", "tiny.json")}
    for name, text in earlier.items():
        (results / "quick" / name).write_text(text)
    notebook("tiny", "print('fine')", "width = {}['breadth']", writes_record(results, "tiny"))
    message = sentence(NotebookError, notebooks.run_notebook, "tiny", "quick")
    assert message.startswith("tiny failed in cell") and "KeyError: 'breadth'" in message
    failed = results / "quick" / "tiny.failed.ipynb"
    assert str(failed) in message
    executed = nbformat.read(failed, as_version=4)
    number = int(re.search(r"in cell (\d+)", message)[1])
    (cell,) = [c for c in executed.cells if c.get("execution_count") == number]
    assert cell.source == "width = {}['breadth']"
    assert {name: (results / "quick" / name).read_text() for name in earlier} == earlier


def test_a_kernel_that_dies(notebook, results):
    notebook("tiny", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", writes_record(results, "tiny"))
    message = sentence(NotebookError, notebooks.run_notebook, "tiny", "quick")
    assert message.startswith("tiny failed") and "Dead" in message
    assert not (results / "quick" / "tiny.ipynb").exists() and not (results / "quick" / "tiny.html").exists()


@pytest.mark.parametrize("earlier", [False, True])
def test_a_notebook_that_writes_no_record(earlier, notebook, results):
    record = results / "quick" / "tiny.json"
    if earlier:
        record.parent.mkdir(parents=True)
        record.write_text("an earlier run's")
        os.utime(record, (1e9, 1e9))
    notebook("tiny", "print('no record')")
    message = sentence(NotebookError, notebooks.run_notebook, "tiny", "quick")
    assert "tiny ended without writing its record" in message and "tiny.failed.ipynb" in message
    assert (results / "quick" / "tiny.failed.ipynb").exists()
    assert not (results / "quick" / "tiny.html").exists()
    assert record.exists() == earlier


def test_results_that_cannot_be_written(notebook, results):
    notebook("tiny")
    results.mkdir()
    (results / "quick").write_text("a file where the folder should be")
    assert "cannot write" in sentence(files.StoreError, notebooks.run_notebook, "tiny", "quick")


@pytest.mark.parametrize("length, usable", [(40, True), (82, True), (83, False), (200, False)])
def test_sockets_lie_where_their_paths_are_short_enough(length, usable, monkeypatch, tmp_path):
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="long-") as top:
        folder = Path(top) / ("x" * (length - len(top) - 1))
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        assert (kernels.short_folder() == str(folder)) == usable
        assert len(f"{kernels.short_folder()}/kernel-abcdefgh/kernel-5") <= 107
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        assert "set TMPDIR" in sentence(NotebookError, kernels.short_folder)


# --- what is stored -------------------------------------------------------------------------------------------------


def test_clean_takes_out_what_differs_between_runs():
    bar = new_output("stream", name="stderr", text="trainings:  50%|#####     | 3/6 [00:01<00:01]\n")
    widget = new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}})
    kept = [
        new_output("stream", name="stdout", text="accuracy 50%|\n"),
        new_output("stream", name="stderr", text="a warning: 50% of nothing\n"),
        new_output("display_data", {"text/plain": "a table"}),
    ]
    code = new_code_cell(
        "run()",
        outputs=[bar, kept[0], widget, *kept[1:]],
        metadata={
            "tags": ["parameters"],
            "execution": {"iopub.execute_input": "2026-01-01T00:00:00"},
            "papermill": {"duration": 0.1, "start_time": "2026-01-01"},
        },
    )
    cleaned = notebooks.clean(
        new_notebook(
            cells=[new_markdown_cell("text", metadata={"papermill": {"duration": 1}}), code],
            metadata={
                "kernelspec": KERNEL,
                "widgets": {"state": {}},
                "papermill": {"input_path": "/somewhere/tiny.ipynb"},
            },
        )
    )
    assert cleaned.metadata == {"kernelspec": KERNEL}
    assert [item.metadata for item in cleaned.cells] == [{}, {"tags": ["parameters"]}]
    assert cleaned.cells[1].outputs == kept


def test_of_a_widget_stays_what_it_says_without_a_kernel():
    said = {"text/html": "<p>eps 0.1</p>", "text/plain": "eps 0.1"}
    output = new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}} | said)
    cleaned = notebooks.clean(new_notebook(cells=[new_code_cell("explore()", outputs=[output])]))
    assert cleaned.cells[0].outputs == [new_output("display_data", said)]


def test_links_lead_to_the_pages_beside_a_page(several, notebook, results):
    """`table3.ipynb#tom` to that network's page, `table3.ipynb` to the notebook's default, other anchors stay."""
    notebook("table1")
    outside = ["../../README.md", "#here", "https://example.org/table3.ipynb#tom"]
    links = ["table3.ipynb", "table3.ipynb#tom", "table3.ipynb#Verdicts", "table1.ipynb", *outside]
    text = " ".join(f"[x]({link})" for link in links)
    shown = new_code_cell("", outputs=[new_output("display_data", {"text/markdown": text})])
    moved = notebooks.relocate(new_notebook(cells=[new_markdown_cell(text), shown]), several.parent, results / "quick")
    expected = ["table3_ann.ipynb", "toms.ipynb", "table3_ann.ipynb#Verdicts", "table1.ipynb", *outside]
    assert re.findall(r"\((.*?)\)", moved.cells[0].source) == expected
    assert re.findall(r"\((.*?)\)", moved.cells[1].outputs[0].data["text/markdown"]) == expected


def test_links_between_notebooks_lead_to_their_pages_in_html():
    text = "[a](table01.ipynb) [b](https://example.org/c.ipynb) [d](../../reprolib/e.py) [g](t.ipynb#h) `f.ipynb`"
    page = notebooks.html(new_notebook(cells=[new_markdown_cell(text)]), "Tiny")
    links = re.findall(r'href="([^"]*)"', page)
    assert [link for link in links if not link.startswith("#")][-4:] == [
        "table01.html",
        "https://example.org/c.ipynb",
        "../../reprolib/e.py",
        "t.html#h",
    ]
    assert "<code>f.ipynb</code>" in page and "<title>Tiny</title>" in page
