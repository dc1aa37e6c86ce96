"""The study of readings as tables and a picture, from `judge.readings.study`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from reprolib.paper import run
from reprolib.paper.judge import load_contradictions, readings
from reprolib.paper.plan import Cell


def read(cells: Iterable[Cell]) -> pd.DataFrame:
    """The study's cells and the committed records, each number beside the printed one; see `judge.readings.study`."""
    return readings.study(cells, run.records())


def readings_table() -> pd.DataFrame:
    """The readings as they were written down before any was run."""
    found, _ = readings.load_readings()
    return pd.DataFrame(
        [{"reading": name, "how": one.how, "where that comes from": one.practice} for name, one in found.items()]
    )


def distances(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean absolute distance in points: a row per reading, a column per group, nothing where there is no number."""
    found, groups = readings.load_readings()
    means = frame.groupby(["reading", "group"])["distance"].mean().unstack()
    return means.reindex(index=list(found), columns=list(groups))


def plot_readings(frame: pd.DataFrame) -> Figure:
    """A heat map of `distances`, dark for far; a field has its number, and beside it on how many cells that rests."""
    import seaborn as sns  # takes a second

    means = distances(frame)
    counts = frame.groupby(["reading", "group"]).size().unstack().reindex(index=means.index, columns=means.columns)
    figure, axis = plt.subplots(figsize=(13, 0.34 * len(means) + 2), layout="constrained")
    shown = means.map("{:.1f}".format) + counts.map(" ({:.0f})".format)
    looks: dict[str, Any] = {"cmap": "viridis_r", "vmin": 0, "vmax": 100, "annot_kws": {"size": 8}}
    bar = {"label": "mean distance to the printed numbers (points)", "shrink": 0.6}
    sns.heatmap(means, annot=shown, fmt="", ax=axis, cbar_kws=bar, **looks)
    axis.set(xlabel="", ylabel="")
    axis.grid(visible=False)
    axis.set_xticklabels([name.replace(", ", ",\n") for name in means.columns], size=9, rotation=0)
    return figure


def explained_table(frame: pd.DataFrame, page: run.Page) -> pd.DataFrame:
    """Per reading: how many of the numbers of which it was asked come within tolerance, per group.

    A reading without a number says why: what the library answered, or that it is not installed.
    """
    found, groups = readings.load_readings()
    answers = {job.row: page.outcome(job).meta.get("refused") for job in page.plan.jobs}
    why = page.plan.skipped | {row: f"refused: {words}" for row, words in answers.items() if words}
    said = {row.rsplit(", ", 1)[-1]: words for row, words in why.items()} | why  # a row is called after its reading
    rows = []
    for name in found:
        mine = frame[frame["reading"] == name]
        fields = {}
        for group in groups:
            here = mine[mine["group"] == group]
            fields[group] = f"{int(here['within'].sum())} of {len(here)}" if len(here) else ""
        total = mine.drop_duplicates("claim")
        all_of_it = f"{int(total['within'].sum())} of {len(total)}" if len(total) else said.get(name, "not run")
        rows.append({"reading": name, "all": all_of_it, **fields})
    return pd.DataFrame(rows)


def best_readings(frame: pd.DataFrame) -> pd.DataFrame:
    """Per group the reading that brings the most numbers within tolerance, and the one that is nearest on average.

    Of readings that have as many numbers as any; equals stand together.
    """
    rows = []
    for group, here in frame.groupby("group", sort=False):
        by = here.groupby("reading", sort=False).agg(
            n=("claim", "size"), within=("within", "sum"), mean=("distance", "mean")
        )
        full = by[by["n"] == by["n"].max()]
        most, least = full["within"].max(), full["mean"].min()
        rows.append(
            {
                "group": group,
                "numbers": str(full["n"].max()),
                "most within tolerance": f"{most}: {', '.join(full.index[full['within'] == most])}" if most else "none",
                "nearest on average": f"{least:.1f} points: {', '.join(full.index[full['mean'] - least < 0.005])}",
            }
        )
    return pd.DataFrame(rows)


def unexplained_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The printed numbers that no reading brings within tolerance, and the one that comes nearest."""
    rows = []
    for claim, here in frame.groupby("claim", sort=False):
        if not here["within"].any():
            best = here.loc[here["distance"].idxmin()]
            rows.append(
                {
                    "claim": claim,
                    "printed": f"{best['printed']:.2f}",
                    "nearest": f"{best['measured']:.2f} [{best['low']:.2f}, {best['high']:.2f}]",
                    "by": best["reading"],
                    "readings": str(here["reading"].nunique()),
                }
            )
    return pd.DataFrame(rows, columns=["claim", "printed", "nearest", "by", "readings"])


def contradictions_table(frame: pd.DataFrame | None = None) -> pd.DataFrame:
    """Where the paper disagrees with itself, and whether a reading removes that.

    It does where it alone comes within tolerance of all the numbers named that are under attack, two or more.
    frame: of `judge.readings.study`; by default from the committed records.
    """
    frame = readings.committed(run.records()) if frame is None else frame
    return pd.DataFrame(
        [
            {
                "where": ", ".join(entry.places),
                "what is printed": entry.says,
                "why it matters": entry.why,
                "weight": entry.matters,
                "readings": removal(frame, entry.claims),
            }
            for entry in load_contradictions()
        ]
    )


def removal(frame: pd.DataFrame, claims: Iterable[str]) -> str:
    """What the readings make of a contradiction between these claims, in words; empty where none is asked of two."""
    named = [claim for claim in claims if claim.split(".")[-2:-1] not in (["Clean"], ["Natural"])]
    here = frame[frame["claim"].isin(named)].drop_duplicates(["reading", "claim"])
    asked = here["claim"].nunique()
    if asked < 2:
        return ""
    by = here.groupby("reading", sort=False)["within"].sum()
    best, count = by.idxmax(), int(by.max())
    some = here[here["within"]]["claim"].nunique()
    if count == len(named):
        return f"removed by {best}: all {count} numbers come within tolerance"
    most = f", {count} by {best} alone" if count else ""
    return f"not removed: of {asked} numbers that were asked {some} come within tolerance by some reading{most}"
