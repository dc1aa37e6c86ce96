"""From stored outcomes to cells: every number is what a count by hand gives, and answers the claim that it should."""

import math

import numpy as np
import pytest
import torch
from paper.made import (
    ATTACKS,
    COLUMNS,
    CORRECT,
    EPOCHS,
    SEED,
    TEST,
    TRANSFERRED,
    amounts,
    fill,
    mask,
    only,
    percent,
    survived_by,
    survivors,
    table_6,
)
from scipy import stats
from torch import nn

from reprolib import networks
from reprolib.paper import judge, plan, run
from reprolib.paper.plan import Cell
from reprolib.paper.run.measure import RUNGS, gain, share, wilson

# --- intervals ------------------------------------------------------------------------------------------------------


def test_wilson_against_its_formula():
    for successes, n in ((0, 10_000), (5_269, 10_000), (9_047, 10_000), (3, 300), (300, 300)):
        z, p = 1.959963984540054, successes / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        assert wilson(successes, n) == pytest.approx((100 * (centre - half), 100 * (centre + half)), abs=1e-9)
    assert wilson(0, 100)[0] == 0 and wilson(100, 100)[1] == 100


@pytest.mark.parametrize("bad", [(1, 0), (-1, 10), (11, 10)])
def test_wilson_refuses_impossible_counts(bad):
    with pytest.raises(ValueError, match=f"not successes={bad[0]}, n={bad[1]}"):
        wilson(*bad)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 100), (100, 100), (37, 100), (1, 10_000), (8999, 10_000)])
def test_share_is_wilsons_interval(hits, n):
    found = share(mask(hits, n))
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert found["n"] == n
    assert found["value"] == pytest.approx(100 * hits / n, abs=0.005)
    assert (found["low"], found["high"]) == pytest.approx((100 * expected.low, 100 * expected.high), abs=0.005)


def test_share_of_none_and_of_all():
    z = 1.959964
    none, every = share(mask(0, 100)), share(mask(100, 100))
    assert (none["value"], none["low"]) == (0, 0) and (every["value"], every["high"]) == (100, 100)
    assert none["high"] == pytest.approx(100 * z**2 / (100 + z**2), abs=0.005)
    assert every["low"] == pytest.approx(100 - none["high"], abs=0.011)  # each is rounded to two places


def test_gain_is_the_paired_difference():
    generator = np.random.default_rng(0)
    defended, undefended = generator.random(4000) < 0.7, generator.random(4000) < 0.2
    found = gain(torch.from_numpy(defended), torch.from_numpy(undefended))
    difference = defended.astype(float) - undefended
    low, high = stats.norm.interval(0.95, loc=difference.mean(), scale=stats.sem(difference))
    assert found["n"] == 4000 and found["value"] == pytest.approx(100 * difference.mean(), abs=0.005)
    assert (found["low"], found["high"]) == pytest.approx((100 * low, 100 * high), abs=0.006)  # 1.96 is rounded


def test_gain_uses_the_pairing():
    """Two accuracies that move together differ by less uncertainty than two that do not."""
    together, apart = gain(mask(60), mask(50)), gain(mask(60), ~mask(50))
    assert together["value"] == apart["value"] == 10
    assert together["high"] - together["low"] < (apart["high"] - apart["low"]) / 2


def test_gain_of_equal_masks_and_of_all_over_none():
    assert gain(mask(5, 9), mask(5, 9)) == {"value": 0, "low": 0, "high": 0, "n": 9}
    assert gain(mask(9, 9), mask(0, 9)) == {"value": 100, "low": 100, "high": 100, "n": 9}


# --- a table's cells ------------------------------------------------------------------------------------------------


def measured(cell: Cell) -> dict:
    return cell.model_dump(include={"value", "low", "high", "n"})


def test_sound_counts_images_that_survive_both_losses(cells):
    """FGSM on 7-P1: margin leaves 50 of 80 and logits 40, but only 20 images survive both."""
    at = {"row": "FGSM", "column": "7-P1", "epoch": 20, "decision": "any"}
    assert only(cells, **at, protocol="margin").value == 50
    assert only(cells, **at, protocol="logits").value == 40
    assert measured(only(cells, **at, protocol="sound")) == share(mask(20))


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_every_cell_under_any_iterate(cells, column, attack):
    at = {"row": attack, "column": column, "epoch": EPOCHS[column], "decision": "any"}
    for loss in ("margin", "logits", "probabilities"):
        assert only(cells, **at, protocol=loss).value == percent(survivors(column, attack, loss)), loss
    assert only(cells, **at, protocol="sound").value == percent(survivors(column, attack, "margin", "logits"))


@pytest.mark.parametrize("column", COLUMNS)
def test_all_attacks_together(cells, column):
    at = {"column": column, "epoch": EPOCHS[column], "protocol": "sound", "decision": "any"}
    together = only(cells, **at, row="All attacks").value
    assert together == percent(set.intersection(*(survivors(column, a, "margin", "logits") for a in ATTACKS)))
    assert all(together <= only(cells, **at, row=attack).value for attack in ATTACKS)


def test_the_last_iterate_is_judged_on_all_images(cells):
    at = {"column": "7-P1", "epoch": 20, "decision": "last"}
    assert measured(only(cells, **at, row="IFGSM", protocol="margin")) == share(mask(80 - 3))  # 0, 2, 4 break
    assert measured(only(cells, **at, row="FGSM", protocol="margin")) == share(mask(80 - 15))
    assert measured(only(cells, **at, row="PGD-v2", protocol="probabilities")) == share(mask(80 - 2))  # 40 and 42


@pytest.mark.parametrize("column, kept", [("7-P1", 80 - TRANSFERRED), ("no patches", 70 - TRANSFERRED)])
def test_transfer_stands_beside_the_other_protocols(cells, column, kept):
    for attack in ATTACKS:
        at = {"row": attack, "column": column, "protocol": "transfer", "decision": "last"}
        assert measured(only(cells, **at)) == share(mask(kept))
        claims = {c.claim for c in cells if all(getattr(c, k) == v for k, v in at.items())}
        assert f"T6.{attack}.7-P1" in claims if column == "7-P1" else claims == {None}


def test_attacked_without_true_labels_an_image_counts_as_right_that_the_attack_has_made_so(tiny, tmp_path):
    """As EMPIR's code counts: on the adversarial images alone. Other rows are as ever, and clean accuracy is theirs."""
    page = plan.load_table("table06_fashion_mnist")["fmnistconv"]
    rows = {"FGSM": page.rows["FGSM"], "as EMPIR": page.rows["FGSM"].model_copy(update={"labels": "predicted"})}
    update = {"shown": ["undefended"], "rows": rows, "claims": [plan.Answer(claim="T6.FGSM.{column}", row="as EMPIR")]}
    planned = plan.Plan(page.model_copy(update=update), amounts(), "cpu")
    plain = survived_by(90, 40)

    def outcome(job):
        right = torch.arange(TEST) >= 15  # also the last ten, which are wrong without an attack
        runs = torch.where(right, -1, 0).to(torch.int16)
        return {"correct": mask(90), "any_run": runs, "last_run": runs.clone()} if job.row == "as EMPIR" else plain

    cells = run.measure(fill(planned, tiny, tmp_path, outcome))
    found = [cell for cell in cells if cell.row == "as EMPIR"]
    assert [(cell.protocol, cell.decision, cell.value) for cell in found] == [("predicted labels", "last", 85.0)]
    assert found[0].claim == "T6.FGSM.undefended" and found[0].judged
    assert only(cells, row="Clean", protocol="clean").value == 90
    assert only(cells, row="FGSM", protocol="sound").value == 50
    assert only(cells, row="All attacks", protocol="sound").value == 50


def test_nothing_transfers_to_the_source_and_no_gain_is_taken_over_it(cells):
    transferred = [c for c in cells if c.protocol == "transfer"]
    assert transferred and not [c for c in transferred if c.column == "undefended" or c.claim == "X19"]
    assert [c.claim for c in transferred if c.claim == "X18"] == ["X18"]


def test_curves_have_the_last_iterate_under_probabilities_alone(epoch_cells):
    found = {(c.protocol, c.decision) for c in epoch_cells if c.row == "PGD-v2"}
    assert found == {("probabilities", "last"), ("probabilities", "any"), ("margin", "any"), ("logits", "any"),
                     ("sound", "any")}  # fmt: skip


def test_the_first_start_alone(cells):
    """Under probabilities and by the last iterate, PGD-v2 breaks 40 and 42, both in the second start only."""
    at = {"row": "PGD-v2, first start only", "column": "7-P1", "epoch": 20, "protocol": "probabilities"}
    assert only(cells, **at).value == 80 and only(cells, **at).decision == "last"


def test_clean_and_saturated(cells):
    for column in COLUMNS:
        at = {"column": column, "epoch": EPOCHS[column]}
        clean = only(cells, **at, row="Clean", protocol="clean", decision=None)
        assert measured(clean) == share(mask(CORRECT[column]))
        assert measured(only(cells, **at, quantity="saturated")) == share(mask(32, 128))


def test_the_ladder_is_climbed_for_each_loss(cells):
    rungs = [c for c in cells if c.quantity == "missed"]
    assert {(c.row, c.column) for c in rungs} == {(rung, loss) for rung in RUNGS for loss in plan.LOSSES}
    assert len(rungs) == 15 and {(c.value, c.n, c.protocol) for c in rungs} == {(0.0, TEST, "ladder")}
    assert all(judge.fault(cells, protocol) == "" for protocol in run.PROTOCOLS)


@pytest.mark.parametrize(
    ("left", "rung", "points"),
    [
        ({"eps 0": 70}, 0, 20),  # moves where it must not
        ({"a quarter of eps": 40, "half of eps": 30, "full": 35, "one step": 35, "one restart": 35}, 1, 5),
        ({"a tenth of the steps": 3, "half of the steps": 23}, 2, 20),
        ({"full": 40, "one step": 25}, 3, 15),
        ({"full": 40, "one restart": 30}, 4, 10),
    ],
)
def test_each_rung_can_break(table_6, monkeypatch, left, rung, points):
    outcomes = table_6.outcome

    def outcome(job):
        if (job.row not in left) or job not in table_6.plan.ladder:
            return outcomes(job)
        made = survived_by(90, 90 - left[job.row], job.evaluation.size)
        return run.Outcome(**made, meta={})

    monkeypatch.setattr(table_6, "outcome", outcome)
    missed = {c.row: c.value for c in run.measure(table_6) if c.quantity == "missed" and c.column == "logits"}
    assert missed[list(RUNGS)[rung]] == points


def test_numbers_are_complete_and_carry_the_seed(cells):
    for c in cells:
        assert c.seeds == [SEED] and math.isfinite(c.value)
        if c.quantity != "missed":
            assert c.low <= c.value <= c.high and c.n in (TEST, 128)


def test_measuring_what_was_not_run_says_so(tiny, tmp_path):
    with pytest.raises(run.StoreError, match="run the training or evaluation first"):
        run.measure(run.Page(table_6(), store=run.Store(tmp_path / "empty"), dataset=tiny))


# --- claims ---------------------------------------------------------------------------------------------------------


def claimed(cells: list[Cell]) -> dict[str, set]:
    """claim -> where the numbers that answer it stand: (row, column, epoch)."""
    places: dict[str, set] = {}
    for c in cells:
        if c.claim:
            places.setdefault(c.claim, set()).add((c.row, c.column, c.epoch))
    return places


def test_every_claim_is_attached_to_its_own_number(cells):
    expected = {
        f"T6.{row}.{column}": {(row, column, EPOCHS[column])}
        for row in ("Clean", *ATTACKS)
        for column in ("undefended", "7-P1")
    }
    expected |= {"X16": {("Clean", "undefended", 5)}, "X17": {("PGD-v2", "undefended", 5)},
                 "X18": {("PGD-v2", "7-P1", 20)}, "X19": {("IFGSM", "7-P1", 20)}}  # fmt: skip
    assert claimed(cells) == expected
    assert set(expected) <= set(judge.ledger())


def test_the_epochs_claims_belong_to_table_11(epoch_cells):
    assert claimed(epoch_cells) == {f"T11.FMNIST.{epoch}": {("PGD-v2", "7-P1", epoch)} for epoch in (10, 20, 30)}


def test_clean_images_are_natural_ones_in_table_3():
    (answer, *_) = plan.load_table("table03")["vgg16"].claims
    assert answer.id("Clean", "7-P1", 10) == "T3.VGG16.Natural.7-P1" and "T3.VGG16.Natural.7-P1" in judge.ledger()
    assert answer.id("PGD-v1", "7-P1", 10) == "T3.VGG16.PGD-v1.7-P1"


def test_the_control_answers_no_claim(cells):
    control = [c for c in cells if c.column == "no patches"]
    assert control and all(c.claim is None and not c.judged for c in control)


def test_a_claim_is_answered_once_per_protocol_and_decision(cells, given_cells, epoch_cells):
    for found in (cells, given_cells, epoch_cells):
        answers = [(c.claim, c.protocol, c.decision) for c in found if c.claim]
        assert len(answers) == len(set(answers))


def test_a_protocol_is_judged_by_one_decision_rule(cells):
    judged = {(c.protocol, c.decision) for c in cells if c.judged}
    assert judged == {
        ("clean", None),
        ("sound", "any"),
        ("logits", "last"),
        ("probabilities", "last"),
        ("transfer", "last"),
    }
    assert all(c.claim for c in cells if c.judged)


def test_what_the_text_repeats_and_subtracts(cells):
    assert only(cells, claim="X16", protocol="clean").value == 90
    assert only(cells, claim="X17", protocol="sound").value == 1
    repeated = [only(cells, claim=claim, protocol="sound") for claim in ("X18", "T6.PGD-v2.7-P1")]
    assert measured(repeated[0]) == measured(repeated[1])
    defended, undefended = survivors("7-P1", "IFGSM", "margin", "logits"), survivors("undefended", "IFGSM", "margin")
    difference = np.array([(i in defended) - (i in undefended) for i in range(TEST)], dtype=float)
    low, high = stats.norm.interval(0.95, loc=difference.mean(), scale=stats.sem(difference))
    found = only(cells, claim="X19", quantity="gain", protocol="sound", decision="any")
    assert found.value == pytest.approx(100 * difference.mean()) == 70 - 1
    assert (found.low, found.high) == pytest.approx((100 * low, 100 * high), abs=0.01)
    assert (found.quantity, found.over, found.judged) == ("gain", "undefended", True)


# --- AutoAttack, restarts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", COLUMNS)
def test_autoattack_by_what_it_was_given_and_by_part(given_cells, column):
    """Given logits 48 of the first 50 images break, given probabilities 21."""
    at, right = {"column": column, "epoch": EPOCHS[column]}, CORRECT[column]
    assert measured(only(given_cells, **at, row="Clean", protocol="clean")) == share(mask(right))
    for row, protocol, left in (("AutoAttack", "sound", right - 48), ("AutoAttack", "probabilities", right - 21),
                                ("Square", "sound", right - 30)):  # fmt: skip
        assert measured(only(given_cells, **at, row=row, protocol=protocol)) == share(mask(left))
    for part, protocol, broken in (("APGD-CE", "sound", 40), ("APGD-T", "sound", 5), ("FAB-T", "sound", 1),
                                   ("Square", "sound", 2), ("APGD-CE", "probabilities", 20),
                                   ("Square", "probabilities", 1)):  # fmt: skip
        found = only(given_cells, **at, quantity="broken", part=part, protocol=protocol)
        assert measured(found) == share(mask(broken)) and found.row == "AutoAttack"


def test_table_9s_claims(given_cells):
    place = "T9.F-MNIST.F-MNISTconv"
    assert claimed(given_cells) == {f"{place}.undefended": {("AutoAttack", "undefended", 5)},
                                    f"{place}.proposed": {("AutoAttack", "7-P1", 20)}}  # fmt: skip
    record = run.Stored({}, given_cells)
    board = judge.scoreboard({("cpu", "table09_autoattack"): record}).set_index(["claim", "protocol"])
    assert board.loc[(f"{place}.proposed", "sound"), "measured"] == 80 - 48
    assert board.loc[(f"{place}.proposed", "probabilities"), "measured"] == 80 - 21  # though it has no last iterate


@pytest.mark.parametrize("count", [5, 10, 20])
@pytest.mark.parametrize("protocol, decision", [("probabilities", "last"), ("logits", "any"), ("sound", "any")])
def test_an_attack_is_shown_after_fewer_restarts(restarts, count, protocol, decision):
    at = {"row": f"PGD-v2, {count} restarts", "column": "7-P1", "protocol": protocol, "decision": decision}
    assert measured(only(restarts[1], **at)) == share(mask(100 - count))


# --- seeds and the contingency of saturation ------------------------------------------------------------------------


def saturation() -> plan.Plan:
    page = plan.load_table("saturation")["fmnistconv"]
    rows = {name: page.rows[name] for name in ("FGSM", "IFGSM")}
    return plan.Plan(page.model_copy(update={"shown": ["7-P1"], "rows": rows}), amounts(), "cpu")


def test_numbers_say_which_seed_their_network_has(tiny, tmp_path):
    page = fill(saturation(), tiny, tmp_path, lambda job: survived_by(60 + job.seed, 0))
    cells = [c for c in run.measure(page) if c.quantity != "missed"]
    assert {c.seed for c in cells} == {SEED, SEED + 1, SEED + 2} and all(len(c.seeds) == 1 for c in cells)
    clean = {c.seed: c.value for c in cells if c.row == "Clean" and c.protocol == "clean" and c.epoch == 20}
    assert clean == {SEED: 60, SEED + 1: 61, SEED + 2: 62}


def even(images: torch.Tensor) -> torch.Tensor:
    return images.long().flatten(1).sum(1) % 2 == 0


class Sure(nn.Module):
    """Class 0, surely where an image's pixels add up to an even number, and barely elsewhere."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        margin = torch.where(even((images * 255).round().long()), 30.0, 3.0)
        return torch.stack([margin, *[torch.zeros_like(margin)] * 9], 1)


def test_contingency_counts_image_by_image(tiny, tmp_path, monkeypatch):
    stands = torch.arange(TEST) % 3 > 0
    correct, sure = tiny.test.labels[:TEST] == 0, even(tiny.test.images[:TEST])
    runs = torch.where(stands, -1, 0).to(torch.int16)
    outcome = {"correct": correct, "any_run": runs, "last_run": runs.clone()}
    page = fill(saturation(), tiny, tmp_path, lambda job: outcome)
    monkeypatch.setattr(type(page.shelf), "load", lambda shelf, network: Sure().eval())
    cells = {c.part: c for c in run.measure_contingency(page, "IFGSM", ["7-P1"])}
    assert {c.n for c in cells.values()} == {int(correct.sum())} and 0 < sure[correct].sum() < correct.sum()
    for part, images in (
        ("saturated, survives", sure & stands),
        ("saturated, falls", sure & ~stands),
        ("not saturated, survives", ~sure & stands),
        ("not saturated, falls", ~sure & ~stands),
    ):
        assert cells[part].value == pytest.approx(100 * float(images[correct].double().mean()), abs=0.005), part
        assert (cells[part].quantity, cells[part].column, cells[part].epoch) == ("share", "7-P1", 20)


# --- numbers behind which no network stands -------------------------------------------------------------------------


def test_measured_operations(tiny):
    found = run.measure_operations(tiny.train.images[:50], size=7, seed=0)
    assert len(found) == 9 and all(0 < c.low <= c.value <= c.high < 1 and c.n == 50 for c in found)
    masking = next(c for c in found if c.row == "mask")
    centres = [tiny.train.images[:50, :, i : i + 7, i : i + 7].double() / 255 for i in (10, 11)]  # (28 - 7) / 2 = 10.5
    assert masking.value in [pytest.approx(float(centre.mean()), abs=1e-4) for centre in centres]


def test_measured_parameters():
    (found,) = run.measure_parameters(["fmnistconv"])
    assert found.value == networks.parameter_count(networks.build("fmnistconv")) == 710_218
    assert (found.row, found.quantity, found.low, found.n) == ("fmnistconv", "count", None, None)
