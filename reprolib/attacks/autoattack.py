"""AutoAttack, standard version (Croce and Hein 2020a): four attacks, each on the images that survived those before.

APGD-CE (100 steps), targeted APGD-DLR and targeted FAB (Croce and Hein 2020b; both 100 steps to each of the 9 likeliest
wrong classes) and Square (Andriushchenko et al. 2020; 5000 queries). torchattacks' `AutoAttack` is another (10 steps,
another schedule for Square). Each slot carries its own step size, checks and counters.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Unpack

import torch
from torch import Tensor, nn

from reprolib import streams
from reprolib.attacks.inputs import Options, check_attack, check_choice, shown
from reprolib.attacks.network import Gradients, Probabilities, answer, logit_of, loss_per_image, targeted_dlr, untouched
from reprolib.attacks.slots import AttackResult, Method, Resume, Rows, Save, Slots, ball, begun, per_image

RUNS = {"APGD-CE": 1, "APGD-T": 9, "FAB-T": 9, "Square": 1}  # a targeted part has one run per target class
STANDARD = tuple(RUNS)
APGD_STREAM, SQUARE_STREAM = 1 << 21, 1 << 22  # first of the random streams used here, away from all others
NEWTON_STEPS = 50  # towards the nearest point of a plane; five are usual


@dataclass(frozen=True)
class AutoAttack:
    """As `LinfAttack`, errors too, but for what follows; `run` says which part broke which image.

    parts: which, and in which order; `("Square",)` is the black-box attack alone.
    steps: of APGD and FAB; Square has 50 queries for each. Fewer than 100 are not the standard version.
    bfloat16: targeted APGD takes its gradients in bfloat16; the other parts stay in float32.
    loss: what the network hands the attack: its "logits", or its softmax "probabilities", as Keras' networks do."""

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
        self, images: Tensor, labels: Tensor, ids: Tensor | None = None, *, resume: Resume = None, save: Save = None
    ) -> AttackResult:
        """As `LinfAttack.run`, part after part; also refuses targeted parts on fewer than 4 classes: their loss takes
        the fourth largest logit. What no part broke comes back clean."""
        network = Probabilities(self.model) if self.loss == "probabilities" else self.model
        gradients, first = Gradients(network), 0
        quick = Gradients(network, bfloat16=self.bfloat16)
        with untouched(network):
            images, ids, slots, result = begun(self, network, images, labels, ids, resume)
            classes = answer(network, images[:1]).shape[1] if len(images) else 10
            targeted = ", ".join(name for name in self.parts if name.endswith("-T"))
            if targeted and classes < 4:
                raise ValueError(f"{targeted} need a network of 4 classes or more, not {classes}; leave them out")
            for name in self.parts:
                method = self._method(name, quick if name == "APGD-T" else gradients, first)
                count = min(RUNS[name], classes - 1)
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
        return AutoPGD(gradients, self.eps, self.seed, first, self.steps, targeted=name == "APGD-T")


def part_of(run: Tensor) -> Tensor:
    """int64: per run of the standard version the place of its part in `STANDARD`; -1 for -1."""
    ends = torch.tensor([RUNS[name] for name in STANDARD], device=run.device).cumsum(0)
    return torch.where(run < 0, -1, torch.bucketize(run.long(), ends, right=True))


def autoattack(model: nn.Module, eps: float, *, steps: int = 100, **options: Unpack[Options]) -> AutoAttack:
    """AutoAttack in its standard order of parts; the standard version has 100 steps."""
    return AutoAttack(model, eps, steps=steps, **options)


def square(model: nn.Module, eps: float, *, steps: int = 100, **options: Unpack[Options]) -> AutoAttack:
    """AutoAttack's last part alone, which needs no gradient: 50 queries for each step."""
    return AutoAttack(model, eps, parts=("Square",), steps=steps, **options)


ATTACKS = {"autoattack": autoattack, "square": square}


def ranked_targets(gradients: Gradients, clean: Tensor, runs: Tensor) -> Tensor:
    """int64 [S]: on the clean image, the class with the second largest logit for run 0, the third for run 1 ..."""
    return logit_of(gradients.logits(clean).argsort(1, descending=True), 1 + runs)


class AutoPGD:
    """Steps of the gradient's sign with momentum; where progress stalls, half the step size from the best point so far.

    It climbs cross-entropy, or `targeted_dlr`, whose run r has target number r; `first` is the number of run 0."""

    momentum = 0.75
    enough = 0.75  # share of a window's steps that must have raised the loss for its size to stay

    def __init__(
        self, gradients: Gradients, eps: float, seed: int, first: int = 0, steps: int = 100, targeted: bool = False
    ):
        self.gradients, self.eps, self.seed, self.first, self.steps = gradients, eps, seed, first, steps
        self.targeted = targeted
        self.exact = Gradients(gradients.model) if gradients.bfloat16 else gradients  # by which targets are chosen
        # steps until the first check, by how many each next one is earlier, and the fewest
        self.windows = [max(steps * percent // 100, 1) for percent in (22, 3, 6)]

    def begin(self, rows: Rows) -> None:
        clean, run = rows["clean"], rows["run"]
        number = run - self.first + self.targeted  # the part alone starts where it does in the whole
        u = 2 * streams.uniform(self.seed, rows["id"], APGD_STREAM + number, clean.shape[1:]) - 1
        rows["lower"], rows["upper"] = ball(clean, self.eps)
        x = (clean + self.eps * u / per_image(u.abs().flatten(1).amax(1))).clamp(rows["lower"], rows["upper"])
        rows |= {"x": x, "before": x, "best": x, "best_gradient": torch.zeros_like(x), "halved": run >= 0}
        rows["target"] = ranked_targets(self.exact, clean, run - self.first) if self.targeted else run
        number = torch.zeros_like(run)
        rows |= {"step": number, "rises": number, "window": number + self.windows[0], "left": number + self.windows[0]}
        zero, least = clean.new_zeros(len(run)), clean.new_full((len(run),), -torch.inf)
        rows |= {"size": zero + 2 * self.eps, "loss": zero, "best_loss": least, "checked_loss": least}

    def advance(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        x, labels = rows["x"], rows["label"]
        logits, loss, gradient = self.gradients(x, lambda logits: self._loss(logits, labels, rows["target"]))
        over = rows["step"] >= self.steps
        started, better = rows["step"] == 0, loss > rows["best_loss"]
        rows["best"] = torch.where(per_image(better), x, rows["best"])
        rows["best_gradient"] = torch.where(per_image(better), gradient, rows["best_gradient"])
        rows["best_loss"] = torch.where(better, loss, rows["best_loss"])
        rows["checked_loss"] = torch.where(started, loss, rows["checked_loss"])
        rows["rises"] = rows["rises"] + ((loss > rows["loss"]) & ~started)
        rows["loss"] = torch.where(started, 0, loss)  # the first step counts as a rise above 0, as in the authors' code
        rows["left"] = rows["left"] - (~started).long()
        self._move(rows, *self._check(rows, x, gradient))
        return x, self.gradients.misclassified(x, logits, labels, over), over

    def _loss(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        return targeted_dlr(logits, labels, targets) if self.targeted else loss_per_image(logits, labels, "logits")

    def _check(self, rows: Rows, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """At the end of a window, halve the step sizes that are too long and go back to the best points."""
        due = rows["left"] == 0
        stalls = ~rows["halved"] & (rows["checked_loss"] >= rows["best_loss"])
        halve = due & ((rows["rises"] <= self.enough * rows["window"]) | stalls)
        rows["size"] = torch.where(halve, rows["size"] / 2, rows["size"])
        rows["halved"] = torch.where(due, halve, rows["halved"])
        rows["checked_loss"] = torch.where(due, rows["best_loss"], rows["checked_loss"])
        rows["window"] = torch.where(due, (rows["window"] - self.windows[1]).clamp(min=self.windows[2]), rows["window"])
        rows["left"] = torch.where(due, rows["window"], rows["left"])
        rows["rises"] = torch.where(due, 0, rows["rises"])
        halve = per_image(halve)
        return torch.where(halve, rows["best"], x), torch.where(halve, rows["best_gradient"], gradient)

    def _move(self, rows: Rows, x: Tensor, gradient: Tensor) -> None:
        lower, upper = rows["lower"], rows["upper"]
        # no momentum to begin with; and in the images' type, which torch's default type need not be
        share = per_image(torch.where(rows["step"] == 0, 1.0, self.momentum).to(x.dtype))
        aim = torch.clamp(x + per_image(rows["size"]) * gradient.sign(), lower, upper)
        moved = torch.clamp(x + (aim - x) * share + (x - rows["before"]) * (1 - share), lower, upper)
        rows["before"], rows["x"], rows["step"] = x, moved, rows["step"] + 1


class FAB:
    """Fast adaptive boundary attack towards a target class: the nearest point at which the two classes tie.

    Each step goes to where the linearised network ties, biased towards the clean image; from an adversarial point it
    first goes some of the way back. Run r has target number r; `first` is the number of run 0."""

    most_bias, overshoot, way_back = 0.1, 1.05, 0.9

    def __init__(self, gradients: Gradients, eps: float, first: int = 0, steps: int = 100):
        self.gradients, self.eps, self.first, self.steps = gradients, eps, first, steps

    def begin(self, rows: Rows) -> None:
        clean, run = rows["clean"], rows["run"]
        rows["target"] = ranked_targets(self.gradients, clean, run - self.first)
        number = torch.zeros_like(run)
        rows |= {"x": clean, "step": number, "failed": number + 2, "only_judge": run < 0, "came_back": run < 0}

    def advance(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """A step that fools is followed by its way back, without a gradient. Where one of the last two steps fooled,
        the next nearly always does: it is only judged at first, and where it fails, asked again for its gradient."""
        x, clean, only_judge, came_back = rows["x"], rows["clean"], rows["only_judge"], rows["came_back"]
        logits, lead, gradient = self._ask(rows)
        over = rows["step"] >= self.steps
        fooled = self.gradients.misclassified(x, logits, rows["label"], over)
        inside = ((x - clean).abs() <= self.eps).flatten(1).all(1)
        back = fooled & ~came_back
        steps = ~back & ~only_judge
        moved = torch.where(per_image(back), clean + (x - clean) * self.way_back, x)
        moved[steps] = self._step(x[steps], clean[steps], lead[steps], gradient[steps])
        rows["x"], rows["step"] = moved, rows["step"] + steps
        rows["failed"] = torch.where(back, 0, rows["failed"] + (steps & ~came_back))  # steps since one that fooled
        rows["only_judge"], rows["came_back"] = steps & (rows["failed"] < 2), back
        return x, fooled & inside, over

    def _ask(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of all rows; how far the target leads, and that lead's gradient, of those that are not only judged."""
        x, labels, target = rows["x"], rows["label"], rows["target"]
        judged, moving = (chosen.nonzero().squeeze(1) for chosen in (rows["only_judge"], ~rows["only_judge"]))
        gradient, lead = torch.zeros_like(x), torch.zeros_like(x[:, 0, 0, 0])
        parts = [(judged, self.gradients.logits(x[judged]))] if len(judged) else []
        if len(moving):
            to, away = target[moving], labels[moving]
            asked = self.gradients(x[moving], lambda logits: logit_of(logits, to) - logit_of(logits, away))
            found, lead[moving], gradient[moving] = asked
            parts.append((moving, found))
        order = torch.cat([rows for rows, _ in parts]).argsort()
        return torch.cat([found for _, found in parts])[order], lead, gradient

    def _step(self, x: Tensor, clean: Tensor, lead: Tensor, gradient: Tensor) -> Tensor:
        """From x and from the clean image to the plane gradient . z = gradient . x - lead; between them by distance."""
        plane = (gradient * x).flatten(1).sum(1) - lead
        here, there = to_plane(x, gradient, plane), to_plane(clean, gradient, plane)
        far = [way.abs().flatten(1).amax(1).clamp(min=1e-8) for way in (here, there)]
        bias = per_image((far[0] / (far[0] + far[1])).clamp(max=self.most_bias))
        return ((x + self.overshoot * here) * (1 - bias) + (clean + self.overshoot * there) * bias).clamp(0, 1)


def to_plane(points: Tensor, normal: Tensor, offset: Tensor) -> Tensor:
    """The smallest moves (in the L-infinity norm) that bring points to the plane `normal . z = offset` within [0, 1].

    points, normal, moves: float32 [S, C, H, W]; offset: float32 [S]. All coordinates move alike until they meet the
    box, so the size of the move solves sum |normal| * min(size, room) = distance. The left side is concave, of straight
    pieces: Newton's method climbs from 0 to the solution, or as far as the box goes, in a few steps."""
    z, w = points.flatten(1), normal.flatten(1)
    distance = offset - (z * w).sum(1)
    way = w.sign() * distance.sign()[:, None]
    room, weight = torch.where(way > 0, 1 - z, z), w.abs()
    size = torch.zeros_like(distance)
    for _ in range(NEWTON_STEPS):
        slope = (weight * (room > size[:, None])).sum(1)
        missing = distance.abs() - (weight * torch.minimum(room, size[:, None])).sum(1)
        step = (missing / slope.clamp(min=1e-30)).clamp(min=0)
        size = size + step
        if (step <= 1e-6 * size).all():
            break
    return (way * torch.minimum(room, size[:, None])).view_as(points)


class Square:
    """Random search without gradients: squares of one colour, eps up or down, kept where the margin shrinks."""

    first_share = 0.8  # of the image's area
    halvings = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # after so many queries the share is halved

    def __init__(self, gradients: Gradients, eps: float, seed: int, queries: int = 5000):
        self.gradients, self.eps, self.seed, self.queries = gradients, eps, seed, queries

    def begin(self, rows: Rows) -> None:
        clean = rows["clean"]
        channels, _, width = clean.shape[1:]
        rows["lower"], rows["upper"] = ball(clean, self.eps)
        stripes = streams.uniform(self.seed, rows["id"], SQUARE_STREAM, (channels, 1, width)) - 0.5
        x = torch.clamp(clean + self.eps * stripes.sign(), rows["lower"], rows["upper"])
        lowest = torch.full_like(stripes[:, 0, 0, 0], torch.inf)
        rows |= {"x": x, "best": x, "lowest": lowest, "query": torch.zeros_like(rows["run"])}

    def advance(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        x, labels = rows["x"], rows["label"]
        logits, over = self.gradients.logits(x), rows["query"] >= self.queries
        margin = -loss_per_image(logits, labels, "margin")
        better = margin < rows["lowest"]
        rows["best"] = torch.where(per_image(better), x, rows["best"])
        rows["lowest"] = torch.where(better, margin, rows["lowest"])
        changed = torch.addcmul(rows["best"], *self._squares(rows))
        rows["x"] = torch.clamp(changed, rows["lower"], rows["upper"])
        rows["query"] = rows["query"] + 1
        return x, self.gradients.misclassified(x, logits, labels, over), over

    def _squares(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """[S, C, H, 1] and [S, 1, 1, W]: their product is plus or minus 2 eps in a square at a random place, else 0."""
        channels, height, width = rows["x"].shape[1:]
        u = streams.uniform(self.seed, rows["id"], SQUARE_STREAM + 1 + rows["query"], (channels + 2,))
        side = self._sides(rows["query"], height, width)
        inside = []  # [S, height] and [S, width]: 1 where start <= position < start + side, else 0
        for place, count in ((u[:, 0], height), (u[:, 1], width)):
            ahead = torch.arange(count, device=u.device) - (place * (count - side + 1)).long()[:, None]
            inside.append(((ahead >= 0) & (ahead < side[:, None])).to(u.dtype))
        colours = 2 * self.eps * (u[:, 2:] - 0.5).sign()
        return (colours[:, :, None] * inside[0][:, None])[..., None], inside[1][:, None, None]

    def _sides(self, query: Tensor, height: int, width: int) -> Tensor:
        """int64 [S]: the side of the square after so many queries."""
        halvings, sides = _side_table(self.first_share, self.halvings, height, width, query.device)
        return sides[torch.bucketize(query, halvings)]


@lru_cache
def _side_table(
    first_share: float, halvings: tuple[int, ...], height: int, width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The halvings, and the sides after none, one and more of them."""
    shares = [first_share / 2**halved for halved in range(len(halvings) + 1)]
    sides = [min(max(round(math.sqrt(share * height * width)), 1), height, width) for share in shares]
    return torch.tensor(halvings, device=device), torch.tensor(sides, device=device)
