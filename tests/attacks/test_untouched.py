"""The network, the images and the global random numbers are left as they were, whatever the network does."""

import contextlib
import copy
import threading

import pytest
import torch
from attacks.small import ALPHA, EPS, assert_equal_state, assert_same, model_in_a_strange_state, state_of
from torch import Tensor, nn

from reprolib.attacks import Probabilities, is_right, pgd, untouched


class Fails(nn.Module):
    """Raises `error` at the `at`-th call."""

    def __init__(self, net: nn.Module, at: int, error: type[BaseException]):
        super().__init__()
        self.net, self.at, self.error, self.calls = net, at, error, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.at:
            raise self.error("stop")
        return self.net(images)


@pytest.mark.parametrize("restarts", [0, 2])
def test_the_model_and_the_random_numbers_are_left_as_they_were(task, restarts):
    model = model_in_a_strange_state()
    images, labels = task
    copies, before = (images.clone(), labels.clone()), state_of(model)
    pgd(model, EPS, ALPHA, 3, restarts)(images, labels)
    assert_equal_state(state_of(model), before)
    assert torch.equal(images, copies[0]) and torch.equal(labels, copies[1])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [1, 3])
def test_also_after_an_exception(task, error, at):
    model = Fails(model_in_a_strange_state(), at, error)
    before = state_of(model)
    with pytest.raises(error, match="stop"):
        pgd(model, EPS, ALPHA, 5, 2)(*task)
    assert_equal_state(state_of(model), before)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_where_the_caller_has_switched_gradients_off(net, task, context):
    outside = pgd(net, EPS, ALPHA, 3, 2).run(*task)
    with context():
        images, labels = (tensor.clone() for tensor in task)
        assert_same(pgd(net, EPS, ALPHA, 3, 2).run(images, labels), outside)
        assert not torch.is_grad_enabled()


# --- one thread at a time --------------------------------------------------------------------------------------------


def test_networks_named_together_are_never_waited_for_in_a_circle():
    one, two, rounds = nn.Linear(2, 2), nn.Linear(2, 2), []

    def run(*networks: nn.Module) -> None:
        for _ in range(300):
            with untouched(*networks), untouched(networks[0]):
                assert not any(network.training for network in networks)
        rounds.append(networks)

    threads = [threading.Thread(target=run, args=args, daemon=True) for args in ((one, two), (two, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(rounds) == 2 and one.training and two.training
    assert all(parameter.requires_grad for parameter in one.parameters())


def test_a_second_thread_waits_until_the_network_is_as_it_was():
    net, order = nn.Linear(2, 2), []

    def second() -> None:
        with untouched(nn.Sequential(net)):
            order.append("second")

    thread = threading.Thread(target=second, daemon=True)
    with untouched(net):
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"] and net.training


# --- what a network keeps --------------------------------------------------------------------------------------------


class Keeps(nn.Module):
    """Works something out of its weights once, for as long as it is told that nobody changes them."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.held, self.entered, self.kept = net, 0, 0, None

    @contextlib.contextmanager
    def weights_held(self):
        assert not any(parameter.requires_grad for parameter in self.parameters())
        self.held, self.entered = self.held + 1, self.entered + 1
        try:
            yield
        finally:
            self.held -= 1
            self.kept = self.kept if self.held else None

    def forward(self, images: Tensor) -> Tensor:
        if not self.held:
            return self.net(images)
        if self.kept is None:
            self.kept = copy.deepcopy(self.net)
        return self.kept(images)


@pytest.mark.parametrize("around", [lambda net: net, lambda net: nn.Sequential(nn.Identity(), net), Probabilities])
def test_nothing_that_a_network_keeps_outlives_an_attack(net, task, around):
    """Weights written through `.data`, as averaging and pruning do, leave no trace that could be noticed."""
    inner = Keeps(net)
    model = around(inner)
    attack = pgd(model, EPS, ALPHA, 3)
    assert attack.run(*task).correct.float().mean() > 0.8 and inner.entered
    for parameter in net.parameters():
        parameter.data.copy_(-parameter.data)
    plain = model(task[0]).argmax(1) == task[1]
    assert not plain.all()
    assert torch.equal(attack.run(*task).correct, plain) and torch.equal(is_right(model, *task), plain)
    assert inner.held == 0 and inner.kept is None


def test_it_is_forgotten_after_an_exception_too(net, task):
    inner = Keeps(net)
    with pytest.raises(RuntimeError, match="stop"):
        pgd(Fails(inner, 3, RuntimeError), EPS, ALPHA, 5)(*task)
    assert inner.held == 0 and inner.kept is None


def test_float32_is_not_rounded_while_a_network_is_asked():
    """A GPU's convolutions round to TensorFloat-32 by default; the user's setting is there again afterwards."""
    places = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before, seen = [place.fp32_precision for place in places], []

    class Watcher(nn.Module):
        def forward(self, images):
            seen.extend(place.fp32_precision for place in places)
            return images.flatten(1)[:, :2]

    pgd(Watcher(), 0.1, 0.1, 1)(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]))
    assert seen and set(seen) == {"ieee"}
    assert [place.fp32_precision for place in places] == before
