"""FGSM, IFGSM and PGD in the L-infinity ball (the paper's Table 2): a loop with different numbers, run by `slots`."""

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn

from reprolib import streams
from reprolib.attacks.inputs import Options, check_attack, check_choice
from reprolib.attacks.network import LOSSES, Gradients, loss_per_image, untouched
from reprolib.attacks.slots import DECISIONS, AttackResult, Resume, Rows, Save, Slots, ball, begun


@dataclass(frozen=True)
class LinfAttack:
    """Projected sign-gradient ascent x <- clip(x + alpha * sign(grad loss)), `steps` times, in an eps-ball and [0, 1].

    `attack(images, labels)` returns adversarial images; `attack.run` the success of each image. Network and global
    random numbers are left as they were, also after an exception. Raises ValueError for what is none of these:

        model: classifier, images float32 [B, C, H, W] in [0, 1] -> logits [B, K]; deterministic in eval mode.
        eps, alpha: radius and step size, on the images' scale [0, 1].
        steps, restarts: steps of a run, and runs from random starts; 0 restarts are one run from the clean image.
        loss: see `loss_per_image`; seed: of the random starts, and of whatever else an attack draws.
        decision: what ends the attack on an image: "any" misclassified iterate (the sound rule), or a misclassified
            "last" iterate of a run (the paper's), which reports both.
        slots: pairs attacked at a time; by default 128, on a GPU 2048. Changes speed, not results.
        bfloat16: search in bfloat16, judge in float32: all runs but the last one take their gradients in it, and no
            image counts as broken that float32 classifies correctly (`network.Gradients`). Quicker where the device has
            it (`has_fast_bfloat16`). By margin it finds what float32 finds (`benchmarks/bf16_search.py`); no table uses
            it, since tables should not depend on the device."""

    model: nn.Module
    eps: float
    alpha: float
    steps: int
    restarts: int = 0
    loss: str = "margin"
    decision: str = "any"
    seed: int = 0
    slots: int | None = None
    bfloat16: bool = False

    def __post_init__(self) -> None:
        check_attack(self)
        check_choice("loss", self.loss, LOSSES)
        check_choice("decision", self.decision, DECISIONS)
        if self.alpha > 0 and self.steps < 1:
            raise ValueError(f"alpha is {self.alpha} with {self.steps} steps; give steps >= 1, or alpha 0")

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.run(images, labels).adversarial

    def run(
        self, images: Tensor, labels: Tensor, ids: Tensor | None = None, *, resume: Resume = None, save: Save = None
    ) -> AttackResult:
        """Attack images float32 [B, C, H, W] in [0, 1] with true labels int64 [B].

        ids: int64 [B], the images' ids, which choose their random starts; by default 0, 1, ..., B - 1.
        resume: result of an unfinished attack on the same images, to go on from. save: see `Save`.
        Raises ValueError for images, labels or ids of another form, labels without a logit, and a network whose logits
        are not finite or not [B, K], or that gives no gradient with respect to its input."""
        with untouched(self.model):
            images, ids, slots, result = begun(self, self.model, images, labels, ids, resume)
            exact = self.runs - 1 if self.bfloat16 else 0  # the first run whose gradients are float32's
            for bfloat16, first, count in ((True, 0, exact), (False, exact, self.runs - exact)):
                steps = SignSteps(self, bfloat16=bfloat16)
                Slots(steps, images, labels, ids, result, count, slots, first, self.runs, self.decision).run(save)
            return result

    @property
    def runs(self) -> int:
        return max(self.restarts, 1)


def fgsm(model: nn.Module, eps: float, **options: Unpack[Options]) -> LinfAttack:
    """FGSM (Goodfellow et al. 2015): one step of size eps from the clean image."""
    return LinfAttack(model, eps, alpha=eps, steps=1, **options)


def ifgsm(model: nn.Module, eps: float, alpha: float, steps: int, **options: Unpack[Options]) -> LinfAttack:
    """IFGSM, also called BIM (Kurakin et al. 2017): `steps` steps of alpha from the clean image."""
    return LinfAttack(model, eps, alpha, steps, **options)


def pgd(
    model: nn.Module, eps: float, alpha: float, steps: int, restarts: int = 0, **options: Unpack[Options]
) -> LinfAttack:
    """PGD (Madry et al. 2018) with `restarts` random starts; 0 restarts is one run from the clean image.
    That reading of the paper's "Restarts = 0" makes its PGD-v1 the same attack as its IFGSM."""
    return LinfAttack(model, eps, alpha, steps, restarts, **options)


ATTACKS = {"fgsm": fgsm, "ifgsm": ifgsm, "pgd": pgd}


class SignSteps:
    """The loop: after `step` steps of its run, a row stands at iterate `x`, in the ball between `lower` and `upper`."""

    def __init__(self, attack: LinfAttack, *, bfloat16: bool = False):
        self.attack, self.gradients = attack, Gradients(attack.model, bfloat16=bfloat16)

    def begin(self, rows: Rows) -> None:
        x = rows["clean"]
        rows["lower"], rows["upper"] = ball(x, self.attack.eps)
        if self.attack.restarts:
            u = 2 * streams.uniform(self.attack.seed, rows["id"], rows["run"], x.shape[1:]) - 1
            x = x + u * self.attack.eps
        rows["x"], rows["step"] = x.clamp(rows["lower"], rows["upper"]), torch.zeros_like(rows["run"])

    def advance(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        x, labels = rows["x"], rows["label"]
        logits, _, gradient = self.gradients(x, lambda logits: loss_per_image(logits, labels, self.attack.loss))
        moved = torch.clamp(x + self.attack.alpha * gradient.sign(), rows["lower"], rows["upper"])
        # an image that one step did not move will not be moved by the next: this iterate is the last one
        over = (rows["step"] == self.attack.steps) | (moved == x).flatten(1).all(1)
        wrong = self.gradients.misclassified(x, logits, labels, over)
        rows["x"], rows["step"] = moved, rows["step"] + 1
        return x, wrong, over
