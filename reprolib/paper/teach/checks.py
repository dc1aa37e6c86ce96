"""Boxes that answer a student at once: is her function right, and how far was her prediction from the measurement?"""

from __future__ import annotations

import copy
import html
import math
import re
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from IPython.display import display as show_in_notebook
from torch import Tensor

from reprolib.paper.parameters import suggest
from reprolib.paper.teach.exercises import EXERCISES, Exercise

GREEN, ORANGE, BLUE = "#009E73", "#E69F00", "#56B4E9"  # which colour-blind readers can tell apart
GO_ON = "The lesson goes on with the solution"
UNWRITTEN = "it is not written yet"


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compare a student's function with the exercise of its name on random inputs, and show a box that says the result.

    Returns the function to go on with: hers where it is right, else the solution, so that no lesson stops.
    Raises ValueError where no exercise has that name.
    """
    exercise = EXERCISES.get(function.__name__)
    if exercise is None:
        raise ValueError(f"{suggest(function.__name__, EXERCISES, 'exercise')}; keep the name that the stub has")
    reason = fault(function, exercise)
    if reason is None:
        _box(GREEN, "✔ right", f"{function.__name__} gives what the solution gives.")
        return function
    if reason == UNWRITTEN:
        _box(BLUE, "✎ not written yet", f"put your code in the place of raise NotImplementedError. {GO_ON}.")
    else:
        _box(ORANGE, "✘ not yet", f"because {reason}. {GO_ON}; mend your cell, run it and then this one again.")
    return exercise.solution


def fault(function: Callable[..., Any], exercise: Exercise) -> str | None:
    """What is wrong with a student's function, as the end of "not yet, because ..."; None where it is right."""
    if function is exercise.solution:
        return (
            "the cell above has put no function of yours in its place: run it; look for an error in it, or another name"
        )
    for given in exercise.cases(torch.Generator().manual_seed(0)):
        hers = copy.deepcopy(given)
        try:
            found = function(*hers)
        except NotImplementedError:
            return UNWRITTEN
        except Exception as error:
            return f"it stops with {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if found is None or found is ...:
            return "it gives nothing back; let it end with return"
        if wrong := _difference(found, exercise.solution(*given)):
            return next((why for why, bad in exercise.mistakes.items() if not _difference(found, bad(*given))), wrong)
        if any(isinstance(old, Tensor) and not torch.equal(old, new) for old, new in zip(given, hers, strict=True)):
            return "it changes the tensor that it is given; make a new one, for example with clone()"
    return None


def _difference(found: Any, right: Any) -> str | None:
    """How a student's answer differs from the right one; None where it is the same to within rounding."""
    if isinstance(right, Tensor) and not isinstance(found, Tensor):
        return f"it gives {type(found).__name__} where a tensor is expected"
    right = torch.as_tensor(right)
    try:
        found = torch.as_tensor(found)
    except (TypeError, ValueError, RuntimeError):
        expected = ", ".join(f"{number:.4g}" for number in right.flatten().tolist())
        return f"it gives {type(found).__name__} where {expected} would be right"
    if (found.dtype.is_floating_point, found.dtype == torch.bool) != (
        right.dtype.is_floating_point,
        right.dtype == torch.bool,
    ):
        return f"it gives {_kind(found)}, and {_kind(right)} are expected"
    if found.shape != right.shape:
        return f"its answer is {_size(found)}, and {_size(right)} is expected"
    wrong = ~torch.isclose(found.double(), right.double(), atol=1e-5)
    if not wrong.any():
        return None
    place = tuple(wrong.nonzero()[0].tolist())
    where = f" at {list(place)}" if place else ""
    return f"it gives {found[place].item():.4g}{where}, where {right[place].item():.4g} is right"


def _size(values: Tensor) -> str:
    return f"a tensor of the shape {tuple(values.shape)}" if values.dim() else "a single number"


def _kind(values: Tensor) -> str:
    if values.dtype == torch.bool:
        return "True and False"
    return "numbers with decimals" if values.dtype.is_floating_point else "whole numbers"


def score(prediction: object, measured: float, what: str = "%", close: float = 5.0, found: str = "measured") -> None:
    """Show a prediction beside the measurement, both in `what`, with up to three stars.

    close: how near it is as predicted; twice as far gives two stars, four times as far one. found: how the number was
    found, where nobody measured it. A number in quotes is taken, too, and what is none, or not finite, but a try, is
    not told the measurement.
    """
    if prediction is None or prediction is ...:
        _box(BLUE, "✎ no prediction", f"{found.capitalize()}: {measured:.1f} {what}.")
        return
    given = _number(prediction)
    if given is None:
        _box(BLUE, "✎ no prediction", f"{prediction!r} is no number; write one, such as 30, and run the cell again.")
        return
    miss = abs(given - measured)
    stars = sum(miss <= factor * close for factor in (1, 2, 4))
    words = ("A surprise: worth a second look.", "Not far.", "Near.", "As predicted.")[stars]
    text = f"predicted {given:.1f}, {found} {measured:.1f} {what}: {miss:.1f} off. {words}"
    _box(GREEN if stars == 3 else ORANGE, "★" * stars + "☆" * (3 - stars), text)


def _number(given: object) -> float | None:
    if isinstance(given, bool) or not isinstance(given, str | Real):
        return None
    try:
        number = float(_bare(given) if isinstance(given, str) else given)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _bare(given: str) -> str:
    """Without a unit, and with the minus that Python knows."""
    number = re.sub(r"(%|(percentage )?points?)$", "", given.strip().lower())
    return re.sub("[\N{HYPHEN}-\N{HORIZONTAL BAR}\N{MINUS SIGN}]", "-", number)


def answer(chosen: object, right: str, because: str) -> None:
    """Show whether what a student chose is the answer, and why."""
    if chosen is None or chosen is ...:
        _box(BLUE, "✎ no answer", f"The answer is {right!r}. {because}")
        return
    same = str(chosen).strip().lower() == right.lower()
    said = f"{right}." if same else f"you say {chosen!r}; the answer is {right!r}."
    _box(GREEN if same else ORANGE, "✔ agreed" if same else "✘ look again", f"{said} {because}")


def _box(colour: str, head: str, text: str) -> None:
    """A line with a coloured border, which also says in words what its colour says."""
    style = f"border-left: 6px solid {colour}; background: {colour}22; padding: 0.5em 1em; margin: 0.3em 0"
    page = f'<div style="{style}"><b>{head}</b>: {html.escape(text)}</div>'
    show_in_notebook({"text/html": page, "text/plain": f"{head}: {text}"}, raw=True)
