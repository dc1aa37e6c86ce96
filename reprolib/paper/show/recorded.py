"""What a full run of a page found, by its fullest committed record: shown beside a quick run, and in the README."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
from PIL import Image

from reprolib.paper import files
from reprolib.paper.files import RecordError
from reprolib.paper.plan import JUDGED, Amounts, Page, Plan, amounts_of, load_profile
from reprolib.paper.run import Stored, read_record
from reprolib.paper.show.pages import scale, source_line
from reprolib.paper.show.selection import given_rows
from reprolib.paper.show.tables import epochs_table, given_table, markdown, summary

TITLE = "### What a full run found"


def plan_of(page: Page, profile: str, record: Stored) -> Plan:
    """The plan that made a record, whatever the profile says by now."""
    usual = amounts_of(page, load_profile(profile)).model_dump()
    return Plan(page, Amounts(**usual | record.provenance["amounts"]), profile)


def short_table(record: Stored, plan: Plan) -> pd.DataFrame:
    """A record in the fewest rows that tell its story; along the epochs, the first and the last."""
    if given_rows(plan):
        return given_table(record.cells, plan)
    if not plan.page.follows_epochs:
        return summary(record.cells, plan)
    full = epochs_table(record.cells, plan)
    return full[~full.duplicated("column", keep="first") | ~full.duplicated("column", keep="last")].fillna("")


def recorded(plan: Plan, folder: Path) -> str:
    """Markdown for a quick page: the figures and the picture of the full run, marked as not made here.

    folder: from where the picture is linked. Empty for every other profile.
    """
    if plan.folder != "quick":
        return ""
    name = plan.page.record
    profile = next((each for each in JUDGED if (files.RESULTS / each / f"{name}.json").exists()), None)
    if profile is None:
        missing = f"No full run of this page is recorded; `make tables PROFILE=cpu ONLY={name}` makes one."
        return f"{TITLE}\n\n{missing}"
    try:
        record = read_record(files.RESULTS / profile / f"{name}.json")
    except RecordError as error:
        return f"{TITLE}\n\n{error}."
    full = plan_of(plan.page, profile, record)
    parts = [
        TITLE,
        f"**Recorded with the {profile} profile, not made by this run.** {scale(full)} "
        f"{source_line(full, record.provenance)}",
        markdown(short_table(record, full)),
        *(f"![Recorded: {alt_of(path)}]({os.path.relpath(path, folder)})" for path in pictures(profile, name)[:1]),
    ]
    return "\n\n".join(parts)


def pictures(profile: str, record: str) -> list[Path]:
    """A page's pictures, that of the record's own name first."""
    folder = files.RESULTS / profile
    return [path for path in (folder / f"{record}.png", *sorted(folder.glob(f"{record}_*.png"))) if path.exists()]


def alt_of(picture: Path) -> str:
    """The text alternative that a picture's file carries; empty where it has none or is damaged."""
    try:
        with Image.open(picture) as image:
            return " ".join(str(image.info.get("Description", "")).split())
    except OSError:
        return ""
