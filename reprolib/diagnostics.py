"""Health checks of a robustness claim: is the accuracy that an attack leaves what remains, or is the attack at fault?

The checks are those that the literature asks for, gathered under the ids D0, D1, ...: Carlini et al. 2019 (advice on
evaluations), Athalye et al. 2018 (obfuscated gradients), Croce and Hein 2020 (AutoAttack), Pintor et al. 2022
(indicators of attack failure), Tramer et al. 2020 (adaptive attacks). Two of the list are left out. D16, the unit test
of Zimmermann et al. 2022, puts a new last layer on the network's features, and here a network is a function from
images to logits. D17, a network known to be robust that has to pass, is a test of this module, not of a claim.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprolib import streams
from reprolib.attacks import AttackResult, LinfAttack, fgsm, loss_per_image
from reprolib.autoattack import STANDARD, AutoAttack
from reprolib.probes import BPDA, NOISE, is_right, random_noise, transfer
from reprolib.slots import check_images, untouched

VERDICTS = ("robust", "masked gradients", "robust only to transfer", "attack too weak", "not robust")

BATCH = 256  # images that go through the network together

# The limits, with their source; percent of the images unless another unit is named. They are meant for 1000 images: on
# fewer, a limit may be less than one image, and so one image is no failure, except where the limit is 0.
CONTROL = 1.0  # left of an undefended network (Carlini)
AGREEMENT = 1e-4  # of the largest logit, between two passes over the same images (AutoAttack's checks)
BLIND = 1.0  # of the correct images, without gradient (AutoAttack's checks)
GRADIENT_SIZE = 1e-3  # of the parent's gradient (Pintor)
OTHER_LOSSES = 2.0  # AutoAttack's checks; a network with its logits times 1e4 shows why no single loss will do
ONE_STEP = 1.0  # Carlini, Athalye
MORE_STEPS = 0.5  # Carlini
MORE_RESTARTS = 0.25  # Carlini
STEP_SIZE = 1.0  # Carlini
BLACK_BOX = 0.2  # AutoAttack's checks
TRANSFER = 1.0  # Athalye, Carlini
LANDSCAPE = 0.5  # of the parent's cosine (Pintor has the quantity, the limit is ours)
AUTOATTACK = 3.0  # Croce and Hein
NO_TRANSFORM = 0.5  # Tramer
PRECISION = 0.1  # RobustBench's issue 7

STANDARD_ERRORS = 3  # by which a difference has to exceed its standard error to count
TRANSFER_ONLY = 10.0  # points between accuracy on the parent's images and sound accuracy (Athalye)
GREY, ANY = 0.5, 1.0  # radii at which every image can be made the same grey one, and any other image (Carlini)

# What a failing check means; the first line with one of them decides, and checks in no line inform only.
# D1, D2: there is nothing to go by, which no strength mends. That comes before D0, which the same saturation can fail:
# an attack that leaves three quarters of a saturated network may leave 2 % of its parent. D0: the attack does not even
# break a network that nobody defended. D3: another loss finds more with the same budget, so strength is not the matter.
# D5, D7: more of the same attack finds more. That comes before D4, D9, D10, D11 and D14, because to those an attack
# short of steps, or with a step of 0, loses as well. "Too high" is no verdict yet: where most of the claim survives
# everything, the network is robust and the attack fell short (cross-entropy on a sound network, FGSM); where most of
# it is gone, its robustness was masking.
DECIDING = (
    ("masked gradients", ("D1", "D2")),
    ("attack too weak", ("D0",)),
    ("too high", ("D3",)),
    ("attack too weak", ("D5", "D7")),
    ("too high", ("D4", "D9", "D10", "D11", "D14")),
)
MOST_OF_IT = 0.5  # of a claim that is too high (ours)


@dataclass(frozen=True)
class Report:
    """What `check` found.

    table: a row per check with columns `check` (its id and name), `measured` (float; NaN where not applicable),
        `threshold` (text, with the unit of `measured`), `passed` (True, False, or None where not applicable) and
        `meaning`.
    verdict: one of VERDICTS. "robust" says that more is left than of the parent, beyond chance, not how much.
    reason: one sentence, with the checks that decided.
    """

    table: pd.DataFrame
    verdict: str
    reason: str


class _Row(NamedTuple):
    check: str
    measured: float
    threshold: str
    passed: bool | None
    meaning: str


def check(
    model: nn.Module,
    parent: nn.Module | None,
    data: tuple[Tensor, Tensor],
    attack: Callable[[nn.Module], LinfAttack],
    *,
    draws: int = 100,
) -> Report:
    """Examine the claim that `model` keeps the accuracy which an attack leaves it.

    An image counts as robust under the claim if `attack`, with its own loss and decision rule, leaves it correct. Most
    checks look for claimed images that something else breaks within the same ball: each point found there is a point
    by which the claim is too high. Attacks run on the images for which their answer is still open, so networks that
    are not robust cost little; one that is costs 15 to 20 times a claimed PGD of 100 steps and 10 restarts.

    Args:
        model: classifier of at least 4 classes, images float32 [B, C, H, W] in [0, 1] -> logits [B, K].
        parent: the undefended network with the same classes, by which the attack is calibrated, or None: then checks
            that compare with it do not apply.
        data: images float32 [n, C, H, W] in [0, 1] and labels int64 [n], on the networks' device; 1000 if possible.
        attack: makes the attack whose robust accuracy is claimed from a network, for example
            functools.partial(pgd, eps=0.3, alpha=0.01, steps=100, restarts=10, loss="logits", decision="last").
        draws: random points of the ball for each image.
    Raises:
        ValueError: no images, fewer than 4 classes, an attack that is none or has radius 0, and what attacks raise.
    The networks' modes, their gradients and the global random numbers are left untouched, also after an exception.
    """
    images, labels = data
    _check_claim(model, images, labels, attack)
    gpus = [images.device] if images.is_cuda else []
    with torch.random.fork_rng(devices=gpus), untouched(model), untouched(parent or nn.Identity()):
        case = _Case(model, parent, images.detach(), labels, attack, draws)
        _check_classes(case)
        rows = [row for one in CHECKS for row in one(case)]
        verdict, reason = _judge(rows, case)
    return Report(_table(rows), verdict, reason)


def _table(rows: list[_Row]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=_Row._fields).astype({"measured": float})
    # left alone, pandas makes different types of True, False and None, depending on which of them are there
    return table.assign(passed=pd.Series([row.passed for row in rows], dtype=object))


def _check_claim(model: nn.Module, images: Tensor, labels: Tensor, attack: Callable) -> None:
    if len(images) == 0:
        raise ValueError("there are no images to check the claim on")
    check_images(images, labels)
    makes = callable(attack) and not isinstance(attack, LinfAttack)  # which is callable, but with images
    made = attack(model) if makes else attack
    if not (makes and isinstance(made, LinfAttack)):
        raise ValueError(
            f"attack {'makes' if makes else 'is'} a {type(made).__name__}; expected a callable that makes a LinfAttack "
            "from a network, such as functools.partial(pgd, eps=0.3, alpha=0.01, steps=100)"
        )
    if made.eps == 0:
        raise ValueError("the attack's eps is 0, which claims nothing but the clean accuracy")


def _check_classes(case: _Case) -> None:
    classes = case.model(case.images[:1]).shape[1]
    if classes < 4:
        raise ValueError(f"the network has {classes} classes; AutoAttack's targeted parts need 4 or more")


@dataclass
class _Case:
    """A claim under examination, and what was found out about it; each attack runs once, when it is first asked for.

    Masks are bool [n], a row per image. `claimed` are the rows that the claim calls robust; `broken_by_...` those of
    them for which another attack in the same ball found an adversarial image, any iterate counting.
    """

    model: nn.Module
    parent: nn.Module | None
    images: Tensor
    labels: Tensor
    make: Callable[[nn.Module], LinfAttack]
    draws: int

    @cached_property
    def attack(self) -> LinfAttack:
        return self.make(self.model)

    @cached_property
    def result(self) -> AttackResult:
        return self.attack.run(self.images, self.labels)

    @property
    def claimed(self) -> Tensor:
        return self.result.robust(self.attack.decision)

    @property
    def never_wrong(self) -> Tensor:
        """Claimed rows of which the claimed attack saw no misclassified iterate either."""
        return self.result.robust("any")

    @property
    def claims_something(self) -> bool:
        return _percent(self.claimed) > CONTROL

    @cached_property
    def parent_keeps(self) -> Tensor:
        attack = self.make(self.parent)
        return attack.run(self.images, self.labels).robust(attack.decision)

    @cached_property
    def gradients(self) -> Tensor:
        return self._gradients(self.attack, self.images)

    @cached_property
    def parent_gradients(self) -> Tensor:
        return self._gradients(self.make(self.parent), self.images)

    def _gradients(self, attack: LinfAttack, images: Tensor) -> Tensor:
        """Of the claimed loss, float [n, C*H*W]."""
        found = []
        for some, truth in zip(images.split(BATCH), self.labels.split(BATCH), strict=True):
            x = some.clone().requires_grad_()
            found += torch.autograd.grad(loss_per_image(attack.model(x), truth, attack.loss).sum(), x)
        return torch.cat(found).flatten(1)

    def alignment(self, network: nn.Module, gradients: Tensor) -> float:
        """Mean cosine between a correct image's gradient and that at a random point of the ball; 0 where one is 0."""
        rows = torch.arange(len(self.images), device=self.images.device)
        u = streams.uniform(0, rows, 2 * NOISE, self.images.shape[1:])
        near = (self.images + (2 * u - 1) * self.attack.eps).clamp(0, 1)
        cosines = F.cosine_similarity(gradients, self._gradients(self.make(network), near))
        return float(cosines[is_right(network, self.images, self.labels)].mean())

    def _broken(self, attack: LinfAttack | AutoAttack, among: Tensor) -> Tensor:
        """The rows of `among` that an attack breaks. They keep their ids, and with them their random starts."""
        rows, broken = among.nonzero().squeeze(1), torch.zeros_like(among)
        if len(rows):
            broken[rows] = ~attack.run(self.images[rows], self.labels[rows], rows).robust()
        return broken

    def _variant(self, **changes) -> LinfAttack:
        return replace(self.attack, decision="any", **changes)

    @cached_property
    def left_by_other_losses(self) -> list[Tensor]:
        rescaled = self._variant(model=_Rescaled(self.attack.model), loss="logits")
        return [attack.run(self.images, self.labels).robust() for attack in (self._variant(loss="margin"), rescaled)]

    @cached_property
    def broken_by_one_step(self) -> Tensor:
        return self._broken(fgsm(self.attack.model, self.attack.eps, loss=self.attack.loss), self.claimed)

    @cached_property
    def broken_by_more_steps(self) -> Tensor:
        longer = {"steps": 10, "alpha": self.attack.eps / 4} if self.one_step else {"steps": 2 * self.attack.steps}
        return self._broken(self._variant(**longer), self.never_wrong)

    @cached_property
    def broken_by_more_restarts(self) -> Tensor:
        again = self._variant(restarts=self.attack.runs, seed=self.attack.seed + 1)
        return self._broken(again, self.never_wrong)

    @cached_property
    def broken_by_step_sizes(self) -> list[Tensor]:
        """For eps/10, eps/4 and 2.5 eps/steps (Madry); for none if there is one step, which is eps by definition."""
        sizes = (0.1, 0.25, 2.5 / self.attack.steps) if not self.one_step else ()
        return [self._broken(self._variant(alpha=self.attack.eps * size), self.never_wrong) for size in sizes]

    @cached_property
    def broken_by_squares(self) -> Tensor:
        return self._broken(AutoAttack(self.model, self.attack.eps, parts=("Square",)), self.claimed)

    @cached_property
    def broken_by_autoattack(self) -> Tensor:
        """Square has had its turn, so that only the other parts are due, and only on what Square left."""
        others = AutoAttack(self.model, self.attack.eps, parts=tuple(name for name in STANDARD if name != "Square"))
        return self.broken_by_squares | self._broken(others, self.claimed & ~self.broken_by_squares)

    @cached_property
    def survives_transfer(self) -> Tensor:
        """Correct on the clean image and on the one that breaks the parent."""
        crafted = replace(self.make(self.parent), loss="margin", decision="last")
        return transfer(self.model, crafted, self.images, self.labels)

    @cached_property
    def survives_noise(self) -> Tensor:
        return random_noise(self.model, self.images, self.labels, self.attack.eps, self.draws)

    @cached_property
    def curve(self) -> dict[float, Tensor]:
        """Radius -> rows that the claimed attack leaves, its step scaled with the radius; radii ascending."""
        eps = self.attack.eps
        radii = sorted({radius for radius in (eps / 4, eps / 2, eps, 2 * eps, GREY, ANY) if radius <= ANY})
        return {radius: self.claimed if radius == eps else self._at(radius) for radius in radii}

    def _at(self, radius: float) -> Tensor:
        attack = replace(self.attack, eps=radius, alpha=self.attack.alpha * radius / self.attack.eps)
        return attack.run(self.images, self.labels).robust(attack.decision)

    @property
    def one_step(self) -> bool:
        return self.attack.steps <= 1

    @property
    def sound(self) -> Tensor:
        """Rows that survive everything that was tried in the ball."""
        survives = [self.never_wrong, self.survives_noise, *self.left_by_other_losses]
        survives += [] if self.parent is None else [self.survives_transfer]
        broken = [self.broken_by_one_step, self.broken_by_more_steps, self.broken_by_more_restarts]
        broken += [self.broken_by_autoattack, *self.broken_by_step_sizes]
        return torch.stack(survives).all(0) & ~torch.stack(broken).any(0)


class _Rescaled(nn.Module):
    """Logits divided, image by image, by the gap between the two largest: cross-entropy of them cannot saturate.

    The gap counts as a constant, so that the gradient is that of the logits, in another unit.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        shifted = logits - logits.amax(1, keepdim=True).detach()
        first, second = shifted.detach().topk(2, 1).values.split(1, 1)
        smallest = 1e-6 * shifted.detach().abs().amax(1, keepdim=True) + 1e-12  # two equal logits have no gap
        return shifted / torch.maximum(first - second, smallest)


# --- the checks ------------------------------------------------------------------------------------------------------


def _percent(mask: Tensor) -> float:
    """Share of the rows that are set, in percent."""
    return 100 * float(mask.double().mean())


def _at_most(name: str, mask: Tensor, limit: float, meaning: str, applies: bool = True) -> _Row:
    """Passed with at most `limit` percent of the rows of `mask` set, or just one of them where the limit is above 0."""
    if not applies or len(mask) == 0:
        return _not_applicable(name, f"<= {limit:g} %", meaning)
    passed = _percent(mask) <= limit or (limit > 0 and int(mask.sum()) <= 1)
    return _Row(name, _percent(mask), f"<= {limit:g} %", passed, meaning)


def _not_applicable(name: str, threshold: str, meaning: str) -> _Row:
    return _Row(name, math.nan, threshold, None, meaning)


def _control(case: _Case) -> list[_Row]:
    meaning = "images that the claimed attack leaves of the undefended parent; more means that the attack is weak"
    if case.parent is None:
        return [_not_applicable("D0 control", f"<= {CONTROL:g} %", meaning)]
    return [_at_most("D0 control", case.parent_keeps, CONTROL, meaning)]


def _forward(case: _Case) -> list[_Row]:
    first, second = _logits(case), _logits(case)
    spread = float((first - second).abs().max() / first.abs().max().clamp(min=1e-12))
    probabilities = (first >= 0).all(1) & ((first.sum(1) - 1).abs() < 1e-4)
    meaning = "largest difference of two passes over the same images; attacks and checks need a deterministic network"
    return [
        _Row("D1 same answer twice", spread, f"<= {AGREEMENT:g} of the largest logit", spread <= AGREEMENT, meaning),
        _at_most("D1 logits", probabilities, 0.0, "outputs that are probabilities, behind which saturation hides"),
    ]


@torch.no_grad()
def _logits(case: _Case) -> Tensor:
    return torch.cat([case.model(some) for some in case.images.split(BATCH)])


def _gradient(case: _Case) -> list[_Row]:
    """Not applicable to a claim of next to nothing: whatever the gradients are like, they have sufficed."""
    correct = case.result.correct
    sizes = case.gradients[correct].abs().sum(1)
    blind = _at_most(
        "D2 zero gradients",
        sizes == 0,
        BLIND,
        "correct images at which the gradient of the claimed loss is exactly 0, so that an attack stays there",
        case.claims_something,
    )
    name, threshold = "D2 gradient size", f">= {GRADIENT_SIZE:g} of the parent's"
    meaning = "median L1 norm of the gradient of the claimed loss, compared with the parent's"
    parent = 0.0 if case.parent is None else float(case.parent_gradients[correct].abs().sum(1).median())
    if not (case.claims_something and parent > 0):
        return [blind, _not_applicable(name, threshold, meaning)]
    ratio = float(sizes.median()) / parent
    return [blind, _Row(name, ratio, threshold, ratio >= GRADIENT_SIZE, meaning)]


def _other_losses(case: _Case) -> list[_Row]:
    gain = int(case.claimed.sum()) - min(int(left.sum()) for left in case.left_by_other_losses)
    points, limit = 100 * gain / len(case.labels), f"<= {OTHER_LOSSES:g} points"
    meaning = "claimed accuracy, less what margin or cross-entropy of rescaled logits leaves with the same budget"
    return [_Row("D3 other losses", points, limit, points <= OTHER_LOSSES or gain <= 1, meaning)]


def _one_step(case: _Case) -> list[_Row]:
    meaning = "claimed images broken by FGSM, which should find less than an attack of many steps"
    return [_at_most("D4 one step", case.broken_by_one_step, ONE_STEP, meaning, not case.one_step)]


def _convergence(case: _Case) -> list[_Row]:
    how = "ten steps of eps/4" if case.one_step else "twice the steps"
    meaning = f"images of which the claimed attack saw no misclassified iterate, broken by {how}"
    return [_at_most("D5 more steps", case.broken_by_more_steps, MORE_STEPS, meaning)]


def _restarts(case: _Case) -> list[_Row]:
    meaning = "images of which the claimed attack saw no misclassified iterate, broken by as many random starts again"
    return [_at_most("D6 more restarts", case.broken_by_more_restarts, MORE_RESTARTS, meaning)]


def _step_size(case: _Case) -> list[_Row]:
    meaning = (
        "images of which the claimed attack saw no misclassified iterate, broken by the best of three other step sizes"
    )
    best = max(case.broken_by_step_sizes, key=_percent, default=case.claimed)
    return [_at_most("D7 step size", best, STEP_SIZE, meaning, not case.one_step)]


def _budget_curve(case: _Case) -> list[_Row]:
    curve, n = list(case.curve.values()), len(case.labels)
    rise = max(int(wide.sum()) - int(narrow.sum()) for narrow, wide in itertools.pairwise(curve))
    # on one and the same grey image, a network is right about one class at most
    chance = float(case.labels.bincount().max()) / n
    limit = 100 * (chance + STANDARD_ERRORS * math.sqrt(chance * (1 - chance) / n))
    grey = _percent(case.curve[GREY])
    larger = "largest rise of the claimed attack's accuracy from one radius to the next larger one"
    made_grey = "images that it leaves where each can be made grey; the limit is the commonest class's share"
    return [
        _Row("D8 larger budgets", 100 * rise / n, "<= 0 points, or one image", rise <= 1, larger),
        _Row("D8 radius 0.5", grey, f"<= {limit:.1f} %", grey <= limit, made_grey),
        _at_most("D8 radius 1", case.curve[ANY], 0.0, "images that it leaves where each can be made any other image"),
    ]


def _black_box(case: _Case) -> list[_Row]:
    meaning = "claimed images broken by Square in 5000 queries, without a gradient"
    return [_at_most("D9 black box", case.broken_by_squares, BLACK_BOX, meaning)]


def _transfer(case: _Case) -> list[_Row]:
    meaning = "claimed images broken by what breaks the parent (margin, last iterate)"
    if case.parent is None:
        return [_not_applicable("D10 transfer", f"<= {TRANSFER:g} %", meaning)]
    return [_at_most("D10 transfer", case.claimed & ~case.survives_transfer, TRANSFER, meaning)]


def _random_noise(case: _Case) -> list[_Row]:
    meaning = f"claimed images broken by one of {case.draws} random points of the ball"
    return [_at_most("D11 random noise", case.claimed & ~case.survives_noise, 0.0, meaning)]


def _landscape(case: _Case) -> list[_Row]:
    name, threshold = "D12 landscape", f">= {LANDSCAPE:g} of the parent's"
    meaning = "mean cosine of the gradients at an image and at a random point near it, compared with the parent's"
    parent = 0.0 if case.parent is None else case.alignment(case.parent, case.parent_gradients)
    if not (parent > 0 and case.result.correct.any()):
        return [_not_applicable(name, threshold, meaning)]
    ratio = case.alignment(case.model, case.gradients) / parent
    return [_Row(name, ratio, threshold, ratio >= LANDSCAPE, meaning)]


def _silent_success(case: _Case) -> list[_Row]:
    meaning = "claimed images that an earlier iterate of the claimed attack had broken"
    return [_at_most("D13 silent success", case.claimed & ~case.never_wrong, 0.0, meaning)]


def _autoattack(case: _Case) -> list[_Row]:
    meaning = "claimed images broken by AutoAttack, standard version"
    return [_at_most("D14 AutoAttack", case.broken_by_autoattack, AUTOATTACK, meaning)]


def _bpda(case: _Case) -> list[_Row]:
    """One run is enough to see whether the two are the same attack."""
    network = BPDA(lambda images: images, case.attack.model)
    around = replace(case.attack, model=network, restarts=min(case.attack.restarts, 1))
    there = around.run(case.images, case.labels).robust(around.decision)
    here = case.result.robust(around.decision, runs=1)
    meaning = "images on which BPDA with nothing to go around and the claimed attack disagree, first run"
    return [_at_most("D15 BPDA", there != here, NO_TRANSFORM, meaning)]


@torch.no_grad()
def _precision(case: _Case) -> list[_Row]:
    found, rows = case.result.adversarial, (case.result.correct & ~case.claimed).nonzero().squeeze(1)
    alone = [is_right(case.attack.model, found[row : row + 1], case.labels[row : row + 1]) for row in rows]
    meaning = "adversarial images of the claimed attack that are no longer misclassified when evaluated one by one"
    return [_at_most("D18 precision", torch.cat(alone) if alone else case.claimed[:0], PRECISION, meaning)]


CHECKS = (
    _control,
    _forward,
    _gradient,
    _other_losses,
    _one_step,
    _convergence,
    _restarts,
    _step_size,
    _budget_curve,
    _black_box,
    _transfer,
    _random_noise,
    _landscape,
    _silent_success,
    _autoattack,
    _bpda,
    _precision,
)


# --- the verdict -----------------------------------------------------------------------------------------------------


def _judge(rows: list[_Row], case: _Case) -> tuple[str, str]:
    claimed, left = _percent(case.claimed), _percent(case.sound)
    for verdict, ids in DECIDING:
        failed = [row.check for row in rows if row.check.split()[0] in ids and row.passed is False]
        if failed:
            if verdict == "too high":
                verdict = "attack too weak" if left >= MOST_OF_IT * claimed else "masked gradients"
            numbers = f"{claimed:.1f} % are claimed and {left:.1f} % survive everything tried"
            return verdict, f"{_list(failed)} {'fails' if len(failed) == 1 else 'fail'}: {numbers}."
    return _by_what_is_left(case, left)


def _by_what_is_left(case: _Case, left: float) -> tuple[str, str]:
    """The claim stands: is what is left more than what the parent keeps, and if not, does it withstand transfer?"""
    base = 0.0 if case.parent is None else _percent(case.parent_keeps)
    numbers = f"{left:.1f} % survive everything tried"
    reason = (
        f"no check fails that decides, and {numbers}, against {base:.1f} % that the claimed attack leaves of the parent"
    )
    if case.parent is None:
        reason = f"no check fails that decides, there is no parent to compare with, and {numbers}"
    if left - base > STANDARD_ERRORS * math.hypot(_standard_error(left, case), _standard_error(base, case)):
        return "robust", f"{_capital(reason)}."
    if case.parent is not None and _percent(case.survives_transfer) - left > TRANSFER_ONLY:
        moved = f"{_percent(case.survives_transfer):.1f} % survive what breaks the parent (D10)"
        return "robust only to transfer", f"{_capital(moved)}, but only {numbers}."
    return "not robust", f"{_capital(reason)}."


def _standard_error(share: float, case: _Case) -> float:
    """Of a share in percent, in points."""
    return math.sqrt(share * (100 - share) / len(case.labels))


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
