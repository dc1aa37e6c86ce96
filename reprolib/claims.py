"""What the paper prints, and the verdict on a measured number.

`params/claims.yaml` holds every printed number with its place and a tolerance that was fixed before any run;
`load_claims` reads and checks it, `judge` compares one measured number with one claim. Plain data: imports no torch,
so that a batch engine can read it fast.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

CLAIMS_FILE = Path(__file__).resolve().parent.parent / "params" / "claims.yaml"

# "above the paper" is a flag and no success.
VerdictName = Literal["reproduced", "within tolerance", "above the paper", "trend only", "not reproduced", "not run"]
VERDICTS: tuple[str, ...] = get_args(VerdictName)
PROFILES = ("quick", "cpu", "paper")

Unit = Literal["percent", "points", "minutes", "factor", "text"]
_SYMBOLS = {"percent": " %", "points": " points", "minutes": " min", "factor": "x"}
_RATIO_UNITS = ("minutes", "factor")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Printed(_Record):
    model_config = ConfigDict(strict=True)  # "1e-3" and true are no numbers here


class Tolerance(_Printed):
    """How far a measured number may lie from the printed one: `points` (a difference) or `ratio` (a quotient, above 1).

    With neither of the two, nothing is judged against it.
    """

    name: str
    points: float | None = Field(None, gt=0)
    ratio: float | None = Field(None, gt=1)
    reason: str = Field(min_length=1)

    @model_validator(mode="after")
    def _at_most_one(self) -> Tolerance:
        if self.points is not None and self.ratio is not None:
            raise ValueError("has both points and ratio; keep one of them")
        return self


class Claim(_Printed):
    """One printed number. `printed` is text, and the unit "text", where the claim is no single number.

    `where` is the table or section; `column` the table's column; `baseline` the id of the undefended cell under the
    same attack; `claim` the wording of a text claim; `check` what the number agrees with or contradicts in the paper.
    """

    id: str
    where: str = Field(min_length=1)
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

    @model_validator(mode="after")
    def _unit_fits(self) -> Claim:
        is_text = isinstance(self.printed, str)
        if is_text != (self.unit == "text"):
            raise ValueError(
                f"prints {self.printed!r} with unit '{self.unit}'; numbers take one of "
                f"{_listed(u for u in get_args(Unit) if u != 'text')}, and only words take 'text'"
            )
        wrong = "points" if self.unit in _RATIO_UNITS else "ratio"
        if not is_text and getattr(self.tolerance, wrong) is not None:
            right = "ratio" if wrong == "points" else "points"
            raise ValueError(
                f"has unit '{self.unit}', but tolerance '{self.tolerance.name}' is given in {wrong}; "
                f"choose a tolerance in {right}"
            )
        if self.unit in _RATIO_UNITS and self.printed <= 0:
            raise ValueError(f"prints {self.printed:g} {self.unit}; a number above 0 is needed")
        if self.baseline is not None and self.unit != "percent":
            raise ValueError(f"has unit '{self.unit}' and a baseline; only accuracies in percent take one")
        return self


class Measured(_Record):
    """One measured number in the claim's unit, with its 95 % interval [low, high] and the number of examples."""

    value: float
    low: float
    high: float
    n: int = Field(ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Measured:
        slack = 1e-9  # an interval's bound and the value may be the same number, computed two ways
        if not self.low - slack <= self.value <= self.high + slack:
            raise ValueError(f"has value {self.value:g} outside its interval [{self.low:g}, {self.high:g}]")
        return self


class Verdict(_Record):
    """One of VERDICTS, `difference` = measured - printed in the claim's unit (None where not run), and why."""

    verdict: VerdictName
    difference: float | None
    reason: str


def load_claims(path: str | Path | None = None) -> dict[str, Claim]:
    """All claims of a file by id, in the file's order; by default of the repository's params/claims.yaml.

    Raises FileNotFoundError where there is no such file, and ValueError, in one sentence, for the first thing wrong.
    """
    path = CLAIMS_FILE if path is None else Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no claims file at {path}; run from a clone of the repository, which has params/claims.yaml, "
            "or pass the path of one"
        ) from None
    try:
        content = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no valid YAML: {' '.join(str(error).split())}") from None
    for section in ("tolerances", "claims"):
        if not isinstance(content, Mapping) or not isinstance(content.get(section), Mapping):
            raise ValueError(f"{path.name} lacks the mapping '{section}' at its top level; add it")

    tolerances = {
        name: _build(Tolerance, f"{path.name}: tolerance '{name}'", {"name": name}, fields)
        for name, fields in content["tolerances"].items()
    }
    claims = {}
    for id, fields in content["claims"].items():
        place = f"{path.name}: claim '{id}'"
        name = fields.get("tolerance") if isinstance(fields, Mapping) else None
        if isinstance(name, str):
            if name not in tolerances:
                raise ValueError(f"{place} has the unknown tolerance '{name}'; {_suggest(name, tolerances)}")
            fields = {**fields, "tolerance": tolerances[name]}
        claims[id] = _build(Claim, place, {"id": id}, fields)
    for claim in claims.values():
        if claim.baseline is not None and claim.baseline not in claims:
            raise ValueError(
                f"{path.name}: claim '{claim.id}' has the unknown baseline '{claim.baseline}'; "
                f"{_suggest(claim.baseline, claims)}"
            )
    return claims


def find(claims: Mapping[str, Claim], id: str) -> Claim:
    """The claim with this id; ValueError with the nearest ids where there is none."""
    if id not in claims:
        raise ValueError(f"unknown claim '{id}'; {_suggest(id, claims)}")
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
        raise ValueError(f"unknown profile '{profile}'; {_suggest(profile, PROFILES)}")
    for reason, applies in (
        ("the quick profile never earns a verdict", profile == "quick"),
        ("the claim is no single number", claim.unit == "text"),
        (claim.tolerance.reason, claim.points is None and claim.tolerance.ratio is None),
        ("nothing was measured", measured is None),
    ):
        if applies:
            return Verdict(verdict="not run", difference=None, reason=_sentence(reason))

    if claim.unit in _RATIO_UNITS and measured.value <= 0:
        raise ValueError(f"'{claim.id}' was measured as {measured.value:g} {claim.unit}; expected a number above 0")
    difference = measured.value - claim.printed
    close, above = _compare(claim, measured.value)
    allowed = f"{claim.points:g} points" if claim.points is not None else f"a factor of {claim.tolerance.ratio:g}"
    interval = f"[{measured.low:.2f}, {measured.high:.2f}]"
    up, down = ("faster", "slower") if claim.unit == "minutes" else ("above", "below")

    if close and measured.low <= claim.printed <= measured.high:
        verdict, why = "reproduced", f"the printed number lies inside the measured 95 % interval {interval}"
    elif close:
        verdict, why = "within tolerance", f"within {allowed}, though outside the measured 95 % interval {interval}"
    elif above:
        verdict, why = "above the paper", f"{up} by more than {allowed}, which calls for an explanation"
    elif claim.baseline is not None and baseline is not None and measured.low > baseline.high:
        verdict = "trend only"
        why = f"{down} by more than {allowed}, yet clear of the baseline's {baseline.value:.2f} %"
    else:
        verdict, why = "not reproduced", f"{down} by more than {allowed}"
        if claim.baseline is not None:
            why += (
                ", and the baseline was not measured"
                if baseline is None
                else (f", and not clear of the baseline's {baseline.value:.2f} %")
            )
    numbers = f"{_show(claim, measured.value)} measured, {_show(claim, claim.printed)} printed"
    return Verdict(verdict=verdict, difference=difference, reason=_sentence(f"{numbers}: {why}"))


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval (low, high) in percent for a share of `successes` among `n` independent examples.

    Raises ValueError unless 0 <= successes <= n, n >= 1 and 0 < confidence < 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n >= 1, not successes={successes}, n={n}")
    if not 0 < confidence < 1:
        raise ValueError(f"wilson needs a confidence between 0 and 1, such as 0.95, not {confidence}")
    from scipy.stats import binomtest  # slow to import, and most users of the claims need no interval

    interval = binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def _compare(claim: Claim, value: float) -> tuple[bool, bool]:
    """(close to the printed number, else above it or, for minutes, faster)."""
    if claim.points is not None:
        distance, limit, more = abs(value - claim.printed), claim.points, value > claim.printed
    else:
        quotient = value / claim.printed
        distance, limit, more = max(quotient, 1 / quotient), claim.tolerance.ratio, quotient > 1
    # In floats a distance of exactly the tolerance may come out a hair above it; it still counts as close.
    close = distance <= limit or math.isclose(distance, limit, rel_tol=1e-9)
    return close, not close and more != (claim.unit == "minutes")


def _show(claim: Claim, number: float) -> str:
    return f"{number:.2f}{_SYMBOLS[claim.unit]}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:].rstrip(".") + "."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _suggest(name: object, known: Iterable[str]) -> str:
    known = [str(k) for k in known]
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(k) for k in near)}?"
    if len(known) <= 20:
        return f"known are {_listed(known)}"
    return f"there are {len(known)}, such as {_listed(known[:3])}"


def _build(record: type[_Record], place: str, extra: dict[str, Any], fields: object) -> Any:
    """The record, or the first thing wrong with its fields as one sentence."""
    if not isinstance(fields, Mapping):
        raise ValueError(f"{place} is {fields!r}; expected a mapping such as {{where: Table 6, printed: 91.49, ...}}")
    known = [name for name in record.model_fields if name not in extra]
    for key in fields:
        if key not in known:
            raise ValueError(f"{place} has the unknown field '{key}'; {_suggest(key, known)}")
    try:
        return record(**extra, **fields)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # from the validators above, which speak for the whole record
            raise ValueError(f"{place} {first['ctx']['error']}") from None
        name = str(first["loc"][0])
        if first["type"] == "missing":
            raise ValueError(f"{place} lacks the field '{name}'; add it") from None
        raise ValueError(f"{place} has {name}: {first['input']!r}; {first['msg']}") from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML in which a repeated key is an error: the second of two equal ids would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen and key.tag != "tag:yaml.org,2002:merge":
                problem = f"the key '{key.value}' stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)
