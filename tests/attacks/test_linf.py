"""FGSM, IFGSM and PGD: against known distances, a plain loop without early exit, and themselves."""

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from attacks.small import ALPHA, EPS, STEPS, Linear, assert_same, far_from_the_box
from torch import Tensor, nn

from reprolib import streams
from reprolib.attacks import DECISIONS, LOSSES, AttackResult, LinfAttack, fgsm, ifgsm, loss_per_image, pgd


class Sawtooth(nn.Module):
    """One pixel, logits (0, f): f rises everywhere but for a fall at 0.65, and is positive only from 0.55 to 0.65."""

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)[:, 0]
        f = torch.where(x < 0.65, x - 0.55, x - 1.65)
        return torch.stack([torch.zeros_like(f), f], 1)


def plain_loop(attack: LinfAttack, images: Tensor, labels: Tensor, ids: Tensor) -> AttackResult:
    """Every step of every run of every image; the answers are picked afterwards. No slots, no early exit."""
    model = attack.model
    with torch.no_grad():
        correct = model(images).argmax(1) == labels
    lower, upper = (images - attack.eps).clamp(min=0), (images + attack.eps).clamp(max=1)
    any_run, last_run = torch.where(correct, -1, 0), torch.where(correct, -1, 0)
    adversarial, found = images.clone(), ~correct
    for number in range(attack.runs):
        x = images.clone()
        if attack.restarts:
            x = x + (2 * streams.uniform(attack.seed, ids, number, images.shape[1:]) - 1) * attack.eps
        x = x.clamp(lower, upper)
        for step in range(attack.steps + 1):
            last = step == attack.steps
            x.requires_grad_()
            logits = model(x)
            (gradient,) = torch.autograd.grad(loss_per_image(logits, labels, attack.loss).sum(), x)
            x, wrong = x.detach(), logits.argmax(1) != labels
            any_run[wrong & (any_run < 0)] = number
            if last:
                last_run[wrong & (last_run < 0)] = number
            hit = wrong & ~found & (last if attack.decision == "last" else True)
            keep = hit | (~found & torch.tensor(last))
            adversarial[keep] = x[keep]
            found = found | hit
            x = (x + attack.alpha * gradient.sign()).clamp(lower, upper)
    return AttackResult(correct, any_run, last_run, torch.full_like(any_run, attack.runs), adversarial)


# --- against what is known -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("factor, broken", [(0.98, False), (1.02, True)])
def test_a_linear_model_breaks_exactly_beyond_its_distance(loss, decision, factor, broken):
    linear = Linear()
    images, labels, distances = far_from_the_box(linear, 4)
    for row, distance in enumerate(distances.tolist()):
        image, label, eps = images[row : row + 1], labels[row : row + 1], factor * distance
        for attack in (
            fgsm(linear, eps, loss=loss, decision=decision),
            ifgsm(linear, eps, eps / 4, 5, loss=loss, decision=decision),
            pgd(linear, eps, eps / 4, 9, restarts=2, loss=loss, decision=decision),
        ):
            result = attack.run(image, label)
            assert bool(result.correct), "the clean image is classified correctly"
            assert bool(result.robust(decision)) != broken
            assert int(result.any_run) == (0 if broken else -1)
            assert (int(linear(result.adversarial).argmax()) != int(label)) == broken


def test_the_small_net_is_neither_broken_nor_whole(net, task):
    """Without this, half of the tests below could not fail."""
    for decision in DECISIONS:
        result = ifgsm(net, EPS, ALPHA, STEPS, decision=decision).run(*task)
        assert 0.85 < result.correct.float().mean() <= 1
        assert 0.1 < result.robust(decision).float().mean() < 0.9


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("restarts", [0, 3])
@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_early_exit_changes_no_answer(net, task, loss, decision, restarts, scale):
    net.scale = scale
    images, labels = task
    ids = 7 * torch.arange(len(images)) + 1000
    attack = pgd(net, EPS, ALPHA, STEPS, restarts, loss=loss, decision=decision, seed=3, slots=10)
    result, plain = attack.run(images, labels, ids), plain_loop(attack, images, labels, ids)
    if decision == "any":
        plain.last_run = result.last_run  # the last iterate is not looked at
    assert_same(result, plain)
    assert result.calls < len(images) * (1 + attack.runs * (STEPS + 1))


# --- the ball --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarts", [0, 2])
@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("eps, alpha", [(0.03, 0.01), (0.3, 0.1), (0.1, 0.7), (1.0, 0.3)])
def test_the_result_is_in_the_ball_and_in_the_box(net, task, eps, alpha, decision, restarts):
    images, labels = task
    images = ((images - 0.5) * 1.6 + 0.5).clamp(0, 1)  # some pixels at 0 and at 1
    assert (images == 0).any() and (images == 1).any()
    adversarial = pgd(net, eps, alpha, 4, restarts, decision=decision)(images, labels)
    assert (adversarial - images).abs().max() <= eps + 1e-6
    assert 0 <= adversarial.min() and adversarial.max() <= 1


def test_eps_zero_is_the_clean_accuracy(net, task):
    images, labels = task
    labels = torch.where(torch.arange(len(labels)) % 5 == 0, (labels + 1) % 4, labels)  # some clean errors
    for attack in (
        fgsm(net, 0.0),
        ifgsm(net, 0.0, 0.01, 4),
        pgd(net, 0.0, 0.01, 4, restarts=2),
        pgd(net, 0.0, 0.0, 0, restarts=2),
    ):
        for decision in DECISIONS:
            attack = LinfAttack(net, 0.0, attack.alpha, attack.steps, attack.restarts, decision=decision)
            result = attack.run(images, labels)
            assert torch.equal(result.adversarial, images)
            assert torch.equal(result.correct, net(images).argmax(1) == labels)
            assert torch.equal(result.robust(decision), result.correct)
            assert not result.correct.all() and result.correct.any()


def test_a_clean_error_is_broken_in_run_0_and_not_attacked(net, task):
    images, labels = task[0], (net(task[0]).argmax(1) + 1) % 4
    result = pgd(net, EPS, ALPHA, STEPS, restarts=3).run(images, labels)
    assert not result.correct.any() and (result.any_run == 0).all() and (result.last_run == 0).all()
    assert result.calls == len(images) and torch.equal(result.adversarial, images)


def test_no_steps_at_all_tries_the_random_starts_alone(net, task):
    images, labels = task
    result = pgd(net, 0.3, 0.0, 0, restarts=4, seed=2).run(images, labels)
    plain = plain_loop(pgd(net, 0.3, 0.0, 0, restarts=4, seed=2), images, labels, torch.arange(len(images)))
    assert result.any_run.tolist() == plain.any_run.tolist()
    assert (result.adversarial != images).flatten(1).any(1)[result.correct].all()


# --- what must not get worse, and what is the same attack ------------------------------------------------------------


def test_a_larger_ball_breaks_a_superset_of_a_linear_model():
    linear = Linear()
    images, labels, _ = far_from_the_box(linear)
    for make in (fgsm, lambda model, eps: ifgsm(model, eps, eps / 3, 4)):
        broken = [~make(linear, eps).run(images, labels).robust() for eps in (0.0, 0.01, 0.03, 0.06, 0.2)]
        assert all((small <= large).all() for small, large in pairwise(broken))
        assert not broken[0].any() and broken[-1].all() and any(0 < one.sum() < len(one) for one in broken)


def test_more_steps_and_more_restarts_break_a_superset(net, task):
    for more in (
        [pgd(net, EPS, ALPHA, steps, restarts=1, seed=1) for steps in (1, 2, 4, 8)],
        [pgd(net, EPS, ALPHA, 3, restarts=count, seed=1) for count in (1, 2, 4, 8)],
    ):
        broken = [~attack.run(*task).robust() for attack in more]
        assert all((few <= many).all() for few, many in pairwise(broken))
        assert broken[0].sum() < broken[-1].sum()


def test_the_first_of_many_restarts_are_the_few_restarts(net, task):
    for decision in DECISIONS:
        many = pgd(net, EPS, ALPHA, 3, restarts=6, seed=1, decision=decision).run(*task)
        for count in (1, 2, 5):
            few = pgd(net, EPS, ALPHA, 3, restarts=count, seed=1, decision=decision).run(*task)
            assert torch.equal(few.robust(decision), many.robust(decision, runs=count))


def test_another_seed_starts_elsewhere(net, task):
    one, two = (pgd(net, EPS, 0.0, 0, restarts=1, seed=seed)(*task) for seed in (0, 1))
    assert not torch.equal(one, two)


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_fgsm_is_one_step_of_pgd_and_ifgsm_is_pgd_without_restarts(net, task, loss, decision):
    options = {"loss": loss, "decision": decision}
    assert_same(fgsm(net, EPS, **options).run(*task), pgd(net, EPS, EPS, 1, **options).run(*task))
    assert_same(ifgsm(net, EPS, ALPHA, 4, **options).run(*task), pgd(net, EPS, ALPHA, 4, 0, **options).run(*task))


def test_fgsm_is_the_clean_image_plus_eps_times_the_sign(net, task):
    images, labels = task
    x = images.clone().requires_grad_()
    F.cross_entropy(net(x), labels, reduction="sum").backward()
    expected = (images + EPS * x.grad.sign()).clamp(0, 1)
    result = fgsm(net, EPS, loss="logits", decision="last").run(images, labels)
    torch.testing.assert_close(result.adversarial[result.correct], expected[result.correct], rtol=0, atol=1e-6)


# --- slots, batches, order, device -----------------------------------------------------------------------------------


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("restarts", [0, 3])
def test_slots_batches_and_order_change_nothing(net, task, restarts, decision):
    images, labels = task
    ids = 1000 - 3 * torch.arange(len(images))

    def run(rows: Tensor, count: int) -> AttackResult:
        attack = pgd(net, EPS, ALPHA, 4, restarts, decision=decision, seed=5, slots=count)
        return attack.run(images[rows], labels[rows], ids[rows])

    rows = torch.arange(len(images))
    whole = run(rows, 64)
    assert 0.1 < whole.robust(decision).float().mean() < 0.9
    few = run(rows, 7)
    assert_same(few, whole)
    assert few.calls == whole.calls
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(6))
    for part in (order, *order[:3].split(1), order[10:23]):
        some = AttackResult(
            *(getattr(whole, name)[part] for name in ("correct", "any_run", "last_run", "next_run", "adversarial"))
        )
        assert_same(run(part, 5), some)


def test_a_float32_network_has_the_same_success_for_all_slots(trained, task):
    results = [pgd(trained, EPS, ALPHA, 4, 2, slots=count).run(*(t[:24] for t in task)) for count in (1, 7, 64)]
    assert results[0].any_run.tolist() == results[1].any_run.tolist() == results[2].any_run.tolist()


def test_by_default_ids_are_the_row_numbers(net, task):
    attack = pgd(net, EPS, ALPHA, 3, restarts=2)
    assert_same(attack.run(*task), attack.run(*task, torch.arange(len(task[0]))))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("decision", DECISIONS)
def test_a_gpu_finds_what_a_cpu_finds(net, task, decision):
    here = pgd(net, EPS, ALPHA, 4, 3, decision=decision).run(*task)
    images, labels = (tensor.cuda() for tensor in task)
    there = pgd(copy.deepcopy(net).cuda(), EPS, ALPHA, 4, 3, decision=decision).run(images, labels)
    for name in ("correct", "any_run", "last_run"):
        assert getattr(here, name).tolist() == getattr(there, name).tolist()
    torch.testing.assert_close(here.adversarial, there.adversarial.cpu(), rtol=0, atol=1e-6)


# --- the two decision rules ------------------------------------------------------------------------------------------


def test_an_attack_that_crosses_and_comes_back():
    image, label = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, dtype=torch.int64)
    results = {decision: ifgsm(Sawtooth(), 0.4, 0.1, 3, decision=decision).run(image, label) for decision in DECISIONS}
    assert results["last"].any_run.tolist() == [0] and results["last"].last_run.tolist() == [-1]
    assert results["last"].robust("last").all() and not results["last"].robust("any").any()
    assert not results["any"].robust("any").any()
    assert results["last"].adversarial.item() == pytest.approx(0.8)
    assert results["any"].adversarial.item() == pytest.approx(0.6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("restarts", [0, 4])
def test_both_rules_agree_on_any_iterate_and_the_last_one_implies_it(net, task, loss, restarts):
    sound, paper = (
        pgd(net, EPS, 3 * ALPHA, STEPS, restarts, loss=loss, decision=decision).run(*task)
        for decision in ("any", "last")
    )
    assert sound.any_run.tolist() == paper.any_run.tolist()
    last = paper.last_run >= 0
    assert (paper.any_run[last] >= 0).all() and (paper.any_run[last] <= paper.last_run[last]).all()


@pytest.mark.parametrize("decision", DECISIONS)
def test_the_adversarial_image_is_misclassified_where_and_only_where_success_is_claimed(net, task, decision):
    images, labels = task
    result = pgd(net, EPS, ALPHA, STEPS, 2, decision=decision).run(images, labels)
    wrong = net(result.adversarial).argmax(1) != labels
    assert torch.equal(wrong, ~result.robust(decision))
    assert wrong.any() and not wrong.all()


# --- vanished gradients ---


@pytest.mark.parametrize("decision", DECISIONS)
def test_a_sure_network_stops_the_paper_s_loss_at_once_and_the_margin_not_at_all(net, task, decision):
    images, labels = task
    margin = -loss_per_image(net(images), labels, "margin")
    sure = margin * 1e4 > 200
    assert sure.float().mean() > 0.8
    images, labels, net.scale = images[sure], labels[sure], 1e4
    for loss in ("probabilities", "logits"):
        result = ifgsm(net, EPS, ALPHA, 100, loss=loss, decision=decision).run(images, labels)
        assert torch.equal(result.adversarial, images) and result.robust(decision).all()
        assert result.calls == 2 * len(images), "the clean evaluation, and one that shows that nothing moves"
    free = ifgsm(net, EPS, ALPHA, 100, loss="margin", decision=decision).run(images, labels)
    net.scale = 1.0
    same = ifgsm(net, EPS, ALPHA, 100, loss="margin", decision=decision).run(images, labels)
    assert torch.equal(free.any_run, same.any_run), "the scale of the logits means nothing to the margin"
    assert free.robust(decision).float().mean() < 0.8


def test_a_sure_network_costs_about_one_call_per_restart(net, task):
    net.scale = 1e4
    result = pgd(net, EPS / 10, ALPHA, 100, 5, loss="probabilities").run(*task)
    assert result.calls <= len(task[0]) * (1 + 5) * 1.25  # a start near the boundary can move
    assert result.calls > len(task[0]) * 4, "the random starts were tried"


def test_it_is_called_as_torchattacks_is(net, task):
    adversarial = pgd(net, EPS, ALPHA, 3, 2)(*task)
    assert adversarial.shape == task[0].shape and adversarial.dtype == torch.float32
    assert not adversarial.requires_grad and adversarial.grad_fn is None
    assert not torch.equal(adversarial, task[0])


def test_images_that_want_a_gradient_get_none(net, task):
    images = task[0].clone().requires_grad_()
    adversarial = pgd(net, EPS, ALPHA, 3, 2)(images, task[1])
    assert not adversarial.requires_grad and images.grad is None
    assert torch.equal(adversarial, pgd(net, EPS, ALPHA, 3, 2)(*task))
