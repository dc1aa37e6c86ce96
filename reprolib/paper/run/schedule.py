"""How a batch would go on many GPUs, simulated: its jobs with their estimated seconds, and what each waits for."""

from __future__ import annotations

import functools
import heapq
import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from reprolib import networks
from reprolib.paper import files, notebooks
from reprolib.paper.plan import load_plan
from reprolib.paper.run import costs
from reprolib.paper.run.parcels import Parcel
from reprolib.paper.run.records import read_record
from reprolib.paper.run.steps import plan_steps
from reprolib.paper.run.store import Store

START, NOTEBOOK = 5, 15  # seconds: a process that has read its data; a page where all is computed
OVERHEAD = 1000  # bytes of an artefact beside its tensors
PIXEL, OUTCOME = 4, 5  # bytes: of an adversarial image's pixel; of an attacked image (a bool, two int16)


@dataclass(frozen=True)
class Task:
    """A job of the batch: a parcel of trainings and evaluations, or a page."""

    name: str
    kind: str  # training, evaluation or page
    seconds: float
    waits: tuple[str, ...] = ()


class Run(NamedTuple):
    """A simulated batch: seconds from its begin to its end, and the share of that in which a GPU has nothing to do."""

    seconds: float
    idle: float


def tasks(profile: str, only: str = "") -> list[Task]:
    """The jobs of a profile's batch, or of the pages whose names begin so, from an empty store, in an order that can be
    followed. From here on this process downloads nothing."""
    os.environ["REPROLIB_OFFLINE"] = "1"
    asked = [(sheet.notebook.stem, sheet.network) for sheet in notebooks.wanted(only) if sheet.network]
    with tempfile.TemporaryDirectory() as empty:
        planned = plan_steps(asked, profile, without_data=True, store=Store(Path(empty)))
    parcels = [parcel for parcel in dict.fromkeys(planned.parcels.values()) if parcel.missing]
    found = [Task(_name(each), _kind(each), START + each.seconds, _names(planned.before(each))) for each in parcels]
    return found + [Task(name, "page", NOTEBOOK, _names(waits)) for name, waits in planned.pages.items()]


def _name(parcel: Parcel) -> str:
    return parcel.steps[0].name


def _kind(parcel: Parcel) -> str:
    return parcel.steps[0].name.partition("/")[0]


def _names(parcels: Iterable[Parcel]) -> tuple[str, ...]:
    return tuple(_name(each) for each in parcels if each.missing)


def split(some: Iterable[Task], kind: str, seconds: float) -> list[Task]:
    """Every task of a kind that is longer than so many seconds as several beside each other; starting each costs."""
    found: list[Task] = []
    pieces: dict[str, tuple[str, ...]] = {}
    for task in some:
        count = math.ceil((task.seconds - START) / seconds) if task.kind == kind else 1
        names = tuple(f"{task.name}#{number}" for number in range(count)) if count > 1 else (task.name,)
        pieces[task.name] = names
        waits = tuple(name for each in task.waits for name in pieces[each])
        spent = START + (task.seconds - START) / count if count > 1 else task.seconds
        found += [replace(task, name=name, seconds=spent, waits=waits) for name in names]
    return found


def earliest(some: Iterable[Task]) -> dict[str, float]:
    """When each task could begin were there a GPU for each, in seconds."""
    ends: dict[str, float] = {}
    begins: dict[str, float] = {}
    for task in some:
        begins[task.name] = max((ends[name] for name in task.waits), default=0.0)
        ends[task.name] = begins[task.name] + task.seconds
    return begins


def critical_path(some: Iterable[Task]) -> list[Task]:
    """The longest chain of tasks that wait for each other: no number of GPUs is quicker."""
    some = list(some)
    begins, by_name = earliest(some), {task.name: task for task in some}
    last = max(some, key=lambda task: begins[task.name] + task.seconds)
    chain = [last]
    while chain[0].waits:
        before = [by_name[name] for name in chain[0].waits]
        chain.insert(0, max(before, key=lambda task: begins[task.name] + task.seconds))
    return chain


def simulate(some: Iterable[Task], gpus: int) -> Run:
    """List scheduling: whenever a GPU is free, it takes of the tasks that may begin the one with the longest way to go.

    Raises ValueError for fewer than one GPU.
    """
    if gpus < 1:
        raise ValueError(f"gpus is {gpus}; expected 1 or more")
    some = list(some)
    to_go = _to_go(some)
    by_name = {task.name: task for task in some}
    missing = {task.name: len(task.waits) for task in some}
    after: dict[str, list[str]] = {}
    for task in some:
        for name in task.waits:
            after.setdefault(name, []).append(task.name)
    ready = [(-to_go[name], name) for name, count in missing.items() if not count]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now, worked = 0.0, 0.0
    while ready or running:
        while ready and len(running) < gpus:
            _, name = heapq.heappop(ready)
            heapq.heappush(running, (now + by_name[name].seconds, name))
            worked += by_name[name].seconds
        now, ended = heapq.heappop(running)
        for name in after.get(ended, []):
            missing[name] -= 1
            if not missing[name]:
                heapq.heappush(ready, (-to_go[name], name))
    return Run(now, 1 - worked / (now * gpus) if now else 0.0)


def _to_go(some: list[Task]) -> dict[str, float]:
    """Seconds from each task's begin to the end of the longest chain behind it."""
    seconds = {task.name: task.seconds for task in some}
    found = dict(seconds)
    for task in reversed(some):
        for name in task.waits:
            found[name] = max(found[name], seconds[name] + found[task.name])
    return found


def scaled(some: Iterable[Task], factors: dict[str, float]) -> list[Task]:
    """The same tasks, each so many times as long as its kind's factor says."""
    return [replace(task, seconds=task.seconds * factors.get(task.kind, 1.0)) for task in some]


def measured(profile: str, only: str = "") -> dict[str, dict[str, tuple[float, float]]]:
    """Per page with a committed record: kind -> seconds that its trainings and evaluations took, and were estimated."""
    found = {}
    for sheet in notebooks.wanted(only):
        if sheet.network and (files.RESULTS / profile / f"{sheet.record}.json").exists():
            plan = load_plan(sheet.notebook.stem, sheet.network, profile)
            took = read_record(files.RESULTS / profile / f"{sheet.record}.json").provenance["seconds"]
            jobs = {costs.computation(job.evaluation): job.evaluation for job in [*plan.jobs, *plan.ladder]}
            asked = sum(costs.attack_seconds(one, profile) for one in jobs.values())
            trained = sum(costs.training_seconds(one, max(at), profile) for one, at in plan.trainings.values())
            found[sheet.record] = {"training": (took["training"], trained), "evaluation": (took["attacks"], asked)}
    return found


def stored_bytes(profile: str, only: str = "") -> dict[str, float]:
    """What a batch leaves in the store, by what it is: checkpoints, unfinished trainings, outcomes, images.

    A checkpoint is a network's weights, an unfinished training three times as much (weights and what Adam remembers).
    """
    trained: dict[str, tuple[int, set[int]]] = {}
    asked, crafted = dict[str, int](), dict[str, int]()
    for sheet in notebooks.wanted(only):
        if not sheet.network:
            continue
        plan = load_plan(sheet.notebook.stem, sheet.network, profile)
        for name, (network, epochs) in plan.trainings.items():
            weights = 4 * _parameters(network.architecture, network.width)
            trained.setdefault(name, (weights, set()))[1].update(epochs)
        for job in [*plan.jobs, *plan.ladder]:
            asked[costs.computation(job.evaluation)] = OUTCOME * job.evaluation.size + OVERHEAD
            if job.evaluation.source is not None:
                made = costs.computation(job.evaluation.crafting())
                crafted[made] = PIXEL * math.prod(plan.info.shape) * job.evaluation.size
    return {
        "checkpoints": float(sum(weights * len(epochs) for weights, epochs in trained.values())),
        "unfinished trainings": float(sum(3 * weights for weights, _ in trained.values())),
        "outcomes": float(sum(asked.values())),
        "adversarial images": float(sum(crafted.values())),
    }


@functools.cache
def _parameters(architecture: str, width: float) -> int:
    return networks.parameter_count(networks.build(architecture, width=width))
