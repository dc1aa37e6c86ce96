"""Chunks that fit the device change no result, and a network that answers with probabilities is told so."""

import contextlib
import warnings
from functools import partial

import pytest
import torch
from torch import nn

from reprolib import training
from reprolib.attacks import Probabilities, autoattack, cascade, guards, is_right, pgd, random_noise
from reprolib.networks.voted import SoftVote, Vote
from tests.attacks.small import ALPHA, EPS, Scaled, assert_same, make_task, small_net

CPU_FULL = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
FULL = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    "cpu": lambda: RuntimeError(CPU_FULL),
    "windows": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
    "numpy": lambda: MemoryError("Unable to allocate 9 GiB"),
}
ATTACKS = {
    "pgd": partial(pgd, eps=EPS, alpha=ALPHA, steps=5, restarts=2),
    "last": partial(pgd, eps=EPS, alpha=ALPHA, steps=3, restarts=2, loss="probabilities", decision="last"),
    "autoattack": partial(autoattack, eps=EPS, steps=2),
    "cascade": partial(cascade, eps=EPS, loss="probabilities"),
}


class Small(nn.Module):
    """A network on a device that has no room for more than `most` images, forwards or only backwards."""

    def __init__(self, net: nn.Module, most: int, full=FULL["cuda"], backward: bool = False):
        super().__init__()
        self.net, self.most, self.full, self.backward, self.largest, self.refusals = net, most, full, backward, 0, 0

    def check(self, count: int) -> None:
        if count > self.most:
            self.refusals += 1
            raise self.full()
        self.largest = max(self.largest, count)

    def forward(self, images):
        if self.backward:
            return self.net(Heavy.apply(images, self))
        self.check(len(images))
        return self.net(images)


class Heavy(torch.autograd.Function):
    """The images, whose gradient takes memory."""

    @staticmethod
    def forward(ctx, images, small):
        ctx.small = small
        return images.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.small.check(len(gradient))
        return gradient, None


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return Scaled(small_net()).eval()


@pytest.fixture(scope="module")
def undisturbed(net):
    images, labels = make_task(9)
    return {name: make(net, slots=8).run(images, labels) for name, make in ATTACKS.items()}


# --- a device that is too small ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("name", ATTACKS)
def test_a_device_that_refuses_many_images_changes_no_result(net, undisturbed, name, backward):
    small = Small(net, 3, backward=backward)
    found = ATTACKS[name](small, slots=8).run(*make_task(9))
    assert_same(found, undisturbed[name])
    assert found.calls == undisturbed[name].calls
    assert small.refusals and small.largest <= 3


@pytest.mark.parametrize("full", FULL)
def test_every_way_to_say_that_memory_is_full_is_understood_and_learned_from(net, undisturbed, full):
    small = Small(net, 3, FULL[full])
    assert_same(ATTACKS["pgd"](small, slots=8).run(*make_task(9)), undisturbed["pgd"])
    refusals = small.refusals
    ATTACKS["pgd"](small, slots=8).run(*make_task(9))
    assert small.refusals == refusals, "the second attack knows how many fit"


def test_what_asks_no_gradient_goes_in_parts_too(net):
    images, labels = make_task(9)
    assert torch.equal(is_right(Small(net, 2), images, labels), is_right(net, images, labels))
    assert torch.equal(
        random_noise(Small(net, 5), images, labels, EPS, draws=4), random_noise(net, images, labels, EPS, draws=4)
    )
    pixels = (images * 255).to(torch.uint8)
    expected = training.clean_accuracy(net, pixels, labels)
    assert training.clean_accuracy(Small(net, 5), pixels, labels) == expected


def test_a_scripted_network_is_attacked_and_its_softmax_refused_like_another(net):
    images, labels = make_task(9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its own tracing deprecated
        scripted = torch.jit.trace(net, images)
        sure = torch.jit.trace(nn.Sequential(net, nn.Softmax(1)), images)
    assert_same(ATTACKS["pgd"](scripted).run(images, labels), ATTACKS["pgd"](net).run(images, labels))
    with pytest.raises(ValueError, match="answers with probabilities"):
        ATTACKS["pgd"](sure).run(images, labels)


@pytest.mark.parametrize("fits", [5, 0])
def test_modes_outlive_a_memory_that_was_too_small(net, fits):
    """Else a training that looks at its accuracy midway would go on with its batch normalisation switched off."""
    images, labels = make_task(9)
    frozen = nn.BatchNorm2d(1)
    small = Small(nn.Sequential(frozen, nn.BatchNorm2d(1), net), fits)
    small.train()
    frozen.eval()
    before = [layer.training for layer in small.modules()]
    with contextlib.nullcontext() if fits else pytest.raises(MemoryError):
        training.clean_accuracy(small, (images * 255).to(torch.uint8), labels)
    assert [layer.training for layer in small.modules()] == before and not frozen.training


@pytest.mark.parametrize("backward", [False, True])
def test_a_device_too_small_for_one_image_is_one_sentence(net, backward):
    with pytest.raises(MemoryError, match=r"^the network ran out of memory on a single image \(1, 8, 8\) on cpu; give"):
        ATTACKS["pgd"](Small(net, 0, backward=backward)).run(*make_task(5))
    with pytest.raises(MemoryError, match="a single image"):  # also behind a wrapper that asks by itself
        ATTACKS["cascade"](Small(net, 0, backward=backward)).run(*make_task(5))


def test_another_error_is_no_reason_to_ask_again(net):
    small = Small(net, 3, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        ATTACKS["pgd"](small).run(*make_task(5))
    assert small.refusals == 1


def test_large_images_go_in_few_at_a_time_unless_somebody_says_how_many():
    images, seen = torch.rand(40, 1, 128, 128), []
    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 3))
    labels = net(images).argmax(1)
    net.register_forward_hook(lambda _net, given, _logits: seen.append(len(given[0])))
    pgd(net, 0.1, 0.01, 1).run(images, labels)
    assert max(seen) == guards.usual(images) == 32
    seen.clear()
    pgd(net, 0.1, 0.01, 1, slots=40).run(images, labels)
    assert max(seen) == 40
    assert [guards.usual(torch.empty(1, 3, side, side)) for side in (28, 32, 64, 224, 4096)] == [128, 128, 128, 10, 1]


def test_a_training_that_is_too_large_says_which_batch_to_choose():
    images, labels = make_task(16)
    small = Small(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), 4, FULL["cpu"])
    with pytest.raises(MemoryError, match=r"batches of 8 images \(1, 8, 8\) on cpu; give the recipe batch_size=4,"):
        training.fit(small, (images * 255).byte(), labels, recipe=training.Recipe(batch_size=8), epochs=1)
    training.fit(small, (images * 255).byte(), labels, recipe=training.Recipe(batch_size=4), epochs=1)


# --- networks that answer with probabilities --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
def test_a_network_that_ends_in_a_softmax_is_refused_with_the_remedy(net, name):
    with pytest.raises(ValueError, match="answers with probabilities.* exactly zero.*; return what goes into the soft"):
        ATTACKS[name](nn.Sequential(net, nn.Softmax(1))).run(*make_task(8))


def test_one_image_alone_may_look_so_by_chance(net):
    images, labels = make_task(1)
    with pytest.warns(UserWarning, match="for the one image, the network answers with probabilities"):
        ATTACKS["pgd"](nn.Sequential(net, nn.Softmax(1))).run(images, labels)

    class First(nn.Module):
        """Logits, of which the first image's are 0 and 1."""

        def forward(self, images):
            return torch.eye(4)[:1] + (images - images[:1]).flatten(1)[:, :4]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pgd(First(), 0.0, 0.0, 0).run(*make_task(8))


def test_who_means_probabilities_may_attack_them(net):
    images, labels = make_task(8)
    softmax = nn.Sequential(net, nn.Softmax(1))
    softmax.answers_probabilities = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for voting in (Vote([net, net]), SoftVote([net, net]), Probabilities(net), softmax):
            ATTACKS["pgd"](voting).run(images, labels)
    with pytest.raises(ValueError, match="answers with probabilities"):
        ATTACKS["pgd"](Probabilities(nn.Sequential(net, nn.Softmax(1)))).run(images, labels)
    assert not net._forward_hooks
