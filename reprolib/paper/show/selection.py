"""Which cells stand where: a page's columns with their seeds, its rows, and the paper's numbers beside them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from reprolib.paper.judge import Claim, ledger
from reprolib.paper.plan import AnyNetwork, Cell, Changed, Page, Plan, Trained, Voted, epoch_of, label


@dataclass(frozen=True)
class Shown:
    """A network of a page at the end of its training, and where its numbers stand."""

    label: str
    column: str
    seed: int  # as in a cell: the page's first seed is counted in
    epoch: int | None
    network: AnyNetwork

    def of(self, cells: Iterable[Cell]) -> list[Cell]:
        """The cells of this network at this epoch."""
        return [c for c in cells if (c.column, c.seed, c.epoch) == (self.column, self.seed, self.epoch)]


def networks_of(plan: Plan) -> list[Shown]:
    """The page's networks in its order; a column with several seeds stands there once for each."""
    return [
        Shown(label(column, seed), column, plan.amounts.seed + seed, epoch_of(network), network)
        for (column, seed), network in plan.networks.items()
    ]


def where(cells: Iterable[Cell], **wanted: Any) -> list[Cell]:
    """The cells with these values in these fields."""
    return [cell for cell in cells if all(getattr(cell, field) == value for field, value in wanted.items())]


def asked(cells: Iterable[Cell], protocol: str, decision: str | None, **wanted: Any) -> list[Cell]:
    """The accuracies under a protocol and decision rule; under `saturated`, the shares of saturated images."""
    quantity = "saturated" if protocol == "saturated" else "accuracy"
    return where(cells, quantity=quantity, protocol=protocol, decision=decision, **wanted)


def main_rows(plan: Plan) -> list[str]:
    """The attacks that are measured under all of the page's losses, the others being beside them: its subject."""
    rows = plan.page.rows.items()
    return [name for name, row in rows if row.losses is None and row.columns is None and row.labels == "true"]


def given_rows(plan: Plan) -> list[str]:
    """The attacks that are told apart by what the network hands them, and not by a loss of theirs."""
    return [name for name, row in plan.page.rows.items() if row.protocols]


def given(plan: Plan, row: str) -> dict[str, str]:
    """What such an attack is given -> the protocol that it is shown as."""
    declared = plan.page.rows[row]
    return {loss: declared.protocols.get(loss, loss) for loss in declared.losses or plan.page.losses}


def followed(plan: Plan) -> dict[str, list[int]]:
    """The fine-tuned columns -> the epochs at which they are looked at."""
    return {
        column: [epoch_of(looked_at) or 0 for looked_at in plan.looks(network)]
        for (column, seed), network in plan.networks.items()
        if seed == 0 and isinstance(network, Trained) and network.parent
    }


def printed(page: Page, row: str, column: str, epoch: int | None) -> Claim | None:
    """The number of the paper's table in this place; what only its text says stands in no table."""
    ids = [answer.id(row, column, epoch) for answer in page.claims if not answer.over]
    found = [ledger()[id] for id in ids if id in ledger() and ledger()[id].claim is None]
    return found[0] if found else None


def printed_curve(page: Page) -> dict[int, float]:
    """The paper's row along the epochs of fine-tuning, epoch -> number, as far as it prints one."""
    places = [(row, column, epoch) for row in page.rows for column in page.columns for epoch in range(1, 501)]
    return {epoch: claim.number for row, column, epoch in places if (claim := printed(page, row, column, epoch))}


def interval(cells: list[Cell]) -> tuple[float, float, float]:
    """Value, low and high: of one cell, its interval; over several seeds, the mean, the lowest and the highest."""
    by_seed = list({cell.seed: cell for cell in cells}.values())  # a number that answers two claims is one number
    values = [cell.value for cell in by_seed]
    if len(values) > 1:
        return sum(values) / len(values), min(values), max(values)
    (cell,) = by_seed
    return cell.value, cell.value if cell.low is None else cell.low, cell.value if cell.high is None else cell.high


def number(cell: Cell) -> str:
    """A measured number with its interval, for people: 12.34 [11.71, 12.99]."""
    return "{:.2f} [{:.2f}, {:.2f}]".format(*interval([cell]))


def over_seeds(cells: list[Cell]) -> str:
    """The same over seeds: 12.3 (11.7 to 13.0)."""
    several = len({cell.seed for cell in cells}) > 1
    return "{:.1f} ({:.1f} to {:.1f})".format(*interval(cells)) if several else number(cells[0])


def name_of(network: AnyNetwork) -> str:
    """A network's name, which says where it is narrower than its own."""
    if isinstance(network, Voted):
        return " and ".join(dict.fromkeys(name_of(member) for member in network.members))
    if isinstance(network, Changed):
        return name_of(network.network)
    width = "" if network.width == 1 else f" (width {network.width:g})"
    return f"{network.architecture}{width}"


def page_network(plan: Plan) -> str:
    """The name of the network that a page is about."""
    return name_of(next(iter(plan.networks.values())))
