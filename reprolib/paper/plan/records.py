"""The base of all records: frozen and validated, so that a wrong parameter fails before any compute, in one
sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import Field

from reprolib.paper.files import ROOT, shown
from reprolib.paper.parameters import suggest

PARAMS = ROOT / "params"

Loss = Literal["margin", "logits", "probabilities"]
Decision = Literal["any", "last"]
Engine = Literal["reprolib", "torchattacks"]
RowEngine = Literal["reprolib", "torchattacks", "art", "art (DeepFool, Square)", "art (DeepFool)"]
# how cross-entropy is taken from probabilities, see `run.pipelines`
Order = Literal["clipped", "unclipped", "renormalised, then clipped", "clipped, then renormalised", "soft-max twice"]
Labels = Literal["true", "predicted"]
LOSSES: tuple[Loss, ...] = ("margin", "logits", "probabilities")
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]


class SpecError(ValueError):
    """A parameter is unknown, of the wrong type or out of range; the message is one sentence that says which."""


class Record(pydantic.BaseModel):
    """Immutable, no unknown fields, no silent conversion of types."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )

    def __init__(self, **fields: Any):
        try:
            super().__init__(**fields)
        except pydantic.ValidationError as error:
            raise SpecError(_sentence(type(self), error)) from None

    def content(self) -> dict:
        """The record as plain JSON-able data, without what is as by default: a new field disturbs no key."""
        return self.model_dump(mode="json", exclude_defaults=True)


def _sentence(kind: type[Record], error: pydantic.ValidationError) -> str:
    """The first problem of a validation error in one sentence, with a suggestion where a name is close."""
    first = error.errors()[0]
    name, value = ".".join(str(part) for part in first["loc"]), first.get("input")
    where = f"{kind.__name__}.{name}" if name else kind.__name__
    if first["type"] == "extra_forbidden":
        return f"{where}: {suggest(first['loc'][-1], kind.model_fields, 'parameter')}"
    if first["type"] == "missing":
        return f"{where} is missing; give it a value"
    if isinstance(value, str) and first["type"] in ("float_type", "int_type"):
        hint = "YAML reads 1e-3 as text: write 1.0e-3" if "e" in value.lower() else "write it without quotes"
        return f"{where} is the text {value!r}; expected a number ({hint})"
    if first["type"] == "value_error":
        return f"{where}: {first['msg'].removeprefix('Value error, ')}"
    return f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}, not {value!r}"


class _UniqueKeys(yaml.CSafeLoader):
    """A repeated key is an error: the second of two equal names would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen and key.tag != "tag:yaml.org,2002:merge":
                problem = f"the key '{key.value}' stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict:
    """A YAML file as data; SpecError in one sentence when it is missing or no mapping."""
    if not path.exists():
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        kind = "file" if path.parent == PARAMS else path.parent.name.rstrip("s")
        raise SpecError(f"{suggest(path.stem, known, kind)} (looked in {shown(path.parent)})")
    content = parse_yaml(path)
    if not isinstance(content, dict):
        raise SpecError(f"{path.name} holds {type(content).__name__}; expected a mapping of names to values")
    return content


def parse_yaml(path: Path) -> Any:
    """Whatever a YAML file holds; SpecError in one sentence when it is not valid or a key stands twice."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from None
