"""A table as declared in params/tables/*.yaml: pages (one per network), each with columns, rows and the claims it
answers.

What stands at the top of a file holds for all of its pages; a page may say otherwise.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from reprolib import networks
from reprolib.defenses import Defence
from reprolib.paper.parameters import suggest
from reprolib.paper.plan.attacks import Attack, attacks_of
from reprolib.paper.plan.networks import AChange, ADefence, ARecipe, Head, Voting
from reprolib.paper.plan.records import (
    PARAMS,
    Count,
    Decision,
    Labels,
    Loss,
    Order,
    Record,
    RowEngine,
    SpecError,
    read_yaml,
)


class Column(Record):
    """A network of a table: one of `recipe` (trained), `weights` (pre-trained), `members` (voted), `change`
    (changed). With both weights and a recipe it is trained where nobody publishes weights: narrow, or on the sample.
    """

    recipe: Annotated[ARecipe, BeforeValidator(lambda given: read_recipe(given))] | None = None
    defence: ADefence = Defence()  # how it is trained; plainly by default
    parent: str | None = None  # the column that is trained on; none: a fresh network
    architecture: str | None = None  # where it is another than the page's
    seeds: Count = 1  # trainings at most, one for each seed
    weights: str | None = None
    head: Head = "slice"
    members: list[str | Column] | None = None  # a column by its name, or one of its own
    voting: Voting = "hard"
    change: AChange | None = None
    of: str | None = None  # the column that is changed

    @model_validator(mode="after")
    def _one_kind(self) -> Column:
        kinds = [name for name in ("recipe", "weights", "members", "change") if getattr(self, name) is not None]
        if len(kinds) != 1 and kinds != ["recipe", "weights"]:
            raise ValueError(
                f"a column has one of recipe, weights, members and change, not {' and '.join(kinds) or 'none'}"
            )
        if (self.change is None) != (self.of is None):
            raise ValueError("change and of come together")
        if self.voting == "soft" and self.members is None:
            raise ValueError("voting is 'soft' without members; leave it out, or say which networks vote")
        return self

    @property
    def made_from(self) -> list[str]:
        """The columns whose networks this one is made from."""
        members = self.members or []
        own = [name for member in members if isinstance(member, Column) for name in member.made_from]
        return [name for name in (self.parent, self.of, *members) if isinstance(name, str)] + own


class Row(Record):
    """An attack of a table. Its decision rule is "last" where its losses say nothing else; that one tells "any" too."""

    attack: Attack
    losses: dict[Loss, Decision] | None = None  # loss -> decision rule; None: the page's
    protocols: dict[Loss, str] = {}  # what a loss is shown as, where that is not its own name: logits -> sound
    runs: Count | None = None  # of the attack's restarts, only so many count
    columns: list[str] | None = None  # None: all
    labels: Labels = "true"  # what the attack is told; "predicted": the classes of the network that it is made on
    made_on: dict[str, str] = {}  # column -> the one on whose network its adversarial images are made, if not its own
    engine: RowEngine | None = None  # whose code attacks; None: the page's
    order: Order = "clipped"  # of clip and soft-max in a loss from probabilities
    bits: Literal[8] | None = None  # per pixel, with which its adversarial images are saved before they are classified
    images: Count | None = None  # of the test images at most; None: as many as the page has
    epochs: bool = True  # whether it is shown along the epochs, on a page that follows them; else at the end alone


@functools.cache
def known_claims() -> tuple[str, ...]:
    """The ids of params/claims.yaml."""
    return tuple(read_yaml(PARAMS / "claims.yaml")["claims"])


class Answer(Record):
    """Which claims cells are read as: `claim` is a template with {row}, {column} and {epoch}, or a claim's name."""

    claim: str
    row: str | None = None
    column: str | None = None
    over: str | None = None  # the column whose accuracy is subtracted
    called: dict[str, str] = {}  # what a row or column is called in the claim, where that is another word

    @model_validator(mode="after")
    def _names_a_claim(self) -> Answer:
        try:
            pattern = re.escape(self.claim.format(row="*", column="*", epoch="*")).replace(r"\*", ".+")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"claim is {self.claim!r} ({error}); expected {{row}}, {{column}} and {{epoch}} alone"
            ) from None
        if not any(re.fullmatch(pattern, known) for known in known_claims()):
            raise ValueError(suggest(self.claim, known_claims(), "claim"))
        return self

    def id(self, row: str, column: str, epoch: int | None) -> str | None:
        """The claim that a cell of this row and column answers, if any."""
        if (self.row or row) != row or (self.column or column) != column:
            return None
        names = {"row": self.called.get(row, row), "column": self.called.get(column, column), "epoch": epoch}
        return self.claim.format(**names)


class Page(Record):
    """One network's page: results/<profile>/<record>.json, made by the notebook of the table's name."""

    table: str  # the file, and the notebook
    network: str  # the page's name in its file
    record: str
    title: str
    prose: str = ""  # what is to be said of this network alone
    dataset: str
    architecture: str
    columns: Annotated[dict[str, Column], Field(min_length=1)]
    shown: list[str] = []  # of these, the ones that the page is about; empty: all
    rows: Annotated[dict[str, Row], Field(min_length=1)]
    losses: dict[Loss, Decision] = {"margin": "last", "logits": "last", "probabilities": "last"}
    transfer_from: str | None = None  # column whose network's adversarial images the others are shown
    follows_epochs: bool = False  # whether fine-tuned networks are looked at along the epochs
    claims: list[Answer] = []
    in_status: bool = True  # whether docs/status.md shows it

    @model_validator(mode="after")
    def _names_are_known(self) -> Page:
        named = [c for row in self.rows.values() for c in row.columns or []]
        named += [c for row in self.rows.values() for pair in row.made_on.items() for c in pair]
        named += [c for column in self.columns.values() for c in column.made_from]
        named += [c for answer in self.claims for c in (answer.column, answer.over) if c]
        named += [*self.shown, *([self.transfer_from] if self.transfer_from else [])]
        for column in named:
            if column not in self.columns:
                raise ValueError(f"{self.record}: {suggest(column, self.columns, 'column')}")
        for name in self.columns:
            above, below = set[str](), self.columns[name].made_from
            while below:
                above |= set(below)
                below = [c for each in below for c in self.columns[each].made_from if c not in above]
            if name in above:
                raise ValueError(f"{self.record}: column {name!r} is made from itself; give it another parent")
        if re.fullmatch(r"[\w-]+", self.record) is None:
            raise ValueError(f"record is {self.record!r}; expected a file name of letters, digits, _ and -")
        for answer in self.claims:
            if answer.row not in (None, "Clean", *self.rows):
                raise ValueError(f"{self.record}: {suggest(answer.row, ['Clean', *self.rows], 'row')}")
        for architecture in (self.architecture, *(c.architecture for c in self.columns.values() if c.architecture)):
            if architecture not in networks.names():
                raise ValueError(f"{self.record}: {suggest(architecture, networks.names(), 'network')}")
        return self


def read_recipe(given: Any) -> Any:
    """A recipe of params/recipes.yaml by name, or `{like: name, ...}` with what differs."""
    if not isinstance(given, (str, dict)):
        return given
    known = read_yaml(PARAMS / "recipes.yaml")
    fields = {"like": given} if isinstance(given, str) else dict(given)
    like = fields.pop("like", None)
    if like is not None and like not in known:
        raise SpecError(suggest(like, known, "recipe"))
    return known.get(like, {}) | fields


def table_names() -> list[str]:
    return [path.stem for path in sorted((PARAMS / "tables").glob("*.yaml"))]


@functools.cache
def load_table(name: str) -> dict[str, Page]:
    """The pages of params/tables/<name>.yaml by network, in the file's order; SpecError, which names the file and the
    page, for the first thing wrong."""
    pages = {}
    for network, fields in _declared(name).items():
        with _said_of(f"{name}.yaml, {network}: "):
            pages[network] = _page(name, network, fields)
    return pages


@contextlib.contextmanager
def _said_of(where: str) -> Iterator[None]:
    """Whoever reads all tables stumbles over each one's mistakes, so a mistake says where it is."""
    try:
        yield
    except ValueError as error:  # also what a constructor says of an attack's numbers
        is_said = re.match(r"[\w-]+\.yaml", str(error))
        raise SpecError(str(error) if is_said else where + str(error)) from None


def _declared(name: str) -> dict[str, dict[str, Any]]:
    """What is said of each page, together with what is said of all."""
    shared = read_yaml(PARAMS / "tables" / f"{name}.yaml")
    if not isinstance(shared.get("pages"), dict):
        raise SpecError(f"{name}.yaml lacks `pages`, a mapping from each network to what differs for it")
    pages = shared.pop("pages")
    with _said_of(f"{name}.yaml: "):
        return {network: _merged(shared, fields or {}) for network, fields in pages.items()}


def _merged(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A page's columns and rows are added to the table's or replace those of the same name; its claims are added."""
    both = shared | own
    for field in ("columns", "rows"):
        both[field] = _mapping(field, shared.get(field) or {}) | _mapping(field, own.get(field) or {})
    both["claims"] = [*shared.get("claims", []), *own.get("claims", [])]
    return both


def _mapping(what: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise SpecError(f"{what} is {given!r}; expected a mapping of names to values, such as {{recipe: adam}}")
    return given


def _page(table: str, network: str, fields: dict[str, Any]) -> Page:
    """`networks_of: table03` takes data set, architecture and columns from that table's page of the same network."""
    fields = {"record": f"{table}_{network}", "architecture": network} | fields
    other = fields.pop("networks_of", None)
    columns = {name: Column(**_mapping(f"column {name!r}", column)) for name, column in fields["columns"].items()}
    if other is not None:
        page = _lent(other, network)
        fields |= {"dataset": page.dataset, "architecture": page.architecture}
        columns = page.columns | columns
    if "dataset" not in fields:
        raise SpecError("dataset is missing; give it a value")
    printed = attacks_of(fields["dataset"])
    fields["rows"] = {label: _row(label, row, printed) for label, row in fields["rows"].items()}
    fields["claims"] = [Answer(**answer) for answer in fields["claims"]]
    return Page(table=table, network=network, **fields | {"columns": columns})


def _lent(table: str, network: str) -> Page:
    """The page whose networks are another one's too."""
    declared = _declared(table)
    if network not in declared:
        raise SpecError(f"networks_of: {table}: {suggest(network, declared, 'network')}")
    if "networks_of" in declared[network]:
        raise SpecError(f"networks_of: {table} has its networks from {declared[network]['networks_of']}; name that one")
    return load_table(table)[network]


def _row(label: str, given: dict[str, Any] | None, printed: dict[str, Attack]) -> Row:
    """A row's attack: by default Table 2's of that label; a name of Table 2; `{like: name, ...}`; or one of its own."""
    fields = dict(_mapping(f"row {label!r}", given or {}))
    attack = fields.pop("attack", label)
    attack = {"like": attack} if isinstance(attack, str) else _mapping(f"row {label!r}: attack", attack)
    like = attack.get("like")
    if like is None:
        return Row(attack=Attack(**attack), **fields)
    if like not in printed:
        raise SpecError(f"row {label!r}: {suggest(like, printed, 'attack')}")
    return Row(attack=printed[like].but(**{k: v for k, v in attack.items() if k != "like"}), **fields)
