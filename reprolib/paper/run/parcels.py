"""A batch's steps, put together so that a process has work for a minute or more where there is so much: starting it
takes five seconds."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ROOM = 90  # seconds of estimated work; a step that is longer has a process of its own
SHORT = 10  # as much; what is less, and for one page alone, is done sooner by that page's own process


@dataclass(frozen=True)
class Step:
    """A training or an evaluation, by the first page that asks for it."""

    table: str
    network: str
    name: str  # in the store
    file: Path  # which is there when the step is done
    done: bool
    seconds: float  # estimated
    asks: tuple[str, ...] = ()  # names of the trainings that it needs, done or not
    epochs: tuple[int, ...] = ()  # at which a training is looked at, by any page

    @property
    def word(self) -> str:
        """What `python -m reprolib run` is told."""
        return ":".join([self.table, self.network, self.name, *map(str, self.epochs)])


@dataclass(eq=False)
class Parcel:
    """Steps that one process takes, in this order."""

    waits: frozenset[Parcel]  # for all of these, also those that they wait for themselves
    steps: list[Step] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def missing(self) -> list[Step]:
        return [step for step in self.steps if not step.done]

    @property
    def file(self) -> Path:
        """Made last, by the last of the steps that are missing."""
        return self.missing[-1].file

    @property
    def command(self) -> str:
        """What `python -m reprolib` is told, quoted for a shell."""
        return shlex.join(["run", *(step.word for step in self.missing)])


def pack(steps: Iterable[Step]) -> dict[str, Parcel]:
    """The parcel of each step by the step's name, of steps in an order that can be followed.

    A step goes along with what it waits for, or with others that wait for the same, where there is room. What is done
    counts as well, so that the parcels stay the same while a batch runs.
    """
    parcels: dict[str, Parcel] = {}
    alike: dict[frozenset[Parcel], list[Parcel]] = {}
    for step in steps:
        asked = {parcels[name] for name in step.asks}
        earlier = frozenset[Parcel]().union(*(parcel.waits for parcel in asked))
        waits = asked - earlier
        choice = [*(waits if len(waits) == 1 else ()), *alike.setdefault(frozenset(waits), [])]
        if not step.asks and step.epochs:
            choice = []  # all would wait for the first trainings if these were one parcel
        parcel = next((each for each in choice if max(each.seconds, step.seconds) < ROOM), None)
        if parcel is None:
            parcel = Parcel(earlier | asked)
            alike[frozenset(waits)].append(parcel)
        parcel.steps.append(step)
        parcels[step.name] = parcel
    return parcels


def left_to_pages(parcels: Iterable[Parcel], asking: Iterable[set[Parcel]]) -> set[Parcel]:
    """The short parcels that one page asks for, and no other page or process; `asking` is what each page asks for."""
    kept, pages = set(parcels), Counter(parcel for asked in asking for parcel in asked)
    short = {each for each in kept if pages[each] == 1 and each.seconds < SHORT}
    while left := (short & kept).difference(*(parcel.waits for parcel in kept)):
        kept -= left
    return short - kept
