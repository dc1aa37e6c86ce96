"""What a batch has to compute: each training and evaluation once for all pages, in an order that can be followed."""

import shlex

import pytest

from reprolib import data
from reprolib.paper import cli, run
from reprolib.paper.plan import load_plan
from reprolib.paper.run import evaluate
from reprolib.paper.run.steps import plan_steps

PAGES = [("table06_fashion_mnist", "fmnistconv"), ("table11", "fmnistconv")]


@pytest.fixture(autouse=True)
def nothing_published(results):
    """A results folder of one's own, so that every network has to be trained."""


def page(table: str = PAGES[0][0]) -> run.Page:
    return run.Page(load_plan(table, "fmnistconv", "quick"))


def test_a_training_is_one_step_over_the_epochs_of_all_pages():
    steps, six = plan_steps(PAGES, "quick"), page()
    names = {column: six.shelf.name(six.plan.networks[column, 0]) for column in six.plan.page.columns}
    assert set(steps.trainings) == set(names.values()), "table 11 looks at table 6's networks"
    tuned = steps.trainings[names["7-P1"]]
    assert tuned.epochs == (1, 2), "table 11 looks after each epoch, table 6 at the end"
    assert tuned.file == six.store.path(f"{tuned.name}/epoch-0002")
    assert steps.trainings[names["11-P1"]].epochs == (2,)
    parent = steps.trainings[names["undefended"]]
    assert not parent.after
    assert all(step.after == (parent.file,) for step in steps.trainings.values() if step != parent)


def test_an_evaluation_is_one_step_and_waits_for_the_networks_that_it_asks():
    steps, six, eleven = plan_steps(PAGES, "quick"), page(), page("table11")
    assert set(steps.evaluations) == set(six.evaluations()) | set(eleven.evaluations())
    assert len(steps.evaluations) < len(six.evaluations()) + len(eleven.evaluations()), "some are the same"
    for each in (six, eleven):
        for name, evaluation in each.evaluations().items():
            asked = [evaluation.network, *([evaluation.source] if evaluation.source else [])]
            files = {steps.trainings[each.shelf.name(network)].file for network in asked}
            assert files <= set(steps.evaluations[name].after)
            assert steps.evaluations[name].file == each.store.path(name)


def test_a_page_waits_for_all_that_it_asks_and_for_nothing_else():
    steps, eleven = plan_steps(PAGES, "quick"), page("table11")
    asked = {steps.evaluations[name].file for name in eleven.evaluations()}
    asked |= {steps.trainings[eleven.shelf.name(training)].file for training, _ in eleven.plan.trainings.values()}
    assert set(steps.pages["table11_epochs"]) == asked
    assert len(steps.pages["table06_fashion_mnist"]) > len(asked)


def test_steps_are_taken_as_commands_and_what_is_done_is_waited_for_no_more(capsys):
    six = page()
    name = six.shelf.name(six.plan.networks["undefended", 0])
    before = plan_steps(PAGES, "quick")
    assert cli.main(shlex.split(before.trainings[name].command)) == 0
    assert before.trainings[name].file.exists()

    clean = next(job.evaluation for job in six.plan.ladder if job.row == "clean")
    step = before.evaluations[evaluate.name_of(clean, six.shelf)]
    assert cli.main(shlex.split(step.command)) == 0
    assert step.file.exists()
    assert float(evaluate.outcome(clean, six.shelf).correct.double().mean()) > 0.5

    after = plan_steps(PAGES, "quick")
    assert after.trainings.keys() == before.trainings.keys() and after.evaluations.keys() == before.evaluations.keys()
    done = {step.file, before.trainings[name].file}
    waits = [*after.trainings.values(), *after.evaluations.values()]
    assert not any(done & set(step.after) for step in waits)
    assert set(after.pages["table06_fashion_mnist"]) == set(before.pages["table06_fashion_mnist"]) - done
    assert cli.main(shlex.split(step.command)) == 0, "a step that is done is done again in no time"
    assert not capsys.readouterr().out


def test_an_attack_on_a_network_that_is_not_trained_says_so(capsys):
    steps = plan_steps(PAGES, "quick")
    assert cli.main(shlex.split(next(iter(steps.evaluations.values())).command)) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ") and "run the training" in said


def test_a_store_that_cannot_be_written(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    command = shlex.split(next(iter(plan_steps(PAGES[:1], "quick").trainings.values())).command)
    monkeypatch.setenv("REPROLIB_STORE", str(tmp_path / "file" / "store"))
    assert cli.main(command) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: cannot write") and "REPROLIB_STORE" in err and err.count("\n") == 1


def test_a_plan_can_be_shown_without_the_data(monkeypatch, tmp_path):
    """Nothing is downloaded for it."""
    monkeypatch.setenv("REPROLIB_OFFLINE", "1")
    monkeypatch.setenv("REPROLIB_DATA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    pages = [("table03", "resnet20")]
    with pytest.raises(data.DataError, match="REPROLIB_OFFLINE"):
        plan_steps(pages, "cpu")
    steps = plan_steps(pages, "cpu", without_data=True)
    assert len(steps.trainings) == 3
    assert len(steps.pages["table03_resnet20"]) == len(steps.trainings) + len(steps.evaluations)
