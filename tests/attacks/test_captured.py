"""What is captured and repeated answers as the network does, whatever the batch; on a CPU by a stand-in for graphs."""

import pytest
import torch
from attacks.small import ALPHA, EPS
from torch import Tensor

from reprolib.attacks import captured, network, pgd
from reprolib.attacks.captured import Captured


class Replayed:
    """As a graph: for one shape alone, and without a gradient each answer stands where the last one stood."""

    made = 0

    def __init__(self, ask, example: Tensor):
        type(self).made += 1
        self.ask, self.shape, self.out = ask, example.shape, None

    def __call__(self, x: Tensor) -> Tensor:
        assert x.shape == self.shape
        answered = self.ask(x)
        if answered.requires_grad:
            return answered
        self.out = answered if self.out is None else self.out.copy_(answered)
        return self.out


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(captured, "ENOUGH", 0)
    monkeypatch.setattr(Replayed, "made", 0)


@pytest.mark.usefixtures("at_once")
def test_a_captured_network_answers_as_the_plain_one(net, task):
    images, _ = task
    asked = Captured(net, Replayed)
    for count in (1, 3, 4, 7, 2, 3):
        x, y = (images[:count].clone().requires_grad_() for _ in range(2))
        found, expected = asked(x), net(y)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            *(torch.autograd.grad(one[:, 0].sum(), z)[0] for one, z in ((found, x), (expected, y)))
        )
    assert Replayed.made == 4, "one for each power of two: 1, 2, 4 and 8"


@pytest.mark.usefixtures("at_once")
def test_an_answer_outlives_the_next_one(net, task):
    images, _ = task
    asked = Captured(net, Replayed)
    with torch.no_grad():
        first = asked(images[:4])
        before = first.clone()
        asked(images[4:8])
    assert torch.equal(first, before)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("decision", ["any", "last"])
def test_an_attack_finds_the_same(net, task, decision, monkeypatch):
    attack = pgd(net, EPS, ALPHA, 4, 2, decision=decision)
    plain = attack.run(*task)
    monkeypatch.setattr(network, "Captured", lambda ask: Captured(ask, Replayed))
    quick = attack.run(*task)
    assert Replayed.made
    assert torch.equal(quick.any_run, plain.any_run) and torch.equal(quick.last_run, plain.last_run)
    torch.testing.assert_close(quick.adversarial, plain.adversarial)


def refuses(ask, example):
    raise RuntimeError("operation not permitted when stream is capturing")


def stale(ask, example):
    answered = ask(example.clone().requires_grad_())
    return lambda x: answered.detach() + 0 * x.sum()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("capture", [refuses, stale])
def test_what_cannot_be_captured_is_asked_plainly(net, task, capture):
    images, _ = task
    asked = Captured(net, capture)
    for some in images.split(4):
        torch.testing.assert_close(asked(some), net(some))


def test_nothing_is_captured_on_a_cpu_or_for_a_size_that_comes_seldom(net, task):
    images, _ = task
    plain, seldom = Captured(net), Captured(net, Replayed)
    for _ in range(captured.ENOUGH):
        plain(images[:4]), seldom(images[:4])
    plain(images[:4])
    assert not plain.made and not seldom.made


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.usefixtures("at_once")
def test_cuda_graphs_answer_as_the_plain_network(net, task):
    net = net.cuda().requires_grad_(False)
    images = task[0].cuda()
    asked = Captured(net)
    for count in (4, 3, 8, 4):
        x, y = (images[:count].clone().requires_grad_() for _ in range(2))
        found, expected = asked(x), net(y)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(
            *(torch.autograd.grad(one[:, 0].sum(), z)[0] for one, z in ((found, x), (expected, y)))
        )
    assert None not in asked.made.values(), "a plain network can be captured"


def replayed(ask, example):
    """As a graph does, this answers any batch as the example was answered: in size, and in what was drawn."""
    coin = getattr(ask, "coin", lambda: None)()
    return lambda images: ask(images, coin) if coin is not None else ask(images)


@pytest.mark.usefixtures("at_once")
def test_a_network_that_tosses_a_coin_is_not_frozen_to_one_side(net, task):
    random = torch.Generator().manual_seed(0)

    def ask(images, coin=None):
        turned = bool(torch.randint(2, (), generator=random)) if coin is None else coin
        return net(images.flip(3) if turned else images)

    ask.coin = lambda: bool(torch.randint(2, (), generator=random))
    for _ in range(20):
        asked = Captured(ask, replayed)
        asked(task[0][:4])
        assert list(asked.made.values()) == [None]


@pytest.mark.usefixtures("at_once")
def test_a_network_that_looks_at_the_whole_batch_is_not_asked_in_a_filled_one(net, task):
    asked = Captured(lambda images: net(images - images.mean(0)), replayed)
    images = task[0][:5]
    assert torch.equal(asked(images), net(images - images.mean(0))) and list(asked.made.values()) == [None]
