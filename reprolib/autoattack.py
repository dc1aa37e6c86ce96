"""AutoAttack, standard version (Croce and Hein 2020): four attacks, each on the images that survived those before.

APGD-CE (100 steps), targeted APGD-DLR and targeted FAB (100 steps towards each of the 9 likeliest wrong classes) and
Square (5000 queries), one run each. torchattacks' own `AutoAttack` is another one (10 steps instead of 100, another
schedule for Square). Here all parts are methods of the slot engine: an image leaves as soon as it is broken, what it
draws depends on its id alone, and an interrupted attack goes on in the middle of a part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reprolib.attacks import usual_slots
from reprolib.autoattack_parts import FAB, AutoPGD, Square, cross_entropy, targeted_dlr
from reprolib.slots import AttackResult, Gradients, Method, Slots, check_images, clean_result, untouched

STANDARD = ("APGD-CE", "APGD-T", "FAB-T", "Square")
RUNS = {"APGD-CE": 1, "APGD-T": 9, "FAB-T": 9, "Square": 1}  # a targeted part has one run per target class


@dataclass(frozen=True)
class AutoAttack:
    """`attack(images, labels)` returns adversarial images, `attack.run` which part broke which image.

    Args:
        model: classifier, images float32 [B, C, H, W] in [0, 1] -> logits [B, K], deterministic.
        eps: radius of the L-infinity ball on the images' scale.
        seed: of the random starts and squares.
        parts: which, and in which order; `("Square",)` is the black-box attack alone.
        slots, bfloat16: see `attacks.LinfAttack`.
        steps: of APGD and FAB; Square has 50 queries for each. Fewer than 100 make a quick look, not the standard version.
    """

    model: nn.Module
    eps: float
    seed: int = 0
    parts: tuple[str, ...] = STANDARD
    slots: int | None = None
    bfloat16: bool = False
    steps: int = 100

    def __post_init__(self):
        for name in self.parts:
            if name not in STANDARD:
                raise ValueError(f"there is no part {name!r} of AutoAttack; expected one of {', '.join(STANDARD)}")

        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; AutoAttack takes 1 or more, and 100 in its standard version")

    @property
    def runs(self) -> int:
        return sum(RUNS[name] for name in self.parts)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.run(images, labels).adversarial

    def run(
        self,
        images: Tensor,
        labels: Tensor,
        ids: Tensor | None = None,
        *,
        resume: AttackResult | None = None,
        save: Callable[[AttackResult], None] | None = None,
    ) -> AttackResult:
        """Attack images float32 [B, C, H, W] in [0, 1] with true labels int64 [B].

        The result's runs are the parts' runs, one part after the other; `part_of` tells a run's part. Images that no
        part broke come back clean.

        Args:
            ids, resume, save: as for `LinfAttack.run`.
        Raises:
            ValueError: what `LinfAttack.run` raises; a targeted part on a network with fewer than 4 classes, since its
                loss divides by a difference of the largest and the fourth largest logit.
        """
        images = images.detach()
        ids = torch.arange(len(images), device=images.device) if ids is None else ids
        check_images(images, labels, ids)
        slots = self.slots or usual_slots(images.device)
        with untouched(self.model):
            result = resume or clean_result(self.model, images, labels, self.runs, slots)
            classes = self._classes(images)
            first = 0
            for name in self.parts:
                count = min(RUNS[name], classes - 1)
                queue = {"first": first, "count": count, "total": self.runs, "slots": slots}
                Slots(self._method(name, first), images, labels, ids, result, **queue).run(save)
                first += RUNS[name]
                result.next_run[(result.next_run >= first - RUNS[name]) & (result.next_run < first)] = first
        result.adversarial[result.robust()] = images[result.robust()]
        return result

    def _classes(self, images: Tensor) -> int:
        with torch.no_grad():
            classes = self.model(images[:1]).shape[1] if len(images) else 10
        if classes < 4 and any(name.endswith("-T") for name in self.parts):
            targeted = ", ".join(name for name in self.parts if name.endswith("-T"))
            raise ValueError(
                f"{targeted} need a network of 4 classes or more, not {classes}; leave them out of `parts`"
            )
        return classes

    def _method(self, name: str, first: int) -> Method:
        gradients = Gradients(self.model, bfloat16=self.bfloat16)
        if name == "APGD-CE":
            return AutoPGD(gradients, self.eps, cross_entropy, self.seed, first, self.steps)
        if name == "APGD-T":
            return AutoPGD(gradients, self.eps, targeted_dlr, self.seed, first, self.steps)
        if name == "FAB-T":
            return FAB(gradients, self.eps, first, self.steps)
        return Square(gradients, self.eps, self.seed, queries=50 * self.steps)


def part_of(run: Tensor, parts: tuple[str, ...] = STANDARD) -> Tensor:
    """int64: per run the place of its part in `parts`; -1 for -1."""
    ends = torch.tensor([RUNS[name] for name in parts], device=run.device).cumsum(0)
    return torch.where(run < 0, -1, torch.bucketize(run.long(), ends, right=True))


class Probabilities(nn.Module):
    """A network that hands out float32 softmax probabilities [B, K] where an attack expects logits, as Keras' do."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).float().softmax(1)
