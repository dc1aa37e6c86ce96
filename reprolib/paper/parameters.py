"""Parameters given by name, as a declaration or a notebook gives them: the first thing wrong, in one sentence."""

from __future__ import annotations

import difflib
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

MANY = 30  # names that still make a sentence
SHORT = 3  # letters that say what somebody means


def suggest(name: object, known: Iterable[str], what: str) -> str:
    """One sentence for an unknown name, with the nearest known one."""
    known = [str(k) for k in known]
    close = nearest(str(name), known)
    few = known if len(known) <= MANY else [*known[:3], f"{len(known) - 3} more"]
    return f"unknown {what} {name!r}; " + (f"did you mean {close!r}?" if close else f"known: {', '.join(few)}")


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that may be meant: one that begins with it or is its beginning, one spelt almost like it, or one
    that has a word in common with it."""
    lower, given = {one.lower(): one for one in known}, name.lower()
    begun = [one for one in lower if len(given) >= SHORT and one.startswith(given)]
    begun += [one for one in lower if len(one) >= SHORT and given.startswith(one)]
    begun.sort(key=lambda one: abs(len(one) - len(given)))
    close = difflib.get_close_matches(given, lower, n=1, cutoff=cutoff)
    words = set(re.split(r"[\W_]+", given)) - {""}
    return next((lower[one] for one in [*begun, *close, *(one for one in lower if words & set(one.split("_")))]), None)


def why_no_run_name(name: object) -> str:
    """One sentence on what is wrong with the name of a run of one's own, which names a folder; "" for a good one."""
    if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][\w-]{0,59}", name, re.ASCII):
        return ""
    return f"run_name is {name!r}; expected at most 60 letters, digits, _ and -, the first no sign, such as 'small_eps'"


def checked(make: Callable[..., Any], given: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The parameters `given` to a function or dataclass called `name`, which takes no others and these types.

    Raises ValueError for a parameter that is unknown, missing or of another type than the annotation says.
    """
    takes = inspect.signature(make).parameters
    hints = get_type_hints(make if inspect.isfunction(make) else make.__init__)
    known = {one.name: one.default is one.empty for one in takes.values()}
    for parameter, value in given.items():
        if parameter not in known:
            raise ValueError(f"{name}: {suggest(parameter, known, 'parameter')}")
        if parameter in hints and not _fits(value, hints[parameter]):
            raise ValueError(f"{name}: {parameter} is {_shown(value, hints[parameter])}")
    for parameter, must_be_given in known.items():
        if must_be_given and parameter not in given:
            raise ValueError(f"{name}: {parameter} is missing; give it a value")
    return dict(given)


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) in (Union, types.UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(kind, type) or isinstance(value, kind)


def _shown(value: Any, kind: Any) -> str:
    number = kind in (int, float) or {int, float} & set(get_args(kind))
    if not (isinstance(value, str) and number):
        hint = " (round up, for example with math.ceil)" if isinstance(value, float) and number else ""
        return f"{value!r}; expected {getattr(kind, '__name__', kind)}{hint}"
    is_number = re.fullmatch(r"[\d.+-]+e[\d+-]+", value.lower())
    hint = "YAML reads 1e-3 as text: write 1.0e-3" if is_number else "write it without quotes"
    return f"the text {value!r}; expected a number ({hint})"
