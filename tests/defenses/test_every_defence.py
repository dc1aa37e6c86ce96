"""What holds for all defences: every file of the folder. A new name of a parameter is a line in `USUAL`."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from small_networks import Small, new, same
from torch import nn

from reprolib import defenses, training
from reprolib.paper.plan.networks import defence_content, make_defence
from reprolib.training import Recipe

# what a parameter of that name is given here, in whichever defence it occurs
USUAL = {"eps": 0.1, "alpha": 0.5, "steps": 2, "inner": 2, "replays": 2, "rho": 0.5, "size": 7, "count": 1,
         "weight_bits": 2, "activation_bits": 2, "width": 4, "average_from": 1, "feature_weight": 5.0}  # fmt: skip
ALL = {
    name: {field.name: USUAL[field.name] for field in dataclasses.fields(defence)}
    for name, defence in defenses.named().items()
}
MADE = {name: make_defence(name, **parameters) for name, parameters in ALL.items()}
TRAINED = [name for name, made in MADE.items() if isinstance(made, defenses.Defence)]
CHANGES = [name for name, made in MADE.items() if isinstance(made, defenses.Change)]
WRONG = {float: [-0.1, float("nan"), float("inf"), "0.1", "1e-1", None, True], int: [-1, 0, 2.5, "3", None, True]}


def fit(name: str, tiny, **options) -> training.Run:
    """Two epochs of three or five steps, the last of an epoch on fewer images."""
    recipe = Recipe(optimizer="sgd", lr=0.05, batch_size=30, augment=True)
    images, labels = tiny.train.images[:70], tiny.train.labels[:70]
    test = tiny.test.images[:50], tiny.test.labels[:50]
    options = {"epochs": 2, "test": test, "progress": False} | options
    return training.fit(new(), images, labels, MADE[name], recipe, **options)


def test_every_file_of_the_folder_is_tested_here():
    files = {path.stem for path in Path(defenses.__file__).parent.glob("*.py")}
    assert set(ALL) == files - {"__init__", "base"} == set(TRAINED + CHANGES)
    assert {"patched", "unmodified", "pgd_at", "mixup", "free_at", "quantised", "high_frequency"} <= files
    assert {"quantised_at", "renofeat"} <= files


# --- trained ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAINED)
def test_killed_at_any_save_it_goes_on_to_bitwise_the_same_weights(name, tiny, monkeypatch):
    """With all that the method remembers from step to step."""
    monkeypatch.setattr(training, "SAVE_EVERY", -1.0)
    states = []
    whole = fit(name, tiny, save=lambda run: states.append(run.state()))
    assert len(states) == 2 * -(-70 * MADE[name].passes // 30)
    epoch = len(states) // 2
    for state in (states[0], states[epoch - 1], states[epoch]):  # within the first epoch, at its end, and in the next
        resumed = fit(name, tiny, resume=state)
        assert same(resumed.model.state_dict(), whole.model.state_dict())
        assert same(resumed.memory, whole.memory) and resumed.history == whole.history


@pytest.mark.parametrize("name", TRAINED)
def test_the_same_seed_gives_the_same_weights_and_another_one_others(name, tiny):
    first, again, other = (fit(name, tiny, seed=seed, epochs=1).model.state_dict() for seed in (3, 3, 4))
    assert same(first, again) and not same(first, other)


@pytest.mark.parametrize("name", TRAINED)
def test_it_trains_otherwise_than_plain_training(name, tiny):
    plain = training.fit(
        new(), tiny.train.images[:70], tiny.train.labels[:70], None,
        Recipe(optimizer="sgd", lr=0.05, batch_size=30, augment=True), epochs=2, progress=False,
    ).model  # fmt: skip
    run = fit(name, tiny)
    assert not same(run.model.state_dict(), plain.state_dict())
    assert all(tensor.isfinite().all() for tensor in run.model.state_dict().values())
    assert not run.model.training and all(p.requires_grad for p in run.model.parameters())


@pytest.mark.parametrize("name", TRAINED)
def test_global_random_numbers_are_left_alone(name, tiny):
    before = torch.get_rng_state()
    make_defence(name, **ALL[name])
    fit(name, tiny, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


# --- changed after training -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_leaves_the_given_network_as_it_was(name, tiny):
    network = new(Small)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    changed = MADE[name](network)
    images = tiny.test.images[:20].float() / 255
    with torch.no_grad():
        assert not torch.equal(changed(images), network(images)), "what is handed back is another network"
    assert same(network.state_dict(), before) and not changed.training
    assert not {id(p) for p in network.parameters()} & {id(p) for p in changed.parameters()}
    again = MADE[name](network)
    assert same(changed.state_dict(), again.state_dict())


# --- by name ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_content_is_plain_data_that_makes_it_again(name):
    made = MADE[name]
    content = json.loads(json.dumps(defence_content(made)))
    assert make_defence(**content) == made and content["name"] == name
    assert content | ALL[name] == content, "with what was given"


@pytest.mark.parametrize("name", ALL)
def test_it_can_be_made_by_its_class_as_well(name):
    assert getattr(defenses, type(MADE[name]).__name__)(**ALL[name]) == MADE[name]


@pytest.mark.parametrize("name", ALL)
def test_its_docstring_says_where_it_is_from(name):
    source = __import__(f"reprolib.defenses.{name}", fromlist=["x"]).__doc__
    assert any(word in source for word in ("20", "section")) or name == "unmodified", "a year or a section of the paper"


def refusal(name: str, **parameters) -> str:
    with pytest.raises(ValueError) as caught:
        make_defence(name, **parameters)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


@pytest.mark.parametrize("name", ALL)
def test_a_parameter_that_there_is_not(name):
    message = refusal(name, **ALL[name], zzz=1)
    assert message.startswith(f"{name}: unknown parameter 'zzz'")
    for parameter in ALL[name]:
        assert f"did you mean {parameter!r}" in refusal(name, **{f"{parameter}x": 1})


@pytest.mark.parametrize("name, parameter", [(name, parameter) for name in ALL for parameter in ALL[name]])
def test_a_value_that_makes_no_sense_is_refused_before_any_training(name, parameter):
    for value in WRONG[type(ALL[name][parameter])]:
        message = refusal(name, **ALL[name] | {parameter: value})
        assert parameter in message and f"{value}" in message, message


@pytest.mark.parametrize("name, parameter, value", [
    ("free_at", "eps", 8), ("pgd_at", "eps", 8), ("fgsm_at", "eps", 8), ("yopo", "alpha", 2), ("patched", "size", 2),
    ("patched", "count", 3), ("quantised", "weight_bits", 17), ("quantised", "activation_bits", 31),
    ("l2l_da", "eps", 8), ("l2l_da", "steps", 0), ("l2l_da", "width", 0), ("manifold_mixup", "alpha", 0),
    ("quantised_at", "weight_bits", 17), ("quantised_at", "eps", 8),
])  # fmt: skip
def test_a_value_out_of_range(name, parameter, value):
    message = refusal(name, **ALL[name] | {parameter: value})
    assert parameter in message and "expected" in message


@pytest.mark.parametrize("name, parameters", [
    ("patched", {"size": 7}), ("free_at", {}), ("pgd_at", {"eps": 0.1}), ("high_frequency", {}), ("quantised", {}),
    ("quantised_at", {"weight_bits": 2, "activation_bits": 2}), ("renofeat", {}),
])  # fmt: skip
def test_a_missing_parameter(name, parameters):
    assert "is missing" in refusal(name, **parameters)


@pytest.mark.parametrize("typo, meant", [("patch", "patched"), ("mixupp", "mixup"), ("free", "free_at")])
def test_an_unknown_defence(typo, meant):
    assert f"did you mean {meant!r}" in refusal(typo)
    assert all(name in refusal("qqqq") for name in ALL)


def test_an_unknown_class_is_an_attribute_that_there_is_not():
    with pytest.raises(AttributeError, match="known: .*Mixup"):
        _ = defenses.MixUp
    assert not hasattr(defenses, "Nothing")


def test_patches_that_do_not_fit_into_the_images(tiny):
    split = tiny.train
    with pytest.raises(ValueError, match="fits into an image of 28x28"):
        training.fit(new(), split.images, split.labels, defenses.Patched(15, 2), epochs=1, progress=False)


@pytest.mark.parametrize("name", ["high_frequency", "quantised", "quantised_at", "renofeat", "yopo"])
def test_a_network_without_convolutions(name, tiny):
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(ValueError, match="no convolution"):
        if name in CHANGES:
            MADE[name](network)
        else:
            training.fit(network, tiny.train.images, tiny.train.labels, MADE[name], epochs=1, progress=False)
