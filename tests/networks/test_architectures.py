"""The networks: sizes, shapes, plain layers in the printed order, torchvision's networks, normalisation inside."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torchvision.transforms import functional

from reprolib import networks

PRINTED = {"fmnistconv": 710_218, "cifarconv": 433_354, "cifarconv-empir": 116_704}  # parameters
DEEP = {  # parameters at width 1, from the papers' and others' implementations
    "vgg16": 14_728_266,
    "resnet50": 23_520_842,
    "resnet20": 269_722,
    "wide-resnet-16-4": 2_748_890,
    "wide-resnet-28-10": 36_479_194,
}
SMALL = dict.fromkeys(PRINTED, 1.0) | dict.fromkeys(DEEP, 0.05)  # widths at which all can be tried
FMNIST_STATISTICS = ([0.2860], [0.3530])
CIFAR_STATISTICS = ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])


def shape_of(name):
    return (1, 28, 28) if name == "fmnistconv" else (3, 32, 32)


def pictures(name, batch=6, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, *shape_of(name), generator=generator, dtype=torch.float64).to(dtype)


def plain_fmnistconv():
    return nn.Sequential(
        nn.Conv2d(1, 64, 8, stride=2, padding=3), nn.ReLU(),
        nn.Conv2d(64, 128, 6, stride=2), nn.ReLU(),
        nn.Conv2d(128, 128, 5), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def plain_cifarconv(kernel, widths, bias):
    first, second, third = widths
    return nn.Sequential(
        nn.Conv2d(3, first, 5, padding="same", bias=bias), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(first, second, kernel, padding="same", bias=bias), nn.ReLU(), nn.AvgPool2d(3, 2),
        nn.Conv2d(second, third, kernel, padding="same", bias=bias), nn.ReLU(), nn.AvgPool2d(3, 2),
        nn.Flatten(), nn.Linear(third * 9, 64, bias=bias), nn.Linear(64, 10, bias=bias),
    )  # fmt: skip


PLAIN = {
    "fmnistconv": (plain_fmnistconv, FMNIST_STATISTICS),
    "cifarconv": (lambda: plain_cifarconv(8, (32, 64, 64), True), CIFAR_STATISTICS),
    "cifarconv-empir": (lambda: plain_cifarconv(5, (32, 32, 64), False), CIFAR_STATISTICS),
}


def normalize(images, statistics):
    """torchvision's; the constants rounded to float32 first, as any network stores them (float64 would see that)."""
    return functional.normalize(images, *(torch.tensor(part).tolist() for part in statistics))


def twin(name, dtype=torch.float32):
    """The network and a plain chain of torch layers with the same weights, for images normalised outside."""
    model, plain = networks.build(name, seed=3).to(dtype), PLAIN[name][0]().to(dtype)
    weights = [tensor for key, tensor in model.state_dict().items() if not key.startswith("normalize.")]
    plain.load_state_dict(dict(zip(plain.state_dict(), weights, strict=True)))
    return model, plain


def test_every_network_is_tested_here():
    """But for those of ImageNet, which have a file of their own."""
    for_imagenet = {name for name, place in networks.ARCHITECTURES.items() if "networks.imagenet:" in place}
    assert set(networks.names()) == set(networks.ARCHITECTURES) == set(SMALL) | for_imagenet
    assert set(PLAIN) == {name for name in SMALL if not networks.scalable(name)} == set(PRINTED)


@pytest.mark.parametrize("name, count", [*PRINTED.items(), *DEEP.items()])
def test_parameter_counts(name, count):
    assert networks.parameter_count(networks.build(name)) == count
    if name in PLAIN:
        assert sum(parameter.numel() for parameter in PLAIN[name][0]().parameters()) == count


@pytest.mark.parametrize("name, width", SMALL.items())
@pytest.mark.parametrize("batch", [0, 1, 5])
def test_shapes(name, width, batch):
    images = pictures(name, batch).requires_grad_()
    logits = networks.build(name, width=width)(images)
    assert logits.shape == (batch, 10) and logits.dtype == torch.float32 and logits.isfinite().all()
    (gradient,) = torch.autograd.grad(logits.sum(), images)
    assert gradient.shape == images.shape


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_equals_plain_layers_behind_an_external_normalisation(name, dtype, tolerance):
    """Logits and input gradients: the quick forms of F-MNISTconv's convolutions change nothing."""
    model, plain = twin(name, dtype)
    inside, outside = (pictures(name, dtype=dtype).requires_grad_() for _ in range(2))
    weight = torch.linspace(-1, 1, 10, dtype=dtype)  # an arbitrary direction in the logits
    logits, expected = model(inside), plain(normalize(outside, PLAIN[name][1]))
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=tolerance)

    (logits * weight).sum().backward()
    (expected * weight).sum().backward()
    assert expected.std() > 0.01 and outside.grad.abs().max() > 0.001  # the comparison is not one of zeros
    torch.testing.assert_close(inside.grad, outside.grad, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_a_frozen_network_equals_plain_layers(name, dtype, tolerance):
    """What attacks see: nobody trains the weights, and only the images' gradient is asked for."""
    model, plain = twin(name, dtype)
    model.requires_grad_(False)
    for seed in (0, 1):
        inside, outside = (pictures(name, seed=seed, dtype=dtype).requires_grad_() for _ in range(2))
        logits, expected = model(inside), plain(normalize(outside, PLAIN[name][1]))
        torch.testing.assert_close(logits, expected, atol=tolerance, rtol=tolerance)
        logits.logsumexp(1).sum().backward()
        expected.logsumexp(1).sum().backward()
        torch.testing.assert_close(inside.grad, outside.grad, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("inside", ["the first call", "building"])
def test_inference_mode_leaves_no_trace_in_a_frozen_network(name, inside):
    images = pictures(name).requires_grad_()
    with torch.inference_mode(inside == "building"):
        model = networks.build(name).requires_grad_(False)
    with torch.inference_mode():
        seen = model(images)
    if inside == "the first call":
        logits = model(images)
        assert torch.equal(logits, seen) and torch.autograd.grad(logits.sum(), images)[0].any()


@pytest.mark.parametrize("name", PLAIN)
def test_freezing_changes_nothing_under_autocast(name):
    """The quick forms are for float32; bfloat16 takes the same way whether the weights are frozen or not."""
    found = []
    for trainable in (True, False):
        model, images = networks.build(name, seed=3).requires_grad_(trainable), pictures(name).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images)
        assert logits.dtype == torch.bfloat16
        (gradient,) = torch.autograd.grad(logits.float().logsumexp(1).sum(), images)
        found.append((logits, gradient))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("name", PLAIN)
def test_equal_weight_gradients(name):
    model, plain = twin(name, torch.float64)
    images = pictures(name, dtype=torch.float64)
    model(images).square().sum().backward()
    plain(normalize(images, PLAIN[name][1])).square().sum().backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", PLAIN)
def test_normalisation_is_fixed(name):
    """Its constants are stored with the weights but are no parameters, and a training step leaves them alone."""
    model = networks.build(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(pictures(name)).square().sum().backward()
    optimizer.step()
    after = model.state_dict()
    assert {key for key in before if torch.equal(before[key], after[key])} == {"normalize.mean", "normalize.std"}


@pytest.mark.parametrize("name, widths", [("cifarconv", (32, 64, 64)), ("cifarconv-empir", (32, 32, 64))])
def test_spatial_sizes_of_cifarconv(name, widths):
    model, sizes = networks.build(name), []
    for layer in (model.conv1, model.conv2, model.conv3, model.fc1):
        layer.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape[1:])))
    model(pictures(name))
    assert sizes == [(3, 32, 32), (widths[0], 15, 15), (widths[1], 7, 7), (widths[2] * 3 * 3,)]


@pytest.mark.parametrize("name", PLAIN)
def test_a_seed_decides_the_weights(name):
    first, same, other = (networks.build(name, seed=seed).state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if not key.startswith("normalize."))


@pytest.mark.parametrize("name", PLAIN)
def test_the_global_generator_is_neither_read_nor_moved(name):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = networks.build(name, seed=4).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    second = networks.build(name, seed=4).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_global_generator_of_cuda_is_not_moved():
    torch.cuda.manual_seed_all(11)
    state = torch.cuda.get_rng_state()
    networks.build("fmnistconv", seed=4)
    assert torch.equal(torch.cuda.get_rng_state(), state)


@pytest.mark.parametrize("name, width", SMALL.items())
def test_eval_mode(name, width):
    assert not any(module.training for module in networks.build(name, width=width).modules())


@pytest.mark.parametrize("name, width", SMALL.items())
def test_weights_are_one_vector_for_torch(name, width):
    """Its own tools, and whoever averages weights, want them contiguous."""
    first, second = (networks.build(name, seed=seed, width=width) for seed in (1, 2))
    vector_to_parameters(parameters_to_vector(first.parameters()), second.parameters())
    assert torch.equal(first(pictures(name)), second(pictures(name)))


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fmnist-conv", "", "FMNISTConv"])
def test_unknown_name(name):
    for question in (networks.build, networks.scalable):
        with pytest.raises(ValueError) as error:
            question(name)
        assert f"unknown network {name!r}" in str(error.value)
        assert all(known in str(error.value) for known in SMALL)


@pytest.mark.parametrize("name", PRINTED)
def test_networks_of_table_1_have_one_width(name):
    with pytest.raises(ValueError, match="width is 0.5; expected 1, as"):
        networks.build(name, width=0.5)


@pytest.mark.parametrize("options", [{"width": "a"}, {"width": None}, {"seed": 1.5}, {"seed": "a"}])
def test_numbers_of_another_type(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"{name} is {value!r}; expected"):
        networks.build("wide-resnet-16-4", **options)


@pytest.mark.parametrize("width", [0, -1.0, math.nan, math.inf])
def test_a_width_is_positive(width):
    with pytest.raises(ValueError, match=f"width is {width}; expected a positive"):
        networks.build("wide-resnet-16-4", width=width)


@pytest.mark.parametrize("name, width", SMALL.items())
def test_images_that_a_network_does_not_take(name, width):
    """F-MNISTconv used to give four rows of logits for each image of 56x56."""
    model, (channels, side, _) = networks.build(name, width=width), shape_of(name)
    wrong = [torch.rand(4, other, side, side) for other in (0, 2, 4)]
    wrong += [torch.rand(4, side, side), torch.rand(side, side), torch.rand(4, channels), torch.rand(())]
    wrong += [torch.rand(4, 1, channels, side, side), torch.zeros(4, channels, side, side, dtype=torch.uint8)]
    if name in {*PRINTED, "vgg16"}:  # the others end in a mean over the map, of whatever size
        wrong += [torch.rand(4, channels, *size) for size in ((56, 56), (side, 30), (27, side), (64, 64), (0, 0))]
    for images in wrong:
        with pytest.raises(ValueError) as error:
            model(images)
        assert f"images are {images.dtype} of shape {tuple(images.shape)}; this network takes floats" in str(
            error.value
        )
        assert f"[B, {channels}, " in str(error.value)
    with pytest.raises(ValueError, match="images are a ndarray; this network takes floats"):
        model(np.zeros((4, channels, side, side), np.float32))


# --- the larger networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("width", [0.05, 0.25, 0.5])
def test_width_scales_the_channels(name, width):
    """Parameters grow with the square of the width, nearly; shapes of images and logits stay."""
    network = networks.build(name, width=width)
    assert 0.4 * width**2 < networks.parameter_count(network) / DEEP[name] < 2.5 * width**2
    logits = network(pictures(name, 2))
    assert logits.shape == (2, 10) and logits.isfinite().all()


def torchvisions(name):
    if name == "vgg16":
        return nn.Sequential(torchvision.models.vgg16_bn(weights=None).features, nn.Flatten(), nn.Linear(512, 10))
    network = torchvision.models.resnet50(weights=None, num_classes=10)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return network


@pytest.mark.parametrize("name", ["vgg16", "resnet50"])
def test_equals_torchvisions_network_behind_an_external_normalisation(name):
    ours, theirs = networks.build(name, seed=2), torchvisions(name).eval()
    weights = [tensor for key, tensor in ours.state_dict().items() if not key.startswith("normalize.")]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), weights, strict=True)))
    images = pictures(name, 3, seed=1)
    expected = theirs(normalize(images, CIFAR_STATISTICS))
    assert expected.std() > 0.01
    torch.testing.assert_close(ours(images), expected, atol=1e-4, rtol=1e-3)


def test_shortcuts_of_resnet20_have_no_weights():
    """Every second pixel, and zeros for the new channels: with all convolutions at 0 the stem comes through."""
    network = networks.build("resnet20")
    for module in network.stages.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    stem = network.stem(network.normalize(pictures("resnet20", 2)))
    expected = torch.zeros(2, 64, 8, 8)
    expected[:, 24:40] = stem[:, :, ::4, ::4]
    torch.testing.assert_close(network.stages(stem), expected)


def test_no_other_network_waits_for_torchvision():
    """Whose import takes seconds."""
    code = f"""if True:
        import sys
        from reprolib import networks
        for name in {[*PRINTED, "wide-resnet-16-4"]}:
            networks.build(name)
        sys.exit("torchvision" in sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)
