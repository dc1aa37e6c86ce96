"""What a batch has to compute before its notebooks: each training and each evaluation once, and what it waits for."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from reprolib import data
from reprolib.paper.plan import AnyNetwork, Plan, SpecError, load_plan, trainings
from reprolib.paper.run import evaluate
from reprolib.paper.run.page import Page, load_data
from reprolib.paper.run.store import Store


@dataclass(frozen=True)
class Step:
    """A training or an evaluation, by the first page that asks for it."""

    kind: str  # "training" or "evaluation"
    table: str
    network: str
    profile: str
    name: str  # in the store
    file: Path  # which is there when the step is done
    epochs: tuple[int, ...] = ()  # at which a training is looked at, by any page
    after: tuple[Path, ...] = ()  # files of other steps that it waits for

    @property
    def command(self) -> str:
        """What `python -m reprolib` is told, quoted for a shell."""
        epochs = ["--epochs", *map(str, self.epochs)] if self.epochs else []
        return shlex.join(["run", self.kind, self.table, self.network, self.name, "--profile", self.profile, *epochs])


@dataclass
class Steps:
    """All that the pages of a batch need, and the files that each page waits for.

    Only what is missing now is waited for. The rest is listed too, since a process of the batch that reads the plan
    later, on another machine say, finds more of it done.
    """

    store: Store = field(default_factory=Store)
    trainings: dict[str, Step] = field(default_factory=dict)  # by name in the store
    evaluations: dict[str, Step] = field(default_factory=dict)
    pages: dict[str, list[Path]] = field(default_factory=dict)  # by record


def plan_steps(wanted: Iterable[tuple[str, str]], profile: str, *, without_data: bool = False) -> Steps:
    """The steps of pages, given as (table, network).

    A training is one step, over all the epochs at which any of the pages looks at it. Raises DataError where a data set
    is missing; `without_data` then takes everything for missing that is computed from it, for a look at the plan.
    """
    found = Steps()
    store = found.store
    datasets: dict[tuple[str, int], data.Dataset] = {}
    pages = [_page(load_plan(table, network, profile), datasets, without_data) for table, network in wanted]
    untrained = [page.missing_trainings() for page in pages]
    missing: dict[str, set[int]] = {}
    for name, (_, epochs) in [item for those in untrained for item in those.items()]:
        missing[name] = missing.get(name, set()) | set(epochs)
    for page, waited_for in zip(pages, untrained, strict=True):
        for training, looks in page.plan.trainings.values():
            name = page.shelf.name(training)
            looks = sorted(missing.get(name, looks))
            file = store.path(f"{name}/epoch-{looks[-1]:04d}")
            step = _step(page, profile, "training", name, file, _files([training.parent], page, found, missing))
            found.trainings.setdefault(name, replace(step, epochs=tuple(looks)))
        files = [found.trainings[name].file for name in waited_for]
        for name, evaluation in page.evaluations().items():
            after = _files([evaluation.network, evaluation.source], page, found, missing)
            found.evaluations.setdefault(name, _step(page, profile, "evaluation", name, store.path(name), after))
            files += [] if store.has(name) else [store.path(name)]
        found.pages[page.plan.page.record] = files
    return found


def _page(plan: Plan, datasets: dict[tuple[str, int], data.Dataset], without_data: bool) -> Page:
    """The page, with its data shared by all the pages that have the same."""
    which = plan.data, plan.amounts.train
    if which not in datasets:
        try:
            datasets[which] = load_data(plan, "cpu")  # names alone are wanted, no GPU
        except data.DataError:
            if not without_data:
                raise
            nothing = data.Split(torch.empty(0, *plan.info.shape, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
            datasets[which] = data.Dataset(plan.data, nothing, nothing, plan.info.classes, "", "", checksum="")
    return Page(plan, dataset=datasets[which])


def _step(page: Page, profile: str, kind: str, name: str, file: Path, after: tuple[Path, ...]) -> Step:
    return Step(kind, page.plan.page.table, page.plan.page.network, profile, name, file, after=after)


def _files(asked: list[AnyNetwork | None], page: Page, found: Steps, missing: dict[str, set[int]]) -> tuple[Path, ...]:
    """The checkpoints of these networks that other steps make."""
    names = {page.shelf.name(training) for network in asked if network for training in trainings(network)}
    return tuple(found.trainings[name].file for name in sorted(names & missing.keys()))


def run_training(page: Page, name: str, epochs: list[int]) -> None:
    """A page's training of that name, at these epochs, or at those where the page itself looks at it."""
    known = {page.shelf.name(training): (training, at) for training, at in page.plan.trainings.values()}
    training, usual = _named(name, known)
    page.shelf.train(training, epochs or usual)


def run_evaluation(page: Page, name: str) -> None:
    """A page's evaluation of that name."""
    evaluate.evaluate(_named(name, page.evaluations()), page.shelf)


def _named(name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise SpecError(
            f"there is nothing to compute under the name {name}: code, declarations or data are others than when the "
            "batch was planned; start it again"
        )
    return known[name]
