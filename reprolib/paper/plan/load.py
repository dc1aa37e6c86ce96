"""A page's plan by its names: table, network and profile, with amounts of one's own."""

from __future__ import annotations

from typing import Any

from reprolib import data, networks
from reprolib.paper.parameters import suggest
from reprolib.paper.plan.amounts import OWN, PUBLISHED, Amounts, Profile, load_profile
from reprolib.paper.plan.jobs import Plan, amounts_of
from reprolib.paper.plan.records import SpecError
from reprolib.paper.plan.tables import Column, Page, load_table, table_names

# the amounts that say how networks are trained which a page reads as published; who sets one of them trains his own
READ = {"trained": set(), "finetuned": {"pretrain", "width", "seed", "seeds"}}
READ["published"] = READ["finetuned"] | {"train", "finetune"}


def load_plan(table: str, network: str, profile: str, *, run_name: str = "", **overrides: Any) -> Plan:
    """The plan of a page in a profile; with overrides, amounts of one's own, whose results go to results/custom, and
    with a name of such a run to results/custom/<name>.

    Published networks are what they are: with an amount of one's own for their training the page trains all of its own.
    """
    if table not in table_names():
        raise SpecError(suggest(table, table_names(), "table"))
    pages = load_table(table)
    if network not in pages:
        raise SpecError(f"{table}: {suggest(network, pages, 'network')}")
    page = pages[network]
    usual = amounts_of(page, _named_rightly(profile))
    known = usual.model_dump()
    train_all = usual.model_copy(update={"networks": "trained"})
    turned = {name for name in READ[usual.networks] & used(page, train_all).keys() if overrides.get(name) is not None}
    published = amounts_of(page, load_profile(PUBLISHED)).model_dump()  # with which these networks were trained
    trains = {"networks": "trained"} if any(overrides[name] != published[name] for name in turned) else {}
    amounts = Amounts(**known | trains | overrides)
    if run_name:
        return Plan(page, amounts, f"custom/{run_name}")
    return Plan(page, amounts, profile if used(page, amounts) == used(page, usual) else "custom")


def _named_rightly(name: str) -> Profile:
    """A profile whose amounts are for data sets, networks and tables that there are."""
    profile, pages = load_profile(name), all_pages()
    records = [page.record for page in pages]
    for record in records:
        if records.count(record) > 1:
            raise SpecError(f"two pages have the record {record!r}; give each a name of its own")
    for kind, given, known in (
        ("data set", profile.datasets, data.names()),
        ("network", profile.networks, sorted({page.network for page in pages})),
        ("table", profile.tables, [*table_names(), *records]),
    ):
        for one in given:
            if one not in known:
                raise SpecError(f"{name}.yaml: {suggest(one, known, kind)}")
    return profile


def used(page: Page, amounts: Amounts) -> dict[str, Any]:
    """The amounts that make this page's record, and no others, so that a later setting cannot disturb it."""
    columns = list(page.columns.values())
    each = columns + [one for column in columns for one in column.members or [] if isinstance(one, Column)]
    spare = {
        "every": not page.follows_epochs,
        "seeds": all(column.seeds == 1 for column in columns),
        "width": not any(networks.scalable(one.architecture or page.architecture) for one in each),
        "finetune": all(one.parent is None for one in each) or amounts.networks == "published",
        "train": amounts.networks == "published",
        "pretrain": amounts.networks != "trained",
        "networks": amounts.networks == "trained",  # as in the records from before there was a choice
        "alpha": all(row.attack.get("alpha") is None for row in page.rows.values()),
        "loss": any(row.protocols for row in page.rows.values()),  # told apart by what they are given, not by a loss
    }
    spare |= {name: True for name in OWN if getattr(amounts, name) is None}
    return {name: value for name, value in amounts.model_dump().items() if not spare.get(name)}


def all_pages() -> list[Page]:
    return [page for table in table_names() for page in load_table(table).values()]
