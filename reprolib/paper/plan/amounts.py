"""How much is computed: params/profiles/*.yaml, resolved default < data set < network < table."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from reprolib.paper.parameters import suggest
from reprolib.paper.plan.records import PARAMS, Count, Engine, Loss, Record, Seed, Share, SpecError, read_yaml

PROFILES = ("quick", "cpu", "gpu", "paper")
JUDGED = PROFILES[:0:-1]  # those whose numbers earn verdicts; of several records the first one's count
PUBLISHED = "cpu"  # whose networks a page with `networks: published` attacks
OWN = ("eps", "alpha", "loss")  # for runs of one's own: no profile has them, so that it attacks as printed


class Amounts(Record):
    """The amounts of one page. Sizes, epochs, steps and restarts are upper limits: no page takes more than the paper
    or the data have."""

    data: Literal["sample", "small", "full"]  # the embedded sample, all pictures in a smaller size, or as they are
    train: Count  # training images
    test: Count  # test images attacked
    pretrain: Count  # epochs of pre-training
    finetune: Count  # epochs of fine-tuning
    every: Count  # epochs between two looks, where a page follows networks along the epochs
    width: Share = 1.0  # share of the network's channels
    steps: Count  # of an attack; alpha grows where they are cut
    restarts: Annotated[int, Field(ge=0)]  # of an attack
    seeds: Count  # trainings of each kind, where a page has several
    seed: Seed = 0  # the first of them: of weights, order, draws and random starts
    # what the page trains: all its networks; the fine-tuned ones, from published parents; or none
    networks: Literal["trained", "finetuned", "published"] = "trained"
    engine: Engine = "reprolib"  # torchattacks: loss from logits and last iterate only
    eps: Annotated[float, Field(ge=0, le=1)] | None = None  # radius of every attack; alpha goes along, if none is given
    alpha: Annotated[float, Field(gt=0, le=1)] | None = None  # step size of every attack that has one
    loss: Loss | None = None  # the only one that attacks take

    @model_validator(mode="after")
    def _has_that_loss(self) -> Amounts:
        if self.engine == "torchattacks" and self.loss not in (None, "logits"):
            raise ValueError(f"engine 'torchattacks' has loss 'logits', not {self.loss!r}; choose engine 'reprolib'")
        return self


class Profile(Record):
    """A profile's file: amounts for all pages, and what differs for a data set, a network, a table or a single page."""

    default: dict[str, Any]
    datasets: dict[str, dict[str, Any]] = {}
    networks: dict[str, dict[str, Any]] = {}
    tables: dict[str, dict[str, Any]] = {}

    def amounts(self, dataset: str, network: str, table: str, page: str) -> Amounts:
        """Those of one page; `page` is its record's name."""
        found = dict(self.default)
        for level, name in (
            (self.datasets, dataset),
            (self.networks, network),
            (self.tables, table),
            (self.tables, page),
        ):
            found |= level.get(name, {})
        return Amounts(**found)


def load_profile(name: str) -> Profile:
    """params/profiles/<name>.yaml; SpecError for an unknown profile, and for an amount that there is not."""
    if name not in PROFILES:
        raise SpecError(suggest(name, PROFILES, "profile"))
    profile = Profile(**read_yaml(PARAMS / "profiles" / f"{name}.yaml"))
    levels = [profile.default, *profile.datasets.values(), *profile.networks.values(), *profile.tables.values()]
    for amount in [amount for level in levels for amount in level]:
        known = [field for field in Amounts.model_fields if field not in OWN]
        if amount not in known:
            raise SpecError(f"{name}.yaml: {suggest(amount, known, 'amount')}")
    return profile
