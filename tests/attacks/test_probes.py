"""Noise, transfer and BPDA, on networks whose answers are known."""

import pytest
import torch
from conftest import TOY_EPS
from torch import Tensor, nn

from reprolib.attacks import BPDA, pgd, random_noise, transfer


class Above(nn.Module):
    """One pixel: class 1 above a threshold, else class 0."""

    def __init__(self, threshold: float):
        super().__init__()
        self.threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)[:, :1]
        return torch.cat([self.threshold - x, x - self.threshold], 1)


def pixels(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


ZEROS = torch.zeros(1, dtype=torch.int64)


def test_corners_are_drawn_and_nothing_beyond_them():
    images = pixels(0.4)
    assert not random_noise(Above(0.4999), images, ZEROS, 0.1, draws=40).any()  # only a corner reaches that far
    assert random_noise(Above(0.4999), images, ZEROS, 0.1, draws=1).all()  # the first draw is no corner
    assert random_noise(Above(0.5001), images, ZEROS, 0.1, draws=400).all()


def test_uniform_draws_fill_the_ball():
    """A network that is wrong between 0.45 and 0.47 alone, where no corner lies."""

    class Between(nn.Module):
        def forward(self, images):
            inside = ((images.flatten(1)[:, :1] - 0.46).abs() < 0.01).float()
            return torch.cat([0.5 - inside, inside], 1)

    assert not random_noise(Between(), pixels(0.4), ZEROS, 0.1, draws=100).any()


def test_noise_cannot_make_a_wrong_image_right(brittle, held_out):
    images, labels = held_out
    wrong = (labels + 1) % 5
    assert not random_noise(brittle, images, wrong, 0.0, draws=3).any()
    assert torch.equal(random_noise(brittle, images, labels, 0.0, draws=3), brittle(images).argmax(1) == labels)


def test_more_draws_break_more(brittle, held_out):
    few, many = (random_noise(brittle, *held_out, 0.3, draws=draws) for draws in (2, 50))
    assert (many <= few).all() and many.sum() < few.sum()


def test_an_image_draws_by_its_row(brittle, held_out):
    images, labels = held_out
    assert torch.equal(
        random_noise(brittle, images[:50], labels[:50], 0.3), random_noise(brittle, images, labels, 0.3)[:50]
    )


def test_transfer_to_itself_is_the_attack(brittle, held_out):
    attack = pgd(brittle, TOY_EPS, 0.02, 20, decision="last")
    assert torch.equal(transfer(brittle, attack, *held_out), attack.run(*held_out).robust("last"))


def test_transfer_judges_the_target(sturdy, brittle, held_out):
    """Images made on the brittle network fool the sturdy one less than its own do, and the brittle one entirely."""
    attack = pgd(brittle, TOY_EPS, 0.02, 20, decision="last")
    white_box = pgd(sturdy, TOY_EPS, 0.02, 20, decision="last").run(*held_out).robust("last")
    assert transfer(sturdy, attack, *held_out).sum() >= white_box.sum()
    assert not transfer(brittle, attack, *held_out).any()


def test_bpda_with_nothing_to_go_around_is_pgd(brittle, held_out):
    images, labels = held_out
    direct, around = (pgd(net, 0.05, 0.01, 10, 2).run(images, labels) for net in (brittle, BPDA(lambda x: x, brittle)))
    assert torch.equal(direct.any_run, around.any_run) and torch.equal(direct.adversarial, around.adversarial)


def test_bpda_goes_around_a_transform_without_gradient(brittle, held_out):
    """Rounding to 1/16 has gradient zero: plain PGD stands still, BPDA breaks the network behind it."""

    def rounded(x):
        return (x * 16).round() / 16

    defended = nn.Sequential(Rounded(rounded), brittle)
    plain = pgd(defended, TOY_EPS, 0.02, 20).run(*held_out)
    around = pgd(BPDA(rounded, brittle), TOY_EPS, 0.02, 20).run(*held_out)
    assert torch.equal(plain.robust(), plain.correct) and plain.correct.float().mean() > 0.9
    assert around.robust().sum() < 0.1 * around.correct.sum()


class Rounded(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize("model", [Above(0.5), Above(0.9)])
def test_modes_are_left_alone(model):
    model.train()
    random_noise(model, pixels(0.4), ZEROS, 0.1, draws=2)
    transfer(model, pgd(Above(0.5), 0.1, 0.02, 3), pixels(0.4), ZEROS)
    assert model.training
