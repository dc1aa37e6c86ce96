"""Where the paper disagrees with itself: params/contradictions.yaml as records. Plain data: imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field

from reprolib import claims, specs

CONTRADICTIONS_FILE = specs.PARAMS / "contradictions.yaml"

Text = Annotated[str, Field(min_length=1)]


class Contradiction(specs.Record):
    """What the paper prints in its `places`, how much it matters, the ids of the claims it is about, and why."""

    places: Annotated[list[Text], Field(min_length=1)]
    says: Text
    matters: Literal["high", "medium", "low"]
    claims: list[str]
    why: Text


def load(path: str | Path | None = None) -> list[Contradiction]:
    """All entries in the file's order; by default of the repository's params/contradictions.yaml.

    Raises ValueError, in one sentence with file and entry, for the first thing wrong: no list, a missing, unknown or
    wrong field, a claim that is not in params/claims.yaml. FileNotFoundError where there is no such file.
    """
    path = CONTRADICTIONS_FILE if path is None else Path(path)
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path.name} is no list of entries; begin each with '- places:'")
    known = claims.load_claims()
    return [_entry(f"{path.name}: entry {number}", fields, known) for number, fields in enumerate(entries, start=1)]


def _entry(place: str, fields: object, known: Mapping[str, claims.Claim]) -> Contradiction:
    if not isinstance(fields, Mapping):
        raise ValueError(f"{place} is {fields!r}; expected a mapping such as {{places: [Table 3], says: ..., ...}}")
    try:
        entry = Contradiction(**{str(name): value for name, value in fields.items()})
        for id in entry.claims:
            claims.find(known, id)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return entry
