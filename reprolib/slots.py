"""The engine of all attacks: a fixed number of slots, each of which holds one (image, run) pair.

All slots go through the network together, each at its own step of its own run. A slot whose pair is done takes the next
pair of the queue, so the device stays full, early exit costs nothing, and no image waits for another. Towards the end,
when a few stubborn images are left, their later runs are made at the same time as the earlier ones. What a pair draws
depends on the image's id and the run alone, so the number of slots, the batch and the order change no result.

What distinguishes one attack from another is a `Method`: how a run begins, and what one evaluation of the network does.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

DECISIONS = ("any", "last")
SAVE_EVERY = 2.0  # seconds of attack that a killed process may lose
AHEAD = 4  # with fewer rows than one in so many slots, later runs are made ahead of their time
PATIENCE = 8  # evaluations after which an image that still stands counts as stubborn; most fall in fewer

Rows = dict[str, Tensor]  # the slots' state: tensors with one row per slot


@dataclass
class AttackResult:
    """Per image, what the attack found. All tensors have B rows and stand on the images' device.

    correct: bool, the clean image is classified correctly. A clean error counts as broken in run 0.
    any_run: int16, the first run (0, 1, ...) of which some iterate, the start included, is misclassified; -1 = none.
    last_run: int16, the first run whose last iterate is misclassified; -1 = none. Meaningful with decision="last".
    next_run: int16, the next run that is due; equal to the number of runs when nothing is left to do.
    adversarial: float32 [B, C, H, W], a misclassified image within the ball where one was found (under the decision
        rule), else the last run's last iterate.
    calls: model evaluations spent, all images together; without those that ask again in float32, see `Gradients`.
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


class Method(Protocol):
    """One kind of attack, as the engine sees it."""

    def begin(self, rows: Rows) -> None:
        """Add a run's first state to new rows, which come with `image`, `id`, `run`, `label` and `clean`."""

    def advance(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate the network once and move every row on.

        Returns the images that were evaluated, float32 [S, C, H, W]; bool [S], which of them are adversarial; and bool
        [S], which rows have thereby ended their run.
        """


class Gradients:
    """The network as attacks ask it: logits, a loss and the loss's gradient; and whether an image is misclassified.

    With `bfloat16`, gradients are calculated in it (the images stay float32). What that calls misclassified, and every last
    iterate, is asked again in float32: no image counts as broken that float32 classifies correctly.
    """

    def __init__(self, model: nn.Module, *, bfloat16: bool = False):
        self.model, self.bfloat16 = model, bfloat16

    def __call__(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [S, K], loss [S] and gradient [S, C, H, W] at x."""
        x = x.detach().requires_grad_()
        logits = self._logits(x).float()
        losses = loss(logits)
        (gradient,) = torch.autograd.grad(losses.sum(), x)
        return logits.detach(), losses.detach(), gradient

    def logits(self, x: Tensor) -> Tensor:
        """Logits [S, K] without a gradient."""
        with torch.no_grad():
            return self._logits(x).float()

    def misclassified(self, x: Tensor, logits: Tensor, labels: Tensor, last: Tensor) -> Tensor:
        """bool [S], by float32; `last` marks the rows that must not be missed."""
        wrong = _is_wrong(logits, labels)
        if not self.bfloat16:
            return wrong
        asked = (wrong | last).nonzero().squeeze(1)
        wrong = torch.zeros_like(wrong)
        if len(asked):
            with torch.no_grad():
                wrong[asked] = _is_wrong(self.model(x[asked]), labels[asked])
        return wrong

    def _logits(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.model(x)


def _is_wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """bool [S]; a network that answers with NaN has not been fooled, it has failed."""
    return (logits.argmax(1) != labels) & logits.isfinite().all(1)


class Slots:
    """The queue and the slots, for runs `first` to `first + count - 1` of the images that are due for them."""

    def __init__(
        self,
        method: Method,
        images: Tensor,
        labels: Tensor,
        ids: Tensor,
        result: AttackResult,
        *,
        count: int,
        slots: int,
        first: int = 0,
        total: int | None = None,
        decision: str = "any",
    ):
        self.method, self.images, self.labels, self.ids, self.result = method, images, labels, ids, result
        self.end, self.slots, self.decision = first + count, slots, decision
        self.done = self.end if total is None else total  # what `next_run` says of an image that is done
        due = result.next_run.tolist()
        self.queue = deque((image, run) for image, run in enumerate(due) if first <= run < self.end)
        self.begun = dict(self.queue)  # image -> its latest run that is queued or has been in a slot
        self.ended: dict[int, set[int]] = {image: set() for image in self.begun}  # the runs that are over
        self.rows: Rows = {}

    def run(self, save: Callable[[AttackResult], None] | None = None) -> AttackResult:
        """Attack until the queue and the slots are empty; `save` is called every few seconds with the result so far."""
        if not self.queue:  # networks need not answer for no images at all
            return self.result
        last_save = time.monotonic()
        self._fill(keep=None)
        while len(self.rows["image"]):
            judged, wrong, over = self.method.advance(self.rows)
            self.rows["age"] = self.rows["age"] + 1
            self.result.calls += len(wrong)
            self._note(judged, wrong, over)
            if save is not None and time.monotonic() - last_save > SAVE_EVERY:
                save(self.result)
                last_save = time.monotonic()
        return self.result

    def _note(self, judged: Tensor, wrong: Tensor, over: Tensor) -> None:
        """Write down who fell and whose run is over, queue the runs that are left, and fill the free slots."""
        result, image, run = self.result, self.rows["image"], self.rows["run"]
        note_lowest(result.any_run, image[wrong], run[wrong])
        if self.decision == "any":
            over = over | wrong
        else:
            note_lowest(result.last_run, image[over & wrong], run[over & wrong])
        if not over.any() and not self._some_became_stubborn():
            return
        fell_in = self._fell_in()[image]
        shown = over & ((fell_in == run) | ((fell_in < 0) & (run == self.end - 1)))
        result.adversarial[image[shown]] = judged[shown]
        for ended in zip(image[over].tolist(), run[over].tolist(), fell_in[over].tolist(), strict=True):
            self._end(*ended)
        self._fill(keep=~over & ((fell_in < 0) | (run < fell_in)))  # a fall makes later runs pointless

    def _fell_in(self) -> Tensor:
        return self.result.any_run if self.decision == "any" else self.result.last_run

    def _end(self, image: int, run: int, fell_in: int) -> None:
        """A run is over. The image is done when all runs before the one in which it fell are; else the next one is due."""
        ended, due = self.ended[image], int(self.result.next_run[image])
        ended.add(run)
        while due in ended:
            due += 1
        if fell_in >= 0 and due >= fell_in:
            due = self.done
        elif due < self.end and due > self.begun[image]:
            self.queue.append((image, due))
            self.begun[image] = due
        self.result.next_run[image] = due

    def _fill(self, keep: Tensor | None) -> None:
        """Keep these slots, and start the next pairs of the queue in the others."""
        kept = {} if keep is None else {name: tensor[keep] for name, tensor in self.rows.items()}
        busy = list(zip(kept["image"].tolist(), kept["age"].tolist(), strict=True)) if kept else []
        pairs = [self.queue.popleft() for _ in range(min(self.slots - len(busy), len(self.queue)))]
        pairs += self._ahead(busy + [(image, 0) for image, _ in pairs])
        if kept and not pairs:
            self.rows = kept
            return
        image, run = torch.tensor(pairs, dtype=torch.int64, device=self.images.device).view(-1, 2).unbind(1)
        new: Rows = {"image": image, "run": run, "id": self.ids[image], "label": self.labels[image]}
        new["clean"], new["age"] = self.images[image], torch.zeros_like(image)
        self.method.begin(new)
        self.rows = {name: torch.cat([kept[name], tensor]) for name, tensor in new.items()} if kept else new

    def _some_became_stubborn(self) -> bool:
        """Whether to look for runs that can be made ahead, although no slot has become free."""
        few = self.decision == "any" and not self.queue and len(self.rows["age"]) < self.slots // AHEAD
        return few and bool((self.rows["age"] == PATIENCE).any())

    def _ahead(self, busy: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Later runs of stubborn images, those that have stood a run, or `PATIENCE` evaluations if any iterate counts.

        `busy`: per filled slot its image and its age. Runs are made ahead only while there are so few rows that a network
        takes hardly longer for more.
        """
        pairs: list[tuple[int, int]] = []
        room = self.slots // AHEAD - len(busy)
        if self.queue or room <= 0:
            return pairs
        fell_in = self._fell_in()
        enough = PATIENCE if self.decision == "any" else float("inf")  # by the last iterate all stand until a run's end
        stands = [image for image, age in busy if self.ended[image] or age >= enough]
        stubborn = [image for image in dict.fromkeys(stands) if fell_in[image] < 0]
        while stubborn and len(pairs) < room:
            stubborn = [image for image in stubborn if self.begun[image] + 1 < self.end]
            for image in stubborn[: room - len(pairs)]:
                self.begun[image] += 1
                pairs.append((image, self.begun[image]))
        return pairs


def clean_result(model: nn.Module, images: Tensor, labels: Tensor, runs: int, batch_size: int) -> AttackResult:
    """The result before the first run: which images are classified correctly, and which are due for it.

    Raises ValueError for logits that are not finite, and for labels that the network has no logit for.
    """
    with torch.no_grad():
        logits = torch.cat([model(part) for part in images.split(batch_size)])
    _check_logits(logits, labels)
    correct = logits.argmax(1) == labels
    first = torch.where(correct, -1, 0).to(torch.int16)
    due = torch.where(correct, 0, runs).to(torch.int16)
    return AttackResult(correct, first, first.clone(), due, images.clone(), len(images))


def note_lowest(lowest: Tensor, image: Tensor, run: Tensor) -> None:
    """lowest[image] = run where nothing, or a higher run, was noted before; an image may occur more than once."""
    none = torch.iinfo(lowest.dtype).max
    found = torch.where(lowest < 0, none, lowest).scatter_reduce(0, image, run.to(lowest.dtype), "amin")
    lowest.copy_(torch.where(found == none, -1, found))


@contextlib.contextmanager
def untouched(model: nn.Module):
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


def check_images(images: Tensor, labels: Tensor, ids: Tensor | None = None) -> None:
    """Raises ValueError unless images are float32 [B, C, H, W] in [0, 1], and labels and ids int64 [B]."""
    if images.dtype != torch.float32 or images.dim() != 4:
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; expected float32 [B, C, H, W] in "
            "[0, 1] (uint8 images: divide by 255)"
        )
    for name, numbers in (("labels", labels), ("ids", labels if ids is None else ids)):
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
