"""The engine of all attacks: a fixed number of slots, each of which holds one (image, run) pair.

They go through the network together, each at its own step. A slot whose pair is done takes the next of the queue, so
the device stays full; at the end, later runs of a few stubborn images are made beside the earlier ones. What a pair
draws depends on the image's id and the run alone, so slots, batch and order change no result.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from reprolib.attacks import guards
from reprolib.attacks.inputs import check_choice, check_count, check_images, check_labels
from reprolib.attacks.network import answer, are_probabilities

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
    adversarial: float32 [B, C, H, W], a misclassified image in the ball if one was found, else the last run's last one.
    calls: model evaluations spent, all images together; without those that ask again in float32, see `Gradients`."""

    correct: Tensor
    any_run: Tensor
    last_run: Tensor
    next_run: Tensor
    adversarial: Tensor
    calls: int = 0

    def robust(self, decision: str = "any", runs: int | None = None) -> Tensor:
        return robust(self.correct, {"any": self.any_run, "last": self.last_run}, decision, runs)


Resume = AttackResult | None
Save = Callable[[AttackResult], None] | None  # called every few seconds with the result so far


def robust(correct: Tensor, first_run: dict[str, Tensor], decision: str, runs: int | None = None) -> Tensor:
    """bool [B]: correct on the clean image and never broken under the decision rule, within the first `runs` runs."""
    check_choice("decision", decision, DECISIONS)
    first, runs = first_run[decision], check_count("runs", 2**15 - 1 if runs is None else runs, 1)
    return correct & ((first < 0) | (first >= runs))


class Method(Protocol):
    """One kind of attack, as the engine sees it."""

    def begin(self, rows: Rows) -> None:
        """Add a run's first state to new rows, which come with `image`, `id`, `run`, `label` and `clean`."""

    def advance(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate once, move on: the images [S, C, H, W] evaluated; bool [S], adversarial; bool [S], ended its run."""


@dataclass
class Slots:
    """The queue and the slots, for runs `first` to `first + count - 1` of the images that are due for them."""

    method: Method
    images: Tensor
    labels: Tensor
    ids: Tensor
    result: AttackResult
    count: int
    slots: int
    first: int = 0
    total: int | None = None  # what an image that is done is due for, by default first + count
    decision: str = "any"

    def __post_init__(self) -> None:
        self.end = self.first + self.count
        due = enumerate(self.result.next_run.tolist())
        self.queue = deque((image, run) for image, run in due if self.first <= run < self.end)
        self.begun = dict(self.queue)  # image -> its latest run that is queued or has been in a slot
        self.ended: dict[int, set[int]] = {image: set() for image in self.begun}  # the runs that are over
        self.fell_in = self.result.any_run if self.decision == "any" else self.result.last_run
        self.rows: Rows = {}

    def run(self, save: Save = None) -> AttackResult:
        """Attack until the queue and the slots are empty."""
        last_save = time.monotonic()
        if self.queue:  # networks need not answer for no images at all
            self._fill(keep=None)
        while self.rows and len(self.rows["image"]):
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
        few = self.decision == "any" and not self.queue and len(image) < self.slots // AHEAD
        if not over.any() and not (few and (self.rows["age"] == PATIENCE).any()):  # no slot is free, no image stubborn
            return
        fell_in = self.fell_in[image]
        shown = over & ((fell_in == run) | ((fell_in < 0) & (run == self.end - 1)))
        result.adversarial[image[shown]] = judged[shown]
        for ended in zip(image[over].tolist(), run[over].tolist(), fell_in[over].tolist(), strict=True):
            self._end(*ended)
        self._fill(keep=~over & ((fell_in < 0) | (run < fell_in)))  # a fall makes later runs pointless

    def _end(self, image: int, run: int, fell_in: int) -> None:
        """A run is over. The image is done when all runs before that of its fall are; else the next one is due."""
        ended, due = self.ended[image], int(self.result.next_run[image])
        ended.add(run)
        while due in ended:
            due += 1
        if fell_in >= 0 and due >= fell_in:
            due = self.end if self.total is None else self.total
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

    def _ahead(self, busy: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Later runs of stubborn images, those that have stood a run, or `PATIENCE` evaluations if any iterate counts;
        but only while rows are so few that a network takes hardly longer for more. `busy`: each row's image and age."""
        pairs: list[tuple[int, int]] = []
        room = 0 if self.queue else self.slots // AHEAD - len(busy)
        if room <= 0:
            return pairs
        enough = PATIENCE if self.decision == "any" else float("inf")  # by the last iterate all stand until a run's end
        stands = [image for image, age in busy if self.ended[image] or age >= enough]
        stubborn = [image for image in dict.fromkeys(stands) if self.fell_in[image] < 0]
        while stubborn and len(pairs) < room:
            stubborn = [image for image in stubborn if self.begun[image] + 1 < self.end]
            for image in stubborn[: room - len(pairs)]:
                self.begun[image] += 1
                pairs.append((image, self.begun[image]))
        return pairs


@guards.usual_slots
@guards.wants_logits(are_probabilities)
def begun(
    attack: Any, network: nn.Module, images: Tensor, labels: Tensor, ids: Tensor | None, resume: Resume
) -> tuple[Tensor, Tensor, int, AttackResult]:
    """Checked: images without a gradient; ids, by default their rows; slots, by default as many as keep a GPU busy, on
    a CPU what fits into its caches, and fewer of large images; and the result before the next run.

    Raises ValueError, besides for what these checks refuse, for logits that are not finite or are probabilities."""
    check_images(images, labels, ids)
    images, slots = images.detach(), attack.slots or (2048 if images.is_cuda else 128)
    ids = torch.arange(len(images), device=images.device) if ids is None else ids
    if resume and (there := len(resume.correct)) != len(images):
        raise ValueError(f"the result to go on from has {there} images; expected the same {len(images)} images again")
    if resume:
        return images, ids, slots, resume
    correct = torch.zeros_like(labels, dtype=torch.bool)
    if len(images):  # networks need not answer for no images at all
        with torch.no_grad():
            logits = torch.cat([answer(network, part) for part in images.split(slots)])
        if failed := int((~logits.isfinite()).any(1).sum()):  # the largest of several NaN is class 0, right or wrong
            share = f"{failed} of {len(logits)} images"
            raise ValueError(f"the network's logits are not finite for {share}; it has probably diverged in training")
        check_labels(labels, logits.shape[1])
        correct = logits.argmax(1) == labels
    first, due = (torch.where(correct, *values).to(torch.int16) for values in ((-1, 0), (0, int(attack.runs))))
    return images, ids, slots, AttackResult(correct, first, first.clone(), due, images.clone(), len(images))


def ball(clean: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The least and the largest image of the eps-ball around clean images within [0, 1]."""
    return (clean - eps).clamp(min=0), (clean + eps).clamp(max=1)


def per_image(values: Tensor) -> Tensor:
    """[S] as [S, 1, 1, 1], to go with images."""
    return values.view(-1, 1, 1, 1)


def note_lowest(lowest: Tensor, image: Tensor, run: Tensor) -> None:
    """lowest[image] = run where nothing, or a higher run, was noted before; an image may occur more than once."""
    none = torch.iinfo(lowest.dtype).max
    found = torch.where(lowest < 0, none, lowest).scatter_reduce(0, image, run.to(lowest.dtype), "amin")
    lowest.copy_(torch.where(found == none, -1, found))
