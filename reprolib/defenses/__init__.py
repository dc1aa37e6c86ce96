"""Defences, a file each: `defenses.Patched(size=7, count=1)`.

Most are trained (base.Defence, handed to `training.fit`); some only change a trained network (base.Change). A new one
is a new file in this folder with one such class, and nothing else."""

import functools
import pkgutil
from importlib import import_module
from typing import Any

from reprolib.defenses.base import Change, Defence

__all__ = ["Change", "Defence", "named"]


@functools.cache
def named() -> dict[str, type[Defence] | type[Change]]:
    """Every defence of this folder by the name of its file."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name != "base":
            content = vars(import_module(f"{__name__}.{module.name}")).values()
            own = [c for c in content if isinstance(c, type) and c.__module__ == f"{__name__}.{module.name}"]
            (found[module.name],) = [c for c in own if issubclass(c, (Defence, Change))]
    return found


def __dir__() -> list[str]:
    return [*__all__, *(defence.__name__ for defence in named().values())]


def __getattr__(name: str) -> Any:
    for defence in named().values():
        if defence.__name__ == name:
            return defence
    raise AttributeError(f"there is no defence {name!r}; known: {', '.join(d.__name__ for d in named().values())}")
