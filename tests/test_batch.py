"""A notebook succeeds when it ran to its end and wrote its record; the batch's plan; sentences, not tracebacks."""

import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from reprolib import __main__ as cli
from reprolib import batch, files, specs
from reprolib.batch import NotebookError

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
PARAMETERS = 'profile: str = "quick"  # which results\nseed: int = 5'


@pytest.fixture
def results(monkeypatch, tmp_path) -> Path:
    monkeypatch.setattr(batch, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def notebook(monkeypatch, tmp_path, results):
    """notebook(name, *sources) writes a notebook of a parameters cell and code cells, where the batch finds it."""
    monkeypatch.setattr(batch, "NOTEBOOKS", tmp_path / "notebooks")
    (tmp_path / "notebooks" / "tables").mkdir(parents=True)

    def write(name: str, *sources: str, parameters: str = PARAMETERS) -> Path:
        cells = [new_markdown_cell("# A table\n\n[another](other_table.ipynb)"),
                 new_code_cell(parameters, metadata={"tags": ["parameters"]}), *map(new_code_cell, sources)]
        path = tmp_path / "notebooks" / "tables" / f"{name}.ipynb"
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)
        return path

    return write


def writes_record(results: Path, name: str) -> str:
    """A last cell that writes a record; that it is a valid one is the business of report and its tests."""
    return f"from pathlib import Path\n_ = Path({str(results / 'quick' / name)!r} + '.json').write_text('{{}}')"


def sentence(kind, action, *args) -> str:
    with pytest.raises(kind) as caught:
        action(*args)
    message = str(caught.value)
    assert message and "\n" not in message and "Traceback" not in message
    return message


# --- which notebook, which parameters -----------------------------------------------------------------------------


def test_notebooks_are_found_by_name_and_by_path(notebook):
    path = notebook("table06_tiny")
    for name in ("table06_tiny", "table06_tiny.ipynb", path, "notebooks/tables/table06_tiny.ipynb"):
        assert batch.find_notebook(name) == path
    assert "did you mean 'table06_tiny'" in sentence(specs.SpecError, batch.find_notebook, "table6_tiny")


def test_a_checkpoint_of_jupyterlab_is_no_notebook(notebook, tmp_path):
    copy = tmp_path / "notebooks" / "tables" / ".ipynb_checkpoints" / "table06_tiny-checkpoint.ipynb"
    copy.parent.mkdir()
    shutil.copy(notebook("table06_tiny"), copy)
    sentence(specs.SpecError, batch.find_notebook, "table06_tiny-checkpoint")


def test_a_notebook_gets_the_parameters_that_it_declares(notebook):
    settings = specs.Settings(seed=3, steps=7)
    path = notebook("tiny", parameters="seed: int = 0\nsteps = 10  # of an attack's run")
    assert batch.parameters_for(path, settings) == {"seed": 3, "steps": 7}
    assert batch.parameters_for(notebook("none", parameters="x, y = 1, 2"), settings) == {}


@pytest.mark.parametrize("declared, words", [
    ("restart: int = 2", ["'restart'", "did you mean 'restarts'"]),
    ("seed: int = 0\nfinetune_epoch = 2", ["'finetune_epoch'", "did you mean 'finetune_epochs'"]),
    ("colour = 'red'", ["'colour'", "restarts"]),
])
def test_a_parameter_that_no_profile_has_is_refused(declared, words, notebook, results):
    path = notebook("tiny", writes_record(results, "tiny"), parameters=declared)
    message = sentence(specs.SpecError, batch.parameters_for, path, specs.Settings())
    assert "tiny.ipynb" in message and all(word in message for word in words)
    assert sentence(specs.SpecError, batch.run_notebook, "tiny", "quick") == message
    assert not results.exists(), "refused before anything ran"


def test_the_projects_notebooks_declare_parameters_of_the_profiles():
    for path in batch.NOTEBOOKS.rglob("*.ipynb"):
        given = batch.parameters_for(path, specs.load_profile("cpu"))
        assert given["profile"] == "cpu", f"{path.name} does not say whose results it makes"
        declared = [c for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", [])]
        assert len(declared) == 1


# --- running ------------------------------------------------------------------------------------------------------


def test_a_notebook_that_succeeds(notebook, results):
    path = notebook("tiny", "import os\nprint(profile, seed, sorted(os.listdir()))",
                    "import sys\nprint(' 50%|#####     | 1/2', file=sys.stderr)", writes_record(results, "tiny"))
    said = batch.run_notebook("tiny", "quick")
    assert said.startswith("tiny: ") and said.endswith("tiny.html") and "\n" not in said
    assert sorted(file.name for file in (results / "quick").iterdir()) == ["tiny.html", "tiny.ipynb", "tiny.json"]

    executed = nbformat.read(results / "quick" / "tiny.ipynb", as_version=4)
    nbformat.validate(executed)
    printed = "".join(out.get("text", "") for c in executed.cells for out in c.get("outputs", []))
    assert printed == "quick 0 ['tiny.ipynb']\n", "the profile's seed; nothing but notebooks in the folder; no bars"
    text = (results / "quick" / "tiny.ipynb").read_text()
    assert "papermill" not in executed.metadata and str(path) not in text
    page = (results / "quick" / "tiny.html").read_text()
    assert "['tiny.ipynb']" in page.replace("&#39;", "'") and 'href="other_table.html"' in page
    assert [file.name for file in path.parent.iterdir()] == ["tiny.ipynb"], "sockets and such are not left behind"


def test_a_cell_that_fails(notebook, results):
    (results / "quick").mkdir(parents=True)
    earlier = {name: f"earlier {name}" for name in ("tiny.html", "tiny.ipynb", "tiny.json")}
    for name, text in earlier.items():
        (results / "quick" / name).write_text(text)
    notebook("tiny", "print('fine')", "width = {}['breadth']", writes_record(results, "tiny"))
    message = sentence(NotebookError, batch.run_notebook, "tiny", "quick")
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
    message = sentence(NotebookError, batch.run_notebook, "tiny", "quick")
    assert message.startswith("tiny failed") and "Dead" in message
    assert not (results / "quick" / "tiny.ipynb").exists() and not (results / "quick" / "tiny.html").exists()


@pytest.mark.parametrize("earlier", [False, True])
def test_a_notebook_that_writes_no_record(earlier, notebook, results):
    record = results / "quick" / "tiny.json"
    if earlier:
        record.parent.mkdir(parents=True)
        record.write_text("an earlier run's")
        batch.os.utime(record, (1e9, 1e9))
    notebook("tiny", "print('no record')")
    message = sentence(NotebookError, batch.run_notebook, "tiny", "quick")
    assert "tiny ended without writing its record tiny.json" in message and "tiny.failed.ipynb" in message
    assert (results / "quick" / "tiny.failed.ipynb").exists()
    assert not (results / "quick" / "tiny.html").exists()
    assert record.exists() == earlier


def test_clean_takes_out_what_differs_between_runs():
    bar = new_output("stream", name="stderr", text="trainings:  50%|#####     | 3/6 [00:01<00:01]\n")
    widget = new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}})
    kept = [new_output("stream", name="stdout", text="accuracy 50%|\n"),
            new_output("stream", name="stderr", text="a warning: 50% of nothing\n"),
            new_output("display_data", {"text/plain": "a table"})]
    code = new_code_cell("run()", outputs=[bar, kept[0], widget, *kept[1:]],
                         metadata={"tags": ["parameters"], "execution": {"iopub.execute_input": "2026-01-01T00:00:00"},
                                   "papermill": {"duration": 0.1, "start_time": "2026-01-01"}})
    cleaned = batch.clean(new_notebook(cells=[new_markdown_cell("text", metadata={"papermill": {"duration": 1}}), code],
                                       metadata={"kernelspec": KERNEL, "widgets": {"state": {}},
                                                 "papermill": {"input_path": "/somewhere/tiny.ipynb"}}))
    assert cleaned.metadata == {"kernelspec": KERNEL}
    assert [item.metadata for item in cleaned.cells] == [{}, {"tags": ["parameters"]}]
    assert cleaned.cells[1].outputs == kept


def test_links_between_notebooks_lead_to_their_pages():
    text = "[a](table01.ipynb) [b](https://example.org/c.ipynb) [d](../../reprolib/e.py) `f.ipynb`"
    page = batch.html(new_notebook(cells=[new_markdown_cell(text)]), "Tiny")
    links = re.findall(r'href="([^"]*)"', page)
    assert [link for link in links if not link.startswith("#")][-3:] == [
        "table01.html", "https://example.org/c.ipynb", "../../reprolib/e.py"]
    assert "<code>f.ipynb</code>" in page and "<title>Tiny</title>" in page


# --- the command line ---------------------------------------------------------------------------------------------


TABLE = "table06_fashion_mnist"


@pytest.mark.parametrize("arguments, words", [
    (["train", "table6_fashion_mnist", "7-P1"], ["unknown table 'table6_fashion_mnist'", f"did you mean '{TABLE}'"]),
    (["train", TABLE, "7P1"], ["unknown column '7P1'", "did you mean '7-P1'"]),
    (["train", TABLE, "nopatches"], ["unknown column 'nopatches'", "did you mean 'no patches'"]),
    (["train", TABLE, "7-P1", "--profile", "qiuck"], ["unknown profile 'qiuck'", "did you mean 'quick'"]),
    (["evaluate", TABLE, "7P1", "2", "FGSM"], ["unknown column '7P1'", "did you mean '7-P1'"]),
    (["evaluate", TABLE, "7-P1", "2", "FSGM"], ["unknown attack 'FSGM'", "did you mean 'FGSM'"]),
    (["evaluate", TABLE, "7-P1", "99", "FGSM"], ["no attack 'FGSM' on '7-P1' at epoch 99", "known: 1, 2"]),
    (["notebook", "table6_fashion_mnist"], ["unknown notebook 'table6_fashion_mnist'", f"did you mean '{TABLE}'"]),
    (["notebook", TABLE, "--profile", "cpuu"], ["unknown profile 'cpuu'", "did you mean 'cpu'"]),
])
def test_wrong_names_on_the_command_line(arguments, words, capsys):
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert all(word in err for word in words), err


def test_store_that_cannot_be_written_on_the_command_line(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("REPROLIB_STORE", str(tmp_path / "file" / "store"))
    assert cli.main(["train", TABLE, "undefended"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: cannot write") and "REPROLIB_STORE" in err and err.count("\n") == 1


def test_attack_on_an_untrained_network_on_the_command_line(capsys):
    assert cli.main(["evaluate", TABLE, "undefended", "3", "FGSM"]) == 1
    err = capsys.readouterr().err
    assert "run the training" in err and err.count("\n") == 1


def test_failing_notebook_on_the_command_line(notebook, capsys):
    notebook("tiny", "raise ValueError('first line\\nsecond line')")
    assert cli.main(["notebook", "tiny"]) == 1
    out, err = capsys.readouterr()
    assert out == "tiny: started\n" and "tiny failed in cell" in err and "ValueError: first line" in err


def test_exit_code_of_the_module():
    command = [sys.executable, "-m", "reprolib", "train", "table99", "7-P1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=files.ROOT)
    assert done.returncode == 1 and done.stderr.startswith("error: unknown table 'table99'") and not done.stdout


# --- the plan of the batch ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def snakemake(tmp_path_factory):
    """Dry runs in a copy of the project, where nothing has been done yet and nothing is left behind."""
    copy = tmp_path_factory.mktemp("project")
    shutil.copy(files.ROOT / "Snakefile", copy)
    skip = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "kernel-*")
    for folder in ("params", "notebooks", "reprolib"):
        shutil.copytree(files.ROOT / folder, copy / folder, ignore=skip)

    def dry_run(*config: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "snakemake", "--dry-run", "--nolock", "--cores", "1", "--printshellcmds"]
        return subprocess.run([*command, *(["--config", *config] if config else [])], cwd=copy, timeout=300, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    return dry_run


def jobs_in(done: subprocess.CompletedProcess) -> dict[str, int]:
    """Rule -> number of jobs, from Snakemake's own table."""
    assert done.returncode == 0, done.stdout
    table = done.stdout.split("Job stats:", 1)[1].split("total", 1)[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def steps_in(done: subprocess.CompletedProcess) -> list:
    """The steps that the shell commands ask for, as the command line reads them; in the order of the dry run."""
    commands = re.findall(r"-m reprolib (.*)", done.stdout)
    return [cli._parser().parse_args(shlex.split(command)) for command in commands]


@pytest.mark.parametrize("config", [(), ("profile=quick", "only=")], ids=["bare", "as make says it"])
def test_quick_batch_runs_every_notebook_and_the_scoreboard_last(snakemake, config):
    done = snakemake(*config)
    notebooks = sorted(path.stem for path in batch.NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    assert jobs_in(done) == {"notebook": len(notebooks), "all": 1}
    steps = steps_in(done)
    assert sorted(Path(step.path).stem for step in steps) == notebooks
    assert {step.profile for step in steps} == {"quick"}
    assert Path(steps[-1].path).stem == "00_scoreboard"


def test_batch_of_table06_in_the_cpu_profile(snakemake):
    done = snakemake("profile=cpu", "only=table06")
    plan = specs.Plan(specs.load_grid(TABLE), specs.load_profile("cpu"))
    attacks = Counter((job.column, job.evaluation.epoch, job.attack) for job in plan.jobs)
    assert jobs_in(done) == {"train": 6, "evaluate": len(attacks), "notebook": 1, "all": 1}

    steps = steps_in(done)
    kinds = [step.step.__name__.strip("_") for step in steps]
    assert {step.profile for step in steps} == {"cpu"} and kinds[-1] == "notebook"
    trained = [step.column for step, kind in zip(steps, kinds, strict=True) if kind == "train"]
    assert trained[0] == "undefended" and sorted(trained) == sorted(plan.networks)
    assert Counter((step.column, step.epoch, step.attack) for step, kind in zip(steps, kinds, strict=True)
                   if kind == "evaluate") == Counter(attacks.keys())
    waits = "    input: results/cpu/.done/table06_fashion_mnist/undefended/trained\n    output: "
    assert len(re.findall(f"{re.escape(waits)}[^\n]*/trained\n", done.stdout)) == 5, "fine-tunings wait"


@pytest.mark.parametrize("config, words", [
    (("profile=cpuu",), ["unknown profile 'cpuu'", "did you mean 'cpu'"]),
    (("only=tabel06_fashion_mnist",), ["unknown notebook", f"did you mean '{TABLE}'"]),
])
def test_wrong_names_in_the_batch(snakemake, config, words):
    done = snakemake(*config)
    assert done.returncode != 0
    assert all(word in done.stdout for word in words), done.stdout
