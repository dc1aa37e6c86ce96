"""Two records of one page in one table: runs of one's own, or such a run and a profile's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from reprolib.paper import files
from reprolib.paper.files import RecordError
from reprolib.paper.parameters import nearest
from reprolib.paper.plan import PROFILES, Cell
from reprolib.paper.run import Stored, read_record
from reprolib.paper.show.selection import number

SHOWN = ("accuracy", "gain", "saturated", "broken")
ENDS = "(each run at its last epoch)"
PLACE = ("quantity", "row", "part", "column", "over", "protocol", "decision")


def compare(first: str | Path | Stored, second: str | Path | Stored, page: str = "") -> pd.DataFrame:
    """A row per setting that differs and per number, with the difference in points, second minus first.

    Along the epochs of fine-tuning, each epoch stands beside its like, and the last of one run beside the last of the
    other, whatever their numbers; the row of the setting says so.

    Args:
        first, second: the name of a run of one's own (results/custom/<name>), a profile, a record's file or a record.
        page: which record, where both have several.
    Raises RecordError for a run or record that there is not, and where the two have no page in common."""
    one, two = _records(first, second, page)
    names = [_name(first, one), _name(second, two)]
    if names[0] == names[1]:
        names = [f"{names[0]} (first)", f"{names[1]} (second)"]
    rows = [*_settings(one, two, names), *_numbers(one, two, names)]
    frame = pd.DataFrame(rows, columns=["attack", "network", "protocol", "decision", *names, "difference"])
    return frame.fillna("")


def _records(first: str | Path | Stored, second: str | Path | Stored, page: str) -> tuple[Stored, Stored]:
    first, second = (
        Path(each) if isinstance(each, str) and each.endswith(".json") else each for each in (first, second)
    )
    found = [_files(given) if isinstance(given, str) else given for given in (first, second)]
    known = [set(some) for some in found if isinstance(some, dict)]
    for given, some in zip((first, second), found, strict=True):
        if page and isinstance(some, dict) and page not in some:
            raise RecordError(f"{given} has no record {page!r}; it has {', '.join(sorted(some))}")
    common = {page} if page else set.intersection(*known) if known else set()
    if known and len(common) != 1:
        several = f"both have {', '.join(sorted(common))}; say which, as `page`"
        which = several if common else "they have no page in common"
        raise RecordError(f"cannot compare {first} with {second}: {which}")
    records = [
        each if isinstance(each, Stored) else read_record(each[next(iter(common))] if isinstance(each, dict) else each)
        for each in found
    ]
    return records[0], records[1]


def _files(name: str) -> dict[str, Path]:
    """record -> file, of a profile or of a run of one's own."""
    folder = files.RESULTS / name if name in PROFILES else files.RESULTS / "custom" / name
    found = {path.stem: path for path in sorted(folder.glob("*.json"))}
    if not found:
        runs = sorted({path.parent.name for path in (files.RESULTS / "custom").glob("[!.]*/*.json")})
        close = nearest(name, [*runs, *PROFILES])
        hint = f"did you mean {close!r}?" if close and close != name else f"known: {', '.join([*runs, *PROFILES])}"
        raise RecordError(f"there are no results of {name!r} in {files.shown(folder)}; {hint}")
    return found


def _name(given: str | Path | Stored, record: Stored) -> str:
    return given if isinstance(given, str) else str(record.provenance["profile"]).removeprefix("custom/")


def _settings(one: Stored, two: Stored, names: list[str]) -> list[dict[str, Any]]:
    """What differs between the amounts of the two; a setting that only one has is as printed in the other."""
    amounts = [record.provenance["amounts"] for record in (one, two)]
    return [
        {
            "attack": f"setting: {name}",
            "network": ENDS if name == "finetune" else "",
            names[0]: str(amounts[0].get(name, "")),
            names[1]: str(amounts[1].get(name, "")),
        }
        for name in dict.fromkeys([*amounts[0], *amounts[1]])
        if amounts[0].get(name) != amounts[1].get(name)
    ]


def _numbers(one: Stored, two: Stored, names: list[str]) -> list[dict[str, Any]]:
    ends = [_last_epochs(record) for record in (one, two)]
    cells = [_placed(record, last) for record, last in zip((one, two), ends, strict=True)]
    if not cells[0].keys() & cells[1].keys():
        raise RecordError(f"{names[0]} and {names[1]} have no number in common: they are of different pages")
    rows = []
    for place in dict.fromkeys([*cells[0], *cells[1]]):
        left, right = cells[0].get(place), cells[1].get(place)
        cell = left or right
        assert cell is not None  # it is in one of them
        numbers = {name: number(each) if each else "" for name, each in zip(names, (left, right), strict=True)}
        difference = f"{right.value - left.value:+.2f}" if left and right else ""
        epoch, seed = place[-2:]
        many = epoch is None and any(key[:-2] == place[:-2] and key[-2] is not None for key in [*cells[0], *cells[1]])
        last = dict.fromkeys(str(end[cell.column]) for end in ends if end.get(cell.column) is not None) if many else ()
        when = " and ".join(last) if last else str(epoch or "")
        rows.append({**_labels(cell, when, seed), **numbers, "difference": difference})
    return rows


def _last_epochs(record: Stored) -> dict[str, int | None]:
    """Column -> the last epoch at which it is looked at; None where its network is not fine-tuned."""
    last: dict[str, int | None] = {}
    for cell in record.cells:
        if cell.quantity in SHOWN:
            last[cell.column] = max(filter(None, (last.get(cell.column), cell.epoch)), default=None)
    return last


def _placed(record: Stored, last: dict[str, int | None]) -> dict[tuple[Any, ...], Cell]:
    """Place -> cell. The last epoch counts as the end, which two runs have in common; seeds are counted from the
    record's first."""
    cells = [cell for cell in record.cells if cell.quantity in SHOWN]
    first = record.provenance["amounts"].get("seed", 0)
    return {
        (
            *(getattr(cell, field) for field in PLACE),
            None if cell.epoch == last[cell.column] else cell.epoch,
            cell.seed - first if cell.seeds else 0,
        ): cell
        for cell in cells
    }


def _labels(cell: Cell, epochs: str, seed: int) -> dict[str, str]:
    attack = cell.row + (f": broken by {cell.part}" if cell.part else "")
    network = cell.column + (f" minus {cell.over}" if cell.over else "")
    network += f", {epochs} epochs" if epochs else ""
    network += f", seed {seed}" if seed else ""
    return {"attack": attack, "network": network, "protocol": cell.protocol, "decision": cell.decision or ""}
