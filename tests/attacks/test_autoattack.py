"""AutoAttack is the standard one, agrees with torchattacks' parts, and is at least as strong as each of its parts."""

import copy
import sys

import pytest
import torch
import torchattacks
from attacks.small import result_when_killed
from conftest import TOY_EPS, Scale
from torch import Tensor, nn

from reprolib.attacks import STANDARD, AttackResult, AutoAttack, Gradients, Probabilities, part_of, pgd, slots
from reprolib.attacks.autoattack import FAB, RUNS, AutoPGD, Square

# --- the whole ----------------------------------------------------------------------------------------------------


def test_the_standard_version(brittle):
    """Croce and Hein 2020: the parts, their order, and each one's steps, targets, restarts, queries and constants."""
    assert AutoAttack.parts == ("APGD-CE", "APGD-T", "FAB-T", "Square")
    assert RUNS == {"APGD-CE": 1, "APGD-T": 9, "FAB-T": 9, "Square": 1}
    first, second, fab, square = (AutoAttack(brittle, 0.1)._method(name, Gradients(brittle), 0) for name in STANDARD)
    for apgd in (first, second):
        assert (apgd.steps, apgd.momentum, apgd.enough, apgd.windows) == (100, 0.75, 0.75, [22, 3, 6])
    assert (fab.steps, fab.most_bias, fab.overshoot, fab.way_back) == (100, 0.1, 1.05, 0.9)
    assert (square.queries, square.first_share) == (5000, 0.8)


def test_fewer_steps_shorten_every_part(brittle, sturdy, some):
    made = [AutoAttack(brittle, 0.1, steps=10)._method(name, Gradients(brittle), 0) for name in STANDARD]
    assert [getattr(part, "steps", None) or part.queries for part in made] == [10, 10, 10, 500]
    whole, short = (AutoAttack(sturdy, TOY_EPS, steps=steps).run(*some) for steps in (20, 2))
    assert short.calls < 0.2 * whole.calls and short.robust().sum() >= whole.robust().sum()


def test_no_steps_are_refused(brittle):
    with pytest.raises(ValueError, match="^steps is 0; expected 1 or more, and 100 in the standard version"):
        AutoAttack(brittle, 0.1, steps=0)


@pytest.mark.parametrize(
    "name, kind, targeted",
    [
        ("APGD-CE", AutoPGD, False),
        ("APGD-T", AutoPGD, True),
        ("FAB-T", FAB, None),
        ("Square", Square, None),
    ],
)
def test_each_part_is_what_its_name_says(brittle, name, kind, targeted):
    made = AutoAttack(brittle, 0.1, seed=4)._method(name, Gradients(brittle), 1)
    assert type(made) is kind and made.eps == 0.1 and getattr(made, "targeted", None) is targeted


def test_torchattacks_own_autoattack_is_another_one(brittle):
    own = torchattacks.AutoAttack(brittle, eps=0.1)._autoattack.attacks
    assert [own[0].steps, own[1].steps, own[2].steps, own[3].rescale_schedule] == [10, 10, 10, True]


def test_at_most_the_accuracy_of_every_member(sturdy, held_out):
    whole = AutoAttack(sturdy, TOY_EPS, steps=10).run(*held_out)
    members = [AutoAttack(sturdy, TOY_EPS, parts=(name,), steps=10).run(*held_out).robust() for name in STANDARD]
    assert 0.5 < whole.robust().float().mean() < 0.9
    assert torch.equal(whole.robust(), torch.stack(members).all(0)), "what every part leaves, and nothing else"
    assert whole.robust().sum() <= pgd(sturdy, TOY_EPS, 0.02, 40, 2, loss="logits").run(*held_out).robust().sum()
    broken_by = [int(((part_of(whole.any_run) == number) & whole.correct).sum()) for number in range(4)]
    assert broken_by[0] > 0 and broken_by[1] > 0 and sum(broken_by) == int((whole.correct & ~whole.robust()).sum())


def test_nothing_is_left_of_a_brittle_network(brittle, held_out):
    result = AutoAttack(brittle, TOY_EPS).run(*held_out)
    assert result.correct.all() and not result.robust().any()


@pytest.mark.parametrize("factor", [30.0, 1000.0])
def test_sure_networks_are_broken_where_cross_entropy_has_no_gradient(brittle, held_out, factor):
    """Cross-entropy goes blind, the targeted loss does not: it divides by the logits' own scale."""
    scaled = nn.Sequential(brittle, Scale(factor))
    assert not AutoAttack(scaled, TOY_EPS).run(*held_out).robust().any()


@pytest.mark.parametrize("name", STANDARD)
def test_adversarial_images_are_what_they_are_said_to_be(sturdy, some, name):
    images, labels = some
    result = AutoAttack(sturdy, TOY_EPS, parts=(name,), slots=64, steps=20).run(images, labels)
    broken = result.correct & ~result.robust()
    assert (result.adversarial - images).abs().max() <= TOY_EPS + 1e-6
    assert 0 <= result.adversarial.min() and result.adversarial.max() <= 1
    assert (sturdy(result.adversarial).argmax(1) != labels)[broken].all()
    assert torch.equal(result.adversarial[~broken], images[~broken])


def test_each_part_sees_the_survivors_alone(sturdy, held_out, monkeypatch):
    """A part's first evaluation of the network is of the images that no part before it broke."""
    seen = []

    class Spy(slots.Slots):
        def __post_init__(self):
            super().__post_init__()
            seen.append(({image for image, _ in self.queue}, set((self.result.any_run < 0).nonzero()[:, 0].tolist())))

    monkeypatch.setattr(sys.modules[AutoAttack.__module__], "Slots", Spy)
    AutoAttack(sturdy, TOY_EPS, steps=10).run(*held_out)
    assert len(seen) == 4 and all(queued == unbroken for queued, unbroken in seen)
    assert len(seen[0][0]) > len(seen[1][0]) > len(seen[3][0]) > 0


@pytest.fixture(scope="module")
def some(held_out) -> tuple[Tensor, Tensor]:
    return tuple(tensor[:40] for tensor in held_out)


@pytest.fixture(scope="module")
def whole(sturdy, some) -> AttackResult:
    return AutoAttack(sturdy, TOY_EPS, steps=8).run(*some)


def test_results_do_not_depend_on_slots_or_order(sturdy, some, whole):
    images, labels = some
    few = AutoAttack(sturdy, TOY_EPS, slots=17, steps=8).run(images.flip(0), labels.flip(0), torch.arange(40).flip(0))
    assert torch.equal(few.any_run.flip(0), whole.any_run) and torch.equal(few.correct.flip(0), whole.correct)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.9])
def test_goes_on_where_it_stopped(sturdy, some, whole, monkeypatch, share):
    """Killed at a share of its evaluations, in whichever part that is, it ends where it would have."""
    monkeypatch.setattr(slots, "SAVE_EVERY", -1)
    attack = AutoAttack(sturdy, TOY_EPS, steps=8)
    result = attack.run(*some, resume=result_when_killed(attack, *some, share * whole.calls))
    assert torch.equal(result.any_run, whole.any_run) and torch.equal(result.next_run, whole.next_run)
    assert result.calls < whole.calls + 40 * 402, "at most the runs that were in flight are run again"


class NeedsImages(nn.Module):
    """Refuses an empty batch, as convolutions on rearranged pixels do."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        if not len(images):
            raise RuntimeError("no images")
        return self.net(images)


def test_nothing_is_asked_once_no_image_is_left(brittle, some):
    attack = AutoAttack(NeedsImages(brittle), TOY_EPS)
    result = attack.run(*some)
    assert not result.robust().any() and (result.next_run == attack.runs).all()
    again = attack.run(*some, resume=copy.deepcopy(result))
    assert again.calls == result.calls


class Broken(nn.Module):
    """Answers NaN wherever a pixel is above 0.5, and class 0 elsewhere."""

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1).amax(1, keepdim=True)
        return torch.cat([1 + 0 * x, x.new_zeros(len(x), 9)], 1) + torch.where(x > 0.5, torch.nan, 0.0)


@pytest.mark.parametrize("name", ["APGD-CE", "Square"])
def test_a_network_that_fails_is_not_fooled(name):
    result = AutoAttack(Broken(), 0.2, parts=(name,), steps=10).run(
        torch.full((3, 1, 4, 4), 0.4), torch.zeros(3, dtype=torch.int64)
    )
    assert result.robust().all()


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
    assert torch.allclose(handed.sum(1), torch.ones(200)) and torch.equal(
        handed.argmax(1), brittle(held_out[0]).argmax(1)
    )


def test_too_few_classes_for_the_targeted_parts(held_out):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    labels = held_out[1] % 3
    with pytest.raises(ValueError, match="APGD-T, FAB-T need a network of 4 classes or more, not 3"):
        AutoAttack(net, 0.1).run(held_out[0], labels)
    assert AutoAttack(net, 0.1, parts=("APGD-CE",)).run(held_out[0], labels).correct.any()


def test_unknown_part(brittle):
    with pytest.raises(ValueError, match=r"^parts is \('APGD',\); expected .* APGD-CE"):
        AutoAttack(brittle, 0.1, parts=("APGD",))


def test_images_outside_the_range_are_refused(brittle):
    with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
        AutoAttack(brittle, 0.1).run(torch.full((1, 1, 8, 8), 3.0), torch.tensor([0]))
