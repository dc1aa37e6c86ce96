"""A cell: one measured number, typed; labels are made when it is shown, and nothing parses them back."""

from __future__ import annotations

from typing import Literal

from reprolib.paper.plan.records import Decision, Record

Quantity = Literal[
    "accuracy",  # share of the images that are classified correctly, under a row's attack or clean
    "gain",  # an accuracy minus another one, of column `over`
    "broken",  # share of the images that `part` of an attack broke
    "saturated",  # share of the test images whose true-class probability is above 1 - 1e-7
    "share",  # of the correctly classified images, those in the group `part`
    "missed",  # points by which a rung of the sanity ladder, `row`, was missed
    "change",  # mean absolute change of a patch's pixel under the operation `row`
    "count",  # a number that was counted, not estimated
]


class Cell(Record):
    """Where the number stands (row, column, epoch), how it was asked (protocol, decision), its value and 95 % interval
    in percent or points, on how many images, from which training seeds, and the claim of the paper that it answers."""

    claim: str | None = None
    quantity: Quantity = "accuracy"
    row: str  # "Clean", "All attacks", or an attack of the page
    column: str
    over: str | None = None
    part: str | None = None
    epoch: int | None = None
    protocol: str
    decision: Decision | None = None
    judged: bool = False  # whether a verdict on the claim is drawn from this cell, under its protocol
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    seeds: list[int] = []

    @property
    def seed(self) -> int:
        return self.seeds[0] if self.seeds else 0
