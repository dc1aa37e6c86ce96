"""What it is worth: the paper's claims and contradictions, verdicts, the sanity ladder's veto, the scoreboard."""

from reprolib.paper.judge.claims import VERDICTS, Claim, Measured, Verdict, find, judge, ledger, load_claims
from reprolib.paper.judge.contradictions import Contradiction, load_contradictions
from reprolib.paper.judge.ladder import fault
from reprolib.paper.judge.scoreboard import scoreboard, verdict_counts

__all__ = [
    "VERDICTS",
    "Claim",
    "Contradiction",
    "Measured",
    "Verdict",
    "fault",
    "find",
    "judge",
    "ledger",
    "load_claims",
    "load_contradictions",
    "scoreboard",
    "verdict_counts",
]


def __dir__() -> list[str]:
    return __all__
