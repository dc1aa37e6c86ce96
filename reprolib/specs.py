"""Frozen, validated records of what is computed: a training, an attack, an evaluation; and the settings of a notebook.

A record's content names its artefact in the store. Wrong parameters fail here, before any compute, in one sentence.
No torch in this module: the batch engine reads it for every decision it takes.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import yaml
from pydantic import Field

from reprolib.files import ROOT

PARAMS = ROOT / "params"

LOSSES = ("margin", "logits", "probabilities")
Loss = Literal["margin", "logits", "probabilities"]
# along epochs and radii the last iterates under these, which cost every step, are not judged
SPARED_ON_CURVES = ["margin", "logits"]
Count = Annotated[int, Field(ge=1)]
ENSEMBLE = ("autoattack", "square")  # AutoAttack, and its last part alone
STANDARD_STEPS = 100  # of APGD and FAB in AutoAttack's standard version


class SpecError(ValueError):
    """A parameter is unknown, of the wrong type or out of range; the message is one sentence that says which."""


class Record(pydantic.BaseModel):
    """Base of all records: immutable, no unknown fields, no silent conversion of types."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **fields):
        try:
            super().__init__(**fields)
        except pydantic.ValidationError as error:
            raise SpecError(_sentence(type(self), error)) from None

    def content(self) -> dict:
        """The record as plain JSON-able data."""
        return self.model_dump(mode="json")


class Training(Record):
    """One network's training, without its length: a checkpoint is a training and an epoch.

    Without a cycle the learning rate is constant, so the first 10 of 60 epochs are the same as 10 epochs alone.
    """

    dataset: str
    train_size: Count | None = None  # the first n training images; None = all
    model: str
    width: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of the channels that the full network has
    optimizer: Literal["adam", "rmsprop", "sgd"]
    lr: Annotated[float, Field(gt=0)]
    batch_size: Count
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of a label that goes to all classes alike
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # added to the gradient, times the weight
    augment: bool = False  # random crops and left-right flips, anew in each epoch
    cycle: Count | None = None  # epochs in which the rate climbs to lr and falls to 0; None = it is lr throughout
    target: Annotated[float, Field(gt=0, lt=100)] | None = None  # clean test accuracy in % at which training rests
    copies: Literal["none", "unmodified", "patched"] = "none"  # what stands beside each image in an epoch
    patch_size: Literal[7, 11] | None = None  # n of n-Pk
    patch_count: Literal[1, 2] | None = None  # k of n-Pk
    seed: Annotated[int, Field(ge=0)] = 0
    parent: Training | None = None  # the pre-trained network that is fine-tuned
    parent_epoch: Count | None = None

    @pydantic.model_validator(mode="after")
    def _complete(self):
        if any((self.copies == "patched") != (field is not None) for field in (self.patch_size, self.patch_count)):
            raise ValueError("patch_size and patch_count belong to copies='patched', and to it alone")
        if (self.parent is None) != (self.parent_epoch is None):
            raise ValueError("parent and parent_epoch come together")
        return self


class Attack(Record):
    """An attack in the L-infinity ball (Table 2, Table 9). FGSM is one step of alpha = eps from the clean image.

    AutoAttack and Square have settings of their own, unless `steps` cuts them short (see `AutoAttack`); their `loss` is
    what the network hands them, logits or probabilities.
    """

    name: Literal["fgsm", "ifgsm", "pgd", "autoattack", "square"]
    eps: Annotated[float, Field(ge=0, le=1)]
    alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    steps: Annotated[int, Field(ge=0)] | None = None
    restarts: Annotated[int, Field(ge=0)] = 0  # 0 = one run from the clean image; r = r runs from random starts
    loss: Loss = "margin"

    @pydantic.model_validator(mode="after")
    def _complete(self):
        steps_too = self.name in ENSEMBLE
        if self.fixed and (self.alpha is not None or self.restarts or (self.steps is not None and not steps_too)):
            raise ValueError(f"{self.name} takes eps alone: no alpha{'' if steps_too else ', steps'} or restarts")
        if not self.fixed and (self.alpha is None or self.steps is None):
            raise ValueError(f"{self.name} needs alpha and steps")
        if self.name in ENSEMBLE and self.loss == "margin":
            raise ValueError(
                f"{self.name} has losses of its own: loss is 'logits' or 'probabilities', what it is given"
            )
        if self.name == "ifgsm" and self.restarts:
            raise ValueError("ifgsm starts from the clean image: restarts is 0")
        if self.alpha and self.steps == 0:
            raise ValueError(f"alpha is {self.alpha} with 0 steps; give steps >= 1, or alpha 0")
        return self

    @property
    def fixed(self) -> bool:
        """Whether eps says everything that an attack is printed with."""
        return self.name == "fgsm" or self.name in ENSEMBLE

    def loop(self) -> dict:
        """The attack as numbers of the one loop that FGSM, IFGSM and PGD are: eps, alpha, steps, restarts, loss.

        IFGSM and PGD without restarts are the same computation, and so share one artefact.
        """
        if self.name in ENSEMBLE:
            cut = {} if self.steps is None else {"steps": self.steps}
            return {"name": self.name, "eps": self.eps, "loss": self.loss} | cut
        if self.name == "fgsm":
            return {"eps": self.eps, "alpha": self.eps, "steps": 1, "restarts": 0, "loss": self.loss}
        return {"eps": self.eps, "alpha": self.alpha, "steps": self.steps, "restarts": self.restarts, "loss": self.loss}


class Evaluation(Record):
    """One attack on one checkpoint: the first `size` test images, judged image by image.

    With a source, the adversarial images are made on that network and shown to the checkpoint: a transfer attack.
    """

    training: Training
    epoch: Count
    attack: Attack
    size: Count
    decision: Literal["any", "last"]  # which rule ends the attack on an image; "last" tells both rules' answers
    seed: Annotated[int, Field(ge=0)] = 0
    engine: Literal["reprolib", "torchattacks"] = "reprolib"
    source: Training | None = None
    source_epoch: Count | None = None

    @pydantic.model_validator(mode="after")
    def _possible(self):
        if (self.source is None) != (self.source_epoch is None):
            raise ValueError("source and source_epoch come together")
        if self.source and (self.decision != "last" or self.engine != "reprolib"):
            raise ValueError("a transfer attack shows the last iterate of engine 'reprolib': decision is 'last'")
        if self.engine == "torchattacks" and (self.attack.loss, self.decision) != ("logits", "last"):
            raise ValueError(
                "engine 'torchattacks' has loss 'logits' and decision 'last', not "
                f"{self.attack.loss!r} and {self.decision!r}; choose engine 'reprolib' for these"
            )
        return self

    def content(self) -> dict:
        """As data; attacks that are the same computation have the same content."""
        unsaid = set() if self.source else {"source", "source_epoch"}
        return self.model_dump(mode="json", exclude=unsaid) | {"attack": self.attack.loop()}

    def crafting(self) -> Evaluation:
        """The attack on the source network whose adversarial images a transfer attack shows."""
        at = {"training": self.source, "epoch": self.source_epoch, "source": None, "source_epoch": None}
        return self.model_copy(update=at)


class Settings(Record):
    """How much is computed: the parameters of a table's notebook, and the keys of params/profiles/*.yaml.

    Sizes, epochs, steps and restarts are upper limits: a table never takes more than the paper or the data have.
    """

    profile: Literal["quick", "cpu", "paper"] = "quick"
    data: Literal["sample", "full"] = "sample"  # the embedded sample, or the whole data set
    train_size: Count = 800  # training images
    test_size: Count = 64  # test images attacked
    pretrain_epochs: Count = 3
    finetune_epochs: Count = 2  # for the columns of a table
    ablation_epochs: Count = 2  # for the columns that are followed over the epochs (Table 11)
    epoch_interval: Count = 1  # epochs between two evaluations of these
    steps: Count = 10
    restarts: Annotated[int, Field(ge=0)] = 2
    seed: Annotated[int, Field(ge=0)] = 0
    engine: Literal["reprolib", "torchattacks"] = "reprolib"
    autoattack_size: Count = 32  # test images under AutoAttack; it is the standard version from 100 steps on
    study_epochs: Count = 2  # of fine-tuning in the studies
    seeds: Count = 1  # of the studies: seed, seed + 1, ...
    width: Annotated[float, Field(gt=0, le=1)] = 0.125  # share of VGG-16's channels
    resnet_width: Annotated[float, Field(gt=0, le=1)] = 0.0625  # share of ResNet-50's
    cifar_train_size: Count = 400  # training images for the CIFAR-10 networks
    cifar_test_size: Count = 8  # test images attacked, for the larger ones
    cifar_pretrain_epochs: Count = 1
    cifar_epochs: Count = 1  # of fine-tuning
    cifar_interval: Count = 1  # epochs between two evaluations of Table 11's row

    @property
    def folder(self) -> str:
        """Where results go: the profile's name, or "custom" when a knob differs from the profile's file.

        So nobody's experiment overwrites the results of a profile, or earns a verdict in its name.
        """
        return self.profile if self == load_profile(self.profile) else "custom"

    def limit(self, attack: Attack) -> Attack:
        """The attack with at most `steps` steps and `restarts` restarts.

        Where steps are cut, alpha grows so that the run can still cross the ball two and a half times. AutoAttack and
        Square are left alone from 100 steps on.
        """
        if attack.name in ENSEMBLE and self.steps < STANDARD_STEPS:
            return Attack(**attack.content() | {"steps": self.steps})
        if attack.fixed or (attack.steps <= self.steps and attack.restarts <= self.restarts):
            return attack
        fields = attack.content() | {
            "steps": min(attack.steps, self.steps),
            "restarts": min(attack.restarts, self.restarts),
        }
        if fields["steps"] < attack.steps:
            fields["alpha"] = max(attack.alpha, round(2.5 * attack.eps / fields["steps"], 6))
        return Attack(**fields)


class Recipe(Record):
    """How a network is trained, without its length and data."""

    optimizer: Literal["adam", "rmsprop", "sgd"]
    lr: Annotated[float, Field(gt=0)]
    batch_size: Count
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    augment: bool = False
    cycle: Count | None = None  # at most as many epochs as the settings give
    target: Annotated[float, Field(gt=0, lt=100)] | None = None


class Column(Record):
    """A column of a table: how the copies of the images are made; `copies: none` is the pre-trained network itself."""

    copies: Literal["none", "unmodified", "patched"]
    patch_size: Literal[7, 11] | None = None
    patch_count: Literal[1, 2] | None = None
    pretraining: Recipe | None = None  # where it is another than the table's
    finetuning: Recipe | None = None  # where it is another than the table's
    seed: Annotated[int, Field(ge=0)] = 0  # added to the settings' seed, and to its pre-trained network's


class Ensemble(Record):
    """The networks of a grid under AutoAttack: its row of Table 9."""

    eps: Annotated[float, Field(ge=0, le=1)]
    claims: str  # prefix of the claims: T9.F-MNIST.F-MNISTconv
    columns: dict[str, str | None]  # column -> the rest of its claim; null where the paper has none


class Sweep(Record):
    """One attack on some networks of a grid at several radii; its step grows with the radius."""

    attack: str  # name of Table 2
    eps: list[Annotated[float, Field(gt=0, le=1)]]
    columns: list[str]


class Grid(Record):
    """What a table consists of: params/tables/*.yaml."""

    table: str  # name of its claims: T6 in T6.FGSM.7-P1
    dataset: Literal["fashion-mnist", "cifar-10", "imagenet-subset"]
    model: str
    scalable: bool = False  # whether the settings' width scales the model
    pretraining: Recipe
    finetuning: Recipe
    columns: dict[str, Column]
    attacks: list[str]  # names of Table 2, or of the grid's own attacks
    own_attacks: dict[str, Attack] = {}
    restarts: list[Count] = []  # every attack is shown after so many of its restarts, a row each
    losses: list[Loss]
    ablation_columns: list[str] = []  # columns that are followed over the epochs
    ablation_attacks: list[str] = []
    ablation_claims: str | None = None  # prefix of these claims: T11.FMNIST in T11.FMNIST.10
    ablation_claimed: list[str] = []  # the column and the attack that they are read as
    transfer_from: str | None = None  # column whose network's adversarial images the others are shown
    ensemble: Ensemble | None = None
    sweep: Sweep | None = None
    second_reading: bool = False  # of what another grid reads first: its verdicts count until that one has been run
    study: bool = False  # whether it is about curves over epochs and seeds, and no table of the paper
    spares_last: list[Loss] = []  # losses judged by any iterate alone, which costs far less
    knobs: dict[str, str] = {}  # a setting -> the setting that stands for it here
    text_claims: dict[str, list[str]] = {}  # claim in the text -> its cell, or the two cells it subtracts

    def attack(self, name: str) -> Attack:
        """The attack of that name: the grid's own, or Table 2's on its data set."""
        return self.own_attacks.get(name) or attacks_of(self.dataset)[name]

    def rows_of(self, attack: str) -> dict[str, int | None]:
        """The rows of a table in which an attack is shown, each with the number of runs that count (None: all)."""
        return {f"{attack}, {count} restarts": count for count in self.restarts} or {attack: None}

    def rows(self) -> list[str]:
        return [row for attack in self.attacks for row in self.rows_of(attack)]


class View(Record):
    """A table about networks that other tables train (Tables 9 and 11): params/tables/*.yaml."""

    table: str  # name of its claims
    shows: Literal["ensemble", "epochs"]  # which of a plan's jobs
    grids: list[str]

    def plans(self, settings: Settings) -> dict[str, Plan]:
        return {name: Plan(load_grid(name), settings) for name in self.grids}

    def jobs(self, plan: Plan) -> list[Job]:
        """The jobs of a plan that this table shows."""
        return plan.ensemble_jobs if self.shows == "ensemble" else plan.epoch_jobs


class Job(Record):
    """One measurement of a table: an attack on a column's network after an epoch."""

    column: str
    attack: str  # name of Table 2
    evaluation: Evaluation


SIZES = {
    "fashion-mnist": (60_000, 10_000),
    "cifar-10": (50_000, 10_000),
    "imagenet-subset": (0, 1000),
    "fashion-mnist-sample": (3000, 1000),
    "fashion-mnist-sample-rgb": (3000, 1000),
}
SAMPLES = {"fashion-mnist": "fashion-mnist-sample", "cifar-10": "fashion-mnist-sample-rgb"}


class Plan:
    """Everything that a table needs, in order: trainings, then the jobs on their checkpoints.

    networks: column -> (training, epoch) of the table proper.
    trainings: every training with the epochs whose checkpoints are wanted.
    jobs: the attack evaluations of the table proper, transfer attacks included.
    epoch_jobs: those along the epochs (Table 11).
    ensemble_jobs: those of Table 9, AutoAttack and Square.
    sweep_jobs: those at other radii.
    """

    def __init__(self, grid: Grid, settings: Settings):
        settings = settings.model_copy(update={knob: getattr(settings, other) for knob, other in grid.knobs.items()})
        self.grid, self.settings = grid, settings
        self.dataset = dataset_name(grid.dataset, settings.data)
        train_size, test_size = SIZES[self.dataset]
        self.train_size = None if settings.train_size >= train_size else settings.train_size
        self.test_size = min(settings.test_size, test_size)
        self.autoattack_size = min(settings.autoattack_size, test_size)
        self.pretraining = self._pretraining(grid.pretraining, settings.seed)
        self.networks = {name: self._network(c) for name, c in grid.columns.items() if c.seed < settings.seeds}
        self.trainings = self._trainings()
        self.jobs = self._jobs() + self._transfer_jobs()
        self.epoch_jobs = self._epoch_jobs()
        self.ensemble_jobs = self._ensemble_jobs()
        self.sweep_jobs = self._sweep_jobs()

    @property
    def model_name(self) -> str:
        """The network's name for people, with its width where that is reduced."""
        width = self.pretraining.width
        return self.grid.model if width == 1 else f"{self.grid.model} (width {width:g})"

    def _training(self, recipe: Recipe, seed: int, **fields) -> Training:
        return Training(
            dataset=self.dataset,
            train_size=self.train_size,
            model=self.grid.model,
            width=self.settings.width if self.grid.scalable else 1.0,
            seed=seed,
            **recipe.content() | fields,
        )

    def _pretraining(self, recipe: Recipe, seed: int) -> Training:
        return self._training(recipe, seed, cycle=recipe.cycle and min(recipe.cycle, self.settings.pretrain_epochs))

    def _network(self, column: Column) -> tuple[Training, int]:
        seed = self.settings.seed + column.seed
        parent = self._pretraining(column.pretraining or self.grid.pretraining, seed)
        if column.copies == "none":
            return parent, self.settings.pretrain_epochs
        training = self._training(
            column.finetuning or self.grid.finetuning,
            seed,
            **column.model_dump(exclude={"pretraining", "finetuning", "seed"}),
            parent=parent,
            parent_epoch=self.settings.pretrain_epochs,
        )
        return training, self.settings.finetune_epochs

    def ablation_epochs(self) -> list[int]:
        """The epochs at which Table 11 is measured: multiples of the interval, up to the longest fine-tuning."""
        return list(
            range(self.settings.epoch_interval, self.settings.ablation_epochs + 1, self.settings.epoch_interval)
        )

    def ablation_columns(self) -> list[str]:
        """The columns that are followed over the epochs, of those that there are with so many seeds."""
        return [column for column in self.grid.ablation_columns if column in self.networks]

    def _trainings(self) -> list[tuple[Training, list[int]]]:
        wanted = []
        for name, (training, epoch) in self.networks.items():
            epochs = {epoch} | (set(self.ablation_epochs()) if name in self.grid.ablation_columns else set())
            wanted.append((training, sorted(epochs)))
        return wanted

    def _jobs(self) -> list[Job]:
        return [
            job
            for column, (training, epoch) in self.networks.items()
            for attack in self.grid.attacks
            for job in self._evaluations(column, attack, training, epoch, spares_last=self.grid.spares_last)
        ]

    def _transfer_jobs(self) -> list[Job]:
        """Every attack of the table, made on the source by cross-entropy from its logits, shown to the other columns."""
        source, settings, jobs = self.grid.transfer_from, self.settings, []
        if source is None or settings.engine == "torchattacks":
            return jobs
        for column in [column for column in self.networks if column != source]:
            for name in self.grid.attacks:
                usual = self.grid.attack(name)
                evaluation = Evaluation(
                    training=self.networks[column][0],
                    epoch=self.networks[column][1],
                    attack=settings.limit(Attack(**usual.content() | {"loss": "logits"})),
                    size=self.test_size,
                    decision="last",
                    seed=settings.seed,
                    source=self.networks[source][0],
                    source_epoch=self.networks[source][1],
                )
                jobs.append(Job(column=column, attack=name, evaluation=evaluation))
        return jobs

    def _epoch_jobs(self) -> list[Job]:
        return [
            job
            for column in self.ablation_columns()
            for epoch in self.ablation_epochs()
            for attack in self.grid.ablation_attacks
            for job in self._evaluations(column, attack, self.networks[column][0], epoch, spares_last=SPARED_ON_CURVES)
        ]

    def _ensemble_jobs(self) -> list[Job]:
        jobs, ensemble = [], self.grid.ensemble
        for column in ensemble.columns if ensemble else []:
            training, epoch = self.networks[column]
            for label, name, given in (
                ("AutoAttack", "autoattack", "logits"),
                ("AutoAttack", "autoattack", "probabilities"),
                ("Square", "square", "logits"),
            ):
                evaluation = Evaluation(
                    training=training,
                    epoch=epoch,
                    attack=self.settings.limit(Attack(name=name, eps=ensemble.eps, loss=given)),
                    size=self.autoattack_size,
                    decision="any",
                    seed=self.settings.seed,
                )
                jobs.append(Job(column=column, attack=label, evaluation=evaluation))
        return jobs

    def _sweep_jobs(self) -> list[Job]:
        jobs, sweep = [], self.grid.sweep
        for column in sweep.columns if sweep else []:
            for eps in sweep.eps:
                usual = self.grid.attack(sweep.attack)
                changed = Attack(**usual.content() | {"eps": eps, "alpha": round(usual.alpha * eps / usual.eps, 6)})
                name = f"{sweep.attack}, eps {eps:g}"
                jobs += self._evaluations(column, name, *self.networks[column], changed, spares_last=SPARED_ON_CURVES)
        return jobs

    def _evaluations(
        self,
        column: str,
        name: str,
        training: Training,
        epoch: int,
        attack: Attack | None = None,
        *,
        spares_last: list[str],
    ) -> list[Job]:
        """An attack with each loss. A run by the last-iterate rule tells the any-iterate rule's answer too.

        It costs every step of a run even for images that are long broken, except under `probabilities`, whose
        gradient soon vanishes. Curves show margin and logits by any iterate, so for them that cost is spared.
        """
        attack, settings, jobs = attack or self.grid.attack(name), self.settings, []
        other_engine = settings.engine == "torchattacks"  # which has cross-entropy from logits and the last iterate
        for loss in ["logits"] if other_engine else self.grid.losses:
            limited = settings.limit(Attack(**attack.content() | {"loss": loss}))
            cheap = loss == "probabilities" or attack.name == "fgsm" or other_engine
            evaluation = Evaluation(
                training=training,
                epoch=epoch,
                attack=limited,
                size=self.test_size,
                decision="any" if loss in spares_last and not cheap else "last",
                seed=settings.seed,
                engine=settings.engine,
            )
            jobs.append(Job(column=column, attack=name, evaluation=evaluation))
        return jobs


def dataset_name(dataset: str, source: str) -> str:
    """The data set that a table on `dataset` uses with `data: sample` or `data: full`."""
    if source == "full":
        return dataset
    if dataset not in SAMPLES:
        raise SpecError(f"there is no embedded sample of {dataset}; set data to 'full'")
    return SAMPLES[dataset]


def read_yaml(path: Path) -> dict:
    """A YAML file as data; SpecError in one sentence when it is missing or no mapping."""
    if not path.exists():
        known = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise SpecError(
            f"{suggest(path.stem, known, path.parent.name.rstrip('s'))} (looked in params/{path.parent.name})"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SpecError(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise SpecError(f"{path.name} holds {type(content).__name__}; expected a mapping of names to values")
    return content


def load_profile(name: str) -> Settings:
    """The settings of params/profiles/<name>.yaml."""
    return Settings(**read_yaml(PARAMS / "profiles" / f"{name}.yaml"))


def grid_names() -> list[str]:
    """The tables that train networks of their own: those of params/tables that have columns."""
    return [p.stem for p in sorted((PARAMS / "tables").glob("*.yaml")) if "columns" in read_yaml(p)]


def view_names() -> list[str]:
    """The tables about other tables' networks."""
    return [p.stem for p in sorted((PARAMS / "tables").glob("*.yaml")) if "grids" in read_yaml(p)]


def load_view(name: str) -> View:
    """The view of params/tables/<name>.yaml."""
    return View(**read_yaml(PARAMS / "tables" / f"{name}.yaml"))


def load_grid(name: str) -> Grid:
    """The grid of params/tables/<name>.yaml; its attacks must be in Table 2 and its other columns in the grid."""
    grid = Grid(**read_yaml(PARAMS / "tables" / f"{name}.yaml"))
    known = attacks_of(grid.dataset) | grid.own_attacks
    for attack in [*grid.attacks, *grid.ablation_attacks, *([grid.sweep.attack] if grid.sweep else [])]:
        if attack not in known:
            raise SpecError(f"{name}: {suggest(attack, list(known), 'attack')}")
    named = [*(grid.ensemble.columns if grid.ensemble else []), *(grid.sweep.columns if grid.sweep else [])]
    named += [grid.transfer_from] if grid.transfer_from else []
    for knob in [*grid.knobs, *grid.knobs.values()]:
        if knob not in Settings.model_fields:
            raise SpecError(f"{name}: {suggest(knob, list(Settings.model_fields), 'setting')}")
    for column in [*grid.ablation_columns, *named]:
        if column not in grid.columns:
            raise SpecError(f"{name}: {suggest(column, list(grid.columns), 'column')}")
    return grid


def attacks_of(dataset: str) -> dict[str, Attack]:
    """Table 2's attacks on a data set, by their printed names."""
    table = read_yaml(PARAMS / "tables" / "table02_attack_parameters.yaml")
    if dataset not in table:
        raise SpecError(suggest(dataset, list(table), "data set"))
    return {name: Attack(**fields) for name, fields in table[dataset].items()}


def settings_from(names: dict) -> Settings:
    """Settings from a notebook's variables; call it with `globals()` right after the parameters cell.

    What the notebook has no variable for is as in its profile.
    Raises SpecError for wrong values, and for a variable whose name is nearly, but not quite, that of a parameter.
    """
    fields = list(Settings.model_fields)
    for name, value in names.items():
        misspelt = name not in fields and isinstance(value, (bool, int, float, str)) and not name.startswith("_")
        if misspelt and difflib.get_close_matches(name, fields, n=1, cutoff=0.8):
            raise SpecError(suggest(name, fields, "parameter"))
    given = {name: names[name] for name in fields if name in names}
    profile = Settings(**given).profile  # refuses a wrong value before anything is looked up
    return Settings(**load_profile(profile).content() | given)


def _sentence(kind: type[Record], error: pydantic.ValidationError) -> str:
    """The first problem of a validation error in one sentence, with a suggestion where a name is close."""
    first = error.errors()[0]
    name, value = ".".join(str(part) for part in first["loc"]), first.get("input")
    where = f"{kind.__name__}.{name}" if name else kind.__name__
    if first["type"] == "extra_forbidden":
        return f"{where}: {suggest(first['loc'][-1], list(kind.model_fields), 'parameter')}"
    if first["type"] == "missing":
        return f"{where} is missing; give it a value"
    if isinstance(value, str) and first["type"] in ("float_type", "int_type"):
        return f"{where} is the text {value!r}; expected a number ({_yaml_hint(value)})"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message[0].lower()}{message[1:]}" + (
        "" if first["type"] == "value_error" else f", not {value!r}"
    )


def _yaml_hint(text: str) -> str:
    return "YAML reads 1e-3 as text: write 1.0e-3" if "e" in text.lower() else "write it without quotes"


def suggest(name: str, known: list[str], what: str) -> str:
    """One sentence for an unknown name, with the nearest known one."""
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    return f"unknown {what} {name!r}; {hint}"
