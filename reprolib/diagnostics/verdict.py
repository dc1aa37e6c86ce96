"""What the checks add up to: a verdict and the sentence that says why."""

import math

from reprolib.diagnostics.case import Case, percent
from reprolib.diagnostics.checks import STANDARD_ERRORS, Row

VERDICTS = ("robust", "masked gradients", "robust only to transfer", "attack too weak", "not robust")
TRANSFER_ONLY = 10.0  # points between accuracy on the parent's images and sound accuracy (Athalye)

# What a failing check means; the first line with one of them decides, and checks in no line inform only. "Too high" is
# no verdict yet: where most of the claim survives everything, the network is robust and the attack fell short
# (cross-entropy on a sound network, FGSM); where most of it is gone, its robustness was masking.
DECIDING = (
    ("masked gradients", ("D1", "D2")),  # nothing to go by, which no strength mends; saturation can fail D0 as well
    ("attack too weak", ("D0",)),  # it does not even break a network that nobody defended
    ("too high", ("D3",)),  # another loss finds more with the same budget, so strength is not the matter
    ("attack too weak", ("D5", "D7")),  # more of it finds more; short of steps, it loses to those below as well
    ("too high", ("D4", "D9", "D10", "D11", "D14")),
)
MOST_OF_IT = 0.5  # of a claim that is too high (ours)


def judge(rows: list[Row], case: Case) -> tuple[str, str]:
    """The verdict, one of VERDICTS, and the sentence."""
    claimed, left = percent(case.claimed), percent(case.sound)
    survive = f"{left:.1f} % survive everything tried"
    for verdict, ids in DECIDING:
        failed = [row.check for row in rows if row.check.split()[0] in ids and row.passed is False]
        if failed:
            if verdict == "too high":
                verdict = "attack too weak" if left >= MOST_OF_IT * claimed else "masked gradients"
            fail = "fails" if len(failed) == 1 else "fail"
            return verdict, f"{' and '.join(failed)} {fail}: {claimed:.1f} % are claimed and {survive}."
    # the claim stands: is what is left more than what the parent keeps, and if not, does it withstand transfer?
    base, moved = percent(case.parent_keeps), percent(case.survives_transfer)
    standard_error = math.sqrt((left * (100 - left) + base * (100 - base)) / len(case.labels))
    robust = left - base > STANDARD_ERRORS * standard_error
    if not robust and moved - left > TRANSFER_ONLY:
        return "robust only to transfer", f"{moved:.1f} % survive what breaks the parent (D10), but only {survive}."
    against = f"against {base:.1f} % that the claimed attack leaves of the parent"
    against = "with no parent to compare with" if case.parent is None else against
    return "robust" if robust else "not robust", f"No check fails that decides, and {survive}, {against}."
