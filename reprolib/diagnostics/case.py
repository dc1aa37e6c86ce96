"""A claim under examination: which images it calls robust, which still stand, and what broke the others first."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprolib import attacks, streams
from reprolib.attacks import AttackResult, AutoAttack, LinfAttack
from reprolib.attacks.network import are_probabilities
from reprolib.attacks.slots import begun
from reprolib.diagnostics.answers import LogProbabilities, gradient_of, logits_of

FEW = 0.01  # of the images: with no more than so many standing, AutoAttack can hardly change the answer
ENOUGH = 50  # images, below which an interval says next to nothing: 14 points each way at best
WIDE = (0.5, 1.0)  # radii at which each image can be made the same grey one, and any other image (Carlini)
QUICK, HALF = "the quick evaluation", "the quick evaluation within half the radius"
CLAIM = "the claimed attack"
WHITE, SQUARE = "AutoAttack's APGD and FAB", "its Square"
NOISE, PARENT = "random noise", "images made to fool its parent"
Make = Callable[[nn.Module], LinfAttack]  # the attack on a network


def share(mask: Tensor) -> float:
    """In percent."""
    return 100 * int(mask.sum()) / len(mask)


def more_than_few(mask: Tensor) -> bool:
    """One image is few, of however few."""
    return int(mask.sum()) > max(FEW * len(mask), 1)


@dataclass
class Case:
    """Masks are bool [n], a row per image. `broken`: an attack's name -> the images that it was the first to break, any
    iterate counting. What asks about a gradient is all False where there is none."""

    model: nn.Module
    parent: nn.Module | None
    images: Tensor
    labels: Tensor
    attack: LinfAttack
    draws: int
    broken: dict[str, Tensor] = field(default_factory=dict)
    parent_keeps: Tensor | None = None  # this and the next: bool [asked]
    survive_parents: Tensor | None = None
    tell: Callable[[str], object] = str  # how many stand, now and then

    def __post_init__(self) -> None:
        self.ids = self.asked = torch.arange(len(self.labels), device=self.labels.device)  # asked: of the claim
        self.correct = begun(self.attack, self.model, self.images, self.labels, self.ids, None)[3].correct
        self.claimed = self.never_wrong = self.standing = self.correct  # which is the claim of an attack that can't run
        self.none = self.nan = self.flat = self.claim_flat = torch.zeros_like(self.correct)
        self.leads_nowhere = self.by_loss = self.by_steps = self.none
        self.logits = logits_of(self.model, self.images)
        self.probabilities = are_probabilities(self.logits)
        self.network = LogProbabilities(self.model) if self.probabilities else self.model
        self.has_gradient = self.claim_runs = False
        self.cosine = float("nan")  # of the gradients at an image and at a point near it, on average

    def rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[rows], self.labels[rows]

    @property
    def lost(self) -> Tensor:
        """What the claim calls robust, and is not."""
        return self.claimed & ~self.standing

    def stages(self) -> dict[str, Callable[[], None]]:
        """What is done, in this order, each on what stands then: what needs no gradient last, as only what it alone
        breaks is masked."""
        return {
            "gradients": self.look_at_gradients,
            QUICK: lambda: self.try_attack(QUICK, attacks.cascade(self.network, self.attack.eps)),
            CLAIM: self.run_claim,
            HALF: lambda: self.try_attack(HALF, attacks.cascade(self.network, self.attack.eps / 2)),
            "AutoAttack": self.try_autoattack,
            NOISE: self.try_noise,
            PARENT: self.transfer_from_parent,
            "wider radii": self.look_at_wider_radii,
            "reasons": self.find_reasons,
        }

    def look_at_gradients(self) -> None:
        claim = gradient_of(self.attack.model, self.images, self.labels, self.attack.loss)
        u = 2 * streams.uniform(0, self.ids, 2 * attacks.NOISE, self.images.shape[1:]) - 1
        near = (self.images + u * self.attack.eps).clamp(0, 1)
        here, there = (gradient_of(self.network, images, self.labels, "margin") for images in (self.images, near))
        self.claim_runs, self.has_gradient = claim is not None, here is not None
        if claim is not None:
            self.claim_flat, self.nan = (claim == 0).all(1), ~claim.isfinite().all(1)
        if here is not None and there is not None:
            self.flat, self.nan = (here == 0).all(1), self.nan | ~here.isfinite().all(1)
            self.cosine = float(F.cosine_similarity(here, there)[self.correct & ~self.nan].mean())

    def run_claim(self) -> None:
        """Where the network keeps next to nothing, fewer images are enough to say how much too high the claim is."""
        if not more_than_few(self.standing):
            self.asked = self.ids[:: max(len(self.ids) // ENOUGH, 1)]
        if self.claim_runs:
            result = self.attack.run(*self.rows(self.asked), self.asked, save=self.tell_standing)
            self.claimed = self.none.index_fill(0, self.asked[result.robust(self.attack.decision)], True)
            self.note(CLAIM, self.asked, result.robust("any"))
            self.never_wrong = self.none.index_fill(0, self.asked[result.robust("any")], True)

    def transfer_from_parent(self) -> None:
        """Ten steps up the parent's margin, to the last: what has just crossed one boundary seldom crosses another."""
        images, labels = self.rows(self.asked)
        if self.parent is None or gradient_of(self.parent, images[:1], labels[:1], "margin") is None:
            return
        crafted = attacks.pgd(self.parent, self.attack.eps, self.attack.eps / 4, 10, 1, decision="last")
        result = crafted.run(images, labels, self.asked)
        right = attacks.is_right(self.model, result.adversarial, labels)
        self.parent_keeps, self.survive_parents = result.robust("any"), right & self.correct[self.asked]
        self.note(PARENT, self.asked, right)

    def try_attack(self, name: str, attack: Any, by_gradient: bool = True) -> None:
        if self.has_gradient or not by_gradient:
            self.note(name, self.ids, ~self.breaks(attack, self.standing))

    def try_noise(self) -> None:
        rows = self.standing.nonzero().squeeze(1)
        self.note(NOISE, rows, attacks.random_noise(self.model, *self.rows(rows), self.attack.eps, self.draws))

    def breaks(self, attack: Any, among: Tensor) -> Tensor:
        """The rows of `among` that an attack breaks. They keep their ids, and with them their random starts."""
        rows, broken = among.nonzero().squeeze(1), self.none.clone()
        if len(rows):
            broken[rows] = ~attack.run(*self.rows(rows), rows, save=self.tell_standing).robust()
        return broken

    def tell_standing(self, result: AttackResult) -> None:
        self.tell(f"{int(result.robust().sum())} of {len(result.correct)} images stand")

    def note(self, name: str, rows: Tensor, survive: Tensor) -> None:
        stand = self.standing.clone()
        stand[rows] &= survive
        self.broken[name], self.standing = self.standing & ~stand, stand

    def try_autoattack(self) -> None:
        if more_than_few(self.standing):
            able = self.logits.shape[1] >= 4  # as many as targeted parts need
            white = tuple(name for name in attacks.STANDARD if name != "Square" and (able or not name.endswith("-T")))
            self.try_attack(WHITE, AutoAttack(self.network, self.attack.eps, parts=white))
            self.try_attack(SQUARE, AutoAttack(self.network, self.attack.eps, parts=("Square",)), by_gradient=False)

    def look_at_wider_radii(self) -> None:
        """No random start: one so wide destroys the images, and says nothing about where gradients lead. Images without
        a gradient are blind spots, and none of these."""
        for radius in WIDE if self.has_gradient else ():
            among = self.standing & ~self.flat & ~self.nan
            left = among & ~self.breaks(attacks.ifgsm(self.network, radius, radius / 40, 100), among)
            self.leads_nowhere = left if left.sum() > self.leads_nowhere.sum() else self.leads_nowhere

    def find_reasons(self) -> None:
        """Of what the claim lost, what the claimed attack finds in one run with another loss, or with other steps."""
        one = replace(self.attack, decision="any", restarts=min(self.attack.restarts, 1), seed=self.attack.seed + 1)
        among = self.lost & ~self.claim_flat & ~self.nan if self.claim_runs else self.none
        for loss in {"margin", "logits"} - {one.loss}:
            self.by_loss = self.by_loss | self.breaks(replace(one, loss=loss), among & ~self.by_loss)
        longer = replace(one, alpha=one.eps / 4, steps=max(10, 2 * one.steps))
        self.by_steps = self.breaks(longer, among & ~self.by_loss)
