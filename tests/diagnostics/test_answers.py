"""Does an image have an answer of its own, and that a gradient? Intervals are those of an independent library."""

import pytest
import torch
from diagnostics.known_cases import SMALL, WIDE, Behind, detached, not_a_number, sound, through_numpy, two_cues
from torch import Tensor, nn

from reprolib.attacks import Probabilities
from reprolib.attacks.network import are_probabilities
from reprolib.diagnostics.answers import LogProbabilities, gradient_of, logits_of, why_not_judged
from reprolib.diagnostics.case import Case, share
from reprolib.diagnostics.verdict import judge


def test_logarithms_of_probabilities_are_as_good_as_logits():
    images, labels = two_cues()
    known = LogProbabilities(Probabilities(WIDE))
    assert torch.allclose(known(images), WIDE(images).log_softmax(1), atol=1e-4)
    ours, true = (gradient_of(net, images, labels, "margin") for net in (known, WIDE))
    assert torch.allclose(ours, true, atol=1e-3)
    assert are_probabilities(Probabilities(WIDE)(images)) and not are_probabilities(WIDE(images))


class Alone(nn.Module):
    """Another network for a single image than for several."""

    def forward(self, images: Tensor) -> Tensor:
        return WIDE(images) - (len(images) == 1) * torch.eye(5)[1]


class Steps(nn.Module):
    """Rounds in the middle, where sums that are rounded otherwise in another batch decide."""

    def forward(self, images: Tensor) -> Tensor:
        return (WIDE(images) * 8).round() / 8


@pytest.mark.parametrize("net, word", [
    (WIDE, ""),
    (Steps(), ""),
    (Alone(), "batch"),
    (nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), WIDE), "batch"),
    (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, track_running_stats=False), WIDE[1]), "batch"),
    (Behind(lambda x: x + 1e-3 * torch.rand_like(x), WIDE), "noise"),
])  # fmt: skip
def test_answers_that_are_noise_or_depend_on_the_batch(net, word):
    images = two_cues()[0]
    with torch.random.fork_rng():
        why = why_not_judged(net, images, logits_of(net, images))
    assert word in why and bool(why) == bool(word)


@pytest.mark.parametrize("change", [detached, through_numpy])
def test_no_gradient_is_no_error(change):
    assert gradient_of(Behind(change, WIDE), *two_cues(), "margin") is None


def test_gradients_that_are_not_a_number_stay_so():
    assert gradient_of(Behind(not_a_number, WIDE), *two_cues(), "margin").isnan().all()


@pytest.mark.parametrize("lost, n, verdict", [
    (0, 100, "right"), (1, 100, "right"), (2, 100, "too high"),
    (1, 50, "right"), (2, 50, "too high"),
    (2, 200, "right"), (3, 200, "too high"),
])  # fmt: skip
def test_one_tolerance_whoever_finds_them(lost, n, verdict):
    """A point, or one image; behind it stand only what has been found, however it was."""
    case = Case(WIDE, None, *two_cues(count=n), sound(SMALL)(WIDE), draws=1)
    case.has_gradient = case.claim_runs = True
    case.note("a stranger", case.ids[:lost], torch.tensor(False))
    assert judge(case)[0] == verdict and share(case.lost) == 100 * lost / n
