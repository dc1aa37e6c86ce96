"""Attacks: `attacks.pgd(net, eps=8/255, alpha=2/255, steps=40, restarts=10)(images, labels)` -> adversarial images.

`linf` (FGSM, IFGSM, PGD), `autoattack` and `cascade`, its quick stand-in. Beneath them `slots`, the engine,
asks a `network` and checks `inputs`. A new attack is a file that lists its constructors in `ATTACKS`: each takes a
network, its own numbers, and loss, decision and seed by name, and makes a frozen dataclass like `LinfAttack`, with
`runs` (that an image may have), `run` and `__call__`.
"""

import functools
import inspect
import os
import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import Any

# isort: off
from reprolib.attacks.autoattack import STANDARD, AutoAttack, autoattack, part_of, square
from reprolib.attacks.cascade import Cascade, cascade
from reprolib.attacks.inputs import Options, check_images
from reprolib.attacks.linf import LinfAttack, fgsm, ifgsm, pgd
from reprolib.attacks.network import BPDA, LOSSES, NOISE, Gradients, Probabilities, loss_per_image
from reprolib.attacks.network import is_right, random_noise, transfer, untouched
from reprolib.attacks.slots import DECISIONS, AttackResult, robust

__all__ = [
    "BPDA", "DECISIONS", "LOSSES", "NOISE", "STANDARD", "AttackResult", "AutoAttack", "Cascade", "Gradients",
    "LinfAttack", "Options", "Probabilities", "autoattack", "cascade", "check_images", "content", "fgsm", "ifgsm",
    "is_right", "loss_per_image", "named", "part_of", "pgd", "random_noise", "robust", "square", "transfer",
    "untouched",
]  # fmt: skip


def named() -> dict[str, Callable[..., Any]]:
    """Name -> constructor (model, eps, ...) of all attacks that files of this folder list in `ATTACKS`."""
    return dict(_named(tuple((folder, os.stat(folder).st_mtime_ns) for folder in __path__)))


@functools.cache
def _named(folders: tuple[tuple[str, int], ...]) -> dict[str, Callable[..., Any]]:
    """Of these folders as they were at a time: a file may be added to them while a kernel runs."""
    found: dict[str, Callable[..., Any]] = {}
    for file in pkgutil.iter_modules([folder for folder, _ in folders]):
        listed = vars(import_module(f"{__name__}.{file.name}")).get("ATTACKS", {})
        twice = sorted(found.keys() & listed.keys())
        if twice:
            raise ValueError(f"{file.name}.py lists an attack {twice[0]!r}, as another file does; give it another name")
        found |= listed
    return found


def content(attack: Any) -> dict[str, Any]:
    """Plain data for a key, equal for equal computations on one network: all fields but it and the idle `slots`."""
    fields = {name: value for name, value in vars(attack).items() if name not in ("model", "slots")}
    lists = {name: list(value) for name, value in fields.items() if isinstance(value, tuple)}
    return {"kind": type(attack).__name__} | fields | lists


def _name_options(make: Any) -> None:
    """Let a constructor's signature say each of its `**options` by name, with the default that its record has."""
    signature = inspect.signature(make)
    named = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    if len(named) < len(signature.parameters):
        fields = inspect.signature(signature.return_annotation).parameters
        named += [fields[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in Options.__annotations__]
        make.__signature__ = signature.replace(parameters=named)
        make.__annotations__ = {one.name: one.annotation for one in named}


def __dir__() -> list[str]:
    return __all__


for _make in named().values():  # for help(), for tab completion, and for who checks what was given
    _name_options(_make)
