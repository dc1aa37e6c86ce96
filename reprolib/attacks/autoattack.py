"""AutoAttack, standard version (Croce and Hein 2020a): four attacks, each on the images that survived those before.

APGD-CE (100 steps), targeted APGD-DLR and targeted FAB (100 steps towards each of the 9 likeliest wrong classes) and
Square (5000 queries), one run each. torchattacks' own `AutoAttack` is another one (10 steps instead of 100, another
schedule for Square). An image leaves as soon as it is broken, and an interrupted attack goes on within a part.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn

from reprolib.attacks.autoattack_parts import FAB, AutoPGD, Square
from reprolib.attacks.inputs import Options, check_attack, check_choice, shown
from reprolib.attacks.losses import cross_entropy, targeted_dlr
from reprolib.attacks.network import Gradients, Probabilities, answer, untouched
from reprolib.attacks.slots import AttackResult, Method, Slots, begun

RUNS = {"APGD-CE": 1, "APGD-T": 9, "FAB-T": 9, "Square": 1}  # a targeted part has one run per target class
STANDARD = tuple(RUNS)


@dataclass(frozen=True)
class AutoAttack:
    """`attack(images, labels)` returns adversarial images, `attack.run` which part broke which image.

    parts: which, and in which order; `("Square",)` is the black-box attack alone.
    steps: of APGD and FAB; Square has 50 queries for each. Fewer than 100 are not the standard version.
    loss: what the network hands the attack: its "logits", or its softmax "probabilities", as Keras' networks do.
    The rest is as of `LinfAttack`, as are errors.
    """

    model: nn.Module
    eps: float
    seed: int = 0
    parts: tuple[str, ...] = STANDARD
    slots: int | None = None
    bfloat16: bool = False
    steps: int = 100
    loss: str = "logits"
    decision: str = "any"

    def __post_init__(self) -> None:
        check_attack(self)
        parts = tuple(self.parts) if isinstance(self.parts, tuple | list) else ()
        if not parts or any(name not in STANDARD or parts.count(name) > 1 for name in parts):
            raise ValueError(f"parts is {shown(self.parts)}; expected a tuple of some of {', '.join(STANDARD)}")
        vars(self)["parts"] = parts
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; expected 1 or more, and 100 in the standard version")
        check_choice("loss", self.loss, ("logits", "probabilities"))
        if self.decision != "any":
            raise ValueError(f"decision is {shown(self.decision)}; expected 'any', as AutoAttack judges every iterate")

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
        """As `LinfAttack.run`; runs are those of one part after the other. What no part broke comes back clean.

        Raises ValueError also for targeted parts on fewer than 4 classes: their loss looks at the fourth largest logit.
        """
        network = Probabilities(self.model) if self.loss == "probabilities" else self.model
        gradients, first = Gradients(network, bfloat16=self.bfloat16), 0
        with untouched(network):
            images, ids, slots, result = begun(self, network, images, labels, ids, resume)
            classes = answer(network, images[:1]).shape[1] if len(images) else 10
            targeted = ", ".join(name for name in self.parts if name.endswith("-T"))
            if targeted and classes < 4:
                raise ValueError(f"{targeted} need a network of 4 classes or more, not {classes}; leave them out")
            for name in self.parts:
                method, count = self._method(name, gradients, first), min(RUNS[name], classes - 1)
                Slots(method, images, labels, ids, result, count, slots, first, self.runs).run(save)
                due = (first <= result.next_run) & (result.next_run < first + RUNS[name])
                first += RUNS[name]
                result.next_run[due] = first
        result.adversarial[result.robust()] = images[result.robust()]
        return result

    def _method(self, name: str, gradients: Gradients, first: int) -> Method:
        if name == "Square":
            return Square(gradients, self.eps, self.seed, queries=50 * self.steps)
        if name == "FAB-T":
            return FAB(gradients, self.eps, first, self.steps)
        loss = cross_entropy if name == "APGD-CE" else targeted_dlr
        return AutoPGD(gradients, self.eps, loss, self.seed, first, self.steps)


def part_of(run: Tensor, parts: tuple[str, ...] = STANDARD) -> Tensor:
    """int64: per run the place of its part in `parts`; -1 for -1."""
    ends = torch.tensor([RUNS[name] for name in parts], device=run.device).cumsum(0)
    return torch.where(run < 0, -1, torch.bucketize(run.long(), ends, right=True))


def autoattack(model: nn.Module, eps: float, *, steps: int = 100, **options: Unpack[Options]) -> AutoAttack:
    """AutoAttack in its standard order of parts; the standard version has 100 steps."""
    return AutoAttack(model, eps, steps=steps, **options)


def square(model: nn.Module, eps: float, *, steps: int = 100, **options: Unpack[Options]) -> AutoAttack:
    """AutoAttack's last part alone, which needs no gradient: 50 queries for each step."""
    return AutoAttack(model, eps, parts=("Square",), steps=steps, **options)


ATTACKS = {"autoattack": autoattack, "square": square}
