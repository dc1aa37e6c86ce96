"""Networks of few bits: the quantiser by hand, its gradient, and where it stands in a network."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reprolib import networks
from reprolib.networks.cpu.fmnistconv import QuickFMNISTConv
from reprolib.networks.quantized import quantized, quantized_activations, quantized_weights

bits = pytest.mark.parametrize("bits", [1, 2, 4, 8])


def images(batch=5, shape=(3, 32, 32), seed=0):
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(seed))


@bits
def test_levels_of_weights(bits):
    """2**bits levels from -1 to 1, evenly spaced, as DoReFa's formula has them."""
    weights = torch.randn(100_000, generator=torch.Generator().manual_seed(1))
    found = quantized_weights(weights, bits)
    torch.testing.assert_close(found.unique(), torch.linspace(-1, 1, 2**bits))
    bounded = np.tanh(weights.double().numpy())
    steps = 2**bits - 1
    expected = 2 * np.round((bounded / (2 * np.abs(bounded).max()) + 0.5) * steps) / steps - 1
    differ = np.abs(found.numpy() - expected) > 1e-6
    assert differ.mean() < 1e-3  # float64 falls on the other side of an edge where float32 stands on it


@bits
def test_levels_of_activations(bits):
    values = torch.linspace(-1, 2, 30_001)
    found = quantized_activations(values, bits)
    torch.testing.assert_close(found.unique(), torch.linspace(0, 1, 2**bits))
    assert (found - values.clamp(0, 1)).abs().max() <= 0.5 / (2**bits - 1) + 1e-6  # to the nearest


def test_by_hand():
    assert quantized_activations(torch.tensor([-0.3, 0.1, 0.2, 0.49, 0.51, 0.9, 7.0]), 2).mul(3).tolist() == [
        0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 3.0
    ]  # fmt: skip
    assert quantized_weights(torch.tensor([-5.0, -1e-3, 1e-3, 5.0]), 1).tolist() == [-1, -1, 1, 1]
    assert quantized_weights(torch.tensor([-5.0, -0.2, 0.2, 5.0]), 2).mul(3).round().tolist() == [-3, -1, 1, 3]


@bits
def test_the_gradient_passes_straight_through(bits):
    values = torch.tensor([-0.5, 0.0, 0.1, 0.7, 1.0, 1.5], requires_grad=True)
    weight = torch.arange(1.0, 7)
    (gradient,) = torch.autograd.grad((quantized_activations(values, bits) * weight).sum(), values)
    assert gradient.tolist() == [0, 2, 3, 4, 5, 0]  # clipping has its own gradient

    raw = torch.randn(20, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    weight = torch.arange(20, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((quantized_weights(raw, bits) * weight).sum(), raw)
    (expected,) = torch.autograd.grad((raw.tanh() / raw.tanh().abs().max() * weight).sum(), raw)
    torch.testing.assert_close(gradient, expected)


def test_all_weights_zero():
    weights = torch.zeros(3, 3, requires_grad=True)
    found = quantized_weights(weights, 4)
    assert found.isfinite().all() and torch.autograd.grad(found.sum(), weights)[0].isfinite().all()


def by_hand(network, shown, weight_bits, activation_bits):
    """EMPIR's CIFARconv: every convolution's weights and input, the image in [0, 1] included; no normalisation."""

    def convolve(conv, x):
        steps = 2**activation_bits - 1
        bounded = conv.weight.tanh()
        levels = 2**weight_bits - 1
        weight = 2 * ((bounded / (2 * bounded.abs().max()) + 0.5) * levels).round() / levels - 1
        return F.relu(F.conv2d((x.clamp(0, 1) * steps).round() / steps, weight, conv.bias, padding="same"))

    x = F.max_pool2d(convolve(network.conv1, shown), 3, 2)
    x = F.avg_pool2d(convolve(network.conv2, x), 3, 2)
    x = F.avg_pool2d(convolve(network.conv3, x), 3, 2)
    return network.fc2(network.fc1(x.flatten(1)))


@pytest.mark.parametrize("name", ["cifarconv", "cifarconv-empir"])
@pytest.mark.parametrize("weight_bits, activation_bits", [(4, 2), (2, 2), (1, 8)])
def test_a_member_of_empir(name, weight_bits, activation_bits):
    network = networks.build(name, seed=1).double()
    shown = images().double()
    member = quantized(network, weight_bits, activation_bits)
    torch.testing.assert_close(member(shown), by_hand(network, shown, weight_bits, activation_bits))
    assert not torch.allclose(member(shown), network(shown), rtol=0.1)


def test_images_of_one_level_are_the_same_image():
    """Two bits leave 0, 1/3, 2/3 and 1 of the image in [0, 1], whatever the mean that the network would subtract."""
    member = quantized(networks.build("cifarconv-empir", seed=1), 4, 2)
    shown = torch.randint(0, 4, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0)) / 3
    moved = (shown + 0.32 * (images() - 0.5)).clamp(0, 1)
    assert torch.equal(member(moved), member(shown))


@pytest.mark.parametrize("name", ["fmnistconv", "cifarconv", "resnet20", "wide-resnet-16-4"])
def test_32_bits_change_nothing(name):
    width = 0.25 if networks.scalable(name) else 1
    network, shown = (
        networks.build(name, width=width),
        images(shape=(1, 28, 28) if name == "fmnistconv" else (3, 32, 32)),
    )
    member = quantized(network, 32, 32)
    assert member is not network and type(member) is type(network)
    assert torch.equal(member(shown), network(shown))
    weights_only, inputs_only = quantized(network, 4, 32), quantized(network, 32, 4)
    assert not torch.allclose(weights_only(shown), inputs_only(shown))
    if name == "cifarconv":  # normalised, as long as inputs are not quantised
        kept = networks.build(name)
        for layer in (kept.conv1, kept.conv2, kept.conv3):
            layer.weight.data.copy_(quantized_weights(layer.weight.data, 4))
        torch.testing.assert_close(weights_only(shown), kept(shown))


@pytest.mark.parametrize("name", ["fmnistconv", "cifarconv-empir", "vgg16", "resnet20", "resnet50", "wide-resnet-16-4"])
def test_every_convolution_is_quantised_and_learns(name):
    """Each weight and the image get a gradient; none is left out for having been read past its layer."""
    network = networks.build(name, seed=1, width=0.125 if networks.scalable(name) else 1)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    member = quantized(network.train(), 8, 8)
    assert member.training and list(member.state_dict()) == list(before)
    shown = images(shape=(1, 28, 28) if name == "fmnistconv" else (3, 32, 32)).requires_grad_()
    seen = []
    for module in member.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: seen.append(module))
    member(shown).logsumexp(1).sum().backward()
    assert shown.grad.any() and all(parameter.grad.any() for parameter in member.parameters())
    assert set(seen) == {module for module in member.modules() if isinstance(module, nn.Conv2d)}
    for parameter in member.parameters():
        parameter.data.zero_()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items() if "running" not in key)


def test_a_layer_used_twice_is_quantised_both_times():
    conv = nn.Conv2d(1, 1, 3, padding=1)
    shown = images(shape=(1, 8, 8))
    member = quantized(nn.Sequential(conv, nn.ReLU(), conv), 2, 2)
    assert type(member[0]) is type(member[2]) is not nn.Conv2d and member[0].weight is member[2].weight
    torch.testing.assert_close(member(shown), member[2](member[0](shown).relu()))


def test_the_random_numbers_are_left_alone():
    network = networks.build("cifarconv-empir")
    torch.manual_seed(3)
    state = torch.get_rng_state()
    quantized(network, 4, 2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("number", [0, -1, 17, 31, 64, 2.5, "2", None])
def test_bits_that_there_are_not(number):
    network = networks.build("cifarconv-empir")
    with pytest.raises(ValueError, match=f"weight_bits is {number!r}; expected 1 to 16, or 32"):
        quantized(network, number, 2)
    with pytest.raises(ValueError, match=f"activation_bits is {number!r}; expected 1 to 16, or 32"):
        quantized(network, 2, number)


@pytest.mark.parametrize(
    "network, found",
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "no convolution"),
        (nn.Sequential(nn.Conv2d(1, 1, 3), nn.ConvTranspose2d(1, 1, 3)), "type ConvTranspose2d"),
        (quantized(nn.Sequential(nn.Conv2d(1, 1, 3)), 2, 2), "type _QuantizedConv2d"),
    ],
)
def test_networks_that_cannot_be_quantised(network, found):
    with pytest.raises(ValueError, match=f"Sequential has .*{found}; quantized.. takes networks with plain nn.Conv2d"):
        quantized(network, 2, 2)


def test_fmnistconv_is_not_asked_past_its_quantised_layers():
    network = networks.build("fmnistconv", seed=1)
    member = quantized(network, 2, 2)
    assert isinstance(member, QuickFMNISTConv)
    with member.weights_held():
        first = member.requires_grad_(False)(images(shape=(1, 28, 28)))
    shown = (images(shape=(1, 28, 28)) * 3).round() / 3
    assert torch.equal(member(shown), first) and not torch.allclose(network(shown), first)
