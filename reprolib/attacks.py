"""Gradient attacks in the L-infinity ball (the paper's Table 2), callable as `attack(images, labels) -> adversarial`.

FGSM, IFGSM and PGD are one loop with different numbers; `slots` runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprolib import streams
from reprolib.slots import (
    DECISIONS,
    AttackResult,
    Gradients,
    Rows,
    Slots,
    check_images,
    clean_result,
    robust,
    untouched,
)

__all__ = ["AttackResult", "LinfAttack", "fgsm", "ifgsm", "loss_per_image", "pgd", "robust", "run_torchattacks"]

LOSSES = ("margin", "logits", "probabilities")
CLIP = 1e-7  # Keras' epsilon: probabilities are clipped to [1e-7, 1 - 1e-7] before the logarithm


def loss_per_image(logits: Tensor, labels: Tensor, loss: str) -> Tensor:
    """What an attack climbs: logits [B, K] and labels int64 [B] -> float [B].

    margin: largest wrong logit minus the true logit; its gradient never vanishes because a network is sure of itself.
    logits: cross-entropy from logits; in float32 its gradient is exactly 0 beyond a margin of about 100.
    probabilities: cross-entropy from float32 softmax outputs clipped to [1e-7, 1 - 1e-7], as Keras' string loss does;
        its gradient is exactly 0 once the true class's probability is clipped, at a margin of about 16.
    """
    if loss == "margin":
        wrong = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        return wrong - logits.gather(1, labels[:, None]).squeeze(1)
    if loss == "logits":
        return F.cross_entropy(logits, labels, reduction="none")
    if loss == "probabilities":
        true = logits.float().softmax(1).gather(1, labels[:, None]).squeeze(1)
        return -true.clamp(CLIP, 1 - CLIP).log()
    raise ValueError(f"loss is {loss!r}; expected one of {', '.join(LOSSES)}")


@dataclass(frozen=True)
class LinfAttack:
    """Projected sign-gradient ascent x <- clip(x + alpha * sign(grad loss)), `steps` times, in an eps-ball and [0, 1].

    Make one with `fgsm`, `ifgsm` or `pgd`. `attack(images, labels)` returns adversarial images; `attack.run` the
    success of each image. The model's mode, its gradients and the global random numbers are left untouched, also after
    an exception.

    Args:
        model: classifier, images float32 [B, C, H, W] in [0, 1] -> logits [B, K]. Evaluated in eval mode; must be
            deterministic.
        eps, alpha: radius and step size, on the images' scale [0, 1].
        steps: steps of one run.
        restarts: number of runs from random starts in the ball; 0 is one run from the clean image.
        loss: see `loss_per_image`.
        decision: which rule ends the attack on an image: "any" misclassified iterate (the sound one), or a
            misclassified "last" iterate of a run (the paper's), which reports both.
        seed: of the random starts.
        slots: pairs attacked at a time; by default 128, on a GPU 2048. Changes speed, not results.
        bfloat16: take gradients in it, see `slots.Gradients`. Quicker where the device has it, but another attack: in
            `make bench` it is up to 2.5 points from what float32 finds, so no table uses it.
    """

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

    def __post_init__(self):
        if not 0 <= self.eps <= 1:
            raise ValueError(f"eps is {self.eps}; expected a number from 0 to 1 on the images' scale (8/255, not 8)")
        if not self.alpha >= 0:
            raise ValueError(f"alpha is {self.alpha}; expected 0 or more")
        if self.alpha > 0 and self.steps < 1:
            raise ValueError(f"alpha is {self.alpha} with {self.steps} steps; give steps >= 1, or alpha 0")
        if self.restarts < 0 or self.steps < 0:
            raise ValueError(f"restarts is {self.restarts}, steps {self.steps}; expected 0 or more")
        if self.slots is not None and self.slots < 1:
            raise ValueError(f"slots is {self.slots}; expected 1 or more, or None for the device's usual number")
        if self.loss not in LOSSES:
            raise ValueError(f"loss is {self.loss!r}; expected one of {', '.join(LOSSES)}")
        if self.decision not in DECISIONS:
            raise ValueError(f"decision is {self.decision!r}; expected one of {', '.join(DECISIONS)}")

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.run(images, labels).adversarial

    def run(
        self,
        images: Tensor,
        labels: Tensor,
        ids: Tensor | None = None,
        *,
        start: Tensor | None = None,
        resume: AttackResult | None = None,
        save: Callable[[AttackResult], None] | None = None,
    ) -> AttackResult:
        """Attack images float32 [B, C, H, W] in [0, 1] with true labels int64 [B].

        Args:
            ids: int64 [B], the images' ids, which choose their random starts; by default 0, 1, ..., B - 1.
            start: where the first run starts instead, [B, C, H, W]; brought into the ball.
            resume: result of an unfinished attack on the same images, to go on from. Its adversarial images of
                pairs that are done are not known again.
            save: called every few seconds with the result so far.
        Raises:
            ValueError: images not float32 or outside [0, 1]; labels or ids not int64, of another length or out of
                range; a network whose logits are not finite.
        """
        images = images.detach()
        ids = torch.arange(len(images), device=images.device) if ids is None else ids
        check_images(images, labels, ids)
        slots = self.slots or usual_slots(images.device)
        with untouched(self.model):
            result = resume or clean_result(self.model, images, labels, self.runs, slots)
            queue = {"count": self.runs, "slots": slots, "decision": self.decision}
            return Slots(_SignSteps(self, start), images, labels, ids, result, **queue).run(save)

    @property
    def runs(self) -> int:
        return max(self.restarts, 1)


def fgsm(model: nn.Module, eps: float, **options) -> LinfAttack:
    """FGSM (Goodfellow et al. 2015): one step of size eps from the clean image."""
    return LinfAttack(model, eps, alpha=eps, steps=1, **options)


def ifgsm(model: nn.Module, eps: float, alpha: float, steps: int, **options) -> LinfAttack:
    """IFGSM, also called BIM (Kurakin et al. 2017): `steps` steps of alpha from the clean image."""
    return LinfAttack(model, eps, alpha, steps, **options)


def pgd(model: nn.Module, eps: float, alpha: float, steps: int, restarts: int = 0, **options) -> LinfAttack:
    """PGD (Madry et al. 2018) with `restarts` random starts; 0 restarts is one run from the clean image.

    That reading of the paper's "Restarts = 0" makes its PGD-v1 the same attack as its IFGSM.
    """
    return LinfAttack(model, eps, alpha, steps, restarts, **options)


class _SignSteps:
    """The loop: after `step` steps of its run, a row stands at iterate `x`, in the ball between `lower` and `upper`."""

    def __init__(self, attack: LinfAttack, start: Tensor | None):
        self.attack, self.start = attack, start
        self.gradients = Gradients(attack.model, bfloat16=attack.bfloat16)

    def begin(self, rows: Rows) -> None:
        clean, eps = rows["clean"], self.attack.eps
        rows["lower"], rows["upper"] = (clean - eps).clamp(min=0), (clean + eps).clamp(max=1)
        rows["x"] = self._starts(rows).clamp(rows["lower"], rows["upper"])
        rows["step"] = torch.zeros_like(rows["run"])

    def _starts(self, rows: Rows) -> Tensor:
        x = rows["clean"]
        if self.attack.restarts:
            u = streams.uniform(self.attack.seed, rows["id"], rows["run"], x.shape[1:])
            x = x + (2 * u - 1) * self.attack.eps
        if self.start is not None:
            x = torch.where((rows["run"] == 0).view(-1, 1, 1, 1), self.start[rows["image"]], x)
        return x

    def advance(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        x, labels = rows["x"], rows["label"]
        logits, _, gradient = self.gradients(x, lambda logits: loss_per_image(logits, labels, self.attack.loss))
        moved = torch.clamp(x + self.attack.alpha * gradient.sign(), rows["lower"], rows["upper"])
        # an image that one step did not move will not be moved by the next: this iterate is the last one
        over = (rows["step"] == self.attack.steps) | (moved == x).flatten(1).all(1)
        wrong = self.gradients.misclassified(x, logits, labels, over)
        rows["x"], rows["step"] = moved, rows["step"] + 1
        return x, wrong, over


def usual_slots(device: torch.device) -> int:
    """As many pairs as keep the device busy; on a CPU more would no longer fit into its caches."""
    return 2048 if device.type == "cuda" else 128


def run_torchattacks(
    attack: LinfAttack,
    images: Tensor,
    labels: Tensor,
    ids: Tensor | None = None,
    *,
    resume: AttackResult | None = None,
    save: Callable[[AttackResult], None] | None = None,
) -> AttackResult:
    """The same attack by torchattacks' FGSM, BIM or PGD: cross-entropy from logits and the last iterate, as it has them.

    Random starts come from torch's generator, seeded per batch, so here results do depend on the batch.
    Raises ValueError for another loss or decision, and RuntimeError for another version of torchattacks.
    """
    import torchattacks

    if version("torchattacks") != "3.5.1":
        raise RuntimeError(
            f"torchattacks is {version('torchattacks')}; expected 3.5.1, whose results differ from older "
            "versions: install requirements.lock"
        )
    if attack.loss != "logits" or attack.decision != "last":
        raise ValueError(
            f"torchattacks has loss 'logits' and decision 'last', not {attack.loss!r} and {attack.decision!r}; "
            "choose the engine 'reprolib' for these"
        )
    images = images.detach()
    check_images(images, labels, ids)
    slots = attack.slots or usual_slots(images.device)
    with untouched(attack.model):
        result = resume or clean_result(attack.model, images, labels, attack.runs, slots)
        if attack.steps == 1 and attack.alpha == attack.eps and attack.restarts == 0:
            engine = torchattacks.FGSM(attack.model, attack.eps)
        elif attack.restarts == 0:
            engine = torchattacks.BIM(attack.model, attack.eps, attack.alpha, attack.steps)
        else:
            engine = torchattacks.PGD(attack.model, attack.eps, attack.alpha, attack.steps, random_start=True)
        for number in range(attack.runs):
            rows = (result.next_run == number).nonzero().squeeze(1)
            for part in rows.split(slots) if len(rows) else ():
                with torch.random.fork_rng(), torch.enable_grad():
                    torch.manual_seed((attack.seed * 10_007 + number) * 10_000_019 + int(part[0]))
                    adversarial = engine(images[part], labels[part]).detach()
                with torch.no_grad():
                    wrong = attack.model(adversarial).argmax(1) != labels[part]
                result.last_run[part[wrong]] = result.any_run[part[wrong]] = number
                result.adversarial[part] = adversarial
                result.next_run[part] = torch.where(wrong, attack.runs, number + 1).to(torch.int16)
                result.calls += len(part) * (attack.steps + 1)
                if save is not None:
                    save(replace(result))
    return result
