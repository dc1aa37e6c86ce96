"""A claim under examination: every attack on it that a check asks about, run at most once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprolib import attacks, streams
from reprolib.attacks import AutoAttack, LinfAttack

BATCH = 256  # images that go through the network together
Make = Callable[[nn.Module], LinfAttack]  # the attack on a network
GREY, ANY = 0.5, 1.0  # radii at which every image can be made the same grey one, and any other image (Carlini)


@dataclass
class Case:
    """A claim under examination, and what was found out about it; each attack runs once, when it is first asked for.

    Masks are bool [n], a row per image. `claimed` are the rows that the claim calls robust; `broken_by_...` those of
    them for which another attack in the same ball found an adversarial image, any iterate counting. What asks about the
    parent is None where there is none."""

    model: nn.Module
    parent: nn.Module | None
    images: Tensor
    labels: Tensor
    make: Make
    draws: int

    @cached_property
    def attack(self) -> LinfAttack:
        return self.make(self.model)

    @cached_property
    def result(self) -> attacks.AttackResult:
        return self.attack.run(self.images, self.labels)

    @property
    def claimed(self) -> Tensor:
        return self.result.robust(self.attack.decision)

    @property
    def never_wrong(self) -> Tensor:
        """Claimed rows of which the claimed attack saw no misclassified iterate either."""
        return self.result.robust("any")

    def lost(self, survive: Tensor | None) -> Tensor | None:
        """Claimed rows that do not survive."""
        return None if survive is None else self.claimed & ~survive

    @cached_property
    def parent_keeps(self) -> Tensor | None:
        attack = None if self.parent is None else self.make(self.parent)
        return None if attack is None else attack.run(self.images, self.labels).robust(attack.decision)

    @cached_property
    def survives_transfer(self) -> Tensor | None:
        """Correct on the clean image and on the one that breaks the parent."""
        if self.parent is None:
            return None
        crafted = replace(self.make(self.parent), loss="margin", decision="last")
        return attacks.transfer(self.model, crafted, self.images, self.labels)

    @cached_property
    def survives_noise(self) -> Tensor:
        return attacks.random_noise(self.model, self.images, self.labels, self.attack.eps, self.draws)

    def gradients(self, network: nn.Module, images: Tensor) -> Tensor:
        """Of the claimed loss, float [n, C*H*W]."""
        attack, found = self.make(network), []
        for some, truth in zip(images.split(BATCH), self.labels.split(BATCH), strict=True):
            x = some.clone().requires_grad_()
            found += torch.autograd.grad(attacks.loss_per_image(attack.model(x), truth, attack.loss).sum(), x)
        return torch.cat(found).flatten(1)

    def alignment(self, network: nn.Module) -> float:
        """Mean cosine between a correct image's gradient and that at a random point of the ball; 0 where one is 0."""
        rows = torch.arange(len(self.images), device=self.images.device)
        u = streams.uniform(0, rows, 2 * attacks.NOISE, self.images.shape[1:])
        near = (self.images + (2 * u - 1) * self.attack.eps).clamp(0, 1)
        cosines = F.cosine_similarity(self.gradients(network, self.images), self.gradients(network, near))
        return float(cosines[attacks.is_right(network, self.images, self.labels)].mean())

    def of_parents(self, measure: Callable[[nn.Module], float]) -> float:
        """What is measured on the network as a multiple of the same on the parent; NaN where there is none of it."""
        parent = nan if self.parent is None else measure(self.parent)
        return measure(self.model) / parent if parent > 0 else nan

    def _broken(self, attack: LinfAttack | AutoAttack, among: Tensor) -> Tensor:
        """The rows of `among` that an attack breaks. They keep their ids, and with them their random starts."""
        rows, broken = among.nonzero().squeeze(1), torch.zeros_like(among)
        if len(rows):
            broken[rows] = ~attack.run(self.images[rows], self.labels[rows], rows).robust()
        return broken

    def _broken_by(self, **changes: Any) -> Tensor:
        """The rows that the claimed attack never saw misclassified and that it breaks with these changes."""
        return self._broken(replace(self.attack, decision="any", **changes), self.never_wrong)

    @cached_property
    def left_by_other_losses(self) -> list[Tensor]:
        margin = replace(self.attack, decision="any", loss="margin")
        rescaled = replace(margin, loss="logits", model=Rescaled(self.attack.model))
        return [attack.run(self.images, self.labels).robust() for attack in (margin, rescaled)]

    @cached_property
    def broken_by_one_step(self) -> Tensor:
        return self._broken(attacks.fgsm(self.attack.model, self.attack.eps, loss=self.attack.loss), self.claimed)

    @cached_property
    def broken_by_more_steps(self) -> Tensor:
        steps, eps = self.attack.steps, self.attack.eps
        return self._broken_by(**({"steps": 10, "alpha": eps / 4} if steps <= 1 else {"steps": 2 * steps}))

    @cached_property
    def broken_by_more_restarts(self) -> Tensor:
        return self._broken_by(restarts=self.attack.runs, seed=self.attack.seed + 1)

    @cached_property
    def broken_by_step_sizes(self) -> list[Tensor]:
        """For eps/10, eps/4 and 2.5 eps/steps (Madry); for none if there is one step, which is eps by definition."""
        sizes = (0.1, 0.25, 2.5 / self.attack.steps) if self.attack.steps > 1 else ()
        return [self._broken_by(alpha=self.attack.eps * size) for size in sizes]

    @cached_property
    def broken_by_squares(self) -> Tensor:
        return self._broken(AutoAttack(self.model, self.attack.eps, parts=("Square",)), self.claimed)

    @cached_property
    def broken_by_autoattack(self) -> Tensor:
        """Square has had its turn, so that only the other parts are due, and only on what Square left."""
        parts = tuple(name for name in attacks.STANDARD if name != "Square")
        left = self.claimed & ~self.broken_by_squares
        return self.broken_by_squares | self._broken(AutoAttack(self.model, self.attack.eps, parts=parts), left)

    @cached_property
    def curve(self) -> dict[float, Tensor]:
        """Radius -> rows that the claimed attack leaves, its step scaled with the radius; radii ascending."""
        left, eps = {}, self.attack.eps
        for radius in sorted({radius for radius in (eps / 4, eps / 2, eps, 2 * eps, GREY, ANY) if radius <= ANY}):
            attack = replace(self.attack, eps=radius, alpha=self.attack.alpha * radius / eps)
            ran = self.result if radius == eps else attack.run(self.images, self.labels)
            left[radius] = ran.robust(attack.decision)
        return left

    @property
    def sound(self) -> Tensor:
        """Rows that survive everything that was tried in the ball."""
        survive = [self.never_wrong, self.survives_noise, self.survives_transfer, *self.left_by_other_losses]
        broken = [self.broken_by_one_step, self.broken_by_more_steps, self.broken_by_more_restarts]
        broken += [self.broken_by_autoattack, *self.broken_by_step_sizes]
        return torch.stack([mask for mask in survive if mask is not None] + [~mask for mask in broken]).all(0)


class Rescaled(nn.Module):
    """Logits divided, image by image, by the gap between the two largest: cross-entropy of them cannot saturate.
    The gap counts as a constant, so that the gradient is that of the logits, in another unit."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        shifted = logits - logits.amax(1, keepdim=True).detach()
        first, second = shifted.detach().topk(2, 1).values.split(1, 1)
        smallest = 1e-6 * shifted.detach().abs().amax(1, keepdim=True) + 1e-12  # two equal logits have no gap
        return shifted / torch.maximum(first - second, smallest)


def percent(mask: Tensor | None) -> float:
    """Share of the rows that are set, in percent; of no mask 0."""
    return 0.0 if mask is None else 100 * float(mask.double().mean())
