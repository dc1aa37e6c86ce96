"""Gradient attacks in the L-infinity ball (the paper's Table 2), callable as `attack(images, labels) -> adversarial`.

FGSM, IFGSM and PGD are one loop with different numbers. It runs in slots: a fixed number of (image, run) pairs is
attacked at a time, and a slot whose pair is done takes the next one, so early exit costs nothing and no image waits
for another. What an image draws depends on its id alone, so batch size and order change no result.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprolib import streams

LOSSES = ("margin", "logits", "probabilities")
DECISIONS = ("any", "last")
CLIP = 1e-7  # Keras' epsilon: probabilities are clipped to [1e-7, 1 - 1e-7] before the logarithm
SAVE_EVERY = 2.0  # seconds of attack that a killed process may lose


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


@dataclass
class AttackResult:
    """Per image, what the attack found. All tensors have B rows and stand on the images' device.

    correct: bool, the clean image is classified correctly. A clean error counts as broken in run 0.
    any_run: int16, the first run (0, 1, ...) of which some iterate, the start included, is misclassified; -1 = none.
    last_run: int16, the first run whose last iterate is misclassified; -1 = none. Meaningful with decision="last".
    next_run: int16, the next run that is due; equal to the number of runs when nothing is left to do.
    adversarial: float32 [B, C, H, W], a misclassified image within the ball where one was found (under the decision
        rule), else the last run's last iterate.
    calls: model evaluations spent, all images together.
    """

    correct: Tensor
    any_run: Tensor
    last_run: Tensor
    next_run: Tensor
    adversarial: Tensor
    calls: int = 0

    def robust(self, decision: str = "any", runs: int | None = None) -> Tensor:
        """See `robust`."""
        return robust(self.correct, {"any": self.any_run, "last": self.last_run}, decision, runs)


def robust(correct: Tensor, first_run: dict[str, Tensor], decision: str, runs: int | None = None) -> Tensor:
    """bool [B]: correct on the clean image and never broken under the decision rule, within the first `runs` runs.

    Raises ValueError for an unknown decision rule.
    """
    if decision not in DECISIONS:
        raise ValueError(f"decision is {decision!r}; expected one of {', '.join(DECISIONS)}")
    first = first_run[decision]
    return correct & ((first < 0) if runs is None else ((first < 0) | (first >= runs)))


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
        slots: pairs attacked at a time. Changes speed, not results.
    """

    model: nn.Module
    eps: float
    alpha: float
    steps: int
    restarts: int = 0
    loss: str = "margin"
    decision: str = "any"
    seed: int = 0
    slots: int = 256

    def __post_init__(self):
        if not 0 <= self.eps <= 1:
            raise ValueError(f"eps is {self.eps}; expected a number from 0 to 1 on the images' scale (8/255, not 8)")
        if not self.alpha >= 0:
            raise ValueError(f"alpha is {self.alpha}; expected 0 or more")
        if self.alpha > 0 and self.steps < 1:
            raise ValueError(f"alpha is {self.alpha} with {self.steps} steps; give steps >= 1, or alpha 0")
        if self.restarts < 0 or self.slots < 1 or self.steps < 0:
            raise ValueError(
                f"restarts is {self.restarts}, steps {self.steps}, slots {self.slots}; expected at least 0, 0 and 1"
            )
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
        _check_images(images, labels, ids)
        with _untouched(self.model):
            result = resume or self._clean(images, labels)
            _Slots(self, images, labels, ids, start, result).run(save)
        return result

    @property
    def runs(self) -> int:
        return max(self.restarts, 1)

    def _clean(self, images: Tensor, labels: Tensor) -> AttackResult:
        with torch.no_grad():
            logits = torch.cat([self.model(part) for part in images.split(self.slots)])
        _check_logits(logits, labels)
        correct = logits.argmax(1) == labels
        first = torch.where(correct, -1, 0).to(torch.int16)
        return AttackResult(
            correct,
            first,
            first.clone(),
            torch.where(correct, 0, self.runs).to(torch.int16),
            images.clone(),
            len(images),
        )


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


class _Slots:
    """The loop: `self.image[s]` is in slot s at iterate `self.x[s]`, after `self.step[s]` steps of run `self.number[s]`."""

    def __init__(
        self,
        attack: LinfAttack,
        images: Tensor,
        labels: Tensor,
        ids: Tensor,
        start: Tensor | None,
        result: AttackResult,
    ):
        self.attack, self.images, self.labels, self.ids, self.start = attack, images, labels, ids, start
        self.result = result
        waiting = (result.next_run < attack.runs).nonzero().squeeze(1).tolist()
        due = result.next_run.tolist()
        self.queue = deque((image, due[image]) for image in waiting)
        self.image = torch.empty(0, dtype=torch.int64, device=images.device)
        self.number, self.step = self.image.clone(), self.image.clone()
        self.x, self.lower, self.upper = images[:0].clone(), images[:0].clone(), images[:0].clone()

    def run(self, save: Callable[[AttackResult], None] | None) -> None:
        last_save = time.monotonic()
        self._fill(torch.arange(0, device=self.images.device))
        while len(self.image):
            self._refill(self._advance())
            if save is not None and time.monotonic() - last_save > SAVE_EVERY:
                save(self.result)
                last_save = time.monotonic()

    def _advance(self) -> Tensor:
        """One model evaluation and step of every slot; returns bool [slots], the slots whose run is over."""
        attack, labels, result = self.attack, self.labels[self.image], self.result
        x = self.x.detach().requires_grad_()
        logits = attack.model(x)
        (gradient,) = torch.autograd.grad(loss_per_image(logits, labels, attack.loss).sum(), x)
        result.calls += len(x)
        wrong = logits.detach().argmax(1) != labels
        moved = torch.clamp(self.x + attack.alpha * gradient.sign(), self.lower, self.upper)
        # an image that one step did not move will not be moved by the next: this iterate is the last one
        over = (self.step == attack.steps) | (moved == self.x).flatten(1).all(1)
        _note_first(result.any_run, self.image[wrong], self.number[wrong])
        if attack.decision == "any":
            over |= wrong
        else:
            _note_first(result.last_run, self.image[over & wrong], self.number[over & wrong])
        result.adversarial[self.image[over]] = self.x[over]
        self.x, self.step = moved, self.step + 1
        return over

    def _refill(self, over: Tensor) -> None:
        """Write off the runs that are over, queue the images that have runs left, and fill the free slots."""
        if not over.any():
            return
        image, number = self.image[over], self.number[over]
        sealed = (self.result.any_run if self.attack.decision == "any" else self.result.last_run)[image] >= 0
        done = sealed | (number + 1 >= self.attack.runs)
        self.result.next_run[image] = torch.where(done, self.attack.runs, number + 1).to(torch.int16)
        self.queue.extend(zip(image[~done].tolist(), (number[~done] + 1).tolist(), strict=True))
        self._fill((~over).nonzero().squeeze(1))

    def _fill(self, kept: Tensor) -> None:
        """Keep these slots, and start the next pairs of the queue in the others."""
        count = min(self.attack.slots - len(kept), len(self.queue))
        pairs = [self.queue.popleft() for _ in range(count)]
        new = torch.tensor(pairs, dtype=torch.int64, device=self.images.device).view(-1, 2)
        image, number = new[:, 0], new[:, 1]
        clean = self.images[image]
        lower, upper = (clean - self.attack.eps).clamp(min=0), (clean + self.attack.eps).clamp(max=1)
        x = self._starts(image, number, clean).clamp(lower, upper)
        self.image, self.number = torch.cat([self.image[kept], image]), torch.cat([self.number[kept], number])
        self.step = torch.cat([self.step[kept], torch.zeros_like(image)])
        self.x, self.lower, self.upper = (
            torch.cat([old[kept], fresh]) for old, fresh in ((self.x, x), (self.lower, lower), (self.upper, upper))
        )

    def _starts(self, image: Tensor, number: Tensor, clean: Tensor) -> Tensor:
        if self.attack.restarts == 0:
            x = clean.clone()
        else:
            u = streams.uniform(self.attack.seed, self.ids[image], number, clean.shape[1:])
            x = clean + (2 * u - 1) * self.attack.eps
        if self.start is not None:
            x = torch.where((number == 0).view(-1, 1, 1, 1), self.start[image], x)
        return x


def _note_first(first: Tensor, image: Tensor, number: Tensor) -> None:
    """first[image] = number where nothing was noted before."""
    first[image] = torch.where(first[image] < 0, number.to(first.dtype), first[image])


@contextlib.contextmanager
def _untouched(model: nn.Module):
    """Eval mode and frozen parameters inside; every module's mode and every parameter's flag restored, come what may."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _check_images(images: Tensor, labels: Tensor, ids: Tensor) -> None:
    if images.dtype != torch.float32 or images.dim() != 4:
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; expected float32 [B, C, H, W] in "
            "[0, 1] (uint8 images: divide by 255)"
        )
    for name, numbers in (("labels", labels), ("ids", ids)):
        if numbers.dtype != torch.int64 or numbers.shape != images.shape[:1]:
            raise ValueError(
                f"{name} are {numbers.dtype} of shape {tuple(numbers.shape)}; expected int64 [{len(images)}]"
            )
    if len(images) and not (0 <= float(images.min()) and float(images.max()) <= 1):
        raise ValueError(
            f"images range from {float(images.min()):g} to {float(images.max()):g}; expected [0, 1] "
            "(normalisation belongs into the model)"
        )


def _check_logits(logits: Tensor, labels: Tensor) -> None:
    # the largest of several NaN is class 0: a diverged network would pass for robust on it
    if not logits.isfinite().all():
        raise ValueError(
            f"the network's logits are not finite for {int((~logits.isfinite()).any(1).sum())} of "
            f"{len(logits)} images; it has probably diverged in training"
        )
    if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < logits.shape[1]):
        raise ValueError(
            f"labels range from {int(labels.min())} to {int(labels.max())}; "
            f"expected 0 to {logits.shape[1] - 1} for a network with {logits.shape[1]} classes"
        )


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
    _check_images(images, labels, torch.arange(len(images)) if ids is None else ids)
    with _untouched(attack.model):
        result = resume or attack._clean(images, labels)
        if attack.steps == 1 and attack.alpha == attack.eps and attack.restarts == 0:
            engine = torchattacks.FGSM(attack.model, attack.eps)
        elif attack.restarts == 0:
            engine = torchattacks.BIM(attack.model, attack.eps, attack.alpha, attack.steps)
        else:
            engine = torchattacks.PGD(attack.model, attack.eps, attack.alpha, attack.steps, random_start=True)
        for number in range(attack.runs):
            rows = (result.next_run == number).nonzero().squeeze(1)
            for part in rows.split(attack.slots) if len(rows) else ():
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
