"""Estimates of cost: operations of known networks, limits that bracket what is really spent, and what they refuse."""

import pytest

from reprolib import costs, specs
from reprolib.specs import Attack, Evaluation, Training

TRAINING = Training(dataset="cifar-10", model="vgg16", optimizer="adam", lr=1e-3, batch_size=128)


@pytest.mark.parametrize("model, millions", [("vgg16", 313.2), ("resnet20", 40.55), ("resnet50", 1297.8)])
def test_operations_of_known_networks(model, millions):
    """Multiplications and additions are two operations each; the millions of multiply-adds are published ones."""
    assert costs.forward_operations(model, 1.0, "cifar-10") == pytest.approx(2e6 * millions, rel=0.005)


def test_half_the_width_is_a_quarter_of_the_operations():
    whole, half = (costs.forward_operations("vgg16", width, "cifar-10") for width in (1.0, 0.5))
    assert 0.25 < half / whole < 0.27


def test_a_plans_trainings_are_counted_once_with_their_parents():
    plan = specs.Plan(specs.load_grid("restarts_cifarconv"), specs.load_profile("cpu"))
    step = 3 * costs.forward_operations("cifarconv", 1.0, "cifar-10")
    pretrained, tuned = 20 * 50_000, 2 * 40 * 100_000  # two fine-tunings over images and copies
    assert costs.training_operations(plan) == pytest.approx(step * (pretrained + tuned))


@pytest.mark.parametrize("fields, decision, limits", [
    ({"name": "pgd", "eps": 0.1, "alpha": 0.01, "steps": 100, "restarts": 20, "loss": "margin"}, "any", (1, 2020)),
    ({"name": "pgd", "eps": 0.1, "alpha": 0.01, "steps": 100, "restarts": 20, "loss": "logits"}, "last", (101, 2020)),
    ({"name": "pgd", "eps": 0.1, "alpha": 0.01, "steps": 100, "loss": "probabilities"}, "last", (1, 101)),
    ({"name": "fgsm", "eps": 0.1}, "last", (2, 2)),
    ({"name": "autoattack", "eps": 0.1, "loss": "logits"}, "any", (1, 4400)),
    ({"name": "square", "eps": 0.1, "loss": "logits"}, "any", (1, 2500)),
])
def test_steps_on_an_image_that_falls_at_once_and_on_one_that_never_does(fields, decision, limits):
    assert costs._steps(Evaluation(training=TRAINING, epoch=1, attack=Attack(**fields), size=10, decision=decision)) == limits


def test_every_table_that_trains_has_a_row():
    assert costs.table("paper")["table"].tolist() == specs.grid_names()
    assert "not measured" in costs.page("paper") and "20 TFLOP/s" in costs.page("paper")


@pytest.mark.parametrize("profile", ["quick", "papre"])
def test_profiles_without_an_estimate(profile):
    with pytest.raises(specs.SpecError, match=profile):
        costs.table(profile)
