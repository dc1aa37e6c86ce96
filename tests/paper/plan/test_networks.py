"""The four kinds of network, made of each other: what they contain is what they are, and what cannot be is refused."""

import json

import pytest

from reprolib import defenses
from reprolib.paper.plan import Changed, Pretrained, SpecError, Trained, Voted, read_network, trainings
from reprolib.training import Recipe

ADAM = {"optimizer": "adam", "lr": 1e-3, "batch_size": 128}
PATCHED = {"name": "patched", "size": 7, "count": 1}
USUAL = {"architecture": "vgg16", "data": "cifar-10", "recipe": ADAM, "epochs": 5}


def trained(**fields) -> Trained:
    return Trained(**USUAL | fields)


PARENT = trained()
CHILD = trained(parent=PARENT, defence=PATCHED, recipe={"optimizer": "rmsprop"}, epochs=10)
WEIGHTS = Pretrained(architecture="vgg16", weights="weights/vgg16.safetensors")
SMOOTHED = {"name": "high_frequency", "rho": 0.5}
NETWORKS = {
    "trained": PARENT,
    "fine-tuned": CHILD,
    "fine-tuned from weights": trained(parent=WEIGHTS, defence=PATCHED),
    "fine-tuned from a changed one": trained(parent=Changed(network=PARENT, change=SMOOTHED)),
    "pre-trained": WEIGHTS,
    "voted": Voted(members=[PARENT, CHILD, WEIGHTS]),
    "voted softly": Voted(members=[PARENT, CHILD, WEIGHTS], voting="soft"),
    "changed": Changed(network=CHILD, change=SMOOTHED),
    "changed vote": Changed(network=Voted(members=[PARENT, WEIGHTS]), change=SMOOTHED),
}


def refusal(make, **fields) -> str:
    with pytest.raises(SpecError) as caught:
        make(**fields)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_network_is_read_again_from_its_content(network):
    content = json.loads(json.dumps(network.content()))
    again = read_network(content)
    assert again == network and type(again) is type(network) and again.content() == content


def test_content_tells_networks_apart():
    others = [
        *NETWORKS.values(),
        *(trained(**{field: value}) for field, value in (
            ("seed", 1), ("width", 0.5), ("train", 100), ("epochs", 6), ("data", "fashion-mnist"),
            ("architecture", "resnet20"), ("recipe", ADAM | {"lr": 2e-3}), ("recipe", ADAM | {"augment": True}),
            ("recipe", ADAM | {"target": 80.0}), ("defence", {"name": "unmodified"}), ("defence", PATCHED),
            ("defence", PATCHED | {"size": 11}), ("defence", {"name": "mixup"}), ("parent", PARENT),
            ("parent", trained(seed=1)), ("parent", trained(epochs=6)),
        )),
        Pretrained(architecture="vgg16", weights="other.pth"),
        Voted(members=[CHILD, PARENT, WEIGHTS]),
        Changed(network=CHILD, change=SMOOTHED | {"rho": 0.1}),
    ]  # fmt: skip
    contents = [str(network.content()) for network in others]
    assert len(set(contents)) == len(contents)


def test_content_leaves_out_what_is_as_by_default():
    """So a parameter that is new tomorrow, with a default, leaves today's networks in the store."""
    assert trained(seed=0, width=1.0, train=None, parent=None, recipe=ADAM | {"augment": False}).content() == {
        "architecture": "vgg16", "data": "cifar-10", "recipe": {"optimizer": "adam"}, "epochs": 5,
    }  # fmt: skip


def test_a_default_of_a_recipe_is_no_other_recipe():
    assert trained(recipe={}).content() == trained(recipe=ADAM).content()
    assert trained(recipe=Recipe()) == trained(recipe=ADAM)


def test_plain_training_has_no_defence():
    assert "defence" not in PARENT.content() and type(PARENT.defence) is defenses.Defence
    assert CHILD.content()["defence"] == PATCHED and CHILD.defence == defenses.Patched(7, 1)


def test_a_training_is_a_network_without_its_length():
    assert trained(epochs=5).training == trained(epochs=60).training
    assert trained().training != trained(seed=1).training
    assert trained(parent=trained(epochs=5)).training != trained(parent=trained(epochs=6)).training


def test_trainings_are_found_in_the_whole_tree_parents_first():
    strong = trained(seed=7)
    network = Changed(network=Voted(members=[CHILD, WEIGHTS, trained(parent=strong)]), change=SMOOTHED)
    found = list(trainings(network))
    assert found == [PARENT, CHILD, strong, trained(parent=strong)]
    assert list(trainings(WEIGHTS)) == []
    tuned = trained(parent=Changed(network=strong, change=SMOOTHED))
    assert list(trainings(tuned)) == [strong, tuned]


@pytest.mark.parametrize("fields, words", [
    ({"epochs": 0}, ["Trained.epochs", "0"]),
    ({"width": 2.0}, ["Trained.width", "2.0"]),
    ({"train": 0}, ["Trained.train"]),
    ({"epoch": 3}, ["did you mean 'epochs'"]),
    ({"recipe": ADAM | {"batchsize": 3}}, ["Trained.recipe", "did you mean 'batch_size'"]),
    ({"recipe": ADAM | {"lr": "1e-3"}}, ["Trained.recipe", "1.0e-3"]),
    ({"recipe": ADAM | {"lr": 0.0}}, ["Trained.recipe", "lr is 0.0"]),
    ({"recipe": ADAM | {"optimizer": "lion"}}, ["Trained.recipe", "lion", "sgd"]),
    ({"defence": {"name": "patch"}}, ["Trained.defence", "did you mean 'patched'"]),
    ({"defence": {"name": "patched", "size": 7}}, ["Trained.defence", "count is missing"]),
    ({"defence": PATCHED | {"patch_size": 7}}, ["Trained.defence", "patch_size"]),
    ({"defence": PATCHED | {"count": 3}}, ["Trained.defence", "count is 3"]),
    ({"defence": SMOOTHED}, ["HighFrequency needs no training", "`change`"]),
    ({"defence": {}}, ["Trained.defence", "name"]),
    ({"defence": "patched"}, ["Trained.defence", "'patched' names no defence"]),
    ({"recipe": "adam"}, ["Trained.recipe", "'adam'"]),
    ({"recipe": None}, ["Trained.recipe", "None"]),
    ({"parent": {"architecture": "vgg16"}}, ["Trained.parent"]),
    ({"parent": "weights/vgg16.pth"}, ["Trained.parent"]),
    ({"parent": 3}, ["Trained.parent"]),
])  # fmt: skip
def test_a_training_that_makes_no_sense(fields, words):
    message = refusal(Trained, **USUAL | fields)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("parent, words", [
    (trained(architecture="resnet20"), ["resnet20", "vgg16"]),
    (trained(width=0.5), ["width 0.5", "width 1"]),
    (Pretrained(architecture="resnet50", weights="some.pth"), ["resnet50", "vgg16"]),
    (Changed(network=trained(width=0.25), change=SMOOTHED), ["width 0.25"]),
    (Voted(members=[PARENT, PARENT]), ["vote", "one of them"]),
])  # fmt: skip
def test_a_parent_that_has_no_weights_for_this_network(parent, words):
    message = refusal(trained, parent=parent)
    assert all(word in message for word in words), message


def test_a_change_that_is_none():
    assert "Patched has to be trained" in refusal(Changed, network=PARENT, change=PATCHED)
    assert "rho is missing" in refusal(Changed, network=PARENT, change={"name": "high_frequency"})


def test_a_vote_of_one():
    assert "Voted.members" in refusal(Voted, members=[PARENT])
