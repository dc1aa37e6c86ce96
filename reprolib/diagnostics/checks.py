"""The checks D0, D1, ...: each measures something on a case, and says whether it is within its limit."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reprolib.attacks import BPDA, is_right
from reprolib.diagnostics.case import ANY, BATCH, GREY, Case, percent

STANDARD_ERRORS = 3  # by which a difference has to exceed its standard error to count
Measured = tuple[float, str, bool | None]  # NaN and None where a check does not apply; the limit in words


class Row(NamedTuple):
    check: str
    measured: float
    threshold: str
    passed: bool | None
    meaning: str


def at_most(limit: float, mask: Tensor | None, applies: bool = True) -> Measured:
    """Passed with at most `limit` percent of the rows of `mask` set, or just one of them where the limit is above 0."""
    threshold = f"<= {limit:g} %"
    if mask is None or len(mask) == 0 or not applies:
        return math.nan, threshold, None
    return percent(mask), threshold, percent(mask) <= limit or (limit > 0 and int(mask.sum()) <= 1)


def at_least(limit: float, ratio: float) -> Measured:
    return ratio, f">= {limit:g} of the parent's", None if math.isnan(ratio) else ratio >= limit


def _same_answer(case: Case) -> Measured:
    first, second = _logits(case), _logits(case)
    spread = float((first - second).abs().max() / first.abs().max().clamp(min=1e-12))
    return spread, "<= 0.0001 of the largest logit", spread <= 1e-4


@torch.no_grad()
def _logits(case: Case) -> Tensor:
    return torch.cat([case.model(some) for some in case.images.split(BATCH)])


def _are_probabilities(case: Case) -> Tensor:
    logits = _logits(case)
    return (logits >= 0).all(1) & ((logits.sum(1) - 1).abs() < 1e-4)


def _sizes(case: Case, network: nn.Module) -> Tensor:
    """L1 norms of the gradients at correct images; of none if next to nothing is claimed: then they have sufficed."""
    rows = case.result.correct & (percent(case.claimed) > 1)
    return case.gradients(network, case.images)[rows].abs().sum(1)


def _other_losses(case: Case) -> Measured:
    gain = int(case.claimed.sum()) - min(int(left.sum()) for left in case.left_by_other_losses)
    return 100 * gain / len(case.labels), "<= 2 points", 100 * gain / len(case.labels) <= 2 or gain <= 1


def _larger_budgets(case: Case) -> Measured:
    counts = [int(left.sum()) for left in case.curve.values()]
    rise = max(wide - narrow for narrow, wide in itertools.pairwise(counts))
    return 100 * rise / len(case.labels), "<= 0 points, or one image", rise <= 1


def _grey(case: Case) -> Measured:
    """On one and the same grey image, a network is right about one class at most."""
    chance, left = float(case.labels.bincount().max()) / len(case.labels), percent(case.curve[GREY])
    limit = 100 * (chance + STANDARD_ERRORS * math.sqrt(chance * (1 - chance) / len(case.labels)))
    return left, f"<= {limit:.1f} %", left <= limit


def _bpda(case: Case) -> Tensor:
    """One run is enough to see whether the two are the same attack."""
    network = BPDA(lambda images: images, case.attack.model)
    around = replace(case.attack, model=network, restarts=min(case.attack.restarts, 1))
    return around.run(case.images, case.labels).robust(around.decision) != case.result.robust(around.decision, runs=1)


@torch.no_grad()
def _right_alone(case: Case) -> Tensor | None:
    found, rows = case.result.adversarial, (case.result.correct & ~case.claimed).nonzero().squeeze(1)
    alone = [is_right(case.attack.model, found[row : row + 1], case.labels[row : row + 1]) for row in rows]
    return torch.cat(alone) if alone else None


# Limits are percent of the images unless another unit is named; behind each stands its source (D2's size: Pintor). They
# are meant for 1000 images: on fewer, a limit may be less than one image, so one is no failure unless the limit is 0.
CHECKS: dict[str, Callable[[Case], Measured]] = {
    "D0 control": lambda case: at_most(1, case.parent_keeps),  # Carlini
    "D1 same answer twice": _same_answer,  # AutoAttack's
    "D1 logits": lambda case: at_most(0, _are_probabilities(case)),
    "D2 zero gradients": lambda case: at_most(1, _sizes(case, case.model) == 0),  # AutoAttack's
    "D2 gradient size": lambda case: at_least(1e-3, case.of_parents(lambda net: float(_sizes(case, net).median()))),
    "D3 other losses": _other_losses,  # AutoAttack's; logits times 1e4 show why no single loss will do
    "D4 one step": lambda case: at_most(1, case.broken_by_one_step, case.attack.steps > 1),  # Carlini, Athalye
    "D5 more steps": lambda case: at_most(0.5, case.broken_by_more_steps),  # Carlini
    "D6 more restarts": lambda case: at_most(0.25, case.broken_by_more_restarts),  # Carlini
    "D7 step size": lambda case: at_most(1, max(case.broken_by_step_sizes, key=percent, default=None)),  # Carlini
    "D8 larger budgets": _larger_budgets,  # Carlini
    "D8 radius 0.5": _grey,
    "D8 radius 1": lambda case: at_most(0, case.curve[ANY]),
    "D9 black box": lambda case: at_most(0.2, case.broken_by_squares),  # AutoAttack's
    "D10 transfer": lambda case: at_most(1, case.lost(case.survives_transfer)),  # Athalye, Carlini
    "D11 random noise": lambda case: at_most(0, case.lost(case.survives_noise)),
    "D12 landscape": lambda case: at_least(0.5, case.of_parents(case.alignment)),  # Pintor; the limit is ours
    "D13 silent success": lambda case: at_most(0, case.lost(case.never_wrong)),
    "D14 AutoAttack": lambda case: at_most(3, case.broken_by_autoattack),  # Croce and Hein
    "D15 BPDA": lambda case: at_most(0.5, _bpda(case)),  # Tramer
    "D18 precision": lambda case: at_most(0.1, _right_alone(case)),  # RobustBench's issue 7
}
MEANINGS = {
    "D0 control": "images that the claimed attack leaves of the undefended parent; more means that it is weak",
    "D1 same answer twice": "largest difference of two passes; attacks and checks need a deterministic network",
    "D1 logits": "outputs that are probabilities, behind which saturation hides",
    "D2 zero gradients": "correct images at which the claimed loss has gradient 0, so that an attack stays there",
    "D2 gradient size": "median L1 norm of the gradient of the claimed loss, compared with the parent's",
    "D3 other losses": "claimed accuracy, less what margin or rescaled cross-entropy leaves with the same budget",
    "D4 one step": "claimed images broken by FGSM, which should find less than an attack of many steps",
    "D5 more steps": "images never seen misclassified, broken by twice the steps (a single one: by ten of eps/4)",
    "D6 more restarts": "images never seen misclassified, broken by as many random starts again",
    "D7 step size": "images never seen misclassified, broken by the best of three other step sizes",
    "D8 larger budgets": "largest rise of the claimed attack's accuracy from one radius to the next larger one",
    "D8 radius 0.5": "images left where each can be made grey; the limit is the commonest class's share",
    "D8 radius 1": "images left where each can be made any other image",
    "D9 black box": "claimed images broken by Square in 5000 queries, without a gradient",
    "D10 transfer": "claimed images broken by what breaks the parent (margin, last iterate)",
    "D11 random noise": "claimed images broken by a random point of the ball",
    "D12 landscape": "mean cosine of the gradients at an image and at a random point near it, over the parent's",
    "D13 silent success": "claimed images that an earlier iterate of the claimed attack had broken",
    "D14 AutoAttack": "claimed images broken by AutoAttack, standard version",
    "D15 BPDA": "images on which BPDA with nothing to go around and the claimed attack disagree, first run",
    "D18 precision": "adversarial images of the claimed attack that are classified correctly one by one",
}
