"""AutoAttack is the standard one, part by part, believes nothing unchecked, and is at least as strong as its parts."""

import copy

import pytest
import torch
import torchattacks
from conftest import TOY_EPS
from torch import Tensor, nn

from reprolib import autoattack
from reprolib.attacks import pgd
from reprolib.autoattack import STANDARD, AutoAttack, Probabilities, part

OFFICIAL = {
    "APGD-CE": (torchattacks.APGD, {"steps": 100, "loss": "ce", "eot_iter": 1, "thr_decr": 0.75}),
    "APGD-T": (torchattacks.APGDT, {"steps": 100, "n_target_classes": 9, "eot_iter": 1, "thr_decr": 0.75}),
    "FAB-T": (torchattacks.FAB, {"steps": 100, "n_target_classes": 9, "multi_targeted": True, "alpha_max": 0.1,
                                 "eta": 1.05, "beta": 0.9}),
    "Square": (torchattacks.Square, {"n_queries": 5000, "p_init": 0.8, "loss": "margin", "rescale_schedule": False}),
}


class Stub:
    """Stands in for a part: keeps what it was given, and returns what `answer` makes of it."""

    def __init__(self, answer):
        self.answer, self.given = answer, []

    def __call__(self, name, model, eps, classes, seed):
        def attack(images: Tensor, labels: Tensor) -> Tensor:
            self.given.append((name, images.clone(), labels.clone()))
            return self.answer(name, images)

        return attack


@pytest.fixture
def stub(monkeypatch):
    def install(answer) -> Stub:
        made = Stub(answer)
        monkeypatch.setattr(autoattack, "part", made)
        return made

    return install


class Threshold(nn.Module):
    """One pixel, ten classes: class 0 below 0.5, class 1 above."""

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)[:, :1]
        return torch.cat([0.5 - x, x - 0.5, x.new_full((len(x), 8), -9.0)], 1)


def pixels(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


@pytest.mark.parametrize("name", STANDARD)
def test_parts_have_the_official_settings(name, brittle):
    kind, settings = OFFICIAL[name]
    made = part(name, brittle, eps=0.3, classes=10, seed=4)
    assert type(made) is kind
    assert (made.norm, made.eps, made.n_restarts, made.seed) == ("Linf", 0.3, 1, 4)
    assert {field: getattr(made, field) for field in settings} == settings


def test_the_standard_order():
    assert AutoAttack.parts == ("APGD-CE", "APGD-T", "FAB-T", "Square") == tuple(OFFICIAL)


def test_nine_targets_at_most(brittle):
    targets = [part("APGD-T", brittle, 0.1, classes).n_target_classes for classes in (5, 10, 1000)]
    assert targets == [4, 9, 9]


def test_torchattacks_own_autoattack_is_another_one(brittle):
    """The reason for this module: were this to change, the module could go."""
    own = torchattacks.AutoAttack(brittle, eps=0.1)._autoattack.attacks
    assert [own[0].steps, own[1].steps, own[2].steps, own[3].rescale_schedule] == [10, 10, 10, True]


def test_at_most_the_accuracy_of_every_member(sturdy, held_out):
    whole = AutoAttack(sturdy, TOY_EPS).run(*held_out)
    members = [AutoAttack(sturdy, TOY_EPS, parts=(name,)).run(*held_out).robust() for name in STANDARD]
    assert 0.5 < whole.robust().float().mean() < 0.9
    assert all(whole.robust().sum() <= member.sum() for member in members)
    assert whole.robust().sum() <= pgd(sturdy, TOY_EPS, 0.02, 40, 2, loss="logits").run(*held_out).robust().sum()
    broken_by = [int(((whole.any_run == number) & whole.correct).sum()) for number in range(4)]
    assert broken_by[0] > 0 and broken_by[1] > 0 and sum(broken_by) == int((whole.correct & ~whole.robust()).sum())


def test_nothing_is_left_of_a_brittle_network(brittle, held_out):
    result = AutoAttack(brittle, TOY_EPS).run(*held_out)
    assert result.correct.all() and not result.robust().any()


@pytest.mark.parametrize("factor", [30.0, 1000.0])
def test_sure_networks_are_broken_where_cross_entropy_has_no_gradient(brittle, held_out, factor):
    """Cross-entropy goes blind, the targeted loss does not: it divides by the logits' own scale."""
    scaled = nn.Sequential(brittle, Scale(factor))
    assert not AutoAttack(scaled, TOY_EPS).run(*held_out).robust().any()


class Scale(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@pytest.mark.parametrize("name", STANDARD)
def test_adversarial_images_are_what_they_are_said_to_be(sturdy, held_out, name):
    images, labels = held_out
    result = AutoAttack(sturdy, TOY_EPS, parts=(name,), batch_size=64).run(images, labels)
    broken = result.correct & ~result.robust()
    assert (result.adversarial - images).abs().max() <= TOY_EPS + autoattack.SLACK
    assert 0 <= result.adversarial.min() and result.adversarial.max() <= 1
    assert (sturdy(result.adversarial).argmax(1) != labels)[broken].all()
    assert torch.equal(result.adversarial[~broken], images[~broken])


@pytest.mark.parametrize("answer", [
    lambda name, images: images.new_full(images.shape, torch.nan),
    lambda name, images: images + 0.11,  # misclassified, but outside the ball
    lambda name, images: images + 0.05,  # in the ball, but not misclassified
    lambda name, images: images - 0.7,  # outside [0, 1] as well
])
def test_what_a_part_returns_is_checked(stub, answer):
    stub(answer)
    result = AutoAttack(Threshold(), 0.1).run(pixels(0.4, 0.42), torch.tensor([0, 0]))
    assert result.robust().all() and torch.equal(result.adversarial, pixels(0.4, 0.42))


def test_each_part_sees_the_survivors_alone(stub):
    """The first part breaks what lies nearer than 0.05, the second what lies nearer than 0.1; one image is wrong."""
    spy = stub(lambda name, images: images + {"APGD-CE": 0.05, "APGD-T": 0.1}.get(name, 0.0))
    images, labels = pixels(0.3, 0.47, 0.42, 0.6, 0.48), torch.tensor([0, 0, 0, 0, 0])
    result = AutoAttack(Threshold(), 0.1).run(images, labels)
    seen = {name: [round(float(x), 2) for x in given.flatten()] for name, given, _ in spy.given}
    assert seen == {"APGD-CE": [0.3, 0.47, 0.42, 0.48], "APGD-T": [0.3, 0.42], "FAB-T": [0.3], "Square": [0.3]}
    assert result.correct.tolist() == [True, True, True, False, True]
    assert result.any_run.tolist() == [-1, 0, 1, 0, 0] and result.robust().tolist() == [True] + [False] * 4


def test_goes_on_where_it_stopped(stub):
    spy = stub(lambda name, images: images + {"APGD-CE": 0.05, "APGD-T": 0.1}.get(name, 0.0))
    images, labels = pixels(0.3, 0.47, 0.42, 0.31, 0.48), torch.zeros(5, dtype=torch.int64)
    attack = AutoAttack(Threshold(), 0.1, batch_size=2)
    expected, calls, saved = attack.run(images, labels), len(spy.given), []

    class Killed(Exception):
        pass

    def save(result):
        saved[:] = [copy.deepcopy(result)]
        if len(spy.given) == calls + 3:
            raise Killed

    with pytest.raises(Killed):
        attack.run(images, labels, save=save)
    result = attack.run(images, labels, resume=saved[0])
    assert len(spy.given) == 2 * calls
    assert torch.equal(result.any_run, expected.any_run) and torch.equal(result.next_run, expected.next_run)


@pytest.mark.parametrize("name", STANDARD)
@pytest.mark.parametrize("fails", [False, True])
def test_leaves_no_trace(name, fails, held_out):
    """Modes module by module, gradients, flags, the global generator, the images; also after an error."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 5))
    net.train()[0].eval()
    net[3].bias.requires_grad_(False)
    calls = []

    def stop(*_):
        calls.append(1)
        if fails and len(calls) == 4:
            raise RuntimeError("stop")

    net[1].register_forward_hook(stop)
    images, labels = (tensor[:20].clone() for tensor in held_out)
    before, state, copies = copy.deepcopy(net.state_dict()), torch.get_rng_state(), images.clone()
    attack = AutoAttack(net, TOY_EPS, parts=(name,))
    if fails:
        with pytest.raises(RuntimeError, match="stop"):
            attack(images, labels)
    else:
        attack(images, labels)
    assert [module.training for module in net.modules()] == [True, False, True, True, True]
    assert all(parameter.grad is None for parameter in net.parameters())
    assert [parameter.requires_grad for parameter in net.parameters()] == [True, True, True, False]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(images, copies)


def test_probabilities_are_those_of_the_network(brittle, held_out):
    handed = Probabilities(brittle)(held_out[0])
    assert torch.allclose(handed.sum(1), torch.ones(200)) and torch.equal(handed.argmax(1), brittle(held_out[0]).argmax(1))


@pytest.mark.parametrize("name, classes, words", [
    ("APGD", 10, ["'APGD'", "APGD-CE"]), ("APGD-T", 3, ["4 classes", "not 3"]), ("FAB-T", 2, ["4 classes", "not 2"]),
])
def test_impossible_parts(brittle, name, classes, words):
    with pytest.raises(ValueError) as error:
        part(name, brittle, 0.1, classes)
    assert all(word in str(error.value) for word in words)


def test_images_outside_the_range_are_refused(brittle):
    with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
        AutoAttack(brittle, 0.1).run(torch.full((1, 1, 8, 8), 3.0), torch.tensor([0]))
