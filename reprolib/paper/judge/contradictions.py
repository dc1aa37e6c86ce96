"""Where the paper disagrees with itself: params/contradictions.yaml as records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from reprolib.paper.judge.claims import Text, build, find, ledger
from reprolib.paper.plan import PARAMS, Record, parse_yaml

CONTRADICTIONS_FILE = PARAMS / "contradictions.yaml"


class Contradiction(Record):
    """What the paper prints in its `places`, how much it matters, the ids of the claims it is about, and why."""

    places: Annotated[list[Text], Field(min_length=1)]
    says: Text
    matters: Literal["high", "medium", "low"]
    claims: list[str]
    why: Text


def load_contradictions(path: str | Path | None = None) -> list[Contradiction]:
    """All entries in the file's order; by default of the repository's params/contradictions.yaml.

    Raises ValueError, in one sentence with file and entry, for the first thing wrong: no list, a missing, unknown or
    wrong field, a claim that is not in params/claims.yaml. FileNotFoundError where there is no such file.
    """
    path = CONTRADICTIONS_FILE if path is None else Path(path)
    entries = parse_yaml(path)
    if not isinstance(entries, list):
        raise ValueError(f"{path.name} is no list of entries; begin each with '- places:'")
    return [_entry(f"{path.name}: entry {number}", fields) for number, fields in enumerate(entries, start=1)]


def _entry(place: str, fields: object) -> Contradiction:
    entry = build(Contradiction, place, fields)
    try:
        for id in entry.claims:
            find(ledger(), id)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return entry
