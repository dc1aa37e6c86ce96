"""A page's cells as tables for people: data frames of text, which `markdown` and `display` show."""

from __future__ import annotations

import pandas as pd

from reprolib.attacks import STANDARD
from reprolib.paper.judge import ledger
from reprolib.paper.plan import LOSSES, Cell, Plan
from reprolib.paper.run import RUNGS
from reprolib.paper.run.measure import ALL, CLEAN
from reprolib.paper.show.selection import (
    asked,
    followed,
    given,
    given_rows,
    main_rows,
    networks_of,
    number,
    over_seeds,
    printed,
    where,
)


def markdown(data_frame: pd.DataFrame) -> str:
    """A data frame as a Markdown table, its numbers as they are written."""
    return data_frame.to_markdown(index=False, disable_numparse=True) + "\n"


def table(cells: list[Cell], plan: Plan) -> pd.DataFrame:
    """The paper's table and ours in one: per attack the printed row, if any, then a row per protocol and decision rule.

    All attacks together follow, which the paper does not print.
    """
    networks, rows = networks_of(plan), []
    for name in [CLEAN, *plan.page.rows, ALL]:
        claims = {at.label: printed(plan.page, name, at.column, at.epoch) for at in networks}
        if any(claims.values()):
            numbers = {column: f"{claim.number:.2f}" if claim else "" for column, claim in claims.items()}
            rows.append({"attack": name, "protocol": "paper", "decision": "", "images": "", **numbers})
        here = {at.label: where(at.of(cells), row=name, quantity="accuracy") for at in networks}
        for protocol, decision in dict.fromkeys((c.protocol, c.decision) for found in here.values() for c in found):
            found = {column: where(some, protocol=protocol, decision=decision) for column, some in here.items()}
            rows.append(
                {
                    "attack": name,
                    "protocol": protocol,
                    "decision": decision or "",
                    "images": str(max(c.n or 0 for some in found.values() for c in some)),
                    **{column: number(some[0]) if some else "" for column, some in found.items()},
                }
            )
    return pd.DataFrame(rows)


def summary(cells: list[Cell], plan: Plan) -> pd.DataFrame:
    """The table in three rows per attack: printed, under `probabilities` by the last iterate, and sound."""
    full = table(cells, plan)
    keep = [("paper", ""), ("clean", ""), ("probabilities", "last"), ("sound", "any")]
    names = [CLEAN, *main_rows(plan)]
    chosen = full[
        [
            attack in names and (protocol, decision) in keep
            for attack, protocol, decision in zip(full["attack"], full["protocol"], full["decision"], strict=True)
        ]
    ].copy()
    for at in networks_of(plan):
        chosen[at.label] = chosen[at.label].str.split(" ").str[0]
    return chosen.drop(columns="decision").reset_index(drop=True)


def epochs_table(cells: list[Cell], plan: Plan) -> pd.DataFrame:
    """Along the epochs: per column and epoch the saturated share, and per attack the printed number and two of ours.

    Means over the seeds, with the lowest and the highest, where there are several.
    """
    rows = []
    attacks = main_rows(plan)
    several = any(seed for _, seed in plan.networks)
    with_claims = [a for a in attacks for c, at in followed(plan).items() for e in at if printed(plan.page, a, c, e)]
    for column, epochs in followed(plan).items():
        for epoch in epochs:
            here = where(cells, column=column, epoch=epoch)
            saturated = where(here, quantity="saturated")
            row = {"column": column, "epochs": str(epoch)}
            row |= {"seeds": str(len({cell.seed for cell in here}))} if several else {}
            row |= {"saturated": over_seeds(saturated)} if saturated else {}
            for attack in attacks:
                if attack in with_claims:
                    claim = printed(plan.page, attack, column, epoch)
                    row[f"paper: {attack}"] = f"{claim.number:.1f}" if claim else ""
                for protocol, decision in (("probabilities", "last"), ("sound", "any")):
                    found = asked(here, protocol, decision, row=attack)
                    if found:  # another engine has other protocols
                        row[f"{attack} {protocol}"] = over_seeds(found)
            rows.append(row)
    return pd.DataFrame(rows)


def claims_table(cells: list[Cell], plan: Plan) -> pd.DataFrame:
    """What the text claims about a page's networks, and what was measured: a row per claim, a column per protocol."""
    rows = []
    for answer in plan.page.claims:
        claim = ledger().get(answer.claim)
        if claim is not None and claim.claim is not None:
            found = {cell.protocol: cell for cell in where(cells, claim=answer.claim, judged=True)}
            rows.append(
                {
                    "claim": claim.claim,
                    "cell": f"{answer.row}, {answer.column}" + (f" minus {answer.over}" if answer.over else ""),
                    "printed": f"{claim.printed:g}" if isinstance(claim.printed, float) else claim.printed,
                    **{protocol: number(cell) for protocol, cell in found.items()},
                }
            )
    return pd.DataFrame(rows).fillna("")


def given_table(cells: list[Cell], plan: Plan) -> pd.DataFrame:
    """The paper's numbers and ours for attacks told apart by what they are given: a row per network."""
    rows = []
    for at in networks_of(plan):
        (clean, *_) = asked(at.of(cells), "clean", None)
        row = {"network": at.label, "images": str(clean.n), "clean": number(clean)}
        for attack in given_rows(plan):
            claims = [printed(plan.page, attack, other.column, other.epoch) for other in networks_of(plan)]
            if any(claims):
                claim = printed(plan.page, attack, at.column, at.epoch)
                row[f"paper: {attack}"] = f"{claim.number:.2f}" if claim else ""
            for loss, protocol in given(plan, attack).items():
                found = asked(at.of(cells), protocol, "any", row=attack)  # none where a row is not for this column
                row[given_label(attack, loss, protocol)] = number(found[0]) if found else ""
        rows.append(row)
    return pd.DataFrame(rows)


def given_label(attack: str, loss: str, protocol: str) -> str:
    """What such a number is called: AutoAttack, given logits (sound)."""
    return f"{attack}, given {loss}" + ("" if protocol == loss else f" ({protocol})")


def parts_table(cells: list[Cell], plan: Plan) -> pd.DataFrame:
    """Which part of AutoAttack broke which share of the images, in %."""
    rows = []
    for at in networks_of(plan):
        for attack in given_rows(plan):
            for loss, protocol in given(plan, attack).items():
                found = {c.part: c for c in where(at.of(cells), quantity="broken", row=attack, protocol=protocol)}
                shares = {f"broken by {part}": f"{found[part].value:.2f}" for part in STANDARD if part in found}
                if shares:
                    rows.append({"network": at.label, "given": loss, **shares})
    return pd.DataFrame(rows)


def ladder_table(cells: list[Cell]) -> pd.DataFrame:
    """The sanity ladder: per rung the points by which each loss missed it, and how many are allowed."""
    missed = {(cell.row, cell.column): cell.value for cell in where(cells, quantity="missed")}
    return pd.DataFrame(
        [
            {"rung": rung, "allowed": f"{allowed:g}", **{loss: f"{missed[rung, loss]:g}" for loss in LOSSES}}
            for rung, allowed in RUNGS.items()
        ]
    )


def contingency_table(cells: list[Cell]) -> pd.DataFrame:
    """Per network: of the correctly classified images, those saturated before or not, by survived or not, in %.

    Where all images are in one of the four fields, agreement would be 100 % of nothing, and the table says so.
    """
    rows = []
    for column in dict.fromkeys(cell.column for cell in where(cells, quantity="share")):
        shares = {cell.part or "": cell for cell in where(cells, quantity="share", column=column)}
        agree = shares["saturated, survives"].value + shares["not saturated, falls"].value
        alike = max(cell.value for cell in shares.values()) == 100  # nothing differs that could go together
        rows.append(
            {
                "network": column,
                "images": str(shares["saturated, survives"].n),
                **{part: f"{cell.value:.2f}" for part, cell in shares.items()},
                "one predicts the other": "nothing to compare" if alike else f"{agree:.2f}",
            }
        )
    return pd.DataFrame(rows)
