"""Networks for the ImageNet subset: as published, with ten classes, and nothing in them that draws at random."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from reprolib import networks, training
from reprolib.data.imagenet_subset import IMAGENETTE
from reprolib.networks.cpu.folding import folded
from reprolib.networks.imagenet import with_ten_classes

PUBLISHED = {  # parameters with 1000 classes, and inputs of the head
    "squeezenet": (1_235_496, 512),
    "efficientnet-lite0": (4_652_008, 1280),
    "vgg16-imagenet": (138_357_544, 4096),
    "resnet50-imagenet": (25_557_032, 2048),
    "wide-resnet-50-2": (68_883_240, 2048),
    "mobilenet-v1": (4_231_976, 1024),
    "mobilenet-v2": (3_504_872, 1280),
    "xception": (22_855_952, 2048),
}
ROWS = [index for _, index in IMAGENETTE.values()]


def small(name: str) -> nn.Sequential:
    return networks.build(name, seed=1, width=1 / 16 if networks.scalable(name) else 1.0)


def pictures(side: int = 64, batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(2))


def test_every_such_network_is_tested_here():
    assert set(PUBLISHED) == {name for name, place in networks.ARCHITECTURES.items() if "networks.imagenet:" in place}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts(name):
    count, inputs = PUBLISHED[name]
    assert networks.parameter_count(networks.build(name)) == count - 990 * (inputs + 1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_nothing_draws_at_random(name):
    """A training that was killed goes on to the same weights: its state knows no dropout."""
    model, images = small(name).train(), pictures()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("name", PUBLISHED)
def test_folding_changes_no_answer(name):
    model, images = small(name), pictures()
    logits, theirs = (network(images).detach() for network in (model, folded(model)))
    assert logits.shape == (3, 10) and logits.std() > 0
    torch.testing.assert_close(theirs, logits, rtol=0, atol=1e-5 * float(logits.abs().max()))


def whole(name: str) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    """A network of 1000 classes, made by the library alone, and the statistics that its weights are published with."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        if name == "squeezenet":
            return torchvision.models.squeezenet1_1().eval(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        return timm.create_model("tf_efficientnet_lite0").eval(), (0.5,) * 3, (0.5,) * 3


@pytest.mark.parametrize("name, side", [("squeezenet", 64), ("efficientnet-lite0", 64), ("efficientnet-lite0", 65)])
def test_a_cut_head_gives_ten_of_the_thousand_logits(name, side):
    full, mean, std = whole(name)
    model, images = small(name), pictures(side)
    # one copy names its tensors otherwise; they have the same order
    weights = {f"other.{key}": tensor for key, tensor in full.state_dict().items()}
    model.load_state_dict(with_ten_classes(weights, model))
    expected = full(torchvision.transforms.functional.normalize(images, list(mean), list(std)))[:, ROWS].detach()
    assert expected.std() > 0
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_fresh_head_is_the_networks_own():
    full, model = whole("squeezenet")[0], small("squeezenet")
    found = with_ten_classes(full.state_dict(), model, head="fresh")
    own = model.state_dict()
    assert torch.equal(found["1.classifier.1.weight"], own["1.classifier.1.weight"])
    assert torch.equal(found["1.features.0.weight"], full.state_dict()["features.0.weight"])


def test_weights_of_another_network_are_refused():
    model, full = small("squeezenet"), whole("squeezenet")[0].state_dict()
    with pytest.raises(ValueError, match="it has 1 tensors; 52 are needed"):
        with_ten_classes({"a": torch.zeros(3)}, model)
    with pytest.raises(ValueError, match=r"features.0.weight is \[1\]; \[64, 3, 3, 3\] is needed"):
        with_ten_classes(full | {"features.0.weight": torch.zeros(1)}, model)


def test_a_killed_training_of_squeezenet_goes_on_to_the_same_weights(monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", -1.0)
    images, labels, states = (255 * pictures(32, 12)).to(torch.uint8), torch.arange(12) % 10, []

    def fit(**options):
        recipe = training.Recipe(lr=1e-4, batch_size=4)
        return training.fit(small("squeezenet"), images, labels, None, recipe, epochs=1, progress=False, **options)

    ended = fit(save=lambda run: states.append(run.state())).model.state_dict()
    resumed = fit(resume=states[0]).model.state_dict()
    assert all(torch.equal(resumed[key], ended[key]) for key in ended)
