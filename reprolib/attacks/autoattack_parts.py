"""The algorithms inside AutoAttack as methods of the slot engine, in the L-infinity ball, with its standard settings.

Sources: Croce and Hein 2020a (Auto-PGD), Croce and Hein 2020b (FAB), Andriushchenko et al. 2020 (Square). Each slot
carries its own step size, checks and counters, so that images at different steps share one evaluation of the network.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from reprolib import streams
from reprolib.attacks.losses import cross_entropy, logit_of, loss_per_image
from reprolib.attacks.network import Gradients
from reprolib.attacks.slots import Rows, ball, per_image

APGD_STREAM, SQUARE_STREAM = 1 << 21, 1 << 22  # first of the random streams used here, away from all others
NEWTON_STEPS = 50  # towards the nearest point of a plane; five are usual

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits [S, K], labels [S], targets [S] -> [S]


def ranked_targets(gradients: Gradients, clean: Tensor, runs: Tensor) -> Tensor:
    """int64 [S]: on the clean image, the class with the second largest logit for run 0, the third for run 1 ..."""
    order = gradients.logits(clean).argsort(1, descending=True)
    return order.gather(1, 1 + runs[:, None]).squeeze(1)


class AutoPGD:
    """Steps of the gradient's sign with momentum; where progress stalls, half the step size from the best point so far.

    Run r of `targeted_dlr` has target number r; `first` is the number of run 0.
    """

    momentum = 0.75
    enough = 0.75  # share of a window's steps that must have raised the loss for the step size to stay

    def __init__(self, gradients: Gradients, eps: float, loss: Loss, seed: int, first: int = 0, steps: int = 100):
        self.gradients, self.eps, self.loss, self.seed = gradients, eps, loss, seed
        self.first, self.steps = first, steps
        # steps until the first check, by how many each next one is earlier, and the fewest
        self.windows = [max(steps * percent // 100, 1) for percent in (22, 3, 6)]

    def begin(self, rows: Rows) -> None:
        clean, run = rows["clean"], rows["run"]
        number = run - self.first + (self.loss is not cross_entropy)  # the part alone starts where it does in the whole
        u = 2 * streams.uniform(self.seed, rows["id"], APGD_STREAM + number, clean.shape[1:]) - 1
        rows["lower"], rows["upper"] = ball(clean, self.eps)
        x = (clean + self.eps * u / per_image(u.abs().flatten(1).amax(1))).clamp(rows["lower"], rows["upper"])
        rows |= {"x": x, "before": x, "best": x, "best_gradient": torch.zeros_like(x)}
        rows["target"] = run if self.loss is cross_entropy else ranked_targets(self.gradients, clean, run - self.first)
        number = torch.zeros_like(run)
        rows |= {"step": number, "rises": number, "window": number + self.windows[0], "left": number + self.windows[0]}
        zero, least = clean.new_zeros(len(run)), clean.new_full((len(run),), -torch.inf)
        rows |= {"size": zero + 2 * self.eps, "loss": zero, "best_loss": least, "checked_loss": least}
        rows["halved"] = number == 0

    def advance(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        x, labels = rows["x"], rows["label"]
        logits, loss, gradient = self.gradients(x, lambda logits: self.loss(logits, labels, rows["target"]))
        over = rows["step"] >= self.steps
        wrong = self.gradients.misclassified(x, logits, labels, over)
        self._remember(rows, x, loss, gradient)
        start, gradient = self._check(rows, x, gradient)
        self._move(rows, start, gradient)
        return x, wrong, over

    @staticmethod
    def _remember(rows: Rows, x: Tensor, loss: Tensor, gradient: Tensor) -> None:
        started, better = rows["step"] == 0, loss > rows["best_loss"]
        rows["best"] = torch.where(per_image(better), x, rows["best"])
        rows["best_gradient"] = torch.where(per_image(better), gradient, rows["best_gradient"])
        rows["best_loss"] = torch.where(better, loss, rows["best_loss"])
        rows["checked_loss"] = torch.where(started, loss, rows["checked_loss"])
        rows["rises"] = rows["rises"] + ((loss > rows["loss"]) & ~started)
        rows["loss"] = torch.where(started, 0, loss)  # the first step counts as a rise above 0, as in the authors' code
        rows["left"] = rows["left"] - (~started).long()

    def _check(self, rows: Rows, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """At the end of a window, halve the step sizes that are too long and go back to the best points."""
        due = rows["left"] == 0
        wanders = rows["rises"] <= self.enough * rows["window"]
        stalls = ~rows["halved"] & (rows["checked_loss"] >= rows["best_loss"])
        halve = due & (wanders | stalls)
        rows["size"] = torch.where(halve, rows["size"] / 2, rows["size"])
        rows["halved"] = torch.where(due, halve, rows["halved"])
        rows["checked_loss"] = torch.where(due, rows["best_loss"], rows["checked_loss"])
        shorter = (rows["window"] - self.windows[1]).clamp(min=self.windows[2])
        rows["window"] = torch.where(due, shorter, rows["window"])
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

    Each step goes to where the linearised network ties, biased towards the clean image; from an adversarial point
    outside the ball it first goes back some of the way. Run r has target number r; `first` is the number of run 0.
    """

    most_bias, overshoot, way_back = 0.1, 1.05, 0.9

    def __init__(self, gradients: Gradients, eps: float, first: int = 0, steps: int = 100):
        self.gradients, self.eps, self.first, self.steps = gradients, eps, first, steps

    def begin(self, rows: Rows) -> None:
        clean, run = rows["clean"], rows["run"]
        rows["target"] = ranked_targets(self.gradients, clean, run - self.first)
        rows |= {"x": clean, "step": torch.zeros_like(run), "only_judge": run < 0, "came_back": run < 0}

    def advance(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """A step that fools the network is followed by its way back, without a gradient; the step after that one is
        only judged at first, and where it does not fool, its gradient is asked for in the next call."""
        x, clean, only_judge = rows["x"], rows["clean"], rows["only_judge"]
        logits, lead, gradient = self._ask(rows)
        over = rows["step"] >= self.steps
        fooled = self.gradients.misclassified(x, logits, rows["label"], over)
        inside = ((x - clean).abs() <= self.eps).flatten(1).all(1)
        back = fooled & ~rows["came_back"]
        steps = ~back & ~only_judge
        moved = torch.where(per_image(back), clean + (x - clean) * self.way_back, x)
        moved[steps] = self._step(x[steps], clean[steps], lead[steps], gradient[steps])
        rows["x"], rows["step"] = moved, rows["step"] + steps
        rows["only_judge"], rows["came_back"] = steps & rows["came_back"], back
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
    box, so the size of the move solves sum |normal| * min(size, room) = distance. The left side is concave and made of
    straight pieces: Newton's method climbs from 0 to the solution, or as far as the box goes, in a few steps.
    """
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
        rows["x"] = torch.clamp(clean + self.eps * stripes.sign(), rows["lower"], rows["upper"])
        rows |= {"best": rows["x"], "lowest": torch.full_like(stripes[:, 0, 0, 0], torch.inf)}
        rows["query"] = torch.zeros_like(rows["run"])

    def advance(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        x, labels = rows["x"], rows["label"]
        logits = self.gradients.logits(x)
        over = rows["query"] >= self.queries
        wrong = self.gradients.misclassified(x, logits, labels, over)
        margin = -loss_per_image(logits, labels, "margin")
        better = margin < rows["lowest"]
        rows["best"] = torch.where(per_image(better), x, rows["best"])
        rows["lowest"] = torch.where(better, margin, rows["lowest"])
        rows["x"] = torch.clamp(rows["best"] + self._squares(rows), rows["lower"], rows["upper"])
        rows["query"] = rows["query"] + 1
        return x, wrong, over

    def _squares(self, rows: Rows) -> Tensor:
        """[S, C, H, W]: plus or minus 2 eps in a square at a random place, 0 elsewhere."""
        channels, height, width = rows["x"].shape[1:]
        u = streams.uniform(self.seed, rows["id"], SQUARE_STREAM + 1 + rows["query"], (channels + 2,))
        side = self._sides(rows["query"], height, width)
        top, left = (u[:, 0] * (height - side + 1)).long(), (u[:, 1] * (width - side + 1)).long()
        inside = _within(top, side, height)[:, None, :, None] & _within(left, side, width)[:, None, None, :]
        colours = 2 * self.eps * (u[:, 2:] - 0.5).sign()[:, :, None, None]
        return torch.where(inside, colours, torch.zeros_like(colours))

    def _sides(self, query: Tensor, height: int, width: int) -> Tensor:
        """int64 [S]: the side of the square after so many queries."""
        shares = [self.first_share / 2**halved for halved in range(len(self.halvings) + 1)]
        sides = [min(max(round(math.sqrt(share * height * width)), 1), height, width) for share in shares]
        halved = torch.bucketize(query, torch.tensor(self.halvings, device=query.device))
        return torch.tensor(sides, device=query.device)[halved]


def _within(start: Tensor, length: Tensor, count: int) -> Tensor:
    """bool [S, count]: start <= position < start + length."""
    ahead = torch.arange(count, device=start.device) - start[:, None]
    return (ahead >= 0) & (ahead < length[:, None])
