"""The batch's job graph as a picture, and how long it takes on many GPUs, from a simulation of its jobs."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from reprolib.paper.run import schedule
from reprolib.paper.run.schedule import Task

KINDS = {"training": "tab:blue", "evaluation": "tab:orange", "page": "tab:green"}


def plot_jobs(tasks: Sequence[Task]) -> Figure:
    """Each job as a bar from when it could begin, were there a GPU for each, to its end, with a line from each job that
    it waits for, but for pages. Jobs that wait for the same stand together; the critical path is black."""
    begins, place = schedule.earliest(tasks), {}
    for row, task in enumerate(sorted(tasks, key=lambda task: (begins[task.name], task.waits, -task.seconds))):
        place[task.name] = row
    ends = {task.name: begins[task.name] + task.seconds for task in tasks}
    critical = {task.name for task in schedule.critical_path(tasks)}
    figure, axis = plt.subplots(figsize=(9, 6), layout="constrained")
    lines = [
        [(ends[name] / 60, place[name]), (begins[task.name] / 60, place[task.name])]
        for task in tasks
        if task.kind != "page"  # which wait for all of theirs, and would hide the rest
        for name in task.waits
    ]
    axis.add_collection(LineCollection(lines, colors="0.8", linewidths=0.3))
    for kind, colour in KINDS.items():
        some = [task for task in tasks if task.kind == kind]
        axis.barh(
            [place[task.name] for task in some],
            [task.seconds / 60 for task in some],
            left=[begins[task.name] / 60 for task in some],
            height=1.0,
            color=colour,
            edgecolor=["black" if task.name in critical else colour for task in some],
            linewidth=1.0,
            label=f"{kind}s ({len(some)})",
        )
    axis.set(xlabel="estimated minutes after the begin, with a GPU for each job", ylabel="jobs", yticks=[])
    axis.legend(loc="lower right")
    return figure


def scaling_table(batches: dict[str, Sequence[Task]], gpus: Sequence[int]) -> pd.DataFrame:
    """Per number of GPUs: how long each of these batches takes, and its idle share; the last row is the critical path,
    below which no number of GPUs gets."""
    rows = []
    for number in gpus:
        runs = {name: schedule.simulate(tasks, number) for name, tasks in batches.items()}
        rows.append(
            {"GPUs": str(number)} | {n: f"{_hours(r.seconds)}, {100 * r.idle:.0f} % idle" for n, r in runs.items()}
        )
    longest = {name: sum(task.seconds for task in schedule.critical_path(tasks)) for name, tasks in batches.items()}
    return pd.DataFrame([*rows, {"GPUs": "no limit"} | {name: _hours(seconds) for name, seconds in longest.items()}])


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min"


def estimates_table(found: dict[str, dict[str, tuple[float, float]]]) -> pd.DataFrame:
    """Per page and kind: the minutes that a committed record says, those that were estimated, and how many times as
    many they are."""
    return pd.DataFrame(
        [
            {
                "page": page,
                "what": f"{kind}s",
                "minutes": f"{took / 60:.1f}",
                "estimated": f"{estimated / 60:.1f}",
                "times": f"{took / estimated:.2f}",
            }
            for page, kinds in found.items()
            for kind, (took, estimated) in kinds.items()
        ]
    )


def chain_table(tasks: Sequence[Task]) -> pd.DataFrame:
    """The critical path, job by job."""
    return pd.DataFrame(
        [
            {"job": task.name, "kind": task.kind, "minutes": f"{task.seconds / 60:.1f}"}
            for task in schedule.critical_path(tasks)
        ]
    )


def bytes_table(stored: dict[str, float]) -> pd.DataFrame:
    """What a batch leaves in the store, in MB."""
    total = {**stored, "together": sum(stored.values())}
    return pd.DataFrame([{"what": name, "MB": f"{count / 1e6:,.1f}"} for name, count in total.items()])
