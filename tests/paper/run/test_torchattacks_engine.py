"""The same attacks by torchattacks: they agree, and it refuses what it has not."""

import copy

import pytest
import torch
import torchattacks
from attacks.small import (
    ALPHA,
    EPS,
    STEPS,
    InPlace,
    NoGradient,
    Scaled,
    assert_equal_state,
    assert_same,
    make_task,
    model_in_a_strange_state,
    small_net,
    state_of,
    stop_after,
)
from torch import Tensor, nn

from reprolib import streams
from reprolib.attacks import fgsm, ifgsm, pgd
from reprolib.paper.run import torchattacks_engine
from reprolib.paper.run.torchattacks_engine import run_torchattacks


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return Scaled(small_net()).eval()


@pytest.fixture(scope="module")
def task() -> tuple[Tensor, Tensor]:
    return make_task(64)


@pytest.mark.parametrize(
    "theirs, ours",
    [
        (lambda net: torchattacks.FGSM(net, EPS), lambda net, **kw: fgsm(net, EPS, **kw)),
        (lambda net: torchattacks.BIM(net, EPS, ALPHA, STEPS), lambda net, **kw: ifgsm(net, EPS, ALPHA, STEPS, **kw)),
    ],
)
def test_torchattacks_agrees_from_the_clean_image(net, task, theirs, ours):
    images, labels = task
    attack = ours(net, loss="logits", decision="last")
    result = attack.run(images, labels)
    adversarial = theirs(net)(images, labels)
    right = result.correct
    torch.testing.assert_close(result.adversarial[right], adversarial[right], rtol=0, atol=1e-6)
    assert torch.equal((net(adversarial).argmax(1) != labels)[right], ~result.robust("last")[right])
    engine = run_torchattacks(attack, images, labels)
    assert engine.last_run.tolist() == result.last_run.tolist()
    assert torch.equal(engine.correct, result.correct) and engine.next_run.tolist() == result.next_run.tolist()
    torch.testing.assert_close(engine.adversarial, result.adversarial, rtol=0, atol=1e-6)
    assert 0.1 < result.robust("last").float().mean() < 0.9


def test_torchattacks_pgd_agrees_from_the_same_random_start(net, task, monkeypatch):
    images, labels = task
    torch.manual_seed(11)
    adversarial = torchattacks.PGD(net, EPS, ALPHA, STEPS, random_start=True)(images, labels)
    torch.manual_seed(11)
    u = (torch.empty_like(images).uniform_(-EPS, EPS) / EPS + 1) / 2
    monkeypatch.setattr(streams, "uniform", lambda seed, ids, *_: u[ids])
    result = pgd(net, EPS, ALPHA, STEPS, 1, loss="logits", decision="last", slots=9).run(images, labels)
    right = result.correct
    torch.testing.assert_close(result.adversarial[right], adversarial[right], rtol=0, atol=1e-6)
    assert torch.equal((net(adversarial).argmax(1) != labels)[right], result.last_run[right] == 0)
    clean = ifgsm(net, EPS, ALPHA, STEPS, loss="logits", decision="last")(images, labels)
    assert not torch.equal(clean[right], adversarial[right]), "the start matters"


def test_torchattacks_pgd_as_the_engine(net, task):
    images, labels = task
    attack = pgd(net, EPS, ALPHA, 3, restarts=3, loss="logits", decision="last", slots=20)
    state = torch.random.get_rng_state()
    result = run_torchattacks(attack, images, labels)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(net(result.adversarial).argmax(1) != labels, ~result.robust("last"))
    assert (result.adversarial - images).abs().max() <= EPS + 1e-6
    assert (result.next_run == 3).all() and len(set(result.last_run.tolist())) > 1
    assert_same(run_torchattacks(attack, images, labels), result)

    saved = []
    with pytest.raises(RuntimeError, match="killed"):
        run_torchattacks(attack, images, labels, save=lambda now: stop_after(saved, 2, now))
    again = run_torchattacks(attack, images, labels, resume=saved[-1])
    assert_same(again, result)
    assert again.calls == result.calls


@pytest.mark.parametrize("eps", [0.5, 1.0])
def test_torchattacks_with_nothing_left_to_attack(net, task, eps):
    """All broken before the last restart; all clean errors; no images: three ways to an empty batch."""
    images, labels = task
    attack = pgd(net, eps, eps / 2, 4, restarts=3, loss="logits", decision="last")
    result = run_torchattacks(attack, images, labels)
    assert not result.robust("last").any() and (result.next_run == 3).all()
    clean_errors = run_torchattacks(attack, images, (net(images).argmax(1) + 1) % 4)
    assert not clean_errors.correct.any() and clean_errors.calls == len(images)
    assert len(run_torchattacks(attack, images[:0], labels[:0]).correct) == 0
    assert_same(run_torchattacks(attack, images, labels, resume=copy.deepcopy(result)), result)


def test_torchattacks_refuses_what_it_has_not(net, task, monkeypatch):
    with pytest.raises(ValueError, match="'margin' and 'last'"):
        run_torchattacks(fgsm(net, EPS, decision="last"), *task)
    with pytest.raises(ValueError, match="'logits' and 'any'"):
        run_torchattacks(fgsm(net, EPS, loss="logits"), *task)
    monkeypatch.setattr(torchattacks_engine, "version", lambda name: "3.3.0")
    with pytest.raises(RuntimeError, match=r"3\.3\.0; expected 3\.5\.1"):
        run_torchattacks(fgsm(net, EPS, loss="logits", decision="last"), *task)


def paper_pgd(net: nn.Module, steps: int = 2):
    return pgd(net, EPS, ALPHA, steps, 1, loss="logits", decision="last")


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_it_leaves_no_trace_and_works_where_gradients_are_switched_off(task, context):
    model = model_in_a_strange_state()
    with context():
        images, labels = (tensor.clone() for tensor in task)
        before = state_of(model)
        run_torchattacks(paper_pgd(model), images, labels)
        assert_equal_state(state_of(model), before)
        assert torch.equal(images, task[0]) and torch.equal(labels, task[1])


def test_a_network_may_change_its_images_in_place(net, task):
    one, two = (run_torchattacks(paper_pgd(InPlace(net, in_place)), *task) for in_place in (True, False))
    assert_same(one, two)


@pytest.mark.parametrize("how", ["detached", "no_grad", "inference", "integers"])
def test_a_network_without_gradient(net, task, how):
    with pytest.raises(ValueError, match=r"^the network gives no gradient with respect to its input"):
        run_torchattacks(paper_pgd(NoGradient(net, how)), *task)


def test_what_our_attacks_refuse_is_refused_here(net, task):
    class Odd(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return net(images)[:, :1]

    images, labels = task
    attack = paper_pgd(net)
    for model, some, truth, start in (
        (net, images * 3, labels, "images range from"),
        (net, images.numpy(), labels, "images are a ndarray"),
        (net, images, labels[:2], "labels are"),
        (net, images, labels + 3, "labels range from"),
        (Odd(), images, labels, "the network answers"),
    ):
        with pytest.raises(ValueError, match=f"^{start}[^\n]*; expected [^\n]*$"):
            run_torchattacks(paper_pgd(model), some, truth)
    with pytest.raises(ValueError, match="^the result to go on from has 64 images; expected the same 5 images"):
        run_torchattacks(attack, images[:5], labels[:5], resume=run_torchattacks(attack, images, labels))
