"""A page of the paper at work: what a notebook opens, and what the batch computes for it before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from tqdm.auto import tqdm

from reprolib import data
from reprolib.paper import files
from reprolib.paper.parameters import nearest, suggest, why_no_run_name
from reprolib.paper.plan import (
    Amounts,
    AnyNetwork,
    Changed,
    Evaluation,
    Job,
    Plan,
    SpecError,
    Trained,
    Voted,
    load_plan,
    load_table,
    used,
)
from reprolib.paper.run import evaluate
from reprolib.paper.run.networks import Shelf
from reprolib.paper.run.store import Store

KNOBS = tuple(name for name in Amounts.model_fields if name != "networks")  # that one is turned by `fresh`
SURELY = 0.75  # as near as a name must be to be refused whatever it holds; `files` is as near as 0.67 to `profile`


def load_data(plan: Plan, device: str) -> data.Dataset:
    """A plan's training images and the whole test set."""
    train = plan.amounts.train
    return data.load(plan.data, train_size=train if train < plan.info.train else None, device=device)


class Page:
    """A plan with its data and its store: `compute` what is missing, then ask for outcomes."""

    def __init__(
        self, plan: Plan, *, fresh: bool = False, store: Store | None = None, dataset: data.Dataset | None = None
    ):
        self.plan, self.fresh, self.store = plan, fresh, store or Store()
        if dataset is not None:
            self.dataset = dataset

    @cached_property
    def dataset(self) -> data.Dataset:
        """The page's training images and the whole test set, on the GPU where there is one."""
        return load_data(self.plan, "cuda" if torch.cuda.is_available() else "cpu")

    @property
    def shelf(self) -> Shelf:
        return Shelf(self.dataset, self.store, self.fresh)

    @property
    def jobs(self) -> list[Job]:
        return [*self.plan.jobs, *self.plan.ladder]

    def evaluations(self) -> dict[str, Evaluation]:
        """What the page asks, by its name in the store: several measurements may be one evaluation."""
        return {evaluate.name_of(job.evaluation, self.shelf): job.evaluation for job in self.jobs}

    def missing_evaluations(self) -> dict[str, Evaluation]:
        """What has not been evaluated, by its name in the store."""
        return {name: evaluation for name, evaluation in self.evaluations().items() if not self.store.has(name)}

    def missing_trainings(self) -> dict[str, tuple[Trained, list[int]]]:
        """What has not been trained and has to be, by its name in the store, parents first.

        A training whose only use was as the parent of another one that is published, or in the store, is not missed.
        Raises DataError where a published network is missing, which cannot be trained on the page's data.
        """
        found: dict[str, tuple[Trained, list[int]]] = {}
        asked = [n for job in self.jobs for n in (job.evaluation.network, job.evaluation.source) if n]
        needed = {str(each.training) for network in asked for each in _trained(network)}
        for training, epochs in reversed(self.plan.trainings.values()):
            missing = [epoch for epoch in epochs if not self.shelf.has(training, epoch)]
            if missing and str(training.training) in needed:
                few = min(self.plan.amounts.train, self.plan.info.train)
                if training.data != self.plan.data or (training.train or self.plan.info.train) != few:
                    raise data.DataError(
                        f"a network of {training.data} cannot be trained on {self.plan.data}'s {few:,} images, and is "
                        "not among the published ones; take results/cpu/networks from the repository again, or set "
                        "fresh to True"
                    )
                found[self.shelf.name(training)] = training, missing
                needed |= {str(each.training) for each in _trained(training.parent)} if training.parent else set()
        return dict(reversed(found.items()))

    def compute(self, *, progress: bool = True) -> None:
        """Do what the page needs and the store lacks: trainings, then attacks. Progress is one bar each."""
        trainings = self.missing_trainings()
        for network, epochs in tqdm(trainings.values(), desc="trainings", disable=not progress or not trainings):
            self.shelf.train(network, epochs, progress=False)
        evaluations = self.missing_evaluations()
        for evaluation in tqdm(evaluations.values(), desc="attacks", disable=not progress or not evaluations):
            evaluate.evaluate(evaluation, self.shelf, progress=False)

    def outcome(self, job: Job) -> evaluate.Outcome:
        return evaluate.outcome(job.evaluation, self.shelf)


def _trained(network: AnyNetwork) -> list[Trained]:
    """The trained networks that a network is made of, without what these were trained from."""
    if isinstance(network, Voted):
        return [each for member in network.members for each in _trained(member)]
    if isinstance(network, Changed):
        return _trained(network.network)
    return [network] if isinstance(network, Trained) else []


def open_page(table: str, names: Mapping[str, Any]) -> Page:
    """The page of a table that a notebook's variables describe; call it with `globals()` right after the parameters
    cell.

    What is None or has no variable is as in the profile, and a table of one page needs no `network`. A `run_name` says
    where the results go: results/custom/<run_name>. Raises SpecError, in one sentence, for wrong values and for a
    variable that is no parameter: papermill would only warn.
    """
    given = parameters(names, ("network", "fresh", "run_name", *KNOBS))
    overrides = {name: value for name, value in given.items() if name in KNOBS and value is not None}
    fresh = given.get("fresh")
    if not isinstance(fresh, bool | None):
        raise SpecError(f"fresh is {fresh!r}; expected True or False")
    run_name = given.get("run_name") or ""
    if run_name and (why := why_no_run_name(run_name)):
        raise SpecError(why)
    network = given.get("network", next(iter(load_table(table))))
    trained = {"networks": "trained"} if fresh else {}
    plan = load_plan(table, network, given.get("profile", "quick"), run_name=run_name, **overrides | trained)
    for name in overrides.keys() - used(plan.page, plan.amounts).keys():
        raise SpecError(f"{name} makes no difference to {plan.page.record}; leave it out")
    return Page(plan, fresh=bool(fresh))


def parameters(names: Mapping[str, Any], known: tuple[str, ...] = ()) -> dict[str, Any]:
    """The parameters among a notebook's variables, of which `profile` is always one.

    Raises SpecError for a plain variable (text, number, None) that is no parameter, so that none is ignored, for any
    other value whose name is near to a parameter's, and where the notebook lies in another checkout than the code.
    """
    if other := files.other_checkout():
        raise SpecError(
            f"this runs in the checkout {other}, but its code comes from {files.ROOT}; use make there, or set "
            f"PYTHONPATH={other}"
        )
    known = ("profile", *known)
    for name, value in names.items():
        if name not in known and not name.startswith("_") and (_is_plain(value) or _is_meant(name, value, known)):
            raise SpecError(
                f"{suggest(name, known, 'parameter')}; a variable of your own begins with _ or is set below this cell"
            )
    return {name: names[name] for name in known if name in names}


def _is_plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, str, type(None)))


def _is_meant(name: str, value: Any, known: tuple[str, ...]) -> bool:
    """Whether a list, an array or the like was probably meant for a parameter; modules and functions never are."""
    return not isinstance(value, ModuleType) and not callable(value) and nearest(name, known, SURELY) is not None
