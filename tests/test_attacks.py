"""The gradient attacks: against known distances, a plain loop without early exit, torchattacks, and themselves."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
import torchattacks
from torch import Tensor, nn

from reprolib import attacks, slots, streams
from reprolib.attacks import DECISIONS, LOSSES, AttackResult, LinfAttack, fgsm, ifgsm, loss_per_image, pgd

EPS, ALPHA, STEPS = 0.06, 0.015, 6  # breaks some of the small net's images and not others: `test_the_small_net_...`


class Scaled(nn.Module):
    """A network whose logits are multiplied. In double precision inside, so that the order of a sum flips no sign."""

    def __init__(self, net: nn.Module, scale: float = 1.0):
        super().__init__()
        self.net, self.scale = net.double(), scale

    def forward(self, images: Tensor) -> Tensor:
        return (self.net(images.double()) * self.scale).float()


class Linear(nn.Module):
    """Two classes, logits (0, w.x + b): the nearest adversarial example is at |w.x + b| / ||w||_1 in L-infinity."""

    def __init__(self, pixels: int = 16):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.w = nn.Parameter(torch.randn(pixels, generator=generator))
        self.b = nn.Parameter(-0.5 * self.w.detach().sum())

    def forward(self, images: Tensor) -> Tensor:
        score = (images.flatten(1) * self.w).sum(1) + self.b
        return torch.stack([torch.zeros_like(score), score], 1)


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


class Sawtooth(nn.Module):
    """One pixel, logits (0, f): f rises everywhere but for a fall at 0.65, and is positive only from 0.55 to 0.65."""

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)[:, 0]
        f = torch.where(x < 0.65, x - 0.55, x - 1.65)
        return torch.stack([torch.zeros_like(f), f], 1)


def make_task(count: int) -> tuple[Tensor, Tensor]:
    """Four 8x8 patterns under noise."""
    generator = torch.Generator().manual_seed(5)
    patterns = torch.rand(4, 1, 8, 8, generator=generator)
    labels = torch.randint(0, 4, (count,), generator=generator)
    noise = torch.rand(count, 1, 8, 8, generator=generator)
    return 0.4 * patterns[labels] + 0.6 * noise, labels


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    images, labels = make_task(512)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 4))
    for _ in range(250):  # by hand: the first import of torch's optimisers takes many seconds
        gradients = torch.autograd.grad(F.cross_entropy(net(images), labels), list(net.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter -= 0.3 * gradient
    return net


@pytest.fixture
def net(trained) -> nn.Module:
    return Scaled(copy.deepcopy(trained)).eval()


@pytest.fixture(scope="module")
def task() -> tuple[Tensor, Tensor]:
    return make_task(64)


def far_from_the_box(linear: Linear, count: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Images at least 0.2 from the box, the linear model's labels of them, and their distances (all below 0.15)."""
    images = 0.3 + 0.4 * torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        score = linear(images)[:, 1]
    distance = score.abs() / linear.w.detach().abs().sum()
    assert (distance < 0.15).all() and (distance > 1e-3).all()
    return images, (score > 0).long(), distance


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


def assert_same(one: AttackResult, two: AttackResult) -> None:
    for name in ("correct", "any_run", "last_run", "next_run"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist(), name
    torch.testing.assert_close(one.adversarial, two.adversarial, rtol=0, atol=0)


# --- against what is known -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("factor, broken", [(0.98, False), (1.02, True)])
def test_a_linear_model_breaks_exactly_beyond_its_distance(loss, decision, factor, broken):
    linear = Linear()
    images, labels, distances = far_from_the_box(linear)
    for row, distance in enumerate(distances.tolist()):
        image, label, eps = images[row:row + 1], labels[row:row + 1], factor * distance
        for attack in (fgsm(linear, eps, loss=loss, decision=decision),
                       ifgsm(linear, eps, eps / 4, 5, loss=loss, decision=decision),
                       pgd(linear, eps, eps / 4, 9, restarts=2, loss=loss, decision=decision)):
            result = attack.run(image, label)
            assert bool(result.correct), "the clean image is classified correctly"
            assert bool(result.robust(decision)) != broken
            assert int(result.any_run) == (0 if broken else -1)
            assert (int(linear(attack(image, label)).argmax()) != int(label)) == broken


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
    for eps in (EPS / 2, EPS):
        attack = pgd(net, eps, ALPHA, STEPS, restarts, loss=loss, decision=decision, seed=3, slots=10)
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
    for attack in (fgsm(net, 0.0), ifgsm(net, 0.0, 0.01, 4), pgd(net, 0.0, 0.01, 4, restarts=2),
                   pgd(net, 0.0, 0.0, 0, restarts=2)):
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
        assert all((small <= large).all() for small, large in zip(broken, broken[1:], strict=False))
        assert not broken[0].any() and broken[-1].all() and any(0 < one.sum() < len(one) for one in broken)


def test_more_steps_and_more_restarts_break_a_superset(net, task):
    for more in ([pgd(net, EPS, ALPHA, steps, restarts=1, seed=1) for steps in (1, 2, 4, 8)],
                 [pgd(net, EPS, ALPHA, 3, restarts=count, seed=1) for count in (1, 2, 4, 8)]):
        broken = [~attack.run(*task).robust() for attack in more]
        assert all((few <= many).all() for few, many in zip(broken, broken[1:], strict=False))
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
    for count in (1, 7):
        assert_same(run(rows, count), whole)
        assert run(rows, count).calls == whole.calls
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(6))
    for part in (order, *order[:6].split(1), order[10:23]):
        some = AttackResult(*(getattr(whole, name)[part]
                              for name in ("correct", "any_run", "last_run", "next_run", "adversarial")))
        assert_same(run(part, 5), some)


def test_a_float32_network_has_the_same_success_for_all_slots(trained, task):
    results = [pgd(trained, EPS, ALPHA, 4, 2, slots=count).run(*task) for count in (1, 7, 64)]
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
    sound, paper = (pgd(net, EPS, 3 * ALPHA, STEPS, restarts, loss=loss, decision=decision).run(*task)
                    for decision in ("any", "last"))
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


# --- losses and vanished gradients -----------------------------------------------------------------------------------


def loss_and_gradient(logits: list[float], label: int, loss: str) -> tuple[float, list[float]]:
    leaf = torch.tensor([logits], requires_grad=True)
    value = loss_per_image(leaf, torch.tensor([label]), loss)
    value.sum().backward()
    return value.item(), leaf.grad[0].tolist()


def test_losses_by_hand():
    logits, labels = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, -1.0]]), torch.tensor([1, 2])
    total = [sum(map(math.exp, row)) for row in logits.tolist()]
    expected = [-math.log(math.exp(3) / total[0]), -math.log(math.exp(-1) / total[1])]
    assert loss_per_image(logits, labels, "margin").tolist() == [-1.0, 1.0]
    assert loss_per_image(logits, labels, "logits").tolist() == pytest.approx(expected, rel=1e-6)
    assert loss_per_image(logits, labels, "probabilities").tolist() == pytest.approx(expected, rel=1e-6)


def test_probabilities_are_clipped_as_in_keras():
    assert loss_and_gradient([40.0, 0.0], 0, "probabilities")[0] == pytest.approx(1e-7, rel=0.3)  # 1 - 2**-23
    assert loss_and_gradient([40.0, 0.0], 1, "probabilities")[0] == pytest.approx(-math.log(1e-7), rel=1e-6)


@pytest.mark.parametrize("loss, margin, vanishes", [
    ("probabilities", 10.0, False), ("probabilities", 15.0, False), ("probabilities", 20.0, True),
    ("probabilities", 1e4, True), ("logits", 20.0, False), ("logits", 50.0, False), ("logits", 200.0, True),
    ("margin", 20.0, False), ("margin", 200.0, False), ("margin", 1e6, False)])
def test_where_the_gradient_is_exactly_zero(loss, margin, vanishes):
    gradient = loss_and_gradient([margin, 0.0, -1.0], 0, loss)[1]
    assert all(value == 0 for value in gradient) == vanishes
    if not vanishes:
        assert gradient[1] > 0, "up the nearest wrong class"


def test_probabilities_of_a_hopeless_image_have_no_gradient_either():
    assert loss_and_gradient([-20.0, 0.0], 0, "probabilities")[1] == [0.0, 0.0]


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


# --- torchattacks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theirs, ours", [
    (lambda net: torchattacks.FGSM(net, EPS), lambda net, **kw: fgsm(net, EPS, **kw)),
    (lambda net: torchattacks.BIM(net, EPS, ALPHA, STEPS), lambda net, **kw: ifgsm(net, EPS, ALPHA, STEPS, **kw))])
def test_torchattacks_agrees_from_the_clean_image(net, task, theirs, ours):
    images, labels = task
    attack = ours(net, loss="logits", decision="last")
    result = attack.run(images, labels)
    adversarial = theirs(net)(images, labels)
    right = result.correct
    torch.testing.assert_close(result.adversarial[right], adversarial[right], rtol=0, atol=1e-6)
    assert torch.equal((net(adversarial).argmax(1) != labels)[right], ~result.robust("last")[right])
    engine = attacks.run_torchattacks(attack, images, labels)
    assert engine.last_run.tolist() == result.last_run.tolist()
    assert torch.equal(engine.correct, result.correct) and engine.next_run.tolist() == result.next_run.tolist()
    torch.testing.assert_close(engine.adversarial, result.adversarial, rtol=0, atol=1e-6)
    assert 0.1 < result.robust("last").float().mean() < 0.9


def test_torchattacks_pgd_agrees_from_the_same_random_start(net, task):
    images, labels = task
    torch.manual_seed(11)
    adversarial = torchattacks.PGD(net, EPS, ALPHA, STEPS, random_start=True)(images, labels)
    torch.manual_seed(11)
    start = (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)
    for restarts in (0, 1):
        attack = pgd(net, EPS, ALPHA, STEPS, restarts, loss="logits", decision="last", slots=9)
        result = attack.run(images, labels, start=start)
        right = result.correct
        torch.testing.assert_close(result.adversarial[right], adversarial[right], rtol=0, atol=1e-6)
        assert torch.equal((net(adversarial).argmax(1) != labels)[right], result.last_run[right] == 0)
    clean = ifgsm(net, EPS, ALPHA, STEPS, loss="logits", decision="last")(images, labels)
    assert not torch.equal(clean[right], adversarial[right]), "the start matters"


def test_a_start_outside_the_ball_is_brought_into_it(net, task):
    images, labels = task
    result = ifgsm(net, EPS, 0.0, 0, decision="last").run(images, labels, start=torch.ones_like(images))
    assert torch.equal(result.adversarial[result.correct], (images + EPS).clamp(max=1)[result.correct])


def test_a_given_start_is_for_the_first_run_alone(net, task):
    images, labels = task
    result = pgd(net, EPS, 0.0, 0, restarts=2, decision="last").run(images, labels, start=images)
    plain = plain_loop(pgd(net, EPS, 0.0, 0, restarts=2, decision="last"), images, labels, torch.arange(len(images)))
    tried = result.correct & (result.last_run < 0) & (plain.last_run < 0)  # both ended with the second run
    assert tried.any() and torch.equal(result.adversarial[tried], plain.adversarial[tried])


def test_torchattacks_pgd_as_the_engine(net, task):
    images, labels = task
    attack = pgd(net, EPS, ALPHA, 3, restarts=3, loss="logits", decision="last", slots=20)
    state = torch.random.get_rng_state()
    result = attacks.run_torchattacks(attack, images, labels)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(net(result.adversarial).argmax(1) != labels, ~result.robust("last"))
    assert (result.adversarial - images).abs().max() <= EPS + 1e-6
    assert (result.next_run == 3).all() and len(set(result.last_run.tolist())) > 1
    assert_same(attacks.run_torchattacks(attack, images, labels), result)

    saved = []
    with pytest.raises(RuntimeError, match="killed"):
        attacks.run_torchattacks(attack, images, labels, save=lambda now: stop_after(saved, 2, now))
    again = attacks.run_torchattacks(attack, images, labels, resume=saved[-1])
    assert_same(again, result)
    assert again.calls == result.calls


@pytest.mark.parametrize("eps", [0.5, 1.0])
def test_torchattacks_with_nothing_left_to_attack(net, task, eps):
    """All broken before the last restart; all clean errors; no images: three ways to an empty batch."""
    images, labels = task
    attack = pgd(net, eps, eps / 2, 4, restarts=3, loss="logits", decision="last")
    result = attacks.run_torchattacks(attack, images, labels)
    assert not result.robust("last").any() and (result.next_run == 3).all()
    clean_errors = attacks.run_torchattacks(attack, images, (net(images).argmax(1) + 1) % 4)
    assert not clean_errors.correct.any() and clean_errors.calls == len(images)
    assert len(attacks.run_torchattacks(attack, images[:0], labels[:0]).correct) == 0
    assert_same(attacks.run_torchattacks(attack, images, labels, resume=copy.deepcopy(result)), result)


def test_torchattacks_refuses_what_it_has_not(net, task, monkeypatch):
    with pytest.raises(ValueError, match="'margin' and 'last'"):
        attacks.run_torchattacks(fgsm(net, EPS, decision="last"), *task)
    with pytest.raises(ValueError, match="'logits' and 'any'"):
        attacks.run_torchattacks(fgsm(net, EPS, loss="logits"), *task)
    monkeypatch.setattr(attacks, "version", lambda name: "3.3.0")
    with pytest.raises(RuntimeError, match=r"3\.3\.0; expected 3\.5\.1"):
        attacks.run_torchattacks(fgsm(net, EPS, loss="logits", decision="last"), *task)


# --- nothing is touched ----------------------------------------------------------------------------------------------


def model_in_a_strange_state() -> nn.Module:
    """In train mode, but for a frozen BatchNorm; with dropout, a frozen weight, and gradients waiting."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm2d(4),
                              nn.Flatten(), nn.Linear(144, 4))
        model(torch.rand(8, 1, 8, 8)).sum().backward()
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    return model


def state_of(model: nn.Module) -> list:
    return [[module.training for module in model.modules()],
            [(p.requires_grad, p.clone(), None if p.grad is None else p.grad.clone()) for p in model.parameters()],
            [buffer.clone() for buffer in model.buffers()], torch.random.get_rng_state(), torch.is_grad_enabled()]


def assert_equal_state(one, two) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for left, right in zip(one, two, strict=True):
            assert_equal_state(left, right)
    else:
        assert one == two


@pytest.mark.parametrize("restarts", [0, 2])
def test_the_model_and_the_random_numbers_are_left_as_they_were(task, restarts):
    model = model_in_a_strange_state()
    images, labels = task
    copies, before = (images.clone(), labels.clone()), state_of(model)
    pgd(model, EPS, ALPHA, 3, restarts)(images, labels)
    assert_equal_state(state_of(model), before)
    attacks.run_torchattacks(pgd(model, EPS, ALPHA, 3, restarts, loss="logits", decision="last"), images, labels)
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
    theirs = fgsm(net, EPS, loss="logits", decision="last")
    with context():
        images, labels = (tensor.clone() for tensor in task)
        assert_same(pgd(net, EPS, ALPHA, 3, 2).run(images, labels), outside)
        attacks.run_torchattacks(theirs, images, labels)
        assert not torch.is_grad_enabled()


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


# --- a killed attack -------------------------------------------------------------------------------------------------


def stop_after(saved: list, count: int, now: AttackResult) -> None:
    saved.append(copy.deepcopy(now))
    if len(saved) == count:
        raise RuntimeError("killed")


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("restarts", [0, 3])
@pytest.mark.parametrize("saves", [1, 9, 20])
def test_a_killed_attack_goes_on(net, task, monkeypatch, decision, restarts, saves):
    monkeypatch.setattr(slots, "SAVE_EVERY", 0)
    attack = pgd(net, EPS, ALPHA, 4, restarts, decision=decision, slots=6)
    whole, saved = attack.run(*task), []
    with pytest.raises(RuntimeError, match="killed"):
        attack.run(*task, save=lambda now: stop_after(saved, saves, now))
    before = saved[-1].calls
    resumed = attack.run(*task, resume=copy.deepcopy(saved[-1]))
    for name in ("correct", "any_run", "last_run", "next_run"):
        assert getattr(resumed, name).tolist() == getattr(whole, name).tolist()
    torch.testing.assert_close(resumed.adversarial, whole.adversarial, rtol=0, atol=0)
    assert whole.calls <= resumed.calls <= whole.calls + attack.slots * (attack.steps + 1), "runs in flight are lost"
    assert resumed.calls - before < whole.calls


def test_every_save_is_a_place_to_go_on_from_and_a_finished_attack_has_nothing_to_do(net, task, monkeypatch):
    monkeypatch.setattr(slots, "SAVE_EVERY", 0)
    attack, saved = pgd(net, EPS, ALPHA, 3, 2, slots=20), []
    whole = attack.run(*task, save=lambda now: saved.append(copy.deepcopy(now)))
    assert len(saved) > 5
    for state in saved:
        calls = state.calls
        again = attack.run(*task, resume=state)
        assert again.any_run.tolist() == whole.any_run.tolist()
        assert again.calls >= calls
    done = attack.run(*task, resume=copy.deepcopy(whole))
    assert done.calls == whole.calls and done.any_run.tolist() == whole.any_run.tolist()


def test_without_time_nothing_is_saved(net, task, monkeypatch):
    monkeypatch.setattr(slots, "SAVE_EVERY", 1e9)
    saved = []
    pgd(net, EPS, ALPHA, 3, 2).run(*task, save=saved.append)
    assert saved == []


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values, message", [
    ({"eps": -0.1}, r"^eps is -0\.1; expected .*0 to 1"),
    ({"eps": 8.0}, r"^eps is 8\.0; expected .*8/255, not 8"),
    ({"eps": float("nan")}, r"^eps is nan; expected"),
    ({"alpha": -0.5}, r"^alpha is -0\.5; expected 0 or more"),
    ({"alpha": 0.1, "steps": 0}, r"^alpha is 0\.1 with 0 steps; give steps"),
    ({"alpha": 0.0, "steps": -1}, r"steps -1; expected 0 or more"),
    ({"restarts": -2}, r"^restarts is -2.*expected 0 or more"),
    ({"slots": 0}, r"slots is 0.*expected 1 or more"),
    ({"loss": "Margin"}, r"^loss is 'Margin'; expected one of margin, logits, probabilities"),
    ({"decision": "best"}, r"^decision is 'best'; expected one of any, last")])
def test_wrong_parameters(values, message):
    with pytest.raises(ValueError, match=message) as error:
        LinfAttack(Linear(), **({"eps": 0.1, "alpha": 0.01, "steps": 2} | values))
    assert "\n" not in str(error.value)


def bad_inputs() -> dict:
    images, labels = torch.full((3, 1, 4, 4), 0.5), torch.tensor([0, 1, 0])
    return {
        "uint8": ((images * 255).to(torch.uint8), labels, r"^images are torch\.uint8 .*float32.*divide by 255"),
        "float64": (images.double(), labels, r"^images are torch\.float64 .*expected float32"),
        "3-D": (images[:, 0], labels, r"^images are .*\(3, 4, 4\); expected .*\[B, C, H, W\]"),
        "above 1": (images * 3, labels, r"^images range from 1\.5 to 1\.5; expected \[0, 1\]"),
        "below 0": (images - 1, labels, r"^images range from -0\.5 to -0\.5; expected \[0, 1\]"),
        "nan": (images * torch.nan, labels, r"^images range from nan to nan; expected \[0, 1\]"),
        "float labels": (images, labels.float(), r"^labels are torch\.float32 .*expected int64 \[3\]"),
        "fewer labels": (images, labels[:2], r"^labels are .*\(2,\); expected int64 \[3\]"),
        "one-hot labels": (images, F.one_hot(labels), r"^labels are .*\(3, 2\); expected int64 \[3\]"),
        "label too large": (images, torch.tensor([0, 1, 2]), r"^labels range from 0 to 2; expected 0 to 1 .*2 classes"),
        "negative label": (images, torch.tensor([0, 1, -1]), r"^labels range from -1 to 1; expected 0 to 1"),
    }


@pytest.mark.parametrize("case", bad_inputs())
@pytest.mark.parametrize("engine", ["reprolib", "torchattacks"])
def test_wrong_images_and_labels(case, engine):
    images, labels, message = bad_inputs()[case]
    attack = pgd(Linear(), 0.1, 0.01, 2, 1, loss="logits", decision="last")
    with pytest.raises(ValueError, match=message) as error:
        attack(images, labels) if engine == "reprolib" else attacks.run_torchattacks(attack, images, labels)
    assert "\n" not in str(error.value)


def test_an_unknown_loss():
    with pytest.raises(ValueError, match=r"^loss is 'hinge'; expected one of margin, logits, probabilities"):
        loss_per_image(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), "hinge")


def test_no_images_at_all(net):
    result = pgd(net, EPS, ALPHA, 3, 2).run(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))
    assert result.adversarial.shape == (0, 1, 8, 8) and result.calls == 0 and len(result.robust()) == 0
