"""What a batch would do, in one table: per page what is to be computed, and about how long that takes."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from reprolib.paper.notebooks import Sheet
from reprolib.paper.run.costs import SUSTAINED
from reprolib.paper.run.parcels import Step
from reprolib.paper.run.steps import plan_steps

NOTEBOOK = 15  # seconds that a page takes where all is computed; roughly what small ones take on a CPU


def page(sheets: Iterable[Sheet], profile: str) -> str:
    """The table as text, under a line that says what was assumed."""
    sheets = list(sheets)
    if not sheets:
        return "Nothing is to be done: every page is there, and newer than its sources."
    speed = SUSTAINED.get(profile, SUSTAINED["cpu"])[1]
    return (
        f"What would be done. The minutes are expected, not measured: of one process at an assumed {speed}.\n"
        f"What pages share is counted in the first of them.\n\n"
        f"{table(sheets, profile).to_markdown(index=False, disable_numparse=True)}"
    )


def table(sheets: Iterable[Sheet], profile: str) -> pd.DataFrame:
    """Per page the trainings and evaluations that the store lacks, the expected minutes, and all together.

    A data set that is not here is not downloaded for it: all that is computed from it is then counted."""
    sheets = list(sheets)
    asked = [(sheet.notebook.stem, sheet.network) for sheet in sheets if sheet.network is not None]
    planned = plan_steps(asked, profile, without_data=True)
    numbers: list[tuple[str, int, int, float]] = []
    for sheet in sheets:
        trainings, evaluations = (_missing(some, sheet) for some in (planned.trainings, planned.evaluations))
        seconds = NOTEBOOK + sum(step.seconds for step in [*trainings, *evaluations])
        numbers.append((sheet.record, len(trainings), len(evaluations), seconds / 60))
    _, trained, evaluated, minutes = zip(*numbers, strict=True)
    numbers.append(("total", sum(trained), sum(evaluated), sum(minutes)))
    return pd.DataFrame(
        [
            {"page": name, "trainings": str(first), "evaluations": str(second), "expected minutes": _minutes(third)}
            for name, first, second, third in numbers
        ]
    )


def _missing(steps: dict[str, Step], sheet: Sheet) -> list[Step]:
    own = (sheet.notebook.stem, sheet.network)
    return [step for step in steps.values() if (step.table, step.network) == own and not step.done]


def _minutes(minutes: float) -> str:
    return f"{minutes:,.0f}" if minutes >= 10 else f"{minutes:.1f}"
