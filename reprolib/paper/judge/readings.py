"""What the readings of params/readings.yaml come to: each measured number beside the printed one that it would explain.

A reading within tolerance is near a printed number; how that number came about, it does not show.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from reprolib.paper.judge.claims import Measured as Number
from reprolib.paper.judge.claims import Text, build, judge, ledger
from reprolib.paper.plan import PARAMS, Cell, Page, Record, SpecError, load_table, read_yaml
from reprolib.paper.run import Stored

STUDY = "pipelines"  # the record of what was attacked anew
# where a reading's numbers stand in a page's own rows: (protocol, decision), the first that there is
ASKED = {
    "probabilities": [("probabilities", "last")],
    "logits": [("logits", "last"), ("logits", "any")],
    "margin": [("margin", "any")],
    "any iterate": [("probabilities", "any")],
    "made on undefended": [("transfer", "last")],
    "AutoAttack": [("sound", "any")],
    "AutoAttack, probabilities": [("probabilities", "any")],
}
COLUMNS = ["reading", "group", "claim", "printed", "measured", "low", "high", "n", "distance", "within"]
CLOSE = ("reproduced", "within tolerance")


class Group(Record):
    """Claims by their ids, * for any; attacked anew by the study, or before, in the committed records."""

    claims: Annotated[list[Text], Field(min_length=1)]
    attacked: Literal["anew", "before"]

    def has(self, claim: str) -> bool:
        return any(fnmatch(claim, pattern) for pattern in self.claims)


class Reading(Record):
    """How one may have evaluated, where that practice comes from, and the groups of which it is asked."""

    how: Text
    practice: Text
    groups: Annotated[list[str], Field(min_length=1)]


@functools.cache
def load_readings() -> tuple[dict[str, Reading], dict[str, Group]]:
    """The readings and the groups of params/readings.yaml, in its order; ValueError for the first thing wrong."""
    content = read_yaml(PARAMS / "readings.yaml")
    found = {name: build(Reading, f"readings.yaml: {name}", fields) for name, fields in content["readings"].items()}
    groups = {name: build(Group, f"readings.yaml: {name}", fields) for name, fields in content["groups"].items()}
    for name, reading in found.items():
        for group in reading.groups:
            if group not in groups:
                raise SpecError(
                    f"readings.yaml: {name}: there is no group {group!r}; choose one of {', '.join(groups)}"
                )
    return found, groups


def study(cells: Iterable[Cell], found: Mapping[tuple[str, str], Stored]) -> pd.DataFrame:
    """A row per reading, group and claim that has a number: `COLUMNS`, distances in points.

    cells: of the study. found: the committed records, as `scoreboard` ranks them.
    """
    anew: dict[tuple[str, str], Cell] = {}
    for cell in cells:
        if place := _placed(cell):
            for claim in _claims(place[1], cell):
                anew.setdefault((place[0], claim), cell)
    before = _recorded(record.cells for (_, name), record in found.items() if name != STUDY)
    readings, groups = load_readings()
    rows = []
    for name, reading in readings.items():
        for group in reading.groups:
            source = anew if groups[group].attacked == "anew" else before
            for claim in ledger():
                if groups[group].has(claim) and (name, claim) in source:
                    rows.append(_row(name, group, claim, source[name, claim]))
    return pd.DataFrame(rows, columns=COLUMNS)


def _placed(cell: Cell) -> tuple[str, str] | None:
    """(reading, attack) of a cell of the study; None for one of no reading."""
    names, attacks = load_readings()[0], _study().rows
    if cell.quantity != "accuracy" or cell.row not in attacks or cell.protocol == "sound":
        return None
    if cell.row in names:
        return cell.row, "AutoAttack"
    attack, _, reading = cell.row.partition(", ")
    if reading:
        return reading, attack
    at = cell.protocol, cell.decision
    return next(((name, attack) for name in ("probabilities", "logits", "margin", "any iterate")
                 if ASKED[name][0] == at), None)  # fmt: skip


def _study() -> Page:
    return load_table(STUDY)["fmnistconv"]


def _claims(attack: str, cell: Cell) -> list[str]:
    """The claims that this attack's number answers on the pages whose networks the study attacks."""
    pages = [load_table(table)["fmnistconv"] for table in ("table06_fashion_mnist", "table09", "table11")]
    ids = [one.id(attack, cell.column, cell.epoch) for page in pages for one in page.claims if not one.over]
    return [id for id in ids if id in ledger()]


def _recorded(records: Iterable[list[Cell]]) -> dict[tuple[str, str], Cell]:
    """(reading, claim) -> its number in the records, the first of them that has one."""
    found: dict[tuple[str, str], Cell] = {}
    for cells in records:
        here = {(cell.claim, cell.protocol, cell.decision): cell for cell in cells if cell.claim}
        for name, asked in ASKED.items():
            is_autoattack = name.startswith("AutoAttack")
            for protocol, decision in asked:
                for (claim, *at), cell in here.items():
                    if at == [protocol, decision] and cell.row.startswith("AutoAttack") == is_autoattack:
                        found.setdefault((name, str(claim)), cell)
    return found


def _row(reading: str, group: str, id: str, cell: Cell) -> dict[str, object]:
    claim, value = ledger()[id], Number(**cell.model_dump(include={"value", "low", "high", "n"}))
    close = judge(claim, value, profile="cpu").verdict in CLOSE
    numbers = {"printed": claim.number, "measured": value.value, "low": value.low, "high": value.high, "n": value.n}
    return {"reading": reading, "group": group, "claim": id, **numbers,
            "distance": abs(value.value - claim.number), "within": close}  # fmt: skip


def committed(found: Mapping[tuple[str, str], Stored]) -> pd.DataFrame:
    """`study` from the records alone, of which the study's own is the first that there is."""
    cells = next((record.cells for (_, name), record in found.items() if name == STUDY), [])
    return study(cells, found)


def nearest(frame: pd.DataFrame, claim: str) -> str:
    """Which readings come within tolerance of a claim, in words; empty for a claim of which none is asked."""
    here = frame[frame["claim"] == claim]
    if not len(here):
        return ""
    names = list(dict.fromkeys(here[here["within"]]["reading"]))
    return ", ".join(names) or f"none of {here['reading'].nunique()}"
