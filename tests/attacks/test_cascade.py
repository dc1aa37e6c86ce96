"""Cascade finds what can be worked out by hand, what AutoAttack finds, and gives up what leads nowhere."""

import pytest
import torch
from attacks.small import Linear, assert_same, far_from_the_box, result_when_killed
from conftest import TOY_EPS, Scale
from torch import Tensor, nn

from reprolib.attacks import AutoAttack, Gradients, cascade, slots
from reprolib.attacks.autoattack import AutoPGD
from reprolib.attacks.cascade import _Aimed, nearest


def linear_classes(count: int, pixels: int = 16) -> nn.Module:
    """So many classes, each with logits linear in the image."""
    with torch.random.fork_rng():
        torch.manual_seed(count)
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, count)).requires_grad_(False)


def grey_images(net: nn.Module, count: int = 12) -> tuple[Tensor, Tensor]:
    """Images at least 0.3 from the box, with the labels that the network gives them."""
    images = 0.3 + 0.4 * torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(8))
    return images, net(images).argmax(1)


def distances(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """[B, K]: to each class, infinite to the label's: margin over the L1 norm of the weights' difference."""
    logits, weight = net(images), net[1].weight
    margins = logits.gather(1, labels[:, None]) - logits
    norms = (weight[labels][:, None] - weight[None]).abs().sum(2)
    return (margins / norms).scatter(1, labels[:, None], torch.inf)


# --- what it finds ---


@pytest.mark.parametrize("share, falls", [(0.95, False), (1.05, True)])
def test_two_classes_and_a_plane_between_them(share, falls):
    linear = Linear()
    images, labels, distance = far_from_the_box(linear)
    for image, label, nearest_example in zip(images, labels, distance, strict=True):
        result = cascade(linear, float(share * nearest_example)).run(image[None], label[None])
        assert result.correct.item() and bool(result.robust()) is not falls


@pytest.mark.parametrize("classes", [3, 4, 10, 100])
def test_several_classes_with_planes_between_them(classes):
    """It stands where no plane is within eps, and falls where that of one of the nine likeliest classes is."""
    net = linear_classes(classes)
    images, labels = grey_images(net)
    all_of_them, likeliest = distances(net, images, labels), net(images).argsort(1, descending=True)[:, 1:10]
    within = all_of_them.gather(1, likeliest).amin(1)
    assert within.max() < 0.28, "else the box would matter"
    for image, label, none, some in zip(images, labels, all_of_them.amin(1), within, strict=True):
        assert cascade(net, float(0.95 * none)).run(image[None], label[None]).robust().all()
        assert not cascade(net, float(1.05 * some)).run(image[None], label[None]).robust().any()


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_it_aims_at_the_nearest_of_the_likeliest_classes(classes):
    net = linear_classes(classes)
    images, labels = grey_images(net)
    found = nearest(Gradients(net), images, labels)
    likeliest = net(images).argsort(1, descending=True)[:, 1:10]
    by_distance = distances(net, images, labels).gather(1, likeliest).argsort(1)
    assert torch.equal(found, likeliest.gather(1, by_distance)) and found.shape[1] == min(9, classes - 1)


@pytest.mark.parametrize("factor", [1.0, 30.0, 1000.0])
def test_nothing_is_left_where_autoattack_leaves_nothing(brittle, held_out, factor):
    """Also where cross-entropy has no gradient, as on a network that is sure of itself."""
    result = cascade(nn.Sequential(brittle, Scale(factor)), TOY_EPS).run(*held_out)
    assert result.correct.all() and not result.robust().any()


@pytest.mark.parametrize("factor", [1.0, 1000.0])
@pytest.mark.slow
def test_no_more_is_left_than_by_autoattack(sturdy, held_out, factor):
    net, some = nn.Sequential(sturdy, Scale(factor)), [tensor[:25] for tensor in held_out]
    left = cascade(net, TOY_EPS).run(*some).robust()
    standard = AutoAttack(net, TOY_EPS).run(*some).robust()
    assert 0.2 < standard.float().mean() < 0.9
    assert left.sum() <= standard.sum(), "0.2 points of 25 images are none"


@pytest.mark.parametrize("eps", [0.02, TOY_EPS, 0.4])
def test_adversarial_images_are_what_they_are_said_to_be(sturdy, held_out, eps):
    images, labels = held_out
    result = cascade(sturdy, eps).run(images, labels)
    assert (result.adversarial - images).abs().max() <= eps + 1e-6
    assert 0 <= result.adversarial.min() and result.adversarial.max() <= 1
    assert torch.equal(sturdy(result.adversarial).argmax(1) == labels, result.robust())
    assert torch.equal(result.adversarial[result.robust()], images[result.robust()])


# --- what it costs ---


def test_runs_that_lead_nowhere_are_given_up_and_others_are_not():
    linear = Linear()
    images, labels, distance = (tensor[:1] for tensor in far_from_the_box(linear))
    near, far = (cascade(linear, float(share * distance)).run(images, labels) for share in (0.98, 0.5))
    assert near.robust().all() and far.robust().all()
    assert far.calls <= 1 + 2 * 21 + 11 * 11, "PGD twice, and eleven runs that end after ten steps"
    assert near.calls > 11 * 101, "eleven runs to their end"


def test_more_classes_cost_no_more():
    asked = {}
    for classes in (10, 100):
        net = linear_classes(classes)
        images, labels = grey_images(net)
        net.register_forward_hook(lambda _, given, __, classes=classes: asked[classes].append(len(given[0])))
        asked[classes] = []
        assert cascade(net, 1e-5).run(images, labels).robust().all()
    assert sum(asked[100]) < 1.02 * sum(asked[10]), "a short PGD may stop a step sooner or later"


# --- how it goes on ---


@pytest.mark.parametrize("share", [0.02, 0.2, 0.6, 0.9])
def test_goes_on_where_it_stopped(sturdy, held_out, monkeypatch, share):
    """Killed at a share of its evaluations, in whichever stage that is, it ends bit by bit where it would have."""
    monkeypatch.setattr(slots, "SAVE_EVERY", -1)
    some, attack = [tensor[:40] for tensor in held_out], cascade(sturdy, TOY_EPS, slots=16)
    whole = attack.run(*some)
    saved = result_when_killed(attack, *some, share * whole.calls)
    assert 0 < (saved.next_run < attack.runs).sum()
    assert_same(attack.run(*some, resume=saved), whole)


class Shuffled(nn.Module):
    """Under autocast the classes come in another order, so that other ones look near, and the label need not lead."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        quick = torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False):
            logits = self.net(images)
            return logits.roll(3, 1) if quick else logits


@pytest.mark.parametrize("method, options", [(_Aimed, {}), (AutoPGD, {"parts": ("APGD-T",)})])
def test_targets_are_chosen_in_float32(method, options, sturdy, held_out, monkeypatch):
    some, make, asked = [tensor[:30] for tensor in held_out], AutoAttack if options else cascade, {}
    for bfloat16 in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(method, "begin", noting(method.begin, asked.setdefault(bfloat16, {})))
            make(Shuffled(sturdy), 0.01, bfloat16=bfloat16, **options).run(*some)
    both = asked[False].keys() & asked[True].keys()
    assert len(both) > 30 and all(asked[False][pair] == asked[True][pair] for pair in both)


def noting(begin, targets):
    """`begin`, which writes down the target of each (image, run)."""

    def noted(self, rows):
        begin(self, rows)
        pairs = zip(rows["image"].tolist(), rows["run"].tolist(), strict=True)
        targets.update(zip(pairs, rows["target"].tolist(), strict=True))

    return noted


def test_only_any_iterate_can_be_judged(sturdy):
    with pytest.raises(ValueError, match="^decision is 'last'; expected 'any', as cascade judges every iterate"):
        cascade(sturdy, TOY_EPS, decision="last")
