"""Frozen, validated records of what is computed: a training, an attack, an evaluation; and the settings of a notebook.

A record's content names its artefact in the store. Wrong parameters fail here, before any compute, in one sentence.
No torch in this module: the batch engine reads it for every decision it takes.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import yaml
from pydantic import Field

ROOT = Path(__file__).resolve().parent.parent
PARAMS = ROOT / "params"

LOSSES = ("margin", "logits", "probabilities")
Loss = Literal["margin", "logits", "probabilities"]
Count = Annotated[int, Field(ge=1)]


class SpecError(ValueError):
    """A parameter is unknown, of the wrong type or out of range; the message is one sentence that says which."""


class Record(pydantic.BaseModel):
    """Base of all records: immutable, no unknown fields, no silent conversion of types."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **fields):
        try:
            super().__init__(**fields)
        except pydantic.ValidationError as error:
            raise SpecError(_sentence(type(self), error)) from None

    def content(self) -> dict:
        """The record as plain JSON-able data."""
        return self.model_dump(mode="json")


class Training(Record):
    """One network's training, without its length: a checkpoint is a training and an epoch.

    The learning rate is constant, so the first 10 of 60 epochs are the same as 10 epochs alone.
    """

    dataset: str
    train_size: Count | None = None  # the first n training images; None = all
    model: str
    optimizer: Literal["adam", "rmsprop"]
    lr: Annotated[float, Field(gt=0)]
    batch_size: Count
    copies: Literal["none", "unmodified", "patched"] = "none"  # what stands beside each image in an epoch
    patch_size: Literal[7, 11] | None = None  # n of n-Pk
    patch_count: Literal[1, 2] | None = None  # k of n-Pk
    seed: Annotated[int, Field(ge=0)] = 0
    parent: Training | None = None  # the pre-trained network that is fine-tuned
    parent_epoch: Count | None = None

    @pydantic.model_validator(mode="after")
    def _complete(self):
        if any((self.copies == "patched") != (field is not None) for field in (self.patch_size, self.patch_count)):
            raise ValueError("patch_size and patch_count belong to copies='patched', and to it alone")
        if (self.parent is None) != (self.parent_epoch is None):
            raise ValueError("parent and parent_epoch come together")
        return self


class Attack(Record):
    """A gradient attack in the L-infinity ball (Table 2). FGSM is one step of alpha = eps from the clean image."""

    name: Literal["fgsm", "ifgsm", "pgd"]
    eps: Annotated[float, Field(ge=0, le=1)]
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    steps: Annotated[int, Field(ge=0)] | None = None
    restarts: Annotated[int, Field(ge=0)] = 0  # 0 = one run from the clean image; r = r runs from random starts
    loss: Loss = "margin"

    @pydantic.model_validator(mode="after")
    def _complete(self):
        if self.name == "fgsm" and (self.alpha is not None or self.steps is not None or self.restarts):
            raise ValueError("fgsm takes eps alone: no alpha, steps or restarts")
        if self.name != "fgsm" and (self.alpha is None or self.steps is None):
            raise ValueError(f"{self.name} needs alpha and steps")
        if self.name == "ifgsm" and self.restarts:
            raise ValueError("ifgsm starts from the clean image: restarts is 0")
        if self.alpha and self.steps == 0:
            raise ValueError(f"alpha is {self.alpha} with 0 steps; give steps >= 1, or alpha 0")
        return self

    def loop(self) -> dict:
        """The attack as numbers of the one loop that all three are: eps, alpha, steps, restarts, loss.

        IFGSM and PGD without restarts are the same computation, and so share one artefact.
        """
        if self.name == "fgsm":
            return {"eps": self.eps, "alpha": self.eps, "steps": 1, "restarts": 0, "loss": self.loss}
        return {"eps": self.eps, "alpha": self.alpha, "steps": self.steps, "restarts": self.restarts, "loss": self.loss}


def _sentence(kind: type[Record], error: pydantic.ValidationError) -> str:
    """The first problem of a validation error in one sentence, with a suggestion where a name is close."""
    first = error.errors()[0]
    name, value = ".".join(str(part) for part in first["loc"]), first.get("input")
    where = f"{kind.__name__}.{name}" if name else kind.__name__
    if first["type"] == "extra_forbidden":
        return f"{where}: {suggest(first['loc'][-1], list(kind.model_fields), 'parameter')}"
    if first["type"] == "missing":
        return f"{where} is missing; give it a value"
    if isinstance(value, str) and first["type"] in ("float_type", "int_type"):
        return f"{where} is the text {value!r}; expected a number ({_yaml_hint(value)})"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message[0].lower()}{message[1:]}" + ("" if first["type"] == "value_error" else f", not {value!r}")


def _yaml_hint(text: str) -> str:
    return "YAML reads 1e-3 as text: write 1.0e-3" if "e" in text.lower() else "write it without quotes"


def suggest(name: str, known: list[str], what: str) -> str:
    """One sentence for an unknown name, with the nearest known one."""
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown {what} {name!r}; {hint}"
