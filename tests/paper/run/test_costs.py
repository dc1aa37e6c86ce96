"""Estimates of cost: operations of known networks, limits that bracket what is really spent, and what they refuse."""

import pytest

from reprolib import defenses
from reprolib.paper.plan import (
    Attack,
    Changed,
    Evaluation,
    SpecError,
    Trained,
    Voted,
    all_pages,
    load_plan,
    table_names,
)
from reprolib.paper.plan import load_table as pages_of
from reprolib.paper.plan.networks import make_defence
from reprolib.paper.run import costs


def trained(architecture: str = "vgg16", **fields) -> Trained:
    return Trained(architecture=architecture, data="cifar-10", recipe={}, epochs=1, **fields)


@pytest.fixture(autouse=True)
def nothing_published(results):
    """A results folder of one's own, so that every network has to be trained."""


@pytest.mark.parametrize("architecture, millions", [("vgg16", 313.2), ("resnet20", 40.55), ("resnet50", 1297.8)])
def test_operations_of_known_networks(architecture, millions):
    """Multiplications and additions are two operations each; the millions of multiply-adds are published ones."""
    operations = costs.forward_operations(trained(architecture), "cifar-10")
    assert operations == pytest.approx(2e6 * millions, rel=0.005)


def test_half_the_width_is_a_quarter_of_the_operations():
    whole, half = (costs.forward_operations(trained(width=width), "cifar-10") for width in (1.0, 0.5))
    assert 0.25 < half / whole < 0.27


def test_a_vote_costs_its_members_and_a_changed_network_what_it_did():
    one = costs.forward_operations(trained("resnet20"), "cifar-10")
    changed = Changed(network=trained("resnet20"), change={"name": "high_frequency", "rho": 0.1})
    assert costs.forward_operations(Voted(members=[trained("resnet20"), changed]), "cifar-10") == 2 * one


def test_every_page_can_be_planned_by_what_it_costs():
    """Some defences ask for gradients in ways that a counter of operations may not stand."""
    defences = {each.defence for page in all_pages() for each in page.columns.values() if each.recipe}
    assert len(defences) > 15
    assert all(costs.training_factor(defence) >= 3 for defence in defences)


@pytest.mark.parametrize("defence, factor", [
    ({"name": "plain"}, 3),
    ({"name": "patched", "size": 7, "count": 1}, 6),
    ({"name": "unmodified"}, 6),
    ({"name": "free_at", "eps": 0.1, "replays": 4}, 12),
    ({"name": "yopo", "eps": 0.1, "alpha": 0.02}, 15),  # five passes; its first layer's updates cost little
    ({"name": "manifold_mixup"}, 3),
    ({"name": "hidden_space"}, 3),  # its 1024 units cost next to nothing
])  # fmt: skip
def test_training_costs_what_the_defence_makes_of_a_step(defence, factor):
    """Forward and twice backward for each image shown; the first layer, which needs no gradient of its input, less."""
    made = defenses.Defence() if defence["name"] == "plain" else make_defence(**defence)
    assert costs.training_factor(made) == pytest.approx(factor, rel=0.1)


def test_a_trainings_epochs_and_images_count():
    network = trained("cifarconv", defence={"name": "patched", "size": 7, "count": 1})
    step = costs.training_factor(network.defence) * costs.forward_operations(network, "cifar-10")
    assert costs.training_operations(network, 40) == pytest.approx(step * 50_000 * 40)
    few = network.model_copy(update={"train": 400})
    assert costs.training_operations(few, 1) == pytest.approx(step * 400)


@pytest.mark.parametrize("attack, loss, decision, limits", [
    ({"name": "pgd", "eps": 0.1, "alpha": 0.01, "steps": 100, "restarts": 20}, "margin", "any", (1, 2020)),
    ({"name": "pgd", "eps": 0.1, "alpha": 0.01, "steps": 100, "restarts": 20}, "logits", "last", (101, 2020)),
    ({"name": "pgd", "eps": 0.1, "alpha": 0.01, "steps": 100}, "probabilities", "last", (1, 101)),
    ({"name": "ifgsm", "eps": 0.1, "alpha": 0.01, "steps": 100}, "logits", "any", (1, 101)),
    ({"name": "fgsm", "eps": 0.1}, "margin", "last", (2, 2)),
    ({"name": "autoattack", "eps": 0.1}, "logits", "any", (1, 4400)),
    ({"name": "autoattack", "eps": 0.1, "steps": 10}, "logits", "any", (1, 440)),
    ({"name": "square", "eps": 0.1}, "logits", "any", (1, 2500)),
])  # fmt: skip
def test_steps_on_an_image_that_falls_at_once_and_on_one_that_never_does(attack, loss, decision, limits):
    evaluation = Evaluation(
        network=trained(), attack=Attack(**attack), loss=loss, decision=decision, data="cifar-10", size=10
    )
    assert costs.steps(evaluation) == limits


def test_every_page_that_asks_networks_has_a_row_and_shared_work_is_counted_once():
    table = costs.table("cpu", "table03_vgg16 table09_vgg16 table11_vgg16").set_index("page")
    on_cifar = ["table03_vgg16", "table09_vgg16", "table11_vgg16"]
    assert [page for page in table.index if not page.endswith("-imagenet")] == on_cifar
    assert list(table.loc[on_cifar, "trainings"]) == [8, 0, 2]  # Table 11 goes on with two of Table 3's
    plan = load_plan("table03", "vgg16", "cpu")
    assert table["attacks"]["table03_vgg16"] == len(
        {costs.computation(j.evaluation) for j in [*plan.jobs, *plan.ladder]}
    )
    assert list(costs.table("paper")["page"]) == [
        page.record for name in table_names() for page in pages_of(name).values()
    ]


def test_pages_with_many_claims_for_little_work_come_first(monkeypatch):
    pages = "table03_resnet20 table03_resnet50 figure03"  # the figure answers no claim
    order = costs.by_value("paper", pages)
    assert order[:2] == ["table03_resnet20", "table03_resnet50"], "as many claims on a network a tenth the size"
    assert order[2] == "figure03_optimizer"
    monkeypatch.setattr(costs, "answered", lambda plan: ["one"] if plan.page.record == "figure03_optimizer" else [])
    assert costs.by_value("paper", pages)[0] == "figure03_optimizer"


def test_the_page_says_what_was_assumed():
    assert "not measured" in costs.page("paper", "table11") and "20 TFLOP/s" in costs.page("paper", "table11")


@pytest.mark.parametrize("profile", ["quick", "papre"])
@pytest.mark.parametrize("estimate", [costs.table, costs.by_value])
def test_profiles_without_an_estimate(profile, estimate):
    with pytest.raises(SpecError, match=profile):
        estimate(profile)
