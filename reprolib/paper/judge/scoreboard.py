"""Every printed number beside what was measured, with a verdict."""

from __future__ import annotations

import pandas as pd

from reprolib.paper.judge import claims, ladder, readings
from reprolib.paper.plan import PROFILES, Cell, all_pages
from reprolib.paper.run import PROTOCOLS, Stored, records

Answers = dict[tuple[str, str], tuple[str, str, Cell]]  # (claim, protocol) -> profile, record, number


def scoreboard(found: dict[tuple[str, str], Stored] | None = None) -> pd.DataFrame:
    """One row per claim and protocol that was measured, and one per claim that was not: printed, measured, verdict.

    A protocol whose attack fails its sanity ladder in a record earns no verdict there (see `ladder`). Of several
    records that answer a claim that of the fullest profile counts (`PROFILES`), and within a profile the page that
    stands first in its table's file.
    For a number that is not reproduced, `reading` names what comes within tolerance of it (see `readings.nearest`).
    found: (profile, name) -> record; by default all that results/ has.
    """
    found = records() if found is None else found
    measured: Answers = {}
    for profile, name in _ranked(found):
        for cell in found[profile, name].cells:
            if cell.claim and cell.judged:
                measured.setdefault((cell.claim, cell.protocol), (profile, name, cell))
    rows = []
    for id, claim in claims.ledger().items():
        protocols = [protocol for protocol in PROTOCOLS if (id, protocol) in measured]
        for protocol in protocols:
            profile, name, cell = measured[id, protocol]
            baseline = _baseline(claim, protocol, profile, name, found[profile, name], measured)
            verdict = claims.judge(claim, _measured(cell), profile=profile, baseline=baseline)
            if fault := ladder.fault(found[profile, name].cells, protocol):
                verdict = claims.not_run(fault)
            rows.append(_row(claim, verdict, protocol, profile, name, cell))
        if not protocols:
            rows.append(_row(claim, claims.judge(claim, None, profile="cpu")))
    board = pd.DataFrame(rows)
    named = readings.committed({key: found[key] for key in _ranked(found)})
    settled = board["verdict"].isin([*readings.CLOSE, "not run"])
    near = [readings.nearest(named, claim) for claim in board["claim"]]
    return board.assign(reading=["" if done else one for done, one in zip(settled, near, strict=True)])


def _baseline(
    claim: claims.Claim, protocol: str, profile: str, name: str, record: Stored, measured: Answers
) -> claims.Measured | None:
    """What the claim's gain is over: the number in its own record, or in the same profile's of another table. Another
    page of its own table is of another network."""
    own = [cell for cell in record.cells if cell.judged and (cell.claim, cell.protocol) == (claim.baseline, protocol)]
    if own:
        return _measured(own[0])
    base_profile, base_name, base = measured.get((claim.baseline or "", protocol), ("", "", None))
    tables = {page.record: page.table for page in all_pages()}
    is_elsewhere = base_profile == profile and tables.get(base_name) != tables.get(name)
    return _measured(base) if base and is_elsewhere else None


def _ranked(found: dict[tuple[str, str], Stored]) -> list[tuple[str, str]]:
    order = [page.record for page in all_pages()]
    return sorted(
        found, key=lambda key: (-PROFILES.index(key[0]), order.index(key[1]) if key[1] in order else len(order))
    )


def _row(
    claim: claims.Claim,
    verdict: claims.Verdict,
    protocol: str = "",
    profile: str = "",
    record: str = "",
    cell: Cell | None = None,
) -> dict[str, object]:
    return {
        "claim": claim.id,
        "where": claim.where,
        "printed": claim.printed,
        "protocol": protocol,
        "measured": cell.value if cell else None,
        "low": cell.low if cell else None,
        "high": cell.high if cell else None,
        "n": cell.n if cell else None,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "profile": profile,
        "record": record,
    }


def _measured(cell: Cell) -> claims.Measured:
    return claims.Measured(**cell.model_dump(include={"value", "low", "high", "n"}))


def verdict_counts(board: pd.DataFrame) -> pd.DataFrame:
    """Number of claims per verdict (rows) and protocol (columns); claims that nothing measured stand under "all"."""
    board = board.assign(protocol=board["protocol"].replace("", "all"))
    counts = board.groupby(["verdict", "protocol"]).size().unstack(fill_value=0)
    columns = [protocol for protocol in [*PROTOCOLS, "all"] if protocol in counts.columns]
    return counts.reindex(index=[v for v in claims.VERDICTS if v in counts.index], columns=columns, fill_value=0)
