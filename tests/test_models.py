"""The networks: sizes, shapes, plain layers in the printed order, torchvision's networks, normalisation inside."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torchvision.transforms import functional

from reprolib import models

COUNTS = {"fmnistconv": 710_218, "cifarconv": 433_354, "cifarconv-empir": 116_704}
INPUTS = {"fmnistconv": (1, 28, 28), "cifarconv": (3, 32, 32), "cifarconv-empir": (3, 32, 32)}
FMNIST_STATISTICS = ([0.2860], [0.3530])
CIFAR_STATISTICS = ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])


def pictures(name, batch=6, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, *INPUTS[name], generator=generator, dtype=torch.float64).to(dtype)


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
    model, plain = models.build(name, seed=3).to(dtype), PLAIN[name][0]().to(dtype)
    weights = [tensor for key, tensor in model.state_dict().items() if not key.startswith("normalize.")]
    plain.load_state_dict(dict(zip(plain.state_dict(), weights, strict=True)))
    return model, plain


def test_every_network_is_tested_here():
    assert set(COUNTS) == set(INPUTS) == set(PLAIN) == set(models.BUILDERS)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    assert models.parameter_count(models.build(name)) == COUNTS[name]
    assert sum(parameter.numel() for parameter in PLAIN[name][0]().parameters()) == COUNTS[name]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("batch", [1, 5])
def test_shapes(name, batch):
    logits = models.build(name)(pictures(name, batch))
    assert logits.shape == (batch, 10) and logits.dtype == torch.float32 and logits.isfinite().all()


@pytest.mark.parametrize("name", COUNTS)
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


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_a_frozen_network_equals_plain_layers(name, dtype, tolerance):
    """What attacks see: nobody trains the weights, and only the images' gradient is asked for. Twice, as filters are kept."""
    model, plain = twin(name, dtype)
    model.requires_grad_(False)
    for seed in (0, 1):
        inside, outside = (pictures(name, seed=seed, dtype=dtype).requires_grad_() for _ in range(2))
        logits, expected = model(inside), plain(normalize(outside, PLAIN[name][1]))
        torch.testing.assert_close(logits, expected, atol=tolerance, rtol=tolerance)
        logits.logsumexp(1).sum().backward()
        expected.logsumexp(1).sum().backward()
        torch.testing.assert_close(inside.grad, outside.grad, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("change", ["in place", "loaded", "trained", "copied", "moved"])
def test_a_frozen_network_notices_new_weights(change):
    """F-MNISTconv keeps what it works out of its filters; it must not keep it for longer than the filters."""
    model, other = models.build("fmnistconv", seed=1), models.build("fmnistconv", seed=2)
    images = pictures("fmnistconv")
    model.requires_grad_(False)(images)
    if change == "in place":
        for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
            ours.copy_(theirs)
    elif change == "loaded":
        model.load_state_dict(other.state_dict())
    elif change == "moved":
        model, other = model.double(), models.build("fmnistconv", seed=1).double()
        images = images.double()
    elif change == "copied":
        model = copy.deepcopy(model)
        model.load_state_dict(other.state_dict())
    else:
        other.load_state_dict(model.state_dict())
        for net in (model, other):
            net.requires_grad_(True)(images).square().sum().backward()
            torch.optim.SGD(net.parameters(), lr=0.01).step()
        model.requires_grad_(False)
    torch.testing.assert_close(model(images), other(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("inside", ["the first call", "building"])
def test_inference_mode_leaves_no_trace_in_a_frozen_network(name, inside):
    images = pictures(name).requires_grad_()
    with torch.inference_mode(inside == "building"):
        model = models.build(name).requires_grad_(False)
    with torch.inference_mode():
        seen = model(images)
    if inside == "the first call":
        logits = model(images)
        assert torch.equal(logits, seen) and torch.autograd.grad(logits.sum(), images)[0].any()


@pytest.mark.parametrize("name", COUNTS)
def test_freezing_changes_nothing_under_autocast(name):
    """The quick forms are for float32; bfloat16 takes the same way whether the weights are frozen or not."""
    found = []
    for trainable in (True, False):
        model, images = models.build(name, seed=3).requires_grad_(trainable), pictures(name).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images)
        assert logits.dtype == torch.bfloat16
        (gradient,) = torch.autograd.grad(logits.float().logsumexp(1).sum(), images)
        found.append((logits, gradient))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("name", COUNTS)
def test_equal_weight_gradients(name):
    model, plain = twin(name, torch.float64)
    images = pictures(name, dtype=torch.float64)
    model(images).square().sum().backward()
    plain(normalize(images, PLAIN[name][1])).square().sum().backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", COUNTS)
def test_normalisation_is_fixed(name):
    """Its constants are stored with the weights but are no parameters, and a training step leaves them alone."""
    model = models.build(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(pictures(name)).square().sum().backward()
    optimizer.step()
    after = model.state_dict()
    assert {key for key in before if torch.equal(before[key], after[key])} == {"normalize.mean", "normalize.std"}


@pytest.mark.parametrize("name, widths", [("cifarconv", (32, 64, 64)), ("cifarconv-empir", (32, 32, 64))])
def test_spatial_sizes_of_cifarconv(name, widths):
    model, sizes = models.build(name), []
    for layer in (model.conv1, model.conv2, model.conv3, model.fc1):
        layer.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape[1:])))
    model(pictures(name))
    assert sizes == [(3, 32, 32), (widths[0], 15, 15), (widths[1], 7, 7), (widths[2] * 3 * 3,)]


@pytest.mark.parametrize("name", COUNTS)
def test_a_seed_decides_the_weights(name):
    first, same, other = (models.build(name, seed=seed).state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if not key.startswith("normalize."))


@pytest.mark.parametrize("name", COUNTS)
def test_the_global_generator_is_neither_read_nor_moved(name):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = models.build(name, seed=4).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    second = models.build(name, seed=4).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_global_generator_of_cuda_is_not_moved():
    torch.cuda.manual_seed_all(11)
    state = torch.cuda.get_rng_state()
    models.build("fmnistconv", seed=4)
    assert torch.equal(torch.cuda.get_rng_state(), state)


@pytest.mark.parametrize("name", COUNTS)
def test_eval_mode(name):
    assert not any(module.training for module in models.build(name).modules())


@pytest.mark.parametrize("name", ["fmnist-conv", "", "FMNISTConv"])
def test_unknown_name(name):
    with pytest.raises(KeyError) as error:
        models.build(name)
    assert repr(name) in str(error.value)
    assert all(known in str(error.value) for known in [*COUNTS, *DEEP])


# --- the larger networks ------------------------------------------------------------------------------------------

DEEP = {  # parameters at width 1, from the papers' and others' implementations
    "vgg16": 14_728_266,
    "resnet50": 23_520_842,
    "resnet20": 269_722,
    "wide-resnet-16-4": 2_748_890,
    "wide-resnet-28-10": 36_479_194,
}


def test_every_larger_network_is_tested_here():
    assert set(DEEP) == set(models.SCALABLE)


@pytest.mark.parametrize("name", DEEP)
def test_parameters_of_the_larger_networks(name):
    assert models.parameter_count(models.build(name)) == DEEP[name]


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("width", [0.05, 0.25, 0.5])
def test_width_scales_the_channels(name, width):
    """Parameters grow with the square of the width, nearly; shapes of images and logits stay."""
    network = models.build(name, width=width)
    assert 0.4 * width**2 < models.parameter_count(network) / DEEP[name] < 2.5 * width**2
    logits = network(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 10) and logits.isfinite().all()


def torchvisions(name):
    if name == "vgg16":
        return nn.Sequential(torchvision.models.vgg16_bn(weights=None).features, nn.Flatten(), nn.Linear(512, 10))
    network = torchvision.models.resnet50(weights=None, num_classes=10)
    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return network


@pytest.mark.parametrize("name", ["vgg16", "resnet50"])
def test_equals_torchvisions_network_behind_an_external_normalisation(name):
    ours, theirs = models.build(name, seed=2), torchvisions(name).eval()
    weights = [tensor for key, tensor in ours.state_dict().items() if not key.startswith("normalize.")]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), weights, strict=True)))
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = theirs(normalize(images, CIFAR_STATISTICS))
    assert expected.std() > 0.01
    torch.testing.assert_close(ours(images), expected, atol=1e-4, rtol=1e-3)


def test_shortcuts_of_resnet20_have_no_weights():
    """Every second pixel, and zeros for the new channels: with all convolutions at 0 the stem comes through unchanged."""
    network = models.build("resnet20")
    for module in network.stages.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.weight)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    stem = network.stem(network.normalize(images))
    expected = torch.zeros(2, 64, 8, 8)
    expected[:, 24:40] = stem[:, :, ::4, ::4]
    torch.testing.assert_close(network.stages(stem), expected)


@pytest.mark.parametrize("depth", [4, 12, 27])
def test_depth_of_wide_resnets(depth):
    from reprolib.deepnets import WideResNet

    with pytest.raises(ValueError, match=f"depth is {depth}; expected 6 n"):
        WideResNet(depth, 2)


@pytest.mark.parametrize("name", COUNTS)
def test_networks_of_table_1_have_one_width(name):
    with pytest.raises(ValueError, match="width is 0.5, but"):
        models.build(name, width=0.5)


def test_a_key_covers_the_modules_that_define_the_network():
    """So a new network beside the others does not make their checkpoints stale."""
    assert models.code_of("fmnistconv") == ("reprolib.layers", "reprolib.convnets", "reprolib.winograd")
    for name in DEEP:
        assert models.code_of(name) == ("reprolib.layers", "reprolib.deepnets")
        assert type(models.build(name, width=0.05)).__module__ in models.code_of(name)
