"""A page computes what is missing and nothing twice; a notebook's variables say which page, or are refused."""

import types

import pytest
import safetensors.torch
import torch
from small_networks import Normalised, Small, new

from reprolib.paper import plan, run
from reprolib.paper.plan import Plan, SpecError
from reprolib.paper.run import Page, Store, evaluate, published
from reprolib.paper.run.page import KNOBS

RECIPE = {"optimizer": "adam", "lr": 3e-3, "batch_size": 60}
AMOUNTS = plan.Amounts(
    data="sample", train=3000, test=20, pretrain=2, finetune=1, every=1, steps=2, restarts=1, seeds=1
)
FGSM = {"attack": plan.Attack(name="fgsm", eps=0.05)}

pytestmark = pytest.mark.usefixtures("architectures", "nothing_published")


def planned(columns: dict, **fields) -> Plan:
    """A page on small networks."""
    page = plan.Page(
        table="made", network="small", record="made_small", title="Made by a test", dataset="fashion-mnist",
        architecture="small", columns={name: plan.Column(**column) for name, column in columns.items()},
        **{"rows": {"FGSM": plan.Row(**FGSM)}, "losses": {"margin": "last", "logits": "last"}} | fields,
    )  # fmt: skip
    return Plan(page, AMOUNTS, "custom")


UNDEFENDED = {"recipe": RECIPE}
CONTROL = {"recipe": RECIPE, "parent": "undefended", "defence": {"name": "unmodified"}}
TWO = {"undefended": UNDEFENDED, "no patches": CONTROL}


@pytest.fixture
def opened(tiny, tmp_path):
    """A page on the tiny data set, in a store of its own."""
    Small.seen = 0
    return lambda made, **options: Page(made, store=Store(tmp_path / "store"), dataset=tiny, **options)


# --- computing --------------------------------------------------------------------------------------------------------


def test_a_page_does_what_is_missing_and_nothing_twice(opened, capfd):
    page = opened(planned(TWO, transfer_from="undefended"))
    assert len(page.plan.jobs) == 2 * 2 + 1 and len(page.jobs) == 5 + 27
    assert [list(epochs) for _, epochs in page.missing_trainings().values()] == [[2], [1]], "parents first"
    assert page.missing_evaluations().keys() == page.evaluations().keys()
    page.compute(progress=False)
    outcomes = [page.outcome(job) for job in page.jobs]
    assert all(len(found.correct) == 20 for found in outcomes)
    assert not page.missing_trainings() and not page.missing_evaluations()

    Small.seen = 0
    page.compute(progress=False)
    assert Small.seen == 0
    job = page.plan.jobs[0]
    page.store.path(evaluate.name_of(job.evaluation, page.shelf)).unlink()
    assert list(page.missing_evaluations().values()) == [job.evaluation]
    page.compute(progress=False)
    assert Small.seen == outcomes[0].meta["calls"]
    assert torch.equal(page.outcome(job).any_run, outcomes[0].any_run)
    assert capfd.readouterr() == ("", "")


def test_progress_can_be_seen(opened, capfd):
    opened(planned({"undefended": UNDEFENDED})).compute()
    shown = capfd.readouterr().err
    assert "trainings: 100%" in shown and "attacks: 100%" in shown


def test_networks_of_every_kind_are_columns_like_others(opened, tmp_path):
    """Trained, pre-trained, voted, changed, and fine-tuned from what somebody else published."""
    safetensors.torch.save_file(new(Small, 5).state_dict(), tmp_path / "small.safetensors")
    safetensors.torch.save_file(new(Normalised, 5).state_dict(), tmp_path / "other.safetensors")
    columns = {
        "undefended": UNDEFENDED,
        "theirs": {"weights": str(tmp_path / "other.safetensors"), "architecture": "normalised"},
        "weights": {"weights": str(tmp_path / "small.safetensors")},
        "tuned": CONTROL | {"parent": "weights"},
        "EMPIR": {"members": [
            {"recipe": RECIPE, "defence": {"name": "quantised", "weight_bits": bits, "activation_bits": 4}}
            for bits in (4, 2)
        ]},
        "smoothed": {"change": {"name": "high_frequency", "rho": 0.3}, "of": "tuned"},
        "tuned on smoothed": CONTROL | {"parent": "smoothed"},
        "Mixup": {"recipe": RECIPE, "defence": {"name": "mixup"}},
    }  # fmt: skip
    page = opened(planned(columns))
    page.compute(progress=False)
    trained = {str(network.training) for network, _ in page.plan.trainings.values()}
    assert len(trained) == 6 and len(page.plan.networks) == 8
    for job in page.plan.jobs:
        found = page.outcome(job)
        assert len(found.correct) == 20 and found.meta["torch"] == torch.__version__
    assert {job.column for job in page.plan.jobs} == set(columns)


def test_a_parent_that_nobody_asks_is_trained_where_its_child_has_to_be(opened):
    page = opened(planned(TWO, shown=["no patches"]))
    assert {job.column for job in page.plan.jobs} == {"no patches"}
    jobs = {job.evaluation.network for job in page.plan.ladder}
    assert len(jobs) == 1, "the ladder is climbed on it"
    assert len(page.missing_trainings()) == 2
    only = opened(planned({"undefended": UNDEFENDED, "first": CONTROL, "second": CONTROL | {"parent": "first"}}))
    assert len(only.missing_trainings()) == 3


def test_a_changed_parent_is_trained_too(opened):
    columns = {
        "undefended": UNDEFENDED,
        "other": UNDEFENDED | {"defence": {"name": "mixup"}},
        "smoothed": {"change": {"name": "high_frequency", "rho": 0.3}, "of": "other"},
        "tuned": CONTROL | {"parent": "smoothed"},
    }
    page = opened(planned(columns, shown=["tuned"]))
    tuned = page.plan.networks["tuned", 0]
    assert [network for network, _ in page.missing_trainings().values()][:2] == [tuned.parent.network, tuned]
    page.compute(progress=False)
    assert page.outcome(page.plan.jobs[0])


def test_what_is_published_is_not_trained_nor_what_it_was_trained_from(opened, tiny, tmp_path):
    made = planned(TWO, shown=["no patches"])
    home = Page(made, store=Store(tmp_path / "home"), dataset=tiny)
    home.compute(progress=False)
    for (column, _), network in planned(TWO).networks.items():
        tensors, meta = home.shelf.checkpoint(network)
        published.publish(column, "cpu", tensors, {"network": network.content(), **meta})
    page = opened(made)
    assert page.missing_trainings() == {} and len(page.missing_evaluations()) == len(home.evaluations())
    page.compute(progress=False)
    assert not (page.store.root / "training").exists()
    for job, other in zip(page.jobs, home.jobs, strict=True):
        assert torch.equal(page.outcome(job).any_run, home.outcome(other).any_run)
    (published.folder("cpu") / "undefended.safetensors").unlink()
    missing = [network for network, _ in page.missing_trainings().values()]
    assert [network.parent for network in missing] == [None], "the ladder's, and not its published child"
    anew = opened(made, fresh=True)
    assert len(anew.missing_trainings()) == 2 and len(anew.missing_evaluations()) == len(home.evaluations())


def test_publishing_a_pages_networks_keeps_what_was_computed_and_spares_a_clone_the_training(opened, tiny, tmp_path):
    made = Plan(planned(TWO).page, AMOUNTS, "cpu")
    page = opened(made)
    page.compute(progress=False)
    before = page.evaluations().keys()
    names = {path.stem for path in run.publish_networks(page)}
    assert names == {"made_small_undefended", "made_small_no_patches"}
    assert page.evaluations().keys() == before and not page.missing_trainings() and not page.missing_evaluations()
    assert run.provenance(page)["published"] == [], "its numbers were made on its own"
    files = {path: path.read_bytes() for path in run.publish_networks(page)}
    assert all(path.read_bytes() == content for path, content in files.items())

    clone = Page(made, store=Store(tmp_path / "clone"), dataset=tiny)
    assert clone.missing_trainings() == {}
    clone.compute(progress=False)
    assert set(run.provenance(clone)["published"]) == names
    assert [torch.equal(clone.outcome(job).any_run, page.outcome(job).any_run) for job in page.jobs].count(False) == 0


def test_a_page_along_the_epochs_trains_once_and_looks_often(opened):
    made = planned({"undefended": UNDEFENDED, "no patches": CONTROL}, follows_epochs=True)
    made = Plan(made.page, AMOUNTS.model_copy(update={"finetune": 3}), "custom")
    page = opened(made)
    assert [list(epochs) for _, epochs in page.missing_trainings().values()] == [[2], [1, 2, 3]]
    page.compute(progress=False)
    along = [(job.epoch, page.outcome(job).meta["calls"]) for job in made.jobs if job.column == "no patches"]
    assert [epoch for epoch, _ in along] == [1, 1, 2, 2, 3, 3]


def test_the_pages_data_is_the_plans():
    page = Page(plan.load_plan("table06_fashion_mnist", "fmnistconv", "quick", train=100))
    assert page.dataset.name == "fashion-mnist-sample"
    assert len(page.dataset.train) == 100 and len(page.dataset.test) == 1000
    assert page.dataset is page.dataset and page.shelf.dataset is page.dataset


# --- a notebook's variables -------------------------------------------------------------------------------------------


def sentence(action, *args) -> str:
    with pytest.raises(SpecError) as caught:
        action(*args)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


NOTEBOOK = {"__name__": "__main__", "_": 3, "_own": 4, "In": ["restarts = 3"], "Out": {}, "exit": print, "run": run,
            "types": types, "network": "vgg16", "profile": "quick"}  # fmt: skip


def test_a_notebooks_variables_say_which_page():
    page = run.open_page("table03", NOTEBOOK | {"restarts": 1, "steps": 5, "seed": None, "fresh": True})
    usual = plan.load_plan("table03", "vgg16", "quick")
    assert page.plan.page == usual.page and page.fresh
    assert page.plan.amounts == usual.amounts.model_copy(update={"restarts": 1, "steps": 5})
    assert page.plan.folder == "custom"


def test_what_a_notebook_has_no_variable_for_is_as_in_its_profile():
    for names in (NOTEBOOK, NOTEBOOK | dict.fromkeys(KNOBS), NOTEBOOK | {"fresh": None}):
        page = run.open_page("table03", names)
        assert page.plan.amounts == plan.load_plan("table03", "vgg16", "quick").amounts
        assert page.plan.folder == "quick" and not page.fresh
    assert run.open_page("table03", {"profile": "cpu", "network": "resnet20"}).plan.folder == "cpu"
    assert run.open_page("table06_fashion_mnist", {}).plan.page.network == "fmnistconv", "which is its only one"


def test_custom_is_whatever_another_used_amount_makes():
    for name in plan.used(plan.load_table("table03")["vgg16"], AMOUNTS):
        value = plan.load_plan("table03", "vgg16", "quick").amounts.model_dump()[name]
        same = run.open_page("table03", NOTEBOOK | {name: value})
        assert same.plan.folder == "quick", name
    assert run.open_page("table03", NOTEBOOK | {"seed": 1}).plan.folder == "custom"


@pytest.mark.parametrize("typo, meant", [
    ("restart", "restarts"), ("Seed", "seed"), ("seeed", "seed"), ("fintune", "finetune"), ("engin", "engine"),
    ("Steps", "steps"), ("profil", "profile"), ("networks", "network"), ("frsh", "fresh"),
])  # fmt: skip
def test_a_misspelt_variable_is_told_which_was_meant(typo, meant):
    message = sentence(run.open_page, "table03", NOTEBOOK | {typo: 3})
    assert repr(typo) in message and f"did you mean {meant!r}" in message


@pytest.mark.parametrize(
    "name, value", [("epochs", 3), ("answer", 42), ("title", "Table 6"), ("x", None), ("y", 0.5), ("z", True)]
)
def test_a_plain_variable_that_is_no_parameter_is_refused(name, value):
    """papermill hands in whatever `-p` says, and only warns of what the notebook does not know."""
    message = sentence(run.open_page, "table03", NOTEBOOK | {name: value})
    assert f"unknown parameter {name!r}" in message and "begins with _" in message


@pytest.mark.parametrize("name, meant", [
    ("max_steps", "steps"), ("my_eps", "eps"), ("EPS", "eps"), ("test_images", "test"), ("run", "run_name"),
    ("loss_function", "loss"), ("train_images_used", "train"),
])  # fmt: skip
def test_a_variable_that_has_a_parameters_name_in_it_is_told_which(name, meant):
    assert f"did you mean {meant!r}" in sentence(run.open_page, "table03", NOTEBOOK | {name: 3})


@pytest.mark.parametrize("value", [[0.1, 0.2], {"a": 1}, torch.tensor(3), (1,)], ids=lambda value: type(value).__name__)
def test_what_is_no_plain_value_is_refused_under_a_name_near_to_a_parameters_alone(value):
    assert "did you mean 'steps'" in sentence(run.open_page, "table03", NOTEBOOK | {"stepz": value})
    assert run.open_page("table03", NOTEBOOK | {"cells": value, "page": value, "Out": {}}).plan.folder == "quick"


def test_a_run_of_ones_own_has_a_folder_of_its_name():
    assert run.open_page("table03", NOTEBOOK | {"run_name": "mine", "eps": 0.01}).plan.folder == "custom/mine"
    assert run.open_page("table03", NOTEBOOK | {"run_name": "as-printed_2"}).plan.folder == "custom/as-printed_2"
    for none in (None, ""):
        assert run.open_page("table03", NOTEBOOK | {"run_name": none}).plan.folder == "quick"


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "two words", "-x", "x" * 61, 3, True])
def test_a_name_that_names_no_folder_is_refused(name):
    message = sentence(run.open_page, "table03", NOTEBOOK | {"run_name": name})
    assert message.startswith(f"run_name is {name!r}; expected") and "such as" in message


def test_eps_alpha_and_loss_turn_every_attack_of_the_page():
    usual, own = (run.open_page("table03", NOTEBOOK | more).plan for more in ({}, {"eps": 0.05, "loss": "logits"}))
    attacked = {job.row: job.evaluation for job in own.jobs if job.evaluation.source is None}
    before = {job.row: job.evaluation.attack for job in usual.jobs}
    assert {one.loss for one in attacked.values()} == {"logits"} and own.folder == "custom"
    for row, one in attacked.items():
        assert one.attack.get("eps") == 0.05
        if (alpha := before[row].get("alpha")) is not None:
            assert one.attack.get("alpha") / 0.05 == pytest.approx(alpha / before[row].get("eps"), abs=2e-5)
    assert [job.evaluation for job in own.ladder] == [job.evaluation for job in usual.ladder]
    own = run.open_page("table03", NOTEBOOK | {"alpha": 0.004, "steps": 5}).plan
    assert {job.evaluation.attack.get("alpha") for job in own.jobs} == {0.004, None}, "whatever the steps"


@pytest.mark.parametrize("table, name", [("table09", "alpha"), ("table09", "loss")])
def test_what_no_attack_of_a_page_has_cannot_be_turned(table, name):
    message = sentence(run.open_page, table, {name: 0.1 if name == "alpha" else "logits"})
    assert message == f"{name} makes no difference to table09_autoattack; leave it out"


@pytest.mark.parametrize("name, value, words", [
    ("eps", "0.1", ["Amounts.eps", "'0.1'"]), ("eps", -0.1, ["Amounts.eps", "-0.1"]), ("alpha", 0.0, ["Amounts.alpha"]),
    ("eps", 8, ["Amounts.eps", "8"]), ("loss", "dlr", ["Amounts.loss", "'dlr'"]),
    ("steps", "10", ["Amounts.steps", "'10'"]), ("steps", 0, ["Amounts.steps", "0"]),
    ("restarts", -1, ["Amounts.restarts", "-1"]), ("test", 1.5, ["Amounts.test", "1.5"]),
    ("data", "all", ["Amounts.data", "'all'"]), ("engine", "foolbox", ["Amounts.engine", "'foolbox'"]),
    ("profile", "qiuck", ["did you mean 'quick'"]), ("network", "vgg", ["did you mean 'vgg16'"]),
    ("profile", None, ["unknown profile None"]), ("network", 3, ["unknown network 3"]),
    ("fresh", "no", ["fresh is 'no'", "True or False"]), ("fresh", 1, ["fresh is 1"]),
    ("every", 3, ["every makes no difference to table03_vgg16"]),
])  # fmt: skip
def test_a_wrong_value_of_a_variable(name, value, words):
    message = sentence(run.open_page, "table03", NOTEBOOK | {name: value})
    assert all(word in message for word in words), message


def test_a_table_that_there_is_not():
    assert "did you mean 'table03'" in sentence(run.open_page, "table3", NOTEBOOK)


def test_notebooks_without_a_plan_have_parameters_too():
    assert run.parameters({"profile": "cpu", "_x": 1, "run": run}) == {"profile": "cpu"}
    assert run.parameters({"profile": "cpu", "seed": 3}, ("seed",)) == {"profile": "cpu", "seed": 3}
    assert run.parameters({}) == {}
    assert "did you mean 'seed'" in sentence(run.parameters, {"seeed": 3}, ("seed",))
    assert "unknown parameter 'network'" in sentence(run.parameters, {"network": "vgg16"})
