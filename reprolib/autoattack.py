"""AutoAttack, standard version (Croce and Hein 2020): four attacks, each on the images that survived those before.

The parts are torchattacks', with the settings of the official implementation. torchattacks' own `AutoAttack` is not
the standard one (10 steps instead of 100, another schedule for Square): its numbers are upper bounds, and it is not
used. What a part calls adversarial is believed only after the network has been asked again: within the ball, within
[0, 1], finite, and misclassified. The parts draw their random numbers batch by batch, so that results depend, a
little, on the batch size; the global generator, the network's modes and its gradients are left as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reprolib.attacks import AttackResult, _check_images, _check_logits, _untouched

if TYPE_CHECKING:
    from torchattacks.attack import Attack

STANDARD = ("APGD-CE", "APGD-T", "FAB-T", "Square")
MOST_TARGETS = 9  # of the targeted parts, also where a network knows 1000 classes
SLACK = 1e-6  # by which rounding may carry an image out of the ball


def part(name: str, model: nn.Module, eps: float, classes: int = 10, seed: int = 0) -> Attack:
    """One part as the official `version="standard"` sets it: steps, targets, restarts, queries, schedule.

    Raises ValueError for an unknown part, and for a targeted part where there are fewer than 4 classes (its loss
    divides by a difference of the largest and the fourth largest logit); RuntimeError for another torchattacks.
    """
    import torchattacks

    if version("torchattacks") != "3.5.1":
        raise RuntimeError(
            f"torchattacks is {version('torchattacks')}; expected 3.5.1, whose results differ from older "
            "versions: install requirements.lock"
        )
    if name not in STANDARD:
        raise ValueError(f"there is no part {name!r} of AutoAttack; expected one of {', '.join(STANDARD)}")
    if name.endswith("-T") and classes < 4:
        raise ValueError(f"{name} needs a network of 4 classes or more, not {classes}; leave it out of `parts`")
    common = {"norm": "Linf", "eps": eps, "n_restarts": 1, "seed": seed}
    targets = {"n_classes": min(classes, MOST_TARGETS + 1)}
    if name == "APGD-CE":
        return torchattacks.APGD(model, steps=100, loss="ce", eot_iter=1, rho=0.75, **common)
    if name == "APGD-T":
        return torchattacks.APGDT(model, steps=100, eot_iter=1, rho=0.75, **targets, **common)
    if name == "FAB-T":
        fab = {"alpha_max": 0.1, "eta": 1.05, "beta": 0.9}
        return torchattacks.FAB(model, steps=100, multi_targeted=True, **fab, **targets, **common)
    return torchattacks.Square(model, n_queries=5000, p_init=0.8, loss="margin", resc_schedule=False, **common)


@dataclass(frozen=True)
class AutoAttack:
    """`attack(images, labels)` returns adversarial images, `attack.run` which part broke which image.

    Args:
        model: classifier, images float32 [B, C, H, W] in [0, 1] -> logits [B, K], deterministic.
        eps: radius of the L-infinity ball on the images' scale.
        seed: of the parts' random starts and squares.
        parts: which, and in which order; `("Square",)` is the black-box attack alone.
        batch_size: images that a part attacks together.
    """

    model: nn.Module
    eps: float
    seed: int = 0
    parts: tuple[str, ...] = STANDARD
    batch_size: int = 250

    @property
    def runs(self) -> int:
        return len(self.parts)

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

        The result reads like that of a `LinfAttack` whose runs are the parts: `any_run` is the number of the part that
        broke an image, -1 where none did. Images that no part broke come back clean. `calls` is not counted.

        Args:
            resume, save: as for `LinfAttack.run`; `save` is called after each batch of each part.
        Raises:
            ValueError: what `LinfAttack.run` and `part` raise.
        """
        images = images.detach()
        ids = torch.arange(len(images), device=images.device) if ids is None else ids
        _check_images(images, labels, ids)
        with _untouched(self.model):
            result = resume or self._clean(images, labels)
            for number, name in enumerate(self.parts):
                due = ((result.next_run == number) & (result.any_run < 0)).nonzero().squeeze(1)
                for rows in due.split(self.batch_size) if len(due) else ():
                    self._attack(name, number, rows, images, labels, result)
                    if save is not None:
                        save(result)
        return result

    def _clean(self, images: Tensor, labels: Tensor) -> AttackResult:
        logits = self._logits(images)
        _check_logits(logits, labels)
        correct = logits.argmax(1) == labels
        broken = torch.where(correct, -1, 0).to(torch.int16)
        due = torch.where(correct, 0, self.runs).to(torch.int16)
        return AttackResult(correct, broken, broken.clone(), due, images.clone())

    def _attack(
        self, name: str, number: int, rows: Tensor, images: Tensor, labels: Tensor, result: AttackResult
    ) -> None:
        """Let a part attack these images, all of them still correctly classified, and note which ones it broke."""
        clean, truth = images[rows], labels[rows]
        gpus = [images.device] if images.is_cuda else []
        with torch.random.fork_rng(devices=gpus):  # every part reseeds the global generator
            classes = self._logits(clean[:1]).shape[1]
            found = part(name, self.model, self.eps, classes, self.seed)(clean, truth).detach()
        broken = self._is_adversarial(found, clean, truth)
        result.adversarial[rows[broken]] = found[broken]
        result.any_run[rows[broken]] = result.last_run[rows[broken]] = number
        result.next_run[rows] = torch.where(broken, self.runs, number + 1).to(torch.int16)

    @torch.no_grad()
    def _is_adversarial(self, found: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
        """bool [B]; an image with NaN in it, as FAB returns where all gradients are zero, is in no ball."""
        inside = ((found - clean).abs() <= self.eps + SLACK) & (found >= 0) & (found <= 1)
        return inside.flatten(1).all(1) & (self._logits(found).argmax(1) != labels)

    @torch.no_grad()
    def _logits(self, images: Tensor) -> Tensor:
        return torch.cat([self.model(some) for some in images.split(self.batch_size)])


class Probabilities(nn.Module):
    """A network that hands out float32 softmax probabilities [B, K] where an attack expects logits, as Keras' do."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images).float().softmax(1)
