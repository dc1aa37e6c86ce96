"""What a batch has to compute before its notebooks: each training and each evaluation once, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from reprolib import data
from reprolib.paper.plan import AnyNetwork, Evaluation, Plan, SpecError, load_plan, trainings
from reprolib.paper.run import costs, evaluate, shards
from reprolib.paper.run.page import Page, load_data
from reprolib.paper.run.parcels import Parcel, Step, left_to_pages, pack
from reprolib.paper.run.store import Store

Datasets = dict[tuple[str, int], data.Dataset]


@dataclass
class Steps:
    """All that the pages of a batch need, and what each page waits for.

    Only what is missing now is waited for. The rest is listed too, since a process of the batch that reads the plan
    later, on another machine say, finds more of it done.
    """

    store: Store = field(default_factory=Store)
    trainings: dict[str, Step] = field(default_factory=dict)  # by name in the store
    evaluations: dict[str, Step] = field(default_factory=dict)
    pages: dict[str, list[Parcel]] = field(default_factory=dict)  # by record
    parcels: dict[str, Parcel] = field(default_factory=dict)  # by the name of each of their steps; see `left_to_pages`

    def before(self, parcel: Parcel) -> list[Parcel]:
        """The parcels that make what this one's steps need."""
        return [each for each in self._making(n for step in parcel.missing for n in step.asks) if each is not parcel]

    def listed(self) -> dict[str, Any]:
        """All of it as plain data, which a process reads without torch: parcels, and their numbers by the name of each
        of their steps, for each page, and for each parcel that waits for them. The file of what is done is None.
        """
        parcels = list(dict.fromkeys(self.parcels.values()))
        number = {parcel: place for place, parcel in enumerate(parcels)}
        return {
            "store": str(self.store.root),
            "parcels": [
                {
                    "file": str(parcel.file) if parcel.missing else None,
                    "after": [number[each] for each in self.before(parcel)],
                    "command": parcel.command,
                    "seconds": parcel.seconds,
                }
                for parcel in parcels
            ],
            "parcel_of": {name: number[parcel] for name, parcel in self.parcels.items()},
            "pages": {record: [number[each] for each in waited] for record, waited in self.pages.items()},
        }

    def _making(self, names: Iterable[str]) -> list[Parcel]:
        steps = [self.trainings.get(name) or self.evaluations[name] for name in names if name in self.parcels]
        return list(dict.fromkeys(self.parcels[step.name] for step in steps if not step.done))


def plan_steps(
    wanted: Iterable[tuple[str, str]], profile: str, *, without_data: bool = False, store: Store | None = None
) -> Steps:
    """The steps of pages, given as (table, network).

    A training is one step, over all the epochs at which any of the pages looks at it; a long evaluation is several, see
    `shards`, which the page that asks for it puts together. Raises DataError where a data set
    is missing; `without_data` then takes everything for missing that is computed from it, for a look at the plan.
    """
    store = store or Store()
    found = Steps(store)
    datasets: Datasets = {}
    pages = [_page(load_plan(table, network, profile), datasets, store, without_data) for table, network in wanted]
    looks: dict[str, set[int]] = {}
    missing: dict[str, set[int]] = {}
    asked: dict[str, list[str]] = {}  # by record
    evaluations = [page.evaluations() for page in pages]
    parts = {name: _parts(name, one, profile) for each in evaluations for name, one in each.items()}
    for page, each in zip(pages, evaluations, strict=True):
        untrained = page.missing_trainings()
        asked[page.plan.page.record] = [*untrained, *(part for name in each for part in parts[name])]
        for training, epochs in page.plan.trainings.values():
            looks.setdefault(page.shelf.name(training), set()).update(epochs)
        for name, (_, epochs) in untrained.items():
            missing.setdefault(name, set()).update(epochs)
    for page, each in zip(pages, evaluations, strict=True):
        by = page.plan.page.table, page.plan.page.network
        for training, _ in page.plan.trainings.values():
            name = page.shelf.name(training)
            at = tuple(sorted(missing.get(name, looks[name])))
            file = store.path(f"{name}/epoch-{at[-1]:04d}")
            seconds = costs.training_seconds(training, max(looks[name]), profile)
            asks = _names([training.parent], page)
            found.trainings.setdefault(name, Step(*by, name, file, name not in missing, seconds, asks, at))
        for name, evaluation in each.items():
            asks = _names([evaluation.network, evaluation.source], page)
            for part, seconds in parts[name].items():
                done = store.has(name) or store.has(part)
                found.evaluations.setdefault(part, Step(*by, part, store.path(part), done, seconds, asks))
    packed = pack([*found.trainings.values(), *found.evaluations.values()])
    left = left_to_pages(packed.values(), ({packed[name] for name in names} for names in asked.values()))
    found.parcels = {name: parcel for name, parcel in packed.items() if parcel not in left}
    found.pages = {record: found._making(names) for record, names in asked.items()}
    return found


def _page(plan: Plan, datasets: Datasets, store: Store, without_data: bool, device: str = "cpu") -> Page:
    """The page, with its data shared by all the pages that have the same."""
    which = plan.data, plan.amounts.train
    if which not in datasets:
        try:
            datasets[which] = load_data(plan, device)
        except data.DataError:
            if not without_data:
                raise
            nothing = data.Split(torch.empty(0, *plan.info.shape, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
            datasets[which] = data.Dataset(plan.data, nothing, nothing, plan.info.classes, "", "", checksum="")
    return Page(plan, store=store, dataset=datasets[which])


def _parts(name: str, evaluation: Evaluation, profile: str) -> dict[str, float]:
    """An evaluation's steps, and the seconds that each may take: itself, or parts of it."""
    seconds = costs.attack_seconds(evaluation, profile)
    count = shards.count(evaluation, seconds)
    return dict.fromkeys(shards.names(name, count) if count > 1 else [name], seconds / count)


def _names(asked: list[AnyNetwork | None], page: Page) -> tuple[str, ...]:
    """Of the trainings behind these networks."""
    found = [training for network in asked if network for training in trainings(network)]
    return tuple(dict.fromkeys(page.shelf.name(training) for training in found))


def take(words: Iterable[str], profile: str) -> Iterator[tuple[str, Exception]]:
    """Take the steps of these words, see `Step.word`; gives those that failed, after which the others are taken."""
    words, bench = list(words), Bench(profile)
    for word in words:
        try:
            bench.take(word, progress=len(words) == 1)
        except Exception as error:  # whatever it was, the other steps can be taken
            yield word, error


class Bench:
    """Where steps are taken: it keeps their pages, since reading one takes a second."""

    def __init__(self, profile: str):
        self.profile = profile
        self.datasets: Datasets = {}
        self.known: dict[tuple[str, str], tuple[Page, dict[str, Any]]] = {}

    def take(self, word: str, *, progress: bool) -> None:
        """Compute what a step's word says, unless it is there."""
        if word.count(":") < 2:
            raise SpecError(f"{word!r} is no step; expected TABLE:NETWORK:NAME, and a training's epochs after it")
        table, network, name, *epochs = word.split(":")
        page, known = self._opened(table, network)
        whole = shards.whole(name)
        if whole not in known:
            raise SpecError(
                f"there is nothing to compute under the name {name}: code, declarations or data are others than when "
                "the batch was planned; start it again"
            )
        if name.startswith("training/"):
            training, usual = known[name]
            page.shelf.train(training, [int(epoch) for epoch in epochs] or usual, progress=progress)
        elif name != whole:
            evaluate.evaluate_part(known[whole], page.shelf, name, progress=progress)
        else:
            evaluate.evaluate(known[name], page.shelf, progress=progress)

    def _opened(self, table: str, network: str) -> tuple[Page, dict[str, Any]]:
        if (table, network) not in self.known:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            page = _page(load_plan(table, network, self.profile), self.datasets, Store(), False, device)
            trained = {page.shelf.name(training): (training, at) for training, at in page.plan.trainings.values()}
            self.known[table, network] = page, trained | page.evaluations()
        return self.known[table, network]
