"""The command line: names and numbers that are wrong are told in one sentence, and nothing else is said."""

import os

import pytest

from reprolib.paper import cli, files, kernels


@pytest.fixture(autouse=True)
def own_notebooks(notebook):
    """Notebooks and tables of one's own."""


TABLE = "table06_fashion_mnist"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["run", "table6_fashion_mnist:x:y"], ["unknown table 'table6_fashion_mnist'", f"did you mean '{TABLE}'"]),
        (["run", f"{TABLE}:fmnistcon:y"], ["unknown network 'fmnistcon'", "did you mean 'fmnistconv'"]),
        (["run", f"{TABLE}:fmnistconv:training/0"], ["nothing to compute", "training/0", "start it again"]),
        (["run", f"{TABLE}:fmnistconv:evaluation/0:1"], ["nothing to compute", "evaluation/0", "start it again"]),
        (["run", f"{TABLE}:fmnistconv"], [f"'{TABLE}:fmnistconv' is no step", "TABLE:NETWORK:NAME"]),
        (
            ["notebook", ""],
            ["no page is named", "make own PAGE=table06_fashion_mnist RUN=mine SET=", "there are table1"],
        ),
        (["notebook", "table33_vgg16"], ["unknown page or notebook 'table33_vgg16'"]),
        (["notebook", "table1", "--profile", "cpuu"], ["unknown profile 'cpuu'", "did you mean 'cpu'"]),
        (["publish", TABLE, "fmnistconv", "--profile", "qiuck"], ["unknown profile 'qiuck'", "did you mean 'quick'"]),
        (["costs"], ["no estimate for the profile 'quick'", "cpu, gpu, paper"]),
        (["notebook", "table1", "--set", "stepz=3"], ["table1.ipynb", "unknown parameter 'stepz'"]),
        (["notebook", "table1", "--run-name", "a b", "--set"], ["run_name is 'a b'; expected"]),
        (["site", "--profile", "cpuu"], ["unknown profile 'cpuu'", "did you mean 'cpu'"]),
        (["tables", "--only", "tabel1"], ["unknown page 'tabel1'", "did you mean 'table1'"]),
        (["tables", "--jobs", "0"], ["JOBS is 0", "1 or more"]),
        (["tables", "--jobs", "1", "--gpus", "-1"], ["GPUS is -1", "1 or more"]),
    ],
)
def test_wrong_names_on_the_command_line(arguments, words, notebook, capsys):
    notebook("table1")
    assert cli.main(arguments) == 1
    out, err = capsys.readouterr()
    assert not out.removeprefix("table1: started\n") and err.startswith("error: ") and err.count("\n") == 1
    assert all(word in err for word in words), err


def test_failing_notebook_on_the_command_line(notebook, capsys):
    notebook("tiny", "raise ValueError('first line\\nsecond line')")
    assert cli.main(["notebook", "tiny"]) == 1
    out, err = capsys.readouterr()
    assert out == "tiny: started\n" and "tiny failed in cell" in err and "ValueError: first line" in err


def test_results_that_cannot_be_written_on_the_command_line(notebook, results, capsys):
    """Before the engine starts, whose own words for it are several."""
    notebook("table1")
    results.write_text("a file where the folder should be")
    assert cli.main(["tables"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: cannot write") and err.count("\n") == 1


@pytest.mark.parametrize("user, more", [(0, ["--allow-root"]), (1000, [])])
def test_jupyterlab_is_started_for_root_too_and_takes_options(user, more, monkeypatch):
    started = []
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    monkeypatch.setattr(os, "execve", lambda file, command, env: started.append((command[1:], env)))
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    cli.main(["lab", "--no-browser", "--port", "9999"])
    ((command, env),) = started
    assert command[:2] == ["-m", "jupyterlab"] and command[4:] == [*more, "--no-browser", "--port", "9999"]
    root, opened = (option.split("=")[1] for option in command[2:4])
    assert root == str(files.ROOT) and (files.ROOT / opened.removeprefix("/lab/tree/")).exists()
    assert env["PYTHONPATH"].split(os.pathsep)[0] == str(files.ROOT) and env["OMP_WAIT_POLICY"] == "active"
    assert env["JUPYTER_PATH"].split(os.pathsep)[0] == str(kernels.FOR_LAB)


def test_threads_of_jupyterlabs_kernels_leave_the_cores_to_others_while_they_wait(monkeypatch):
    started = []
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    monkeypatch.setattr(os, "execve", lambda file, command, env: started.append(env["OMP_WAIT_POLICY"]))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    cli.main(["lab"])
    assert started == ["passive"]
