"""The four kinds of network that can be attacked: Trained, Pretrained, Voted and Changed, made of each other.

A record's content names its artefact in the store; the trainings that a table needs are found by walking the tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Discriminator, Field, PlainSerializer, Tag, model_serializer, model_validator

from reprolib import defenses
from reprolib.defenses import Change, Defence
from reprolib.paper.parameters import checked, suggest
from reprolib.paper.plan.records import Count, Record, Seed, Share
from reprolib.training import Recipe

Voting = Literal["hard", "soft"]
Head = Literal["slice", "fresh"]  # of published ImageNet weights: the ten classes' rows, or one that is not trained yet


def _as_recipe(given: Any) -> Any:
    return Recipe(**checked(Recipe, given, "recipe")) if isinstance(given, dict) else given


def _recipe_content(recipe: Recipe) -> dict:
    return {k: v for k, v in vars(recipe).items() if v != getattr(Recipe, k, None) or k == "optimizer"}


def _as_defence(given: Any) -> Any:
    if isinstance(given, (Defence, Change)):
        return given
    if not isinstance(given, dict) or "name" not in given:
        raise ValueError(f"{given!r} names no defence; write {{name: patched, size: 7, count: 1}}, for example")
    return make_defence(**given)


def make_defence(name: str, **parameters: Any) -> Defence | Change:
    """The defence of that file of `defenses`; ValueError, in one sentence, for an unknown name or wrong parameters."""
    known = defenses.named()
    if name not in known:
        raise ValueError(suggest(name, known, "defence"))
    return known[name](**checked(known[name], parameters, name))


def defence_content(made: Defence | Change) -> dict:
    """The name of its file, None for plain training, and its parameters, as plain data."""
    return {"name": None if type(made) is Defence else type(made).__module__.rsplit(".", 1)[1], **vars(made)}


def _trained_with(made: Any) -> Any:
    if not isinstance(made, Defence):
        raise ValueError(f"{type(made).__name__} needs no training; give it to a network as `change`")
    return made


def _changed_by(made: Any) -> Any:
    if not isinstance(made, Change):
        raise ValueError(f"{type(made).__name__} has to be trained; give it to a network as `defence`")
    return made


# what a declaration says as plain data, and a record holds as the method's own object
ARecipe = Annotated[Recipe, BeforeValidator(_as_recipe), PlainSerializer(_recipe_content)]
ADefence = Annotated[
    Defence, BeforeValidator(_trained_with), BeforeValidator(_as_defence), PlainSerializer(defence_content)
]
AChange = Annotated[
    Change, BeforeValidator(_changed_by), BeforeValidator(_as_defence), PlainSerializer(defence_content)
]


class Trained(Record):
    """A network after so many epochs of a training; `parent` is the network that is trained on, None a fresh one."""

    architecture: str
    width: Share = 1.0  # share of the channels that the full network has
    data: str  # name of the data set
    train: Count | None = None  # the first n training images; None = all
    recipe: ARecipe
    defence: ADefence = Defence()
    parent: Network | None = None
    seed: Seed = 0
    epochs: Count

    @model_validator(mode="after")
    def _fits_its_parent(self) -> Trained:
        parent = self.parent
        while isinstance(parent, Changed):
            parent = parent.network
        if isinstance(parent, Voted):
            raise ValueError("a vote of several networks cannot be trained on; give one of them as parent")
        if parent and (parent.architecture, parent.width) != (self.architecture, self.width):
            theirs, ours = (f"{one.architecture} of width {one.width:g}" for one in (parent, self))
            raise ValueError(f"the parent is a {theirs}, which has no weights for a {ours}")
        return self

    @model_serializer(mode="wrap")
    def _without_plain_training(self, usual: Any) -> dict:
        found = usual(self)
        return {k: v for k, v in found.items() if k != "defence" or v["name"]}

    @property
    def training(self) -> dict:
        """What distinguishes this training from others, without its length: a checkpoint is a training and an epoch."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"epochs"})


class Pretrained(Record):
    """A network whose weights come from a file, .safetensors or .pth, that somebody else has published."""

    architecture: str
    width: Share = 1.0
    weights: str  # name of the file in a folder of weights, or its path from the top of the repository
    head: Head = "slice"


class Voted(Record):
    """Several networks that vote (EMPIR): hard, by their classes, the last one deciding where they all differ; or soft,
    by their mean probability, which is what EMPIR's attacks are made on."""

    members: Annotated[list[Network], Field(min_length=2)]
    voting: Voting = "hard"


class Changed(Record):
    """A network changed without training."""

    network: Network
    change: AChange


def _kind(given: Any) -> str:
    """Each kind has a field that no other has."""
    if isinstance(given, Record):
        return type(given).__name__
    own = {"weights": "Pretrained", "members": "Voted", "change": "Changed"}
    return next((kind for field, kind in own.items() if isinstance(given, dict) and field in given), "Trained")


Network = Annotated[
    Annotated[Trained, Tag("Trained")]
    | Annotated[Pretrained, Tag("Pretrained")]
    | Annotated[Voted, Tag("Voted")]
    | Annotated[Changed, Tag("Changed")],
    Discriminator(_kind),
]
for _record in (Trained, Voted, Changed):
    _record.model_rebuild()
_ANY: pydantic.TypeAdapter = pydantic.TypeAdapter(Network)


def read_network(content: dict) -> Trained | Pretrained | Voted | Changed:
    """A network from the content of its record."""
    return _ANY.validate_python(content)


def trainings(network: Trained | Pretrained | Voted | Changed) -> Iterator[Trained]:
    """Every training in a network's tree, parents before their children."""
    for below in _below(network):
        yield from trainings(below)
    if isinstance(network, Trained):
        yield network


def _below(network: Trained | Pretrained | Voted | Changed) -> list:
    if isinstance(network, Trained):
        return [network.parent] if network.parent else []
    if isinstance(network, Voted):
        return network.members
    return [network.network] if isinstance(network, Changed) else []
