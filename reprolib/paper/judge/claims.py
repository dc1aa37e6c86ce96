"""What the paper prints, and the verdict on a measured number.

`params/claims.yaml` holds every printed number with its place and a tolerance that was fixed before any run;
`load_claims` reads and checks it, `judge` compares one measured number with one claim.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import Field, model_validator

from reprolib.paper.parameters import suggest
from reprolib.paper.plan import PARAMS, PROFILES, Record, SpecError, parse_yaml
from reprolib.paper.plan.records import Count

CLAIMS_FILE = PARAMS / "claims.yaml"

# "above the paper" is a flag and no success.
VerdictName = Literal["reproduced", "within tolerance", "above the paper", "trend only", "not reproduced", "not run"]
VERDICTS: tuple[str, ...] = get_args(VerdictName)

Unit = Literal["percent", "points", "minutes", "factor", "text"]
_SYMBOLS = {"percent": " %", "points": " points", "minutes": " min", "factor": "x"}
_RATIO_UNITS = ("minutes", "factor")

Text = Annotated[str, Field(min_length=1)]
AnyRecord = TypeVar("AnyRecord", bound=Record)


class Tolerance(Record):
    """How far a measured number may lie from the printed one: `points` (a difference) or `ratio` (a quotient, above 1).

    With neither of the two, nothing is judged against it.
    """

    name: str
    points: Annotated[float, Field(gt=0)] | None = None
    ratio: Annotated[float, Field(gt=1)] | None = None
    reason: Text

    @model_validator(mode="after")
    def _at_most_one(self) -> Tolerance:
        if self.points is not None and self.ratio is not None:
            raise ValueError("has both points and ratio; keep one of them")
        return self


class Claim(Record):
    """One printed number. `printed` is text, and the unit "text", where the claim is no single number.

    `where` is the table or section; `column` the table's column; `baseline` the id of the undefended cell under the
    same attack; `claim` the wording of a text claim; `check` what the number agrees with or contradicts in the paper.
    """

    id: str
    where: Text
    printed: float | str
    unit: Unit
    tolerance: Tolerance
    dataset: str | None = None
    model: str | None = None
    column: str | None = None
    attack: str | None = None
    claim: str | None = None
    baseline: str | None = None
    check: str | None = None

    @property
    def points(self) -> float | None:
        """The tolerance in percentage points, or None where it is a ratio or the claim is not judged."""
        return self.tolerance.points

    @property
    def number(self) -> float:
        """The printed number; ValueError for a claim that is no single number."""
        if isinstance(self.printed, str):
            raise ValueError(f"claim {self.id!r} prints {self.printed!r}, which is no single number")
        return self.printed

    @model_validator(mode="after")
    def _unit_fits(self) -> Claim:
        if isinstance(self.printed, str) != (self.unit == "text"):
            raise ValueError(
                f"prints {self.printed!r} with unit {self.unit!r}; numbers take one of "
                f"{', '.join(u for u in get_args(Unit) if u != 'text')}, and only words take 'text'"
            )
        wrong, right = ("points", "ratio") if self.unit in _RATIO_UNITS else ("ratio", "points")
        if self.unit != "text" and getattr(self.tolerance, wrong) is not None:
            raise ValueError(
                f"has unit {self.unit!r}, but tolerance {self.tolerance.name!r} is given in {wrong}; "
                f"choose a tolerance in {right}"
            )
        if self.unit in _RATIO_UNITS and self.number <= 0:
            raise ValueError(f"prints {self.number:g} {self.unit}; a number above 0 is needed")
        if self.baseline is not None and self.unit != "percent":
            raise ValueError(f"has unit {self.unit!r} and a baseline; only accuracies in percent take one")
        return self


class Measured(Record):
    """One measured number in the claim's unit, with its 95 % interval [low, high] and the number of examples."""

    value: float
    low: float
    high: float
    n: Count

    @model_validator(mode="after")
    def _ordered(self) -> Measured:
        slack = 1e-9  # an interval's bound and the value may be the same number, computed two ways
        if not self.low - slack <= self.value <= self.high + slack:
            raise ValueError(f"has value {self.value:g} outside its interval [{self.low:g}, {self.high:g}]")
        return self


class Verdict(Record):
    """One of VERDICTS, `difference` = measured - printed in the claim's unit (None where not run), and why."""

    verdict: VerdictName
    difference: float | None
    reason: str


@functools.cache
def ledger() -> dict[str, Claim]:
    """The claims of params/claims.yaml, read once: a process goes on with those that it began with."""
    return load_claims()


def load_claims(path: str | Path | None = None) -> dict[str, Claim]:
    """All claims of a file by id, in the file's order; by default of the repository's params/claims.yaml.

    Raises FileNotFoundError where there is no such file, and ValueError, in one sentence, for the first thing wrong.
    """
    path = CLAIMS_FILE if path is None else Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"no claims file at {path}; run from a clone of the repository, which has params/claims.yaml, "
            "or pass the path of one"
        )
    content = parse_yaml(path)
    for section in ("tolerances", "claims"):
        if not isinstance(content, Mapping) or not isinstance(content.get(section), Mapping):
            raise ValueError(f"{path.name} lacks the mapping '{section}' at its top level; add it")
    tolerances = {
        name: build(Tolerance, f"{path.name}: tolerance '{name}'", fields, name=name)
        for name, fields in content["tolerances"].items()
    }
    claims: dict[str, Claim] = {}
    for id, fields in content["claims"].items():
        place = f"{path.name}: claim '{id}'"
        name = fields.get("tolerance") if isinstance(fields, Mapping) else None
        if isinstance(name, str):
            if name not in tolerances:
                raise ValueError(f"{place}: {suggest(name, tolerances, 'tolerance')}")
            fields = {**fields, "tolerance": tolerances[name]}
        claims[id] = build(Claim, place, fields, id=id)
    for claim in claims.values():
        if claim.baseline is not None and claim.baseline not in claims:
            raise ValueError(f"{path.name}: claim '{claim.id}': {suggest(claim.baseline, claims, 'baseline')}")
    return claims


def build(kind: type[AnyRecord], place: str, fields: object, **more: Any) -> AnyRecord:
    """A record from what stands at a place of a YAML file; ValueError with the place for the first thing wrong."""
    if not isinstance(fields, Mapping):
        names = [name for name in kind.model_fields if name not in more]
        raise ValueError(f"{place} is {fields!r}; expected a mapping such as {{{names[0]}: ..., {names[1]}: ..., ...}}")
    fields = {str(name): value for name, value in fields.items()}
    for name in more.keys() & fields.keys():
        raise ValueError(f"{place}: {name} stands before the colon already; leave it out here")
    try:
        return kind(**more, **fields)
    except SpecError as error:
        raise ValueError(f"{place}: {error}") from None


def find(claims: Mapping[str, Claim], id: str) -> Claim:
    """The claim with this id; ValueError with the nearest id where there is none."""
    if id not in claims:
        raise ValueError(suggest(id, claims, "claim"))
    return claims[id]


def judge(claim: Claim, measured: Measured | None, *, profile: str, baseline: Measured | None = None) -> Verdict:
    """The verdict on one measured number under one protocol.

    `baseline` is the measured undefended cell (claim.baseline) under the same attack and protocol. The rules, first
    match wins; "close" means |measured - printed| <= points, or that neither number is more than ratio times the other:

    - not run: nothing measured, the quick profile, a claim that is no single number, or a tolerance without a size;
    - reproduced: close, and the printed number lies inside [low, high];
    - within tolerance: close;
    - above the paper: above the printed number by more than the tolerance; for minutes, faster (a faster machine is
      flagged, a slower one falls through to not reproduced);
    - trend only: below the printed number, but the interval lies wholly above the baseline's interval;
    - not reproduced: everything else.

    Raises ValueError for an unknown profile, or for minutes and factors that are not above 0.
    """
    if profile not in PROFILES:
        raise ValueError(suggest(profile, PROFILES, "profile"))
    if profile == "quick":
        return not_run("the quick profile never earns a verdict")
    if claim.unit == "text":
        return not_run("the claim is no single number")
    if claim.points is None and claim.tolerance.ratio is None:
        return not_run(claim.tolerance.reason)
    if measured is None:
        return not_run("nothing was measured")

    if claim.unit in _RATIO_UNITS and measured.value <= 0:
        raise ValueError(f"'{claim.id}' was measured as {measured.value:g} {claim.unit}; expected a number above 0")
    verdict, why = _ruling(claim, measured, baseline)
    numbers = f"{_show(claim, measured.value)} measured, {_show(claim, claim.number)} printed"
    difference = measured.value - claim.number
    return Verdict(verdict=verdict, difference=difference, reason=_sentence(f"{numbers}: {why}"))


def not_run(reason: str) -> Verdict:
    """No verdict, and why."""
    return Verdict(verdict="not run", difference=None, reason=_sentence(reason))


def _ruling(claim: Claim, measured: Measured, baseline: Measured | None) -> tuple[VerdictName, str]:
    close, above = _compare(claim, measured.value)
    allowed = f"{claim.points:g} points" if claim.points is not None else f"a factor of {claim.tolerance.ratio:g}"
    interval = f"[{measured.low:.2f}, {measured.high:.2f}]"
    up, down = ("faster", "slower") if claim.unit == "minutes" else ("above", "below")
    if close and measured.low <= claim.number <= measured.high:
        return "reproduced", f"the printed number lies inside the measured 95 % interval {interval}"
    if close:
        return "within tolerance", f"within {allowed}, though outside the measured 95 % interval {interval}"
    if above:
        return "above the paper", f"{up} by more than {allowed}, which calls for an explanation"
    if claim.baseline is None:
        return "not reproduced", f"{down} by more than {allowed}"
    if baseline is None:
        return "not reproduced", f"{down} by more than {allowed}, and the baseline was not measured"
    if measured.low > baseline.high:
        return "trend only", f"{down} by more than {allowed}, yet clear of the baseline's {baseline.value:.2f} %"
    return "not reproduced", f"{down} by more than {allowed}, and not clear of the baseline's {baseline.value:.2f} %"


def _compare(claim: Claim, value: float) -> tuple[bool, bool]:
    """(close to the printed number, else above it or, for minutes, faster)."""
    if claim.points is not None:
        distance, limit, more = abs(value - claim.number), claim.points, value > claim.number
    else:
        quotient = value / claim.number
        distance, limit, more = max(quotient, 1 / quotient), claim.tolerance.ratio or 1.0, quotient > 1
    # In floats a distance of exactly the tolerance may come out a hair above it; it still counts as close.
    close = distance <= limit or math.isclose(distance, limit, rel_tol=1e-9)
    return close, not close and more != (claim.unit == "minutes")


def _show(claim: Claim, number: float) -> str:
    return f"{number:.2f}{_SYMBOLS[claim.unit]}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."
