"""The printed numbers are complete and exact, and every verdict is reached by the rule that stands for it."""

from collections import Counter
from itertools import product

import pytest
import yaml
from pydantic import ValidationError

from reprolib.paper.judge import VERDICTS, Measured, find, judge, ledger, load_claims
from reprolib.paper.plan import JUDGED


@pytest.fixture(scope="module")
def claims():
    return ledger()


def measured(value, half_width=0.5, n=10_000):
    return Measured(value=value, low=value - half_width, high=value + half_width, n=n)


# --- params/claims.yaml ---


def test_every_cell_and_every_text_claim_is_there(claims):
    cells = Counter(id.split(".")[0] for id in claims if id.startswith("T"))
    assert cells == {"T3": 70, "T4": 20, "T5": 30, "T6": 25, "T7": 27, "T8": 12, "T9": 12, "T10": 9, "T11": 18}
    assert [id for id in claims if not id.startswith("T")] == [f"X{i:02}" for i in range(1, 29)]
    assert len(claims) == 223 + 28


def test_full_grids(claims):
    columns = ("undefended", "7-P1", "11-P1", "7-P2", "11-P2")
    attacks = ("Natural", *(f"{a}-v{v}" for a, v in product(("PGD", "FGSM", "IFGSM"), (1, 2))))
    expected = {f"T3.{m}.{a}.{c}" for m, a, c in product(("VGG16", "ResNet"), attacks, columns)}
    expected |= {f"T6.{a}.{c}" for a, c in product(("Clean", "PGD-v1", "PGD-v2", "FGSM", "IFGSM"), columns)}
    expected |= {
        f"T4.{a}.{c}"
        for a, c in product(("Clean", "FGSM", "IFGSM", "PGD"), ("FGSM-AT", "PGD-AT", "EMPIR", "EMPIR-AT", "Proposed"))
    }
    expected |= {f"T11.{d}.{e}" for d, e in product(("CIFAR", "FMNIST", "ImageNet"), range(10, 70, 10))}
    assert expected <= set(claims)


# Typed from the paper, row by row, in the order of its columns.
PAPER_ROWS = {
    "T3.VGG16.PGD-v1": [0.87, 60.73, 50.27, 54.81, 52.42],
    "T3.VGG16.IFGSM-v2": [2.75, 55.61, 66.33, 59.60, 61.81],
    "T3.ResNet.Natural": [91.81, 91.40, 90.57, 90.40, 90.27],
    "T3.ResNet.PGD-v2": [0.0, 43.14, 41.14, 43.10, 40.92],
    "T4.PGD": [11.24, 8.52, 13.55, 14.74, 44.26],
    "T5.PGD-v2": [27.20, 39.69, 33.70, 21.76, 24.20, 19.89, 32.12, 34.31, 37.93, 65.61],
    "T6.Clean": [91.49, 90.47, 89.27, 90.21, 89.86],
    "T6.PGD-v1": [0.41, 88.09, 85.42, 83.02, 77.63],
    "T6.PGD-v2": [0.01, 52.69, 40.29, 47.34, 34.92],
    "T6.FGSM": [1.97, 87.85, 75.13, 83.46, 73.46],
    "T6.IFGSM": [1.11, 86.65, 83.61, 82.38, 74.64],
    "T7.PGD-v11": [0.37, 42.94, 43.94],
    "T7.FGSM-v1": [6.90, 44.61, 42.16],
    "T8.CIFAR10/VGG": [245, 20, 12.2],
    "T8.F-MNIST/F-MNISTconv": [196, 39, 5.0],
    "T9.ImageNet.VGG16": [0.80, 59.76],
    "T9.F-MNIST.F-MNISTconv": [0.0, 86.70],
    "T10.IFGSM": [3.37, 45.24, 58.75],
    "T11.CIFAR": [31.7, 41.7, 42.8, 45.7, 52.1, 50.9],
    "T11.FMNIST": [21.6, 35.1, 46.0, 53.5, 60.8, 67.8],
}


@pytest.mark.parametrize("row", PAPER_ROWS)
def test_rows_are_as_printed(claims, row):
    assert [claim.printed for id, claim in claims.items() if id.rpartition(".")[0] == row] == PAPER_ROWS[row]


def test_the_file_lists_columns_as_the_ids_say(claims):
    for id, claim in claims.items():
        if id.startswith("T"):
            assert claim.where == f"Table {id.split('.')[0][1:]}"
            assert claim.column.removesuffix(" epochs") == id.rpartition(".")[2]


def test_the_arithmetic_of_the_text(claims):
    def printed(id):
        return claims[id].printed

    def gain(better, worse):
        return pytest.approx(printed(better) - printed(worse), abs=1e-9)

    assert printed("X08") == gain("T3.VGG16.PGD-v1.7-P1", "T3.VGG16.PGD-v1.undefended") == 59.86
    assert printed("X19") == gain("T6.IFGSM.7-P1", "T6.IFGSM.undefended") == 85.54
    for text, cell in (("X16", "Clean.undefended"), ("X17", "PGD-v2.undefended"), ("X18", "PGD-v2.7-P1")):
        assert printed(text) == printed(f"T6.{cell}")
    # Two of the paper's sums do not come out; the printed number stays and `check` says what the table gives.
    assert printed("X11") == 36.71 != gain("T4.PGD.Proposed", "T4.PGD.EMPIR") == 30.71
    assert "30.71" in claims["X11"].check
    assert printed("X12") == 35.52 != gain("T4.PGD.Proposed", "T4.PGD.FGSM-AT") == 33.02
    assert "33.02" in claims["X12"].check
    for pair in ("CIFAR10/VGG", "CIFAR10/ResNet", "F-MNIST/F-MNISTconv", "ImageNet/VGG"):
        quotient = printed(f"T8.{pair}.AT") / printed(f"T8.{pair}.proposed")
        assert printed(f"T8.{pair}.reduction") == pytest.approx(quotient, abs=0.0501)  # one printed digit


def test_every_claim_has_place_unit_tolerance_and_reason(claims):
    for claim in claims.values():
        assert claim.where and len(claim.tolerance.reason) > 40
        assert (claim.unit == "text") == isinstance(claim.printed, str)
        sizes = (claim.tolerance.points, claim.tolerance.ratio)
        judged = claim.tolerance.name not in ("external", "no_single_number")
        assert judged == (sizes != (None, None))
        if claim.id.startswith("T"):
            assert judged
            assert claim.unit == "percent" or claim.where == "Table 8"
        else:
            assert claim.claim and claim.check


def test_a_baseline_is_the_undefended_cell_of_the_same_attack(claims):
    with_baseline = [claim for claim in claims.values() if claim.baseline]
    for claim in with_baseline:
        baseline = claims[claim.baseline]
        assert (claim.dataset, claim.attack.split(" ")[0].split("-")[0]) == (
            baseline.dataset,
            baseline.attack.split(" ")[0].split("-")[0],
        )
        assert baseline.column in ("undefended", "M1_clean_only") and baseline.printed < claim.printed
    # Every attacked, defended cell of the tables that have an undefended column.
    per_table = Counter(claim.where for claim in with_baseline)
    assert (per_table["Table 3"], per_table["Table 6"], per_table["Table 7"]) == (2 * 6 * 4, 4 * 4, 8 * 2)


def test_a_tolerance_cannot_swallow_a_gain(claims):
    for claim in claims.values():
        if claim.unit == "points":
            assert claim.points < claim.printed, f"{claim.id}: no gain at all would count as within tolerance"
        if claim.unit == "factor" and claim.tolerance.ratio:
            assert claim.printed / claim.tolerance.ratio > 1, f"{claim.id}: no reduction would count as such"
        if claim.baseline:
            assert claim.printed - claim.points > claims[claim.baseline].printed


def test_records_are_frozen(claims):
    with pytest.raises(ValidationError):
        claims["X16"].printed = 99.0


# --- judge ---

DEFENDED = "T6.PGD-v2.7-P1"  # printed 52.69, tolerance 5, baseline T6.PGD-v2.undefended


@pytest.mark.parametrize(
    ("id", "result", "baseline", "verdict"),
    [
        (DEFENDED, measured(52.2, 1.0), measured(0.1, 0.1), "reproduced"),
        ("T6.PGD-v2.undefended", Measured(value=0.0, low=0.0, high=0.04, n=10_000), None, "reproduced"),
        (DEFENDED, measured(55.0, 1.0), None, "within tolerance"),
        ("T6.Clean.undefended", measured(92.99, 0.4), None, "within tolerance"),  # 1.5 points off, the limit itself
        ("T3.VGG16.PGD-v1.7-P1", measured(65.73), None, "within tolerance"),  # 5 points, a hair more in floats
        ("T6.Clean.undefended", measured(93.0, 0.4), None, "above the paper"),
        (DEFENDED, measured(60.0), measured(0.1, 0.1), "above the paper"),
        (DEFENDED, measured(60.0, 20.0), measured(0.1, 0.1), "above the paper"),  # a wide interval earns nothing
        (DEFENDED, measured(30.0, 1.0), measured(0.1, 0.1), "trend only"),
        (DEFENDED, measured(30.0, 25.0), measured(0.1, 0.1), "trend only"),  # contains 52.69, but 22 points off
        (DEFENDED, measured(1.0, 0.5), measured(0.6, 0.2), "not reproduced"),  # intervals overlap
        (DEFENDED, measured(30.0, 1.0), None, "not reproduced"),
        ("T4.PGD.Proposed", measured(20.0, 1.0), measured(0.1, 0.1), "not reproduced"),  # the claim has no baseline
        (DEFENDED, None, measured(0.1, 0.1), "not run"),
        ("X06", measured(83.91), None, "not run"),  # two numbers at once
        ("X24", measured(10.0), None, "not run"),  # cited from another paper
        ("T8.F-MNIST/F-MNISTconv.proposed", measured(39.0, 1.0), None, "reproduced"),
        ("T8.F-MNIST/F-MNISTconv.proposed", measured(70.0, 1.0), None, "within tolerance"),
        ("T8.F-MNIST/F-MNISTconv.proposed", measured(2.0, 0.1), None, "above the paper"),  # faster is flagged
        ("T8.F-MNIST/F-MNISTconv.proposed", measured(390.0, 1.0), None, "not reproduced"),  # slower
        ("T8.F-MNIST/F-MNISTconv.reduction", measured(4.0, 0.1), None, "within tolerance"),
        ("T8.F-MNIST/F-MNISTconv.reduction", measured(9.0, 0.1), None, "above the paper"),
        ("T8.F-MNIST/F-MNISTconv.reduction", measured(2.0, 0.1), None, "not reproduced"),
    ],
)
@pytest.mark.parametrize("profile", JUDGED)
def test_each_verdict(claims, id, result, baseline, verdict, profile):
    outcome = judge(claims[id], result, profile=profile, baseline=baseline)
    assert outcome.verdict == verdict
    assert outcome.reason.endswith(".") and not outcome.reason[0].islower()
    if verdict == "not run":
        assert outcome.difference is None
    else:
        assert outcome.difference == pytest.approx(result.value - claims[id].printed)


def test_the_verdicts_and_their_order():
    assert VERDICTS == ("reproduced", "within tolerance", "above the paper", "trend only", "not reproduced", "not run")


def test_the_paper_measured_against_itself_is_reproduced_and_quick_never_judged(claims):
    for claim in claims.values():
        number = claim.printed if isinstance(claim.printed, float) else 50.0
        judged = claim.tolerance.points is not None or claim.tolerance.ratio is not None
        assert judge(claim, measured(number), profile="paper").verdict == ("reproduced" if judged else "not run")
        quick = judge(claim, measured(number), profile="quick", baseline=measured(0.1, 0.1))
        assert (quick.verdict, quick.difference) == ("not run", None)


def test_a_higher_measurement_never_turns_trend_into_not_reproduced(claims):
    rank = {v: i for i, v in enumerate(("not reproduced", "trend only", "within tolerance", "reproduced"))}
    verdicts = [
        judge(claims[DEFENDED], measured(v / 10, 0.5), profile="cpu", baseline=measured(1.0)).verdict
        for v in range(5, 527)  # up to the printed number
    ]
    assert [rank[v] for v in verdicts] == sorted(rank[v] for v in verdicts)
    assert set(verdicts) == set(rank)


def test_bad_input_to_judge(claims):
    with pytest.raises(ValueError, match="unknown profile 'quik'; did you mean 'quick'"):
        judge(claims[DEFENDED], measured(50.0), profile="quik")
    with pytest.raises(ValueError, match="measured as -1 minutes; expected a number above 0"):
        judge(claims["T8.F-MNIST/F-MNISTconv.proposed"], measured(-1.0), profile="cpu")
    with pytest.raises(ValueError, match="outside its interval"):
        Measured(value=50.0, low=60.0, high=70.0, n=100)
    with pytest.raises(ValueError, match="finite"):
        Measured(value=float("nan"), low=0.0, high=1.0, n=100)


# --- bad files and names ---


def test_unknown_claim(claims):
    assert find(claims, DEFENDED) is claims[DEFENDED]
    with pytest.raises(ValueError, match=r"unknown claim 'T6.PGDv2.7-P1'; did you mean .*'T6\.PGD-v2\.7-P1'"):
        find(claims, "T6.PGDv2.7-P1")
    with pytest.raises(ValueError, match="unknown claim 'zzzzzz'; known: .*, 248 more$"):
        find(claims, "zzzzzz")


GOOD = {
    "tolerances": {"clean": {"points": 1.5, "reason": "because"}, "speed": {"ratio": 2, "reason": "because"}},
    "claims": {
        "A.undefended": {"where": "Table 0", "printed": 1, "unit": "percent", "tolerance": "clean"},
        "A.7-P1": {
            "where": "Table 0",
            "printed": 50.0,
            "unit": "percent",
            "tolerance": "clean",
            "baseline": "A.undefended",
        },
    },
}


def load_changed(tmp_path, field, value):
    content = yaml.safe_load(yaml.safe_dump(GOOD))
    content["claims"]["A.7-P1"][field] = value
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_claims(path)


def test_a_small_file_loads(tmp_path):
    claims = load_changed(tmp_path, "printed", 60)
    assert claims["A.7-P1"].printed == 60 and claims["A.7-P1"].points == 1.5


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("tolerance", "claen", "claims.yaml: claim 'A.7-P1': unknown tolerance 'claen'; did you mean 'clean'?"),
        ("tolerance", "zzz", "unknown tolerance 'zzz'; known: clean, speed"),
        ("baseline", "A.undefnded", "unknown baseline 'A.undefnded'; did you mean 'A.undefended'?"),
        ("pritned", 3, "unknown parameter 'pritned'; did you mean 'printed'?"),
        ("unit", "percentage", "claim 'A.7-P1': Claim.unit: input should be 'percent', 'points'"),
        ("printed", True, "Claim.printed.float: input should be a valid number, not True"),
        ("printed", "1e-3", "prints '1e-3' with unit 'percent'; numbers take one of"),
        ("unit", "text", "prints 50.0 with unit 'text'"),
        ("tolerance", "speed", "tolerance 'speed' is given in ratio; choose a tolerance in points"),
        ("unit", "points", "has unit 'points' and a baseline; only accuracies in percent take one"),
        ("where", "", "Claim.where: string should have at least 1 character, not ''"),
    ],
)
def test_a_wrong_field_gets_one_sentence(tmp_path, field, value, message):
    with pytest.raises(ValueError) as caught:
        load_changed(tmp_path, field, value)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tolerances: {}\n", "lacks the mapping 'claims' at its top level"),
        ("[1, 2", "is not valid YAML"),
        (
            "tolerances: {}\nclaims: {A: 3}\n",
            "claim 'A' is 3; expected a mapping such as {where: ..., printed: ..., ...}",
        ),
        ("tolerances: {}\nclaims: {A: {}}\n", "claim 'A': Claim.where is missing; give it a value"),
        ("tolerances: {}\nclaims: {A: {id: B}}\n", "claim 'A': id stands before the colon already"),
        ("tolerances: {}\nclaims: {3: {where: x}}\n", "claim '3': Claim.id: input should be a valid string, not 3"),
        ("tolerances: {}\nclaims:\n  A: {}\n  A: {}\n", "the key 'A' stands twice"),
        ("tolerances: {t: {points: 1}}\nclaims: {}\n", "tolerance 't': Tolerance.reason is missing"),
        (
            "tolerances: {t: {points: 1, ratio: 2, reason: r}}\nclaims: {}\n",
            "tolerance 't': Tolerance: has both points and ratio",
        ),
        (
            "tolerances: {t: {points: -1, reason: r}}\nclaims: {}\n",
            "tolerance 't': Tolerance.points: input should be greater than 0, not -1",
        ),
    ],
)
def test_a_broken_file_gets_one_sentence(tmp_path, text, message):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        load_claims(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="run from a clone of the repository"):
        load_claims(tmp_path / "none.yaml")
