"""What a batch has to compute: each training and evaluation once for all pages, in an order that can be followed."""

import pytest

from reprolib import data
from reprolib.paper import cli, run
from reprolib.paper.plan import Amounts, Profile, load_plan
from reprolib.paper.run import evaluate, shards
from reprolib.paper.run.steps import plan_steps

PAGES = [("table06_fashion_mnist", "fmnistconv"), ("table11", "fmnistconv")]


@pytest.fixture(autouse=True)
def all_trained(nothing_published, monkeypatch):
    """Every network has to be trained, also those that quick pages read as published."""
    usual = Profile.amounts

    def amounts(*where: str) -> Amounts:
        found = usual(*where)
        alike = {"networks": "trained", "finetune": 2, "test": 64}
        return found if found.networks == "trained" else found.model_copy(update=alike)

    monkeypatch.setattr(Profile, "amounts", amounts)


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
    assert not parent.asks
    assert all(step.asks == (parent.name,) for step in steps.trainings.values() if step != parent)


def test_an_evaluation_is_one_step_and_asks_for_its_networks():
    steps, six, eleven = plan_steps(PAGES, "quick"), page(), page("table11")
    assert set(steps.evaluations) == set(six.evaluations()) | set(eleven.evaluations())
    assert len(steps.evaluations) < len(six.evaluations()) + len(eleven.evaluations()), "some are the same"
    for each in (six, eleven):
        for name, evaluation in each.evaluations().items():
            asked = [evaluation.network, *([evaluation.source] if evaluation.source else [])]
            assert {each.shelf.name(network) for network in asked} <= set(steps.evaluations[name].asks)
            assert steps.evaluations[name].file == each.store.path(name)


def test_a_page_waits_for_all_that_it_asks_and_for_nothing_else():
    steps, eleven = plan_steps([*PAGES, ("table03", "resnet20")], "quick"), page("table11")
    asked = {*eleven.evaluations(), *(eleven.shelf.name(training) for training, _ in eleven.plan.trainings.values())}
    assert set(steps.pages["table11_epochs"]) == {steps.parcels[name] for name in asked & steps.parcels.keys()}
    for name in asked - steps.parcels.keys():  # left to it
        assert (steps.trainings.get(name) or steps.evaluations[name]).table == "table11_epochs"
    assert not set(steps.pages["table03_resnet20"]) & set(steps.pages["table11_epochs"])


@pytest.mark.slow
def test_a_long_evaluation_is_several_steps_that_the_page_puts_together(monkeypatch):
    """And none of them is left once it is whole, whoever made it."""
    monkeypatch.setattr(shards, "LONG", 0.01)
    monkeypatch.setattr(shards, "FEWEST", 20)
    six, steps = page(), plan_steps(PAGES[:1], "quick")
    clean = next(job.evaluation for job in six.plan.ladder if job.row == "eps 0")
    name, training = evaluate.name_of(clean, six.shelf), six.shelf.name(six.plan.networks["undefended", 0])
    parts = shards.names(name, 3)
    assert set(parts) <= set(steps.evaluations) and name not in steps.evaluations
    assert {steps.parcels[part] for part in parts} <= set(steps.pages["table06_fashion_mnist"])
    assert cli.main(["run", steps.trainings[training].word, *(steps.evaluations[part].word for part in parts)]) == 0
    assert all(steps.evaluations[part].file.exists() for part in parts) and not six.store.has(name)
    assert all(plan_steps(PAGES[:1], "quick").evaluations[part].done for part in parts)
    evaluate.evaluate(clean, six.shelf, progress=False)
    for part in parts:
        six.store.path(part).unlink()
    assert all(plan_steps(PAGES[:1], "quick").evaluations[part].done for part in parts)


@pytest.mark.slow
def test_steps_are_taken_as_commands_and_what_is_done_is_waited_for_no_more(capsys):
    six = page()
    name = six.shelf.name(six.plan.networks["undefended", 0])
    clean = next(job.evaluation for job in six.plan.ladder if job.row == "clean")
    before = plan_steps(PAGES, "quick")
    taken = before.trainings[name], before.evaluations[evaluate.name_of(clean, six.shelf)]
    command = ["run", *(step.word for step in taken)]
    assert cli.main(command) == 0
    assert all(step.file.exists() for step in taken)
    assert float(evaluate.outcome(clean, six.shelf).correct.double().mean()) > 0.5
    assert capsys.readouterr().out.startswith("2 trainings and attacks of table06_fashion_mnist: started")

    after = plan_steps(PAGES, "quick")
    steps = [*before.trainings.values(), *before.evaluations.values()]
    now = {step.name: step for step in [*after.trainings.values(), *after.evaluations.values()]}
    assert [step for step in steps if now[step.name].done] == list(taken)
    assert after.parcels.keys() == before.parcels.keys()
    for step in (step for step in steps if step.name in after.parcels):
        parcel = after.parcels[step.name]
        assert [each.name for each in parcel.steps] == [each.name for each in before.parcels[step.name].steps]
        assert (step.word in parcel.command) == (step not in taken)
    assert cli.main(command) == 0, "steps that are done are done again in no time"


@pytest.mark.slow
def test_a_step_that_fails_leaves_the_others_of_its_parcel_done(capsys, monkeypatch):
    """Also where nobody thought of what went wrong, and where the batch was planned with another version."""
    six, steps = page(), plan_steps(PAGES[:1], "quick")
    name = six.shelf.name(six.plan.networks["undefended", 0])
    untrained = next(step for step in steps.evaluations.values() if name not in step.asks[-1:])
    asked = [step for step in steps.evaluations.values() if step.asks == (name,)][:2]
    run_it, failing = evaluate.evaluate, asked[0].name

    def broken(evaluation, shelf, **options):
        if evaluate.name_of(evaluation, shelf) == failing:
            raise ArithmeticError("out of numbers")
        run_it(evaluation, shelf, **options)

    monkeypatch.setattr(evaluate, "evaluate", broken)
    unknown = f"{untrained.table}:{untrained.network}:evaluation/0"
    words = [unknown, untrained.word, steps.trainings[name].word, *(step.word for step in asked)]
    assert cli.main(["run", *words]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 3
    assert said[0].startswith(f"error: {unknown}: there is nothing to compute")
    assert said[1].startswith(f"error: {untrained.word}: the store has no training") and "run the training" in said[1]
    assert said[2] == f"error: {asked[0].word}: out of numbers"
    assert steps.trainings[name].file.exists() and asked[1].file.exists() and not asked[0].file.exists()
    failing = ""
    assert cli.main(["run", *words[2:]]) == 0, "the same command goes on from there"
    assert asked[0].file.exists()


def test_a_store_that_cannot_be_written(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    command = ["run", next(iter(plan_steps(PAGES[:1], "quick").trainings.values())).word]
    monkeypatch.setenv("REPROLIB_STORE", str(tmp_path / "file" / "store"))
    assert cli.main(command) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"error: {command[1]}: cannot write") and "REPROLIB_STORE" in err and err.count("\n") == 1


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
    assert set(steps.pages["table03_resnet20"]) == set(steps.parcels.values())
