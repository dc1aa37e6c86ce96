"""F-MNISTconv's form for CPUs: the same answers as the plain one, whatever becomes of its weights and layers."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from reprolib import attacks, networks
from reprolib.networks.cpu import winograd
from reprolib.networks.cpu.fmnistconv import QuickFMNISTConv
from reprolib.networks.fmnistconv import FMNISTConv


def images(seed=0, batch=6):
    return torch.rand(batch, 1, 28, 28, generator=torch.Generator().manual_seed(seed))


def plain(model):
    """FMNISTConv itself with that model's weights."""
    other = FMNISTConv().eval()
    other.load_state_dict(model.state_dict())
    return other


def close(model, expected, seed=0):
    torch.testing.assert_close(model(images(seed)), expected(images(seed)), atol=1e-5, rtol=1e-5)


@pytest.fixture
def worked_out(monkeypatch):
    """Counts how often filters are worked out."""
    calls = []
    at_points = winograd.at_points
    monkeypatch.setattr(winograd, "at_points", lambda filters: calls.append(1) or at_points(filters))
    return calls


def test_fmnistconv_is_the_quick_one():
    model = networks.build("fmnistconv", seed=5)
    assert type(model) is QuickFMNISTConv and isinstance(model, FMNISTConv)
    close(model, plain(model))


@pytest.mark.parametrize("change", ["behind autograd's back", "in place", "loaded", "trained", "copied", "moved"])
def test_a_frozen_network_notices_new_weights(change):
    """Weight averaging, pruning and noise write through `.data`, which changes neither address nor version."""
    model, other = networks.build("fmnistconv", seed=1), networks.build("fmnistconv", seed=2)
    shown = images()
    model.requires_grad_(False)
    with model.weights_held():
        model(shown)
    if change == "behind autograd's back":
        for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
            ours.data.copy_(theirs.data)
    elif change == "in place":
        for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
            ours.copy_(theirs)
    elif change == "loaded":
        model.load_state_dict(other.state_dict())
    elif change == "moved":
        model, other = model.double(), networks.build("fmnistconv", seed=1).double()
        shown = shown.double()
    elif change == "copied":
        model = copy.deepcopy(model)
        model.load_state_dict(other.state_dict())
    else:
        other.load_state_dict(model.state_dict())
        for net in (model, other):
            net.requires_grad_(True)(shown).square().sum().backward()
            torch.optim.SGD(net.parameters(), lr=0.01).step()
        model.requires_grad_(False)
    torch.testing.assert_close(model(shown), other(shown), atol=1e-5, rtol=1e-5)


def test_filters_are_worked_out_once_while_they_are_held(worked_out):
    model = networks.build("fmnistconv").requires_grad_(False)
    expected = model(images())
    model(images())
    assert len(worked_out) == 2
    with model.weights_held():
        assert torch.equal(model(images()), expected) and torch.equal(model(images()), expected)
        with model.weights_held():
            assert torch.equal(model(images()), expected)
        assert torch.equal(model(images()), expected)  # the end of the inner promise is not the end of the outer
        assert len(worked_out) == 3
    model(images())
    assert len(worked_out) == 4


def test_held_filters_are_forgotten_after_an_exception():
    model, other = networks.build("fmnistconv", seed=1).requires_grad_(False), networks.build("fmnistconv", seed=2)
    with pytest.raises(KeyboardInterrupt), model.weights_held(), model.weights_held():
        model(images())
        raise KeyboardInterrupt
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        ours.data.copy_(theirs.data)
    assert torch.equal(model(images()), other(images()))


def test_an_attack_sees_the_weights_of_now(worked_out):
    """Attacked, changed through `.data` and attacked again, as whoever averages weights does."""
    model, other = networks.build("fmnistconv", seed=1), networks.build("fmnistconv", seed=2)
    found = []
    for net in (model, model, other):
        worked_out.clear()
        found.append(attacks.pgd(net, 0.1, 0.03, 6, 1, slots=8)(images(), other(images()).argmax(1)))
        assert len(worked_out) == 2  # once by the labels' plain call, once by the whole attack
        for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
            ours.data.copy_(theirs.data)
    assert torch.equal(found[1], found[2]) and not torch.equal(found[0], found[1])


@pytest.mark.parametrize("how", [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model)), "saved"])
def test_a_copy_holds_nothing(how):
    """Copied in the middle of an attack, and then changed."""
    model, other = networks.build("fmnistconv", seed=1).requires_grad_(False), networks.build("fmnistconv", seed=2)
    with model.weights_held():
        model(images())
        if how == "saved":
            torch.save(model, stream := io.BytesIO())
            made = torch.load(io.BytesIO(stream.getvalue()), weights_only=False)
        else:
            made = how(model)
    for ours, theirs in zip(made.parameters(), other.parameters(), strict=True):
        ours.data.copy_(theirs.data)
    assert torch.equal(made(images()), other(images()))


def test_what_is_trained_is_never_held(worked_out):
    model = networks.build("fmnistconv")
    with model.weights_held():
        before = model(images())
        for parameter in model.parameters():
            parameter.data.mul_(0.5)
        after = model(images())
        after.sum().backward()
    assert not torch.allclose(before, after) and model.conv2.weight.grad.any() and model.conv3.weight.grad.any()


def test_first_held_under_inference_mode_and_then_attacked():
    model = networks.build("fmnistconv").requires_grad_(False)
    shown = images().requires_grad_()
    winograd._transforms.cache_clear()
    with model.weights_held():
        with torch.inference_mode():
            seen = model(shown)
        logits = model(shown)
        assert torch.equal(logits, seen) and torch.autograd.grad(logits.sum(), shown)[0].any()


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3"])
def test_a_layer_that_somebody_replaced_pruned_or_hooked_is_asked_itself(layer):
    def hooked(model):
        getattr(model, layer).register_forward_hook(lambda module, inputs, output: output * 2)

    def pruned(model):
        """Pruning writes `weight` before each call of the layer: without one, training goes on with the old one."""
        prune.random_unstructured(getattr(model, layer), "weight", amount=0.5)
        with torch.no_grad():
            getattr(model, layer).weight_orig.mul_(0.5)

    def replaced(model):
        old = getattr(model, layer)
        setattr(model, layer, nn.Sequential(old, nn.Tanh()))

    for change in (hooked, pruned, replaced):
        model = networks.build("fmnistconv", seed=3)
        expected = plain(model)
        before = model(images())
        for net in (model, expected):
            torch.manual_seed(0)
            change(net)
        close(model, expected)
        assert not torch.allclose(model(images()), before, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_takes_no_coarse_short_cut(dtype):
    """Winograd's sums lose two digits, which float32 has to spare and 16 bits have not."""
    model = networks.build("fmnistconv", seed=1)
    shown, exact = images(batch=64), networks.build("fmnistconv", seed=1).double()
    errors = [
        (net.to(dtype)(shown.to(dtype)).double() - exact(shown.double())).abs().mean() for net in (model, plain(model))
    ]
    assert errors[0] < 1.5 * errors[1]
