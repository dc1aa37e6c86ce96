"""A quick sound evaluation: two short PGDs, then targeted Auto-PGD on what stands, given up where it leads nowhere."""

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn

from reprolib.attacks.autoattack import AutoPGD
from reprolib.attacks.inputs import Options, check_attack, check_choice, shown
from reprolib.attacks.linf import LinfAttack, SignSteps
from reprolib.attacks.network import Gradients, Probabilities, logit_of, loss_per_image, targeted_dlr, untouched
from reprolib.attacks.slots import AttackResult, Method, Resume, Rows, Save, Slots, begun

CANDIDATES = 9  # of the wrong classes, the likeliest, whose distance is looked at
AIMS = (0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2)  # of those, by distance: the one that each targeted run goes for
EXACT = 3  # the last of these runs, whose gradients are float32's also with `bfloat16`
BEFORE = 2  # runs before these: by margin, by logits


@dataclass(frozen=True)
class Cascade:
    """As `LinfAttack`, errors too, but for what follows. Every stage attacks what those before it left standing.

    PGD by margin, then by logits (20 steps of eps / 4, one random start each); then Auto-PGD by the targeted DLR loss,
    of at most 100 steps (`_Aimed`), once towards each of the five `nearest` classes and twice more towards three.

    It has no black-box part and no guarantee: where gradients mislead, it may leave what Square or FAB would break. It
    is for choosing and watching networks, and for a first answer; what is published or compared needs `AutoAttack`, and
    so does a network of which this one leaves more than its kind usually keeps.

    loss: what the network hands the attack: its "logits", or its softmax "probabilities", as Keras' networks do.
    bfloat16: PGD by margin and all but the last three of the targeted runs take their gradients in bfloat16."""

    model: nn.Module
    eps: float
    seed: int = 0
    slots: int | None = None
    bfloat16: bool = False
    loss: str = "logits"
    decision: str = "any"

    def __post_init__(self) -> None:
        check_attack(self)
        check_choice("loss", self.loss, ("logits", "probabilities"))
        if self.decision != "any":
            raise ValueError(f"decision is {shown(self.decision)}; expected 'any', as cascade judges every iterate")

    @property
    def runs(self) -> int:
        return BEFORE + len(AIMS)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.run(images, labels).adversarial

    def run(
        self, images: Tensor, labels: Tensor, ids: Tensor | None = None, *, resume: Resume = None, save: Save = None
    ) -> AttackResult:
        """As `LinfAttack.run`, stage after stage. What no stage broke comes back clean."""
        network, first = Probabilities(self.model) if self.loss == "probabilities" else self.model, 0
        with untouched(network):
            images, ids, slots, result = begun(self, network, images, labels, ids, resume)
            for stage, count in self._stages(network):
                Slots(stage, images, labels, ids, result, count, slots, first, self.runs).run(save)
                first += count
        result.adversarial[result.robust()] = images[result.robust()]
        return result

    def _stages(self, network: nn.Module) -> list[tuple[Method, int]]:
        """The stages, and how many runs of an image each of them takes."""
        by_margin, by_logits = (
            LinfAttack(network, self.eps, self.eps / 4, 20, 1, loss, seed=self.seed) for loss in ("margin", "logits")
        )
        exact, aims = EXACT if self.bfloat16 else len(AIMS), dict[int, Tensor]()
        return [
            (SignSteps(by_margin, bfloat16=self.bfloat16), 1),
            (SignSteps(by_logits), 1),
            (_Aimed(self, Gradients(network, bfloat16=self.bfloat16), aims), len(AIMS) - exact),
            (_Aimed(self, Gradients(network), aims), exact),
        ]


def cascade(model: nn.Module, eps: float, **options: Unpack[Options]) -> Cascade:
    """About what `autoattack` leaves standing, in about a twentieth of its time where a third of the images stand."""
    return Cascade(model, eps, **options)


ATTACKS = {"cascade": cascade}


class _Aimed(AutoPGD):
    """Auto-PGD towards a class, given up once its best point has been too far from the boundary for too long.

    How far, the gradient there says: the loss over its L1 norm. More than 4 eps / steps after 10 steps or more is too
    far: most runs that succeed are within a tenth of eps by then, most others are not, and what they would have cost
    pays for more random starts, without which saturated networks keep images that AutoAttack breaks."""

    soonest, patience = 10, 4.0

    def __init__(self, attack: Cascade, gradients: Gradients, aims: dict[int, Tensor]):
        super().__init__(gradients, attack.eps, attack.seed, BEFORE)
        self.aims = aims  # image -> its nearest classes, found once for all of its runs

    def begin(self, rows: Rows) -> None:
        super().begin(rows)
        images = rows["image"].tolist()
        new = [row for row, image in enumerate(images) if image not in self.aims]
        if new:
            found = nearest(self.exact, rows["clean"][new], rows["label"][new])
            self.aims |= zip([images[row] for row in new], found, strict=True)
        aims = torch.stack([self.aims[image] for image in images])
        place = torch.tensor(AIMS, device=aims.device)[rows["run"] - self.first]
        rows["target"] = logit_of(aims, place % aims.shape[1])

    def advance(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        step = rows["step"]
        x, wrong, over = super().advance(rows)
        reach = self.patience * self.eps * rows["best_gradient"].abs().flatten(1).sum(1)
        return x, wrong, over | ((step >= self.soonest) & (-rows["best_loss"] * step > reach))

    def _loss(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        few = logits.shape[1] < 4  # too few for the fourth largest logit
        return loss_per_image(logits, labels, "margin") if few else targeted_dlr(logits, labels, targets)


def nearest(gradients: Gradients, clean: Tensor, labels: Tensor) -> Tensor:
    """int64 [S, at most 9]: the likeliest wrong classes by their `distance`, the nearest first, as MALT orders them
    (arXiv 2407.02240, section 3)."""
    likely = gradients.logits(clean).scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)
    likely = likely[:, : min(CANDIDATES, likely.shape[1] - 1)]
    distances = torch.stack([distance(gradients, clean, labels, aim) for aim in likely.unbind(1)], 1)
    return likely.gather(1, distances.argsort(1))


def distance(gradients: Gradients, clean: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """[S]: to where the target class ties with the label's, in the L-infinity norm, were the network linear."""
    _, lead, gradient = gradients(clean, lambda logits: logit_of(logits, targets) - logit_of(logits, labels))
    return -lead / gradient.abs().flatten(1).sum(1)
