"""The exercises of the lessons: their solutions, the random inputs they are compared on, and mistakes that are usual.

A student's function that does the same as one of the mistakes is told which one it is; any other wrong one, where its
answer differs. Images are float [B, C, H, W] in [0, 1], where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy.stats import norm
from torch import Generator, Tensor

from reprolib import attacks, patches, streams
from reprolib.diagnostics.verdict import wilson as wilson_interval
from reprolib.paper.plan import Cell


@dataclass(frozen=True)
class Exercise:
    """cases: from a generator of random numbers, some tuples of arguments. mistakes: what is wrong -> a function."""

    solution: Callable[..., Any]
    cases: Callable[[Generator], list[tuple]]
    mistakes: dict[str, Callable[..., Any]] = field(default_factory=dict)


# --- lesson 1: write the attack ---


def fgsm(images: Tensor, gradient: Tensor, eps: float) -> Tensor:
    """One step of size eps uphill in every pixel, cut off at 0 and 1."""
    return (images + eps * gradient.sign()).clamp(0, 1)


def projected_step(x: Tensor, images: Tensor, gradient: Tensor, alpha: float, eps: float) -> Tensor:
    """One step of size alpha from x, then back into the ball of radius eps around the images, and into [0, 1]."""
    moved = x + alpha * gradient.sign()
    return moved.clamp(images - eps, images + eps).clamp(0, 1)


def pgd(gradient_at: Callable[[Tensor], Tensor], images: Tensor, eps: float, alpha: float, steps: int) -> Tensor:
    """That step so many times, each with the gradient at the place where the last one ended."""
    x = images
    for _ in range(steps):
        x = projected_step(x, images, gradient_at(x), alpha, eps)
    return x


def _pgd_from_old_gradient(gradient_at: Any, images: Tensor, eps: float, alpha: float, steps: int) -> Tensor:
    return pgd(lambda x: gradient_at(images), images, eps, alpha, steps)


def _pgd_around_last(gradient_at: Any, images: Tensor, eps: float, alpha: float, steps: int) -> Tensor:
    x = images
    for _ in range(steps):
        x = projected_step(x, x, gradient_at(x), alpha, eps)
    return x


def _waves(x: Tensor) -> Tensor:
    """The gradient of a landscape with hills and valleys."""
    return torch.sin(25 * x) + 0.3


def _step_cases(random: Generator) -> list[tuple]:
    images, gradient = torch.rand(3, 1, 5, 5, generator=random), torch.randn(3, 1, 5, 5, generator=random)
    near = (images + 0.2 * torch.rand(3, 1, 5, 5, generator=random) - 0.1).clamp(0, 1)
    return [(near, images, gradient * (gradient > -1), 0.05, 0.1)]


# --- lesson 2: catch a masked gradient ---


def true_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """The softmax output of each image's true class: logits [B, K], labels [B] -> [B]."""
    return logits.softmax(1).gather(1, labels[:, None]).squeeze(1)


def stands_still(gradient: Tensor) -> Tensor:
    """bool [B]: the images at which the gradient is exactly 0 in every pixel."""
    return (gradient == 0).flatten(1).all(1)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest wrong logit minus the true one: logits [B, K], labels [B] -> [B]."""
    return attacks.loss_per_image(logits, labels, "margin")


def _logit_cases(random: Generator) -> list[tuple]:
    return [(3 * torch.randn(8, 10, generator=random), torch.randint(0, 10, (8,), generator=random))]


def _gradient_cases(random: Generator) -> list[tuple]:
    gradient = torch.randn(6, 1, 4, 4, generator=random)
    gradient[1], gradient[2, 0, 0], gradient[4] = 0, 0, 1e-30 * gradient[4]
    gradient[5, 0] = torch.tensor([1.0, -1.0]).repeat(4, 2)  # whose sum is 0 exactly, which no rounded mean makes it
    return [(gradient,)]


# --- lesson 3: referee a paper ---


def find(cells: list[Cell], row: str, column: str, protocol: str, decision: str) -> float:
    """The value of the one cell of a record in that place."""
    asked = (row, column, protocol, decision)
    return next(c.value for c in cells if (c.row, c.column, c.protocol, c.decision) == asked)


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy of `right` out of n, in percent (Wilson 1927)."""
    return wilson_interval(right, n)


def does_more(patched: tuple[float, float], control: tuple[float, float]) -> bool:
    """Whether the patched network's interval (low, high) lies wholly above the control's."""
    return patched[0] > control[1]


def _cells(random: Generator) -> list[tuple]:
    places = [(a, b, c, d) for a in ("PGD-v1", "FGSM") for b in ("undefended", "7-P1", "no patches")
              for c in ("probabilities", "logits") for d in ("any", "last")]  # fmt: skip
    values = (100 * torch.rand(len(places), generator=random)).tolist()
    cells = [Cell(row=a, column=b, protocol=c, decision=d, value=value)  # type: ignore[arg-type]
             for (a, b, c, d), value in zip(places, values, strict=True)]  # fmt: skip
    return [(cells, "PGD-v1", "7-P1", "logits", "last"), (cells, "FGSM", "no patches", "probabilities", "any")]


def _normal_interval(right: int, n: int) -> tuple[float, float]:
    share, z = right / n, norm.ppf(0.975)
    spread = z * (share * (1 - share) / n) ** 0.5
    return 100 * (share - spread), 100 * (share + spread)


# --- lesson 4: patch augmentation ---


def black_out(images: Tensor, size: int) -> Tensor:
    """The centred patch of size x size set to 0 in each image."""
    ((top, left),) = patches.boxes(images.shape[2], images.shape[3], size, 1)
    changed = images.clone()
    changed[:, :, top : top + size, left : left + size] = 0
    return changed


def _black_corner(images: Tensor, size: int) -> Tensor:
    changed = images.clone()
    changed[:, :, :size, :size] = 0
    return changed


def salt_and_pepper(patch: Tensor, u: Tensor) -> Tensor:
    """Below u = 0.25 a pixel becomes 0, from there to 0.5 it becomes 1; u is as large as the patch."""
    return torch.where(u < 0.25, 0.0, torch.where(u < 0.5, 1.0, patch))


def drawn(ids: Tensor, seed: int) -> Tensor:
    """Which of the nine operations each image meets, 0 to 8: ids int64 [B] -> int64 [B]."""
    return patches.sample(ids, 1, seed)[0].operation


def _drawn_from(ids: Tensor, seed: int) -> Tensor:
    return streams.uniform(seed, ids, 0, (2,))[:, 0] * 9


def _images(random: Generator, *sizes: int) -> list[tuple]:
    return [(torch.rand(2, 1, 28, 28, generator=random), size) for size in sizes]


EXERCISES = {
    "fgsm": Exercise(
        fgsm,
        lambda random: [(given[1], given[2], 0.3) for given in _step_cases(random)],
        {
            "it walks down: the attack climbs the loss, so add the step": lambda x, g, eps: fgsm(x, -g, eps),
            "the sign is missing: every pixel moves by the whole eps": lambda x, g, eps: (x + eps * g).clamp(0, 1),
            "some pixels leave [0, 1]: cut them off with clamp(0, 1)": lambda x, g, eps: x + eps * g.sign(),
            "it gives the step alone: add it to the images": lambda x, g, eps: eps * g.sign(),
        },
    ),
    "projected_step": Exercise(
        projected_step,
        _step_cases,
        {
            "some pixels leave the ball of radius eps around the images": lambda x, i, g, a, e: fgsm(x, g, a),
            "some pixels leave [0, 1]": lambda x, i, g, a, e: (x + a * g.sign()).clamp(i - e, i + e),
            "it starts from the images: start from x": lambda x, i, g, a, e: projected_step(i, i, g, a, e),
            "it walks down: add the step": lambda x, i, g, a, e: projected_step(x, i, -g, a, e),
        },
    ),
    "pgd": Exercise(
        pgd,
        lambda random: [(_waves, torch.rand(3, 1, 5, 5, generator=random), 0.1, 0.03, 7)],
        {
            "each step uses the gradient at the clean images: ask gradient_at(x) again": _pgd_from_old_gradient,
            "the ball moves along with x: keep it around the images": _pgd_around_last,
            "it takes one step only: give x back after the loop": lambda g, i, e, a, s: pgd(g, i, e, a, 1),
            "it takes one step too few": lambda g, i, e, a, s: pgd(g, i, e, a, s - 1),
        },
    ),
    "true_probability": Exercise(
        true_probability,
        _logit_cases,
        {
            "it takes the largest probability, and not the true class's": lambda z, y: z.softmax(1).amax(1),
            "it gives a logit: make probabilities of them with softmax(1)": lambda z, y: z.gather(1, y[:, None])[:, 0],
            "it gives all classes' probabilities": lambda z, y: z.softmax(1),
            "the softmax runs over the images: the classes are dimension 1": (
                lambda z, y: z.softmax(0).gather(1, y[:, None])[:, 0]
            ),
        },
    ),
    "stands_still": Exercise(
        stands_still,
        _gradient_cases,
        {
            "it asks whether any pixel's gradient is 0; all of them must be": lambda g: (g == 0).flatten(1).any(1),
            "it says which images do move": lambda g: ~stands_still(g),
            "it adds the pixels' gradients, which can cancel out: ask of each whether it is 0": lambda g: (
                g.flatten(1).sum(1) == 0
            ),
            "it takes a tiny gradient for none: its sign is 1 or -1, and the image moves": lambda g: (
                (g.abs() < 1e-6).flatten(1).all(1)
            ),
            "it answers for each pixel: all pixels of an image together decide": lambda g: g == 0,
        },
    ),
    "margin": Exercise(
        margin,
        _logit_cases,
        {
            "its sign is turned round: the attack climbs, so the wrong logit counts up": lambda z, y: -margin(z, y),
            "the true class is among the others: put -inf in its place before amax": lambda z, y: (
                z.amax(1) - z.gather(1, y[:, None])[:, 0]
            ),
            "it takes probabilities, which round: take the logits": lambda z, y: margin(z.softmax(1), y),
        },
    ),
    "find": Exercise(
        find,
        _cells,
        {"it looks at the undefended network": lambda cells, a, b, c, d: find(cells, a, "undefended", c, d)},
    ),
    "wilson": Exercise(
        wilson,
        lambda random: [(9, 300), (780, 1000)],
        {
            "it gives shares: multiply by 100": lambda right, n: tuple(end / 100 for end in wilson(right, n)),
            "this is the normal interval, which can fall below 0: use Wilson's formula": _normal_interval,
        },
    ),
    "does_more": Exercise(
        does_more,
        lambda random: [
            ((72.3, 74.1), (77.5, 79.1)),
            ((5.0, 7.0), (6.0, 8.0)),
            ((5.0, 7.0), (1.0, 2.0)),
            ((5.0, 7.0), (4.0, 6.0)),
        ],
        {
            "it says whether they differ at all: the patched one must be higher": (
                lambda p, c: p[0] > c[1] or c[0] > p[1]
            ),
            "two intervals that overlap may be one and the same number": lambda p, c: sum(p) > sum(c),
        },
    ),
    "black_out": Exercise(
        black_out,
        lambda random: _images(random, 8, 12),
        {"the patch is at the corner, and belongs in the centre": _black_corner},
    ),
    "salt_and_pepper": Exercise(
        salt_and_pepper,
        lambda random: [(torch.rand(4, 1, 7, 7, generator=random), torch.rand(4, 1, 7, 7, generator=random))],
        {
            "salt and pepper have changed places": lambda p, u: 1 - salt_and_pepper(1 - p, u),
            "half of the pixels become pepper: below 0.25 only, and salt from there to 0.5": lambda p, u: torch.where(
                u < 0.5, 0.0, torch.where(u < 1, 1.0, p)
            ),
        },
    ),
    "drawn": Exercise(
        drawn,
        lambda random: [(torch.randperm(50, generator=random) + 1000, 3)],
        {
            "it numbers the images by their place in the batch: use their ids": (
                lambda ids, seed: drawn(torch.arange(len(ids)), seed)
            ),
            "it rounds: cut the decimals off with long()": lambda ids, seed: _drawn_from(ids, seed).round().long(),
            "it still has decimals: cut them off with long()": _drawn_from,
        },
    ),
}
