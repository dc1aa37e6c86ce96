"""From a page and its amounts to one list of jobs, which the batch, the cost estimate and the notebook all read."""

from __future__ import annotations

import functools
from dataclasses import replace
from functools import cached_property
from importlib.metadata import distributions
from typing import Any, Literal

from pydantic import model_validator
from torch import nn

from reprolib import data, networks
from reprolib.attacks import linf
from reprolib.paper.plan.amounts import PUBLISHED, Amounts, Profile, load_profile
from reprolib.paper.plan.attacks import Attack, attacks_of
from reprolib.paper.plan.networks import Changed, Network, Pretrained, Trained, Voted, trainings
from reprolib.paper.plan.records import (
    LOSSES,
    Count,
    Decision,
    Labels,
    Loss,
    Order,
    Record,
    RowEngine,
    Seed,
    SpecError,
)
from reprolib.paper.plan.tables import Column, Page, Row
from reprolib.training import Recipe

AnyNetwork = Trained | Pretrained | Voted | Changed
LADDER_SIZE = 100  # images on which the sanity ladder is climbed


class Evaluation(Record):
    """One attack on one network: the first `size` test images of a data set, judged image by image.

    With a source, the adversarial images are made on that network and shown to the first: a transfer attack. With
    predicted labels it knows no true ones, and goes away from the classes that the source predicts.
    """

    network: Network
    attack: Attack
    loss: Loss
    decision: Decision  # which rule ends the attack on an image; "last" tells both rules' answers
    data: str
    size: Count
    seed: Seed = 0
    engine: RowEngine = "reprolib"
    source: Network | None = None
    labels: Labels = "true"  # what the attack is told; accuracies are always by the true ones
    order: Order = "clipped"
    bits: Literal[8] | None = None  # with which the adversarial images are saved and read again

    @model_validator(mode="after")
    def _possible(self) -> Evaluation:
        by_autoattack = self.attack.name == "autoattack"  # which judges every iterate
        if self.source and (self.decision != ("any" if by_autoattack else "last") or self.engine == "torchattacks"):
            raise ValueError("a transfer attack shows the last iterate of engine 'reprolib': decision is 'last'")
        if (self.labels == "predicted" or self.bits) and not self.source:
            what = "bits are 8" if self.bits else "labels are 'predicted'"
            raise ValueError(f"{what} without a source; say on which network the images are made")
        if self.order != "clipped" and (self.loss, self.engine) != ("probabilities", "reprolib"):
            raise ValueError(
                f"order is {self.order!r} with loss {self.loss!r} and engine {self.engine!r}; it is of loss "
                "'probabilities' and engine 'reprolib'"
            )
        if self.engine == "torchattacks" and not by_autoattack and (self.loss, self.decision) != ("logits", "last"):
            raise ValueError(
                f"engine 'torchattacks' has loss 'logits' and decision 'last', not {self.loss!r} and {self.decision!r};"
                " choose engine 'reprolib' for these"
            )
        _refuse_impossible(self.attack, self.loss, self.decision)
        return self

    def crafting(self) -> Evaluation:
        """The attack on the source network whose adversarial images a transfer attack shows."""
        return self.model_copy(update={"network": self.source, "source": None, "bits": None})


# a plan asks the same of a few attacks for hundreds of networks and losses


@functools.cache
def _refuse_impossible(attack: Attack, loss: str, decision: str) -> None:
    attack.build(nn.Identity(), loss, decision, seed=0)


@functools.cache
def _limited(attack: Attack, steps: int, restarts: int) -> Attack:
    return attack.limited(steps, restarts)


class Job(Record):
    """One measurement of a page: where it stands there, and what is evaluated for it."""

    row: str
    column: str
    seed: Seed  # of the column's training
    evaluation: Evaluation

    @property
    def epoch(self) -> int | None:
        return epoch_of(self.evaluation.network)


def epoch_of(network: AnyNetwork) -> int | None:
    """The epochs behind a trained network, or one changed after training; None for the others."""
    if isinstance(network, Changed):
        return epoch_of(network.network)
    return network.epochs if isinstance(network, Trained) else None


def label(column: str, seed: int) -> str:
    """A column's name where its seeds stand side by side."""
    return f"{column}, seed {seed}" if seed else column


class Plan:
    """What a page needs, in order.

    networks: (column, seed) -> its network at the end of its training, for the columns that are shown.
    jobs: every measurement of the page.
    ladder: the sanity ladder's attacks on the page's first undefended network.
    """

    def __init__(self, page: Page, amounts: Amounts, folder: str):
        self.page, self.amounts, self.folder = page, amounts, folder
        self.data = dataset_name(page.dataset, amounts.data)
        self.info = data.describe(self.data)
        self.size = min(amounts.test, self.info.test)
        self.networks = {
            (name, seed): self.network(page.columns[name], amounts.seed + seed)
            for name in page.shown or page.columns
            for seed in range(min(page.columns[name].seeds, amounts.seeds))
        }

    # --- networks ---

    def network(self, column: Column, seed: int) -> AnyNetwork:
        """A column's network at the end of its training."""
        architecture = column.architecture or self.page.architecture
        width = self.amounts.width if networks.scalable(architecture) else 1.0
        if column.weights is not None and (column.recipe is None or (self.amounts.data != "sample" and width == 1)):
            return Pretrained(architecture=architecture, width=width, weights=column.weights, head=column.head)
        if column.members is not None:
            columns = [self.page.columns[one] if isinstance(one, str) else one for one in column.members]
            return Voted(members=[self.network(one, seed) for one in columns], voting=column.voting)
        if column.change is not None:
            return Changed(network=self.network(self.page.columns[column.of or ""], seed), change=column.change)
        parent = None if column.parent is None else self.network(self.page.columns[column.parent], seed)
        amounts = self._published if self._reads(parent) else self.amounts
        source = dataset_name(self.page.dataset, amounts.data)
        epochs = amounts.pretrain if parent is None else amounts.finetune
        recipe = column.recipe or Recipe()
        if recipe.cycle is not None:
            recipe = replace(recipe, cycle=min(recipe.cycle, epochs))
        return Trained(
            architecture=architecture,
            width=amounts.width if networks.scalable(architecture) else 1.0,
            data=source,
            train=amounts.train if amounts.train < data.describe(source).train else None,
            recipe=recipe,
            defence=column.defence,
            parent=parent,
            seed=seed,
            epochs=epochs,
        )

    @cached_property
    def _published(self) -> Amounts:
        """Those with which the published networks were trained."""
        return amounts_of(self.page, load_profile(PUBLISHED))

    def _reads(self, parent: AnyNetwork | None) -> bool:
        """Whether a network trained on this parent, or on none, is a published one."""
        return self.amounts.networks == "published" or (self.amounts.networks == "finetuned" and parent is None)

    def epochs(self) -> list[int]:
        """The epochs of fine-tuning at which a page that follows them looks at its networks."""
        return list(range(self.amounts.every, self.amounts.finetune + 1, self.amounts.every))

    def looks(self, network: AnyNetwork) -> list[AnyNetwork]:
        """A network at each epoch at which the page looks at it, the last one at the end."""
        if not (self.page.follows_epochs and isinstance(network, Trained) and network.parent):
            return [network]
        return [network.model_copy(update={"epochs": epoch}) for epoch in sorted({*self.epochs(), network.epochs})]

    @cached_property
    def trainings(self) -> dict[str, tuple[Trained, list[int]]]:
        """Every training that the page needs, parents first, with the epochs at which it is looked at."""
        wanted: dict[str, tuple[Trained, list[int]]] = {}
        for job in [*self.jobs, *self.ladder]:
            for network in [job.evaluation.network, *([job.evaluation.source] if job.evaluation.source else [])]:
                for training in trainings(network):
                    _, epochs = wanted.setdefault(str(training.training), (training, []))
                    epochs += [training.epochs] if training.epochs not in epochs else []
        return wanted

    # --- jobs ---

    @cached_property
    def jobs(self) -> list[Job]:
        found = []
        for (column, seed), network in self.networks.items():
            for looked_at in self.looks(network):
                for name, row in self.page.rows.items():
                    at_end = looked_at == network
                    if column in (row.columns or [column]) and (row.epochs or at_end) and name not in self.skipped:
                        made = self._made(row, column, seed, looked_at)
                        asked = [made] if made else self._evaluations(row, looked_at)
                        asked += self._transfers(row, column, looked_at) if at_end and not made else []
                        found += [Job(row=name, column=column, seed=seed, evaluation=one) for one in asked]
        return found

    @cached_property
    def skipped(self) -> dict[str, str]:
        """The rows that are left out, as what they need is not installed, and why."""
        rows = [name for name, row in self.page.rows.items() if (row.engine or "").startswith("art") and not _has_art()]
        return dict.fromkeys(rows, "ART is not installed; make .venv/benchmarks-installed installs it")

    def _evaluations(self, row: Row, network: AnyNetwork) -> list[Evaluation]:
        """A row's attack with each loss.

        By the last iterate a run costs every step, even for images that are long broken; FGSM has one step, at which
        both rules have their answer.
        """
        attack = self.attack(row.attack)
        if self.amounts.engine == "torchattacks" and attack.name in linf.ATTACKS and not _said(row):
            # it has cross-entropy from logits and the last iterate; other attacks are reprolib's in any case
            only = self._evaluation(attack, network, loss="logits", decision="last", engine="torchattacks")
            return [only]
        losses = row.losses or self.page.losses
        one_step = attack.name == "fgsm"
        return [
            self._evaluation(
                attack, network, row.images, loss=loss, decision="last" if one_step else decision, **_said(row)
            )
            for loss, decision in losses.items()
            if self.amounts.loss in (None, loss)
        ]

    def attack(self, declared: Attack) -> Attack:
        """A row's attack as the amounts leave it; with a radius or step size of one's own where these say so."""
        attack, alpha = declared, self.amounts.alpha
        if self.amounts.eps is not None:
            attack = attack.within(self.amounts.eps)
        attack = _limited(attack, self.amounts.steps, self.amounts.restarts)
        return attack if alpha is None or attack.get("alpha") is None else attack.but(alpha=alpha)

    def _made(self, row: Row, column: str, seed: int, network: AnyNetwork) -> Evaluation | None:
        """The row's attack where its images are made elsewhere, or without true labels, or saved: by the row's first
        loss, and by cross-entropy where it has none."""
        if row.labels == "true" and column not in row.made_on and row.bits is None:
            return None
        on = row.made_on.get(column)
        source = network if on is None else self.network(self.page.columns[on], self.amounts.seed + seed)
        loss, decision = next(iter((row.losses or {"logits": "last"}).items()))
        told: dict[str, Any] = {"loss": loss, "decision": decision, "labels": row.labels, "bits": row.bits}
        return self._evaluation(self.attack(row.attack), network, row.images, source=source, **told, **_said(row))

    def _transfers(self, row: Row, column: str, network: AnyNetwork) -> list[Evaluation]:
        """The row's attack, made on the source by cross-entropy from its logits, shown to the other columns.

        Not where the row has losses of its own: it stands beside the page's subject then.
        """
        source = self.page.transfer_from
        beside = row.runs is not None or row.losses is not None
        if source in (None, column) or beside or self.amounts.engine == "torchattacks":
            return []
        made_on = self.network(self.page.columns[source or ""], self.amounts.seed)
        return [self._evaluation(self.attack(row.attack), network, loss="logits", decision="last", source=made_on)]

    def _evaluation(self, attack: Attack, network: AnyNetwork, size: int | None = None, **fields: Any) -> Evaluation:
        limited = _limited(attack, self.amounts.steps, self.amounts.restarts)
        fields |= {"size": min(size or self.size, self.size), "seed": self.amounts.seed, "data": self.data}
        return Evaluation(network=network, attack=limited, **fields)

    @cached_property
    def ladder(self) -> list[Job]:
        """Table 2's PGD of the largest radius with two restarts, and what it is compared with, on the undefended
        network; on a data set that Table 2 has not, a PGD of the page's largest radius.
        """
        column = next(name for name, column in self.page.columns.items() if column.parent is None and column.of is None)
        network = self.network(self.page.columns[column], self.amounts.seed)
        pgds = [attack for attack in attacks_of(self.page.dataset).values() if attack.name == "pgd"]
        eps = max(float(row.attack.get("eps")) for row in self.page.rows.values())
        pgds = pgds or [Attack(name="pgd", eps=eps, alpha=eps / 10, steps=100)]
        attack = max(pgds, key=lambda attack: attack.get("eps")).limited(self.amounts.steps, self.amounts.restarts)
        attack, size = attack.but(restarts=2), min(LADDER_SIZE, self.size)
        return [
            Job(
                row=name,
                column=column,
                seed=0,
                evaluation=self._evaluation(rung, network, size, loss=loss, decision="any"),
            )
            for loss in LOSSES
            for name, rung in ladder_attacks(attack).items()
        ]


def _said(row: Row) -> dict[str, Any]:
    """What a row says of how its attack is computed."""
    engine = {} if row.engine is None else {"engine": row.engine}
    return engine if row.order == "clipped" else engine | {"order": row.order}


@functools.cache
def _has_art() -> bool:
    return any(found.name == "adversarial-robustness-toolbox" for found in distributions())


def ladder_attacks(attack: Attack) -> dict[str, Attack]:
    """The attacks that the sanity ladder compares, all of them variants of one PGD."""
    eps, alpha, steps = attack.get("eps"), attack.get("alpha"), attack.get("steps")
    return {
        "clean": attack.but(eps=0.0, alpha=0.0, steps=0, restarts=0),
        "full": attack,
        "eps 0": attack.but(eps=0.0),
        "a quarter of eps": attack.but(eps=0.25 * eps, alpha=0.25 * alpha),
        "half of eps": attack.but(eps=0.5 * eps, alpha=0.5 * alpha),
        "a tenth of the steps": attack.but(steps=max(steps // 10, 1)),
        "half of the steps": attack.but(steps=max(steps // 2, 1)),
        "one step": attack.but(alpha=eps, steps=1, restarts=0),
        "one restart": attack.but(restarts=min(attack.get("restarts"), 1)),
    }


def dataset_name(dataset: str, source: str) -> str:
    """The data set that a page on `dataset` uses with `data: sample`, `small` or `full`."""
    if source == "full":
        return dataset
    info = data.describe(dataset)
    found = info.sample if source == "sample" else info.small
    if found is None:
        what = "embedded sample" if source == "sample" else "smaller size"
        raise SpecError(f"there is no {what} of {dataset}; set data to 'full'")
    return found


def amounts_of(page: Page, profile: Profile) -> Amounts:
    return profile.amounts(page.dataset, page.network, page.table, page.record)
