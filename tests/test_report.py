"""Numbers, records, tables, verdicts and pictures say what was measured, and nothing else."""

import errno
import functools
import json
import math
import os
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from scipy import stats  # noqa: E402

from reprolib import claims, evaluation, files, ladder, models, report, scoreboard, specs, tables, training  # noqa: E402
from reprolib import store as store_module  # noqa: E402
from reprolib.report import RecordError  # noqa: E402
from reprolib.store import Store, StoreError  # noqa: E402

LEDGER = claims.load_claims()


@pytest.fixture(autouse=True)
def results(monkeypatch, tmp_path) -> Path:
    """A results folder of one's own."""
    monkeypatch.setattr(files, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture(autouse=True, scope="module")
def code_and_claims_are_read_once():
    """Nothing here changes the library's code or the claims, and reading them again takes most of a test's time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store_module, "code_digest", functools.cache(store_module.code_digest))
        patched.setattr(claims, "load_claims", functools.cache(claims.load_claims))
        yield


@pytest.fixture(autouse=True)
def figures_are_closed():
    yield
    plt.close("all")


def sentence(caught) -> str:
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def mask(hits: int, n: int) -> torch.Tensor:
    return torch.arange(n) < hits


# --- intervals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 100), (100, 100), (37, 100), (1, 10_000), (8999, 10_000)])
def test_share_is_wilsons_interval(hits, n):
    found = report.share(mask(hits, n))
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert found["n"] == n
    assert found["value"] == pytest.approx(100 * hits / n, abs=0.005)
    assert (found["low"], found["high"]) == pytest.approx((100 * expected.low, 100 * expected.high), abs=0.005)


def test_share_of_none_and_of_all():
    z = 1.959964
    none, every = report.share(mask(0, 100)), report.share(mask(100, 100))
    assert (none["value"], none["low"]) == (0, 0) and (every["value"], every["high"]) == (100, 100)
    assert none["high"] == pytest.approx(100 * z**2 / (100 + z**2), abs=0.005)
    assert every["low"] == pytest.approx(100 - none["high"], abs=0.011)  # each is rounded to two places


def test_gain_is_the_paired_difference():
    generator = np.random.default_rng(0)
    defended, undefended = generator.random(4000) < 0.7, generator.random(4000) < 0.2
    found = report.gain(torch.from_numpy(defended), torch.from_numpy(undefended))
    difference = defended.astype(float) - undefended
    low, high = stats.norm.interval(0.95, loc=difference.mean(), scale=stats.sem(difference))
    assert found["n"] == 4000 and found["value"] == pytest.approx(100 * difference.mean(), abs=0.005)
    assert (found["low"], found["high"]) == pytest.approx((100 * low, 100 * high), abs=0.006)  # 1.96 is rounded


def test_gain_uses_the_pairing():
    """Two accuracies that move together differ by less uncertainty than two that do not."""
    together = report.gain(mask(60, 100), mask(50, 100))
    apart = report.gain(mask(60, 100), ~mask(50, 100))
    assert together["value"] == apart["value"] == 10
    assert together["high"] - together["low"] < (apart["high"] - apart["low"]) / 2


def test_gain_of_equal_masks_and_of_all_over_none():
    assert report.gain(mask(5, 9), mask(5, 9)) == {"value": 0, "low": 0, "high": 0, "n": 9}
    assert report.gain(mask(9, 9), mask(0, 9)) == {"value": 100, "low": 100, "high": 100, "n": 9}


# --- records --------------------------------------------------------------------------------------------------------


def entry(claim=None, protocol="sound", value=50.0, decision="any", row="FGSM", column="7-P1", epoch=20, width=1.0,
          n=10_000) -> dict:
    measured = {"value": value, "low": value - width, "high": value + width, "n": n}
    return report.cell(row, column, epoch, protocol, decision, measured, 0, claim)


def origin(profile: str) -> dict:
    return {"profile": profile, "text": "é", "seeds": [0]}


def test_round_trip():
    cells = [entry("T6.FGSM.7-P1", value=1 / 3), entry(protocol="clean", decision=None)]
    path = report.write_record("table", origin("quick"), cells)
    assert path == files.RESULTS / "quick" / "table.json"
    record = report.read_record(path)
    assert record["provenance"] == origin("quick") and record["cells"] == cells
    beside = pd.read_csv(path.with_suffix(".csv"))
    assert beside["value"].tolist() == [1 / 3, 50.0] and beside["claim"].fillna("").tolist() == ["T6.FGSM.7-P1", ""]


def test_equal_runs_write_equal_files():
    first = report.write_record("table", origin("quick"), [entry()]).read_bytes()
    assert report.write_record("table", origin("quick"), [entry()]).read_bytes() == first


def test_record_without_cells():
    path = report.write_record("board", origin("quick"), [])
    assert report.read_record(path)["cells"] == [] and not path.with_suffix(".csv").exists()


@pytest.mark.parametrize(("old", "new"), [
    ('"value": 50.0', '"value": 51.0'), ('"claim": null', '"claim": "T6.FGSM.7-P1"'),
    ('"profile": "cpu"', '"profile": "paper"'), ('"low": 49.0,', "")])
def test_a_record_edited_by_hand_is_refused(old, new):
    path = report.write_record("table06_x", origin("cpu"), [entry()])
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(RecordError) as caught:
        report.read_record(path)
    message = sentence(caught)
    assert "table06_x.json" in message and "changed after it was written" in message
    assert "make tables PROFILE=cpu ONLY=table06_x" in message


def test_layout_may_change_as_no_number_does():
    path = report.write_record("table", origin("cpu"), [entry()])
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    assert report.read_record(path)["cells"] == [entry()]


@pytest.mark.parametrize("content", [
    b"", b"not JSON", b"[]", b"[1, 2]", b"3", b"null", b'"text"', b"{}", b"\xff\xfe\x00",
    b'{"provenance": {}, "cells": []}', b'{"checksum": "0"}'])
def test_what_is_no_record_is_refused(results, content):
    path = results / "cpu" / "table.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(RecordError) as caught:
        report.read_record(path)
    assert "table.json" in sentence(caught) and "make tables PROFILE=cpu ONLY=table" in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_record_cut_off_is_refused(share):
    path = report.write_record("table", origin("cpu"), [entry()])
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RecordError) as caught:
        report.read_record(path)
    assert "table.json" in sentence(caught) and "make tables PROFILE=cpu ONLY=table" in str(caught.value)


def test_a_missing_record_is_named(results):
    with pytest.raises(RecordError) as caught:
        report.read_record(results / "paper" / "table09.json")
    assert "table09.json" in sentence(caught) and "make tables PROFILE=paper ONLY=table09" in str(caught.value)


def test_a_sound_checksum_over_an_incomplete_record_is_refused(results):
    path = results / "cpu" / "table.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"cells": [], "checksum": store_module.digest({"cells": []})}))
    with pytest.raises(RecordError):
        report.read_record(path)


def refuse(monkeypatch, call: str, number: int) -> None:
    def refused(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os if call == "replace" else files.tempfile, call, refused)


@pytest.mark.parametrize(("call", "number"), [
    ("mkstemp", errno.EROFS), ("mkstemp", errno.EACCES), ("replace", errno.ENOSPC)])
def test_a_failed_write_is_one_sentence_and_leaves_the_old_record(monkeypatch, call, number):
    path = report.write_record("table", origin("cpu"), [entry()])
    before = sorted(path.parent.iterdir())
    with monkeypatch.context() as patched:
        refuse(patched, call, number)
        with pytest.raises(StoreError) as caught:
            report.write_record("table", origin("cpu"), [entry(value=99.0, width=0.5)])
    assert "table.json" in sentence(caught) and os.strerror(number) in str(caught.value)
    assert report.read_record(path)["cells"] == [entry()]
    assert sorted(path.parent.iterdir()) == before


def test_no_folder_can_be_made(results):
    results.write_text("a file where the folder should be")
    settings = specs.load_profile("quick")
    for write in (lambda: report.write_record("table", origin("cpu"), [entry()]),
                  lambda: report.save_markdown("table", settings, "text"),
                  lambda: report.show(plt.figure(), "a picture of nothing at all", "picture", settings)):
        with pytest.raises(StoreError) as caught:
            write()
        assert "results" in sentence(caught)


# --- from stored outcomes to cells ----------------------------------------------------------------------------------

TEST = 100  # images attacked
COLUMNS = ("undefended", "7-P1", "no patches")
ATTACKS = ("PGD-v2", "FGSM", "IFGSM")
CORRECT = {"undefended": 90, "7-P1": 80, "no patches": 70}  # the first so many images are classified correctly
CORRECT_EARLY = 60  # the same for 7-P1 at the other epochs of the study
BROKEN = {  # the images that an attack breaks at any iterate; at the last iterate it breaks the even ones alone
    ("FGSM", "margin"): range(0, 30), ("FGSM", "logits"): range(20, 60), ("FGSM", "probabilities"): range(0, 10),
    ("PGD-v2", "margin"): range(50, 70), ("PGD-v2", "logits"): range(60, 65),
    ("PGD-v2", "probabilities"): range(40, 44),
    ("IFGSM", "margin"): range(0, 5), ("IFGSM", "logits"): range(5, 10), ("IFGSM", "probabilities"): range(0),
}


LADDER = [{"claim": None, "row": rung, "column": loss, "epoch": None, "protocol": "ladder", "decision": "any",
           "value": 0.0, "low": None, "high": None, "n": 100, "seeds": [0]}
          for rung in ladder.RUNGS for loss in specs.LOSSES]
ENSEMBLE = {"undefended": "undefended", "7-P1": "proposed", "no patches": None}  # column -> Table 9's claim
PARTS = {  # the images that each part of AutoAttack breaks, given logits and given probabilities
    "AutoAttack": {"logits": (range(40), range(40, 45), (45,), (46, 47)),
                   "probabilities": (range(20), (), (), (20,))},
    "Square": {"logits": (range(30),)},
}


def correct_images(column: str, epoch: int, n: int) -> torch.Tensor:
    return mask(CORRECT_EARLY if column == "7-P1" and epoch != 20 else CORRECT[column], n)


TRANSFERRED = 7  # of the first images, those that fall to what was made on the undefended network


def outcome_of(job: specs.Job) -> dict:
    n, column, attack = job.evaluation.size, job.column, job.attack
    if job.evaluation.source:
        fallen = torch.where(mask(TRANSFERRED, n), 0, -1).to(torch.int16)
        return {"correct": mask(CORRECT[column], n), "any_run": fallen, "last_run": fallen.clone()}
    if job.attack in PARTS:
        broken_by = torch.full((n,), -1, dtype=torch.int16)
        for part, images in enumerate(PARTS[job.attack][job.evaluation.attack.loss]):
            broken_by[list(images)] = (0, 1, 18, 19)[part]  # a run of that part: it has 1, 9, 9 and 1
        return {"correct": mask(CORRECT[column], n), "any_run": broken_by, "last_run": broken_by.clone()}
    broken = range(89) if column == "undefended" else BROKEN[attack, job.evaluation.attack.loss]
    any_run, last_run = torch.full((2, n), -1, dtype=torch.int32)
    for image in broken:
        if image < n:
            any_run[image] = 0
            if image % 2 == 0:  # the last iterate falls to the second start; one run knows no second start
                last_run[image] = 1 if job.evaluation.attack.restarts > 1 else 0
    return {"correct": correct_images(column, job.evaluation.epoch, n), "any_run": any_run, "last_run": last_run}


@pytest.fixture(scope="module")
def plan() -> specs.Plan:
    recipe = {"lr": 1e-3, "batch_size": 64}
    grid = specs.Grid(
        table="T6", dataset="fashion-mnist", model="fmnistconv",
        pretraining=specs.Recipe(optimizer="adam", **recipe), finetuning=specs.Recipe(optimizer="rmsprop", **recipe),
        columns={"undefended": specs.Column(copies="none"), "no patches": specs.Column(copies="unmodified"),
                 "7-P1": specs.Column(copies="patched", patch_size=7, patch_count=1)},
        attacks=list(ATTACKS), losses=["margin", "logits", "probabilities"], ablation_columns=["7-P1"],
        ablation_attacks=["PGD-v2"], ablation_claims="T11.FMNIST", ablation_claimed=["7-P1", "PGD-v2"],
        transfer_from="undefended",
        ensemble=specs.Ensemble(eps=0.3, claims="T9.F-MNIST.F-MNISTconv", columns=ENSEMBLE),
        text_claims={"X16": ["Clean.undefended"], "X17": ["PGD-v2.undefended"], "X18": ["PGD-v2.7-P1"],
                     "X19": ["IFGSM.7-P1", "IFGSM.undefended"]})
    settings = specs.Settings(profile="cpu", train_size=200, test_size=TEST, pretrain_epochs=5,
                              finetune_epochs=20, ablation_epochs=30, epoch_interval=10, seed=3,
                              autoattack_size=50)
    return specs.Plan(grid, settings)


@pytest.fixture(scope="module")
def artefacts(plan, tiny, tmp_path_factory, code_and_claims_are_read_once) -> Store:
    """A store with hand-made checkpoints and outcomes for all of the plan."""
    artefacts = Store(tmp_path_factory.mktemp("store"))
    weights = models.build("fmnistconv", 0).state_dict()
    for spec, epochs in plan.trainings:
        for epoch in epochs:
            history = [{"epoch": epoch, "loss": 0.1, "clean": 90.0, "saturated": 25.0}]
            artefacts.save(f"{training.artefact(spec, tiny)}/epoch-{epoch:04d}", weights,
                           {"history": history, "seconds": 7.0 * epoch, "device": "some CPU"})
    for job in [*plan.jobs, *plan.epoch_jobs, *plan.ensemble_jobs]:
        artefacts.save(evaluation.artefact(job.evaluation, tiny), outcome_of(job),
                       {"calls": 1, "seconds": 0.5, "device": "some GPU"})
    return artefacts


@pytest.fixture(scope="module")
def cells(plan, tiny, artefacts) -> list[dict]:
    return report.measure(plan, tiny, artefacts)


@pytest.fixture(scope="module")
def epoch_cells(plan, tiny, artefacts) -> list[dict]:
    return report.measure(plan, tiny, artefacts, plan.epoch_jobs, "T11")


def numbers(cells: list[dict], **wanted) -> dict:
    """The one number that fits, however many claims it answers."""
    fits = [{k: c[k] for k in ("value", "low", "high", "n")} for c in cells
            if all(c[k] == v for k, v in wanted.items())]
    assert fits and all(found == fits[0] for found in fits), wanted
    return fits[0]


def percent(images: set[int], n: int = TEST) -> float:
    return 100 * len(images) / n


def survivors(column: str, attack: str, *losses: str, n: int = TEST) -> set[int]:
    """Images that are correct and survive an attack under each of the losses at any iterate, counted one by one."""
    broken = set(range(89)) if column == "undefended" else {i for loss in losses for i in BROKEN[attack, loss]}
    return {i for i in range(n) if i < CORRECT[column] and i not in broken}


def test_sound_counts_images_that_survive_both_losses(cells):
    """FGSM on 7-P1: margin leaves 50 of 80 and logits 40, but only 20 images survive both."""
    at = {"row": "FGSM", "column": "7-P1", "epoch": 20, "decision": "any"}
    assert numbers(cells, **at, protocol="margin")["value"] == 50
    assert numbers(cells, **at, protocol="logits")["value"] == 40
    assert numbers(cells, **at, protocol="sound") == report.share(mask(20, TEST))


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_every_cell_under_any_iterate(cells, column, attack):
    epoch = 5 if column == "undefended" else 20
    at = {"row": attack, "column": column, "epoch": epoch, "decision": "any"}
    for loss in ("margin", "logits", "probabilities"):
        assert numbers(cells, **at, protocol=loss)["value"] == percent(survivors(column, attack, loss)), loss
    assert numbers(cells, **at, protocol="sound")["value"] == percent(survivors(column, attack, "margin", "logits"))


@pytest.mark.parametrize("column", COLUMNS)
def test_all_attacks_together(cells, column):
    at = {"column": column, "epoch": 5 if column == "undefended" else 20, "protocol": "sound", "decision": "any"}
    together = numbers(cells, **at, row="All attacks")["value"]
    expected = set.intersection(*(survivors(column, attack, "margin", "logits") for attack in ATTACKS))
    assert together == percent(expected)
    assert all(together <= numbers(cells, **at, row=attack)["value"] for attack in ATTACKS)


def test_the_last_iterate_is_judged_on_all_images(cells):
    at = {"column": "7-P1", "epoch": 20, "decision": "last"}
    assert numbers(cells, **at, row="IFGSM", protocol="margin") == report.share(mask(80 - 3, TEST))  # 0, 2, 4 break
    assert numbers(cells, **at, row="FGSM", protocol="margin") == report.share(mask(80 - 15, TEST))
    assert numbers(cells, **at, row="PGD-v2", protocol="probabilities") == report.share(mask(80 - 2, TEST))  # 40 and 42


@pytest.mark.parametrize("column, kept", [("7-P1", 80 - TRANSFERRED), ("no patches", 70 - TRANSFERRED)])
def test_transfer_stands_beside_the_other_protocols(cells, column, kept):
    for attack in ATTACKS:
        at = {"row": attack, "column": column, "protocol": "transfer", "decision": "last"}
        assert numbers(cells, **at) == report.share(mask(kept, TEST))
        assert [c["claim"] for c in cells if all(c[k] == v for k, v in at.items())] == [
            f"T6.{attack}.7-P1" if column == "7-P1" else None] or attack == "PGD-v2"  # which the text repeats


def test_nothing_transfers_to_the_source_and_no_gain_is_taken_over_it(cells):
    assert not [c for c in cells if c["protocol"] == "transfer" and (c["column"] == "undefended" or c["claim"] == "X19")]
    assert [c["protocol"] for c in cells if c["claim"] == "X18" and c["protocol"] == "transfer"] == ["transfer"]


def test_curves_have_the_last_iterate_under_probabilities_alone(epoch_cells):
    found = {(c["protocol"], c["decision"]) for c in epoch_cells if c["row"] == "PGD-v2"}
    assert found == {("probabilities", "last"), ("probabilities", "any"), ("margin", "any"), ("logits", "any"),
                     ("sound", "any")}


def test_the_first_start_alone(cells):
    """Under probabilities and by the last iterate, PGD-v2 breaks 40 and 42, both in the second start only."""
    at = {"row": "PGD-v2, first start only", "column": "7-P1", "epoch": 20, "protocol": "probabilities"}
    assert numbers(cells, **at, decision="last")["value"] == 80
    assert not [c for c in cells if c["row"] in ("FGSM, first start only", "IFGSM, first start only")]


def test_clean_and_saturated(cells):
    for column in COLUMNS:
        epoch = 5 if column == "undefended" else 20
        clean = numbers(cells, row="Clean", column=column, epoch=epoch, protocol="clean", decision=None)
        assert clean == report.share(mask(CORRECT[column], TEST))
        assert numbers(cells, column=column, epoch=epoch, protocol="saturated") == report.share(mask(32, 128))


def claimed(cells: list[dict]) -> dict[str, set]:
    """claim -> where the numbers that answer it stand: (row, column, epoch)."""
    places: dict[str, set] = {}
    for c in cells:
        if c["claim"]:
            places.setdefault(c["claim"], set()).add((c["row"], c["column"], c["epoch"]))
    return places


def test_every_claim_is_attached_to_its_own_number(cells):
    expected = {f"T6.{row}.{column}": {(row, column, epoch)}
                for row in ("Clean", *ATTACKS) for column, epoch in (("undefended", 5), ("7-P1", 20))}
    expected |= {"X16": {("Clean", "undefended", 5)}, "X17": {("PGD-v2", "undefended", 5)},
                 "X18": {("PGD-v2", "7-P1", 20)}, "X19": {("IFGSM minus IFGSM", "7-P1 minus undefended", 20)}}
    assert claimed(cells) == expected
    assert set(expected) <= set(LEDGER)


def test_the_epochs_claims_belong_to_table_11(epoch_cells):
    assert claimed(epoch_cells) == {f"T11.FMNIST.{epoch}": {("PGD-v2", "7-P1", epoch)} for epoch in (10, 20, 30)}


@pytest.fixture(scope="module")
def ensemble_cells(plan, tiny, artefacts) -> list[dict]:
    return report.measure_ensemble(plan, tiny, artefacts)


@pytest.mark.parametrize("column", COLUMNS)
def test_autoattack_by_what_it_was_given_and_by_part(ensemble_cells, column):
    """All of the first 50 images are correct; given logits 48 of them break, given probabilities 21."""
    at = {"column": column, "epoch": 5 if column == "undefended" else 20}
    assert numbers(ensemble_cells, **at, row="Clean", protocol="clean") == report.share(mask(50, 50))
    for row, protocol, left in (("AutoAttack", "sound", 2), ("AutoAttack", "probabilities", 29), ("Square", "sound", 20),
                                ("broken by APGD-CE", "sound", 40), ("broken by APGD-T", "sound", 5),
                                ("broken by FAB-T", "sound", 1), ("broken by Square", "sound", 2),
                                ("broken by APGD-CE", "probabilities", 20), ("broken by Square", "probabilities", 1)):
        assert numbers(ensemble_cells, **at, row=row, protocol=protocol) == report.share(mask(left, 50)), (row, protocol)


def test_table_9s_claims(ensemble_cells):
    place = "T9.F-MNIST.F-MNISTconv"
    assert claimed(ensemble_cells) == {f"{place}.undefended": {("AutoAttack", "undefended", 5)},
                                       f"{place}.proposed": {("AutoAttack", "7-P1", 20)}}
    report.write_record("table09", origin("cpu"), [*ensemble_cells, *LADDER])
    board = report.scoreboard()
    assert row_of(board, f"{place}.proposed", "sound").measured == 4.0
    assert row_of(board, f"{place}.proposed", "probabilities").measured == 58.0  # though AutoAttack has no last iterate


def test_table_9_for_people(ensemble_cells, plan):
    plans = {"table06": plan}
    ensemble_cells = report.named(plan, ensemble_cells)
    rows = {row["network"]: row for row in report.ensemble_table(ensemble_cells, plans).to_dict("records")}
    proposed, control = rows["fmnistconv, 7-P1"], rows["fmnistconv, no patches"]
    assert proposed["paper: AutoAttack"] == "86.70" and control["paper: AutoAttack"] == ""
    assert proposed["AutoAttack, given logits (sound)"].startswith("4.00 [")
    assert proposed["AutoAttack, given probabilities"].startswith("58.00 [")
    parts = report.parts_table(ensemble_cells, plans)
    assert len(parts) == 6 and parts.iloc[0]["broken by APGD-CE"] == "80.00"
    drawn = report.plot_ensemble(ensemble_cells, plans).axes[0]
    assert sorted(bar.get_height() for bar in drawn.patches) == sorted([100, 40, 58, 4] * 3)
    assert sorted(float(line.get_ydata()[0]) for line in drawn.lines if line.get_marker() == "D") == [0.0, 86.7]


def test_pages_of_tables_9_and_11(ensemble_cells, epoch_cells, plan, tiny, artefacts):
    plans, settings = {"table06": plan}, plan.settings
    ensemble_cells, epoch_cells = report.named(plan, ensemble_cells), report.named(plan, epoch_cells)
    nine = report.ensemble_page(ensemble_cells, plans, [report.provenance(settings, plan, tiny, artefacts, plan.ensemble_jobs)])
    eleven = report.epochs_page(epoch_cells, plans, [report.provenance(settings, plan, tiny, artefacts, plan.epoch_jobs)])
    for page, texts in ((nine, ["58.00 [", "broken by Square"]), (eleven, ["50.00 [", "100 test images"])):
        assert all(text in page for text in [*texts, "seed 3", "made by the tests", torch.__version__])
    assert "AutoAttack cut short, to 10 steps" in nine
    whole = {name: specs.Plan(plan.grid, plan.settings.model_copy(update={"steps": 100})) for name, plan in plans.items()}
    origins = [report.provenance(settings, plan, tiny, artefacts, plan.ensemble_jobs)]
    assert "The standard AutoAttack" in report.ensemble_page(ensemble_cells, whole, origins)


@pytest.mark.parametrize("last, said", [({"clean": 88.15}, "missed: it came to 88.15 %"), ({"clean": 91.5, "rests": True}, None)])
def test_a_page_says_when_the_pretraining_missed_its_target(last, said):
    plan = specs.Plan(specs.load_grid("table03_resnet20"), specs.load_profile("cpu"))
    origin = {"data": {"name": "n", "source": "s", "variant": "v"}, "pretraining": [last], "devices": [], "seconds": {},
              "torch": "", "commit": ""}
    line = tables.source_line(plan, origin, 10)
    assert "pre-training to 91.81 %" in line and ("missed" in line) == (said is not None) and (said or "") in line


@pytest.fixture(scope="module")
def restarts(tiny, tmp_path_factory, code_and_claims_are_read_once):
    """The plan of the claims about restarts with made outcomes, and its cells: of 100 images, number i falls in restart i."""
    grid = specs.load_grid("restarts_cifarconv").model_copy(update={"dataset": "fashion-mnist", "model": "fmnistconv"})
    plan = specs.Plan(grid, specs.Settings(restarts=20, test_size=TEST, cifar_epochs=2))
    artefacts = Store(tmp_path_factory.mktemp("restarts"))
    for spec, epochs in plan.trainings:
        artefacts.save(f"{training.artefact(spec, tiny)}/epoch-{epochs[-1]:04d}", models.build("fmnistconv").state_dict(),
                       {"history": [{"saturated": 25.0}], "seconds": 1.0, "device": "some CPU"})
    for job in plan.jobs:
        runs = torch.arange(TEST).to(torch.int16)
        runs[20 if job.column == "7-P1" else 60 :] = -1  # of the others, 7-P1 stands on 80, the rest on 40
        tensors = {"correct": mask(100, TEST), "any_run": runs, "last_run": runs.clone()}
        artefacts.save(evaluation.artefact(job.evaluation, tiny), tensors, {"calls": 1, "seconds": 1.0, "device": "some CPU"})
    return plan, report.measure(plan, tiny, artefacts)


@pytest.mark.parametrize("count", [5, 10, 20])
@pytest.mark.parametrize("protocol, decision", [("probabilities", "last"), ("logits", "any"), ("sound", "any")])
def test_an_attack_is_shown_after_fewer_restarts(restarts, count, protocol, decision):
    _, cells = restarts
    at = {"row": f"PGD-v2, {count} restarts", "column": "7-P1", "protocol": protocol, "decision": decision}
    assert numbers(cells, **at) == report.share(mask(100 - count, 100))
    assert not [c for c in cells if c["row"] == "PGD-v2"]


def test_claims_about_restarts(restarts):
    """X13 is the cell after 20 restarts; X14 and X15 subtract the pre-trained network's, of which 60 images fall."""
    plan, cells = restarts
    table = report.claims_table(cells, plan)
    assert table["printed"].tolist() == ["44.88", "36", "35"]
    assert [text.split(" ")[0] for text in table["probabilities"]] == ["80.00", "0.00", "0.00"]
    assert [text.split(" ")[0] for text in table["sound"]] == ["80.00", "0.00", "0.00"]
    assert table["transfer"][0].startswith("80.00 [") and table["transfer"][1] == ""  # not to the network it is made on


def test_clean_images_are_natural_ones_in_table_3(cells):
    table = report.table(cells, list(COLUMNS), EPOCHS, ["PGD-v2"], "T3.VGG16")
    assert line(table, "Clean", "paper")["7-P1"] == "86.71"
    assert line(report.table(cells, list(COLUMNS), EPOCHS, ["FGSM"], "T6"), "Clean", "paper")["7-P1"] == "90.47"


def test_networks_of_one_record_are_told_apart(plan):
    """Two networks with columns of the same name: each gets its own cells back."""
    other = specs.Plan(plan.grid.model_copy(update={"model": "vgg16"}), plan.settings)
    ours, theirs = ([report.cell("FGSM", "7-P1", 20, "sound", "any", report.share(mask(n, 50)), 3)] for n in (1, 2))
    record = [*report.named(plan, ours), *report.named(other, theirs), *LADDER]
    assert [c["column"] for c in record[:2]] == ["fmnistconv, 7-P1", "vgg16, 7-P1"]
    assert report.of(plan, record) == ours and report.of(other, record) == theirs


def test_one_provenance_for_several_data_sets(plan, tiny, artefacts):
    one = report.provenance(plan.settings, plan, tiny, artefacts)
    assert report.merged([one]) == one
    other = one | {"devices": ["another"], "data": one["data"] | {"name": "other"}}
    both = report.merged([one, other])
    assert both["devices"] == ["another", *one["devices"]] and both["data"]["name"] == "tiny; other"
    assert both["seconds"] == {name: 2 * value for name, value in one["seconds"].items()}


def test_the_ladder_for_people():
    table = report.ladder_table(LADDER)
    assert table["rung"].tolist() == list(ladder.RUNGS) and set(table["margin"]) == {"0"}


def test_the_ladder_is_climbed_on_the_undefended_network(plan, tiny, artefacts):
    rungs = report.measure_ladder(plan, tiny, artefacts)
    assert {(c["row"], c["column"]) for c in rungs} == {(rung, loss) for rung in ladder.RUNGS for loss in specs.LOSSES}
    assert {c["n"] for c in rungs} == {100} and report.ladder_table(rungs).shape == (len(ladder.RUNGS), 5)


def test_the_control_answers_no_claim(cells):
    control = [c for c in cells if c["column"] == "no patches"]
    assert control and all(c["claim"] is None for c in control)


def test_a_claim_is_answered_once_per_protocol_and_decision(cells):
    answers = [(c["claim"], c["protocol"], c["decision"]) for c in cells if c["claim"]]
    assert len(answers) == len(set(answers))


def test_what_the_text_repeats_and_subtracts(cells):
    assert numbers(cells, claim="X16", protocol="clean")["value"] == 90
    assert numbers(cells, claim="X17", protocol="sound")["value"] == 1
    assert numbers(cells, claim="X18", protocol="sound") == numbers(cells, claim="T6.PGD-v2.7-P1", protocol="sound")
    defended, undefended = survivors("7-P1", "IFGSM", "margin", "logits"), survivors("undefended", "IFGSM", "margin")
    difference = np.array([(i in defended) - (i in undefended) for i in range(TEST)], dtype=float)
    low, high = stats.norm.interval(0.95, loc=difference.mean(), scale=stats.sem(difference))
    found = numbers(cells, claim="X19", protocol="sound", decision="any")
    assert found["value"] == pytest.approx(100 * difference.mean()) == 70 - 1
    assert (found["low"], found["high"]) == pytest.approx((100 * low, 100 * high), abs=0.01)


def test_cells_are_complete_and_carry_the_seed(cells):
    for c in cells:
        assert set(c) == {"claim", "row", "column", "epoch", "protocol", "decision",
                          "value", "low", "high", "n", "seeds"}
        assert c["seeds"] == [3] and c["low"] <= c["value"] <= c["high"] and math.isfinite(c["high"] - c["low"])


def test_measuring_what_was_not_run_says_so(plan, tiny, tmp_path):
    with pytest.raises(StoreError, match="run the training or evaluation first"):
        report.measure(plan, tiny, Store(tmp_path / "empty"))


# --- provenance -----------------------------------------------------------------------------------------------------


def values(content) -> list:
    if isinstance(content, dict):
        return [v for item in content.values() for v in values(item)]
    return [v for item in content for v in values(item)] if isinstance(content, list) else [content]


def test_provenance(plan, tiny, artefacts):
    found = report.provenance(plan.settings, plan, tiny, artefacts)
    command = ["git", "rev-parse", "HEAD"]
    git = subprocess.run(command, cwd=files.ROOT, capture_output=True, text=True, check=False)
    head = git.stdout.strip() if git.returncode == 0 else "unknown"
    assert found["commit"] == head and isinstance(found["dirty"], bool)
    assert found["profile"] == "custom" and found["settings"] == plan.settings.content() and found["seeds"] == [3]
    assert found["torch"] == torch.__version__ and found["torchattacks"] == version("torchattacks")
    assert found["devices"] == ["some CPU", "some GPU"]
    assert found["data"] == {"name": "tiny", "source": "made by the tests", "variant": "tiny", "sha256": tiny.checksum}
    outcomes = {evaluation.artefact(job.evaluation, tiny) for job in plan.jobs}
    assert found["seconds"] == {"training": 7.0 * (5 + 20 + 20), "attacks": 0.5 * len(outcomes)}


def test_provenance_tells_nothing_about_the_machine(plan, tiny, artefacts):
    found = report.provenance(plan.settings, plan, tiny, artefacts)
    for text in filter(lambda value: isinstance(value, str), values(found)):
        assert not Path(text).is_absolute() and "\\" not in text
        assert str(Path.home()) not in text and str(files.ROOT) not in text and str(artefacts.root) not in text


def test_provenance_without_git_or_repository(monkeypatch, tmp_path):
    quick = specs.load_profile("quick")
    monkeypatch.setattr(files, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert report.provenance(quick)["commit"] == "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert report.provenance(quick)["commit"] == "unknown"


# --- scoreboard -----------------------------------------------------------------------------------------------------


def row_of(board: pd.DataFrame, claim: str, protocol: str) -> SimpleNamespace:
    found = board[(board["claim"] == claim) & (board["protocol"] == protocol)].to_dict("records")
    assert len(found) == 1, (claim, protocol)
    return SimpleNamespace(**found[0])


def test_with_no_records_nothing_was_run():
    board = report.scoreboard()
    assert board["claim"].tolist() == list(LEDGER) and set(board["verdict"]) == {"not run"}
    assert board["measured"].isna().all() and set(board["notebook"]) == {""}
    assert report.missing_table(board)["not yet run"].sum() == len(LEDGER)
    nothing = board[board["notebook"] != ""]
    for empty in (report.verdict_counts(nothing).reset_index(), report.board_table(nothing)):  # as in the notebook
        assert len(empty) == 0 and report.markdown(empty).strip()


def test_quick_and_custom_never_count():
    printed = LEDGER["T6.FGSM.7-P1"].printed
    for profile in ("quick", "custom"):
        report.write_record("table06", origin(profile), [entry("T6.FGSM.7-P1", value=printed)])
    assert report.records() == {}
    assert set(report.scoreboard()["verdict"]) == {"not run"}


def test_quick_earns_no_verdict_even_when_handed_in():
    record = {"cells": [entry("T6.FGSM.7-P1", value=LEDGER["T6.FGSM.7-P1"].printed)]}
    assert set(report.scoreboard({("quick", "table06"): record})["verdict"]) == {"not run"}


def test_each_protocol_is_judged_by_its_own_decision():
    claim = "T6.FGSM.7-P1"
    report.write_record("table06", origin("cpu"), [
        entry(claim, protocol, value, decision) for protocol, decision, value in
        [("sound", "any", 2.0), ("sound", "last", 91.0), ("logits", "any", 92.0), ("logits", "last", 3.0),
         ("probabilities", "any", 93.0), ("probabilities", "last", 4.0), ("margin", "any", 94.0),
         ("margin", "last", 95.0), ("saturated", None, 96.0)]])
    board = report.scoreboard()
    found = {row["protocol"]: row["measured"] for row in board[board["claim"] == claim].to_dict("records")}
    assert found == {"sound": 2.0, "logits": 3.0, "probabilities": 4.0}


def test_the_paper_profile_comes_before_the_cpu_profile():
    lower = [entry("T6.FGSM.7-P1", value=10.0), entry("T6.IFGSM.7-P1", value=11.0)]
    report.write_record("table06", origin("cpu"), lower)
    report.write_record("table06", origin("paper"), [entry("T6.FGSM.7-P1", value=20.0)])
    board = report.scoreboard()
    both, one = row_of(board, "T6.FGSM.7-P1", "sound"), row_of(board, "T6.IFGSM.7-P1", "sound")
    assert (both.measured, both.profile) == (20.0, "paper") and (one.measured, one.profile) == (11.0, "cpu")


def test_a_second_reading_counts_until_the_first_one_has_been_run():
    claim = "T3.ResNet.FGSM-v1.7-P1"
    report.write_record("table03_resnet20", origin("cpu"), [entry(claim, value=10.0)])
    assert row_of(report.scoreboard(), claim, "sound").notebook == "table03_resnet20"
    report.write_record("table03_resnet50", origin("cpu"), [entry(claim, value=20.0)])
    row = row_of(report.scoreboard(), claim, "sound")
    assert (row.measured, row.notebook) == (20.0, "table03_resnet50")


def test_no_verdict_without_a_ladder_and_none_when_a_rung_is_broken():
    printed = LEDGER["T6.FGSM.7-P1"].printed
    measured = [entry("T6.FGSM.7-P1", protocol, printed, "last") for protocol in ("probabilities", "logits")]
    broken = [rung | {"value": 5.0} if rung["column"] == "logits" else rung for rung in LADDER]
    for rungs, verdicts, word in ((LADDER, {"probabilities": "reproduced", "logits": "reproduced"}, "inside"),
                                  ([], {"probabilities": "not run", "logits": "not run"}, "not climbed"),
                                  (broken, {"probabilities": "reproduced", "logits": "not run"}, "missed by 5")):
        report.write_record("table06", origin("cpu"), [*measured, *rungs])
        board = report.scoreboard()
        for protocol, verdict in verdicts.items():
            assert row_of(board, "T6.FGSM.7-P1", protocol).verdict == verdict
        assert word in row_of(board, "T6.FGSM.7-P1", "logits").reason


def test_verdicts_on_known_cases():
    printed = LEDGER["T6.FGSM.7-P1"].printed
    report.write_record("table06", origin("cpu"), [
        entry("T6.FGSM.7-P1", "probabilities", printed, "last"), entry("T6.FGSM.7-P1", "sound", 0.0, width=0.0),
        entry("T6.FGSM.undefended", "sound", 0.0, column="undefended", width=0.0),
        entry("T6.IFGSM.7-P1", "sound", 30.0),
        entry("T6.IFGSM.undefended", "sound", 1.0, column="undefended", width=0.5), *LADDER])
    board = report.scoreboard()
    assert row_of(board, "T6.FGSM.7-P1", "probabilities").verdict == "reproduced"
    assert row_of(board, "T6.FGSM.7-P1", "sound").verdict == "not reproduced"
    trend = row_of(board, "T6.IFGSM.7-P1", "sound")  # far below the printed number, yet clear of the undefended network
    assert trend.verdict == "trend only" and trend.printed == LEDGER["T6.IFGSM.7-P1"].printed and trend.reason


def test_a_claim_that_nobody_measured_appears_once():
    report.write_record("table06", origin("cpu"), [entry("T6.FGSM.7-P1"), entry("T6.FGSM.7-P1", "logits", 40, "last")])
    board = report.scoreboard()
    counts = board["claim"].value_counts()
    assert set(counts.index) == set(LEDGER) and counts.pop("T6.FGSM.7-P1") == 2 and set(counts) == {1}
    missing = board[board["claim"] != "T6.FGSM.7-P1"]
    assert set(missing["verdict"]) == {"not run"} and missing["measured"].isna().all()
    assert report.missing_table(board)["not yet run"].sum() == len(LEDGER) - 1


def test_an_edited_record_stops_the_scoreboard():
    path = report.write_record("table06", origin("cpu"), [entry("T6.FGSM.7-P1")])
    path.write_text(path.read_text(encoding="utf-8").replace('"value": 50.0', '"value": 87.85'), encoding="utf-8")
    with pytest.raises(RecordError, match="table06.json"):
        report.scoreboard()


def test_verdict_counts_add_up(cells):
    report.write_record("table06", origin("cpu"), cells)
    board = report.scoreboard()
    counts = report.verdict_counts(board)
    assert counts.to_numpy().sum() == len(board) and set(counts.index) <= set(claims.VERDICTS)
    for verdict in counts.index:
        for protocol in counts.columns:
            here = (board["verdict"] == verdict) & (board["protocol"] == protocol.replace("all", ""))
            assert counts.loc[verdict, protocol] == here.sum()
    measured = board[board["notebook"] != ""]
    assert report.verdict_counts(measured).to_numpy().sum() == len(measured) == len(report.board_table(measured))


# --- tables ---------------------------------------------------------------------------------------------------------

EPOCHS = {"undefended": 5, "7-P1": 20, "no patches": 20}


def line(table: pd.DataFrame, attack: str, protocol: str, decision: str | None = None) -> dict:
    found = table[(table["attack"] == attack) & (table["protocol"] == protocol)]
    if decision is not None:
        found = found[found["decision"] == decision]
    assert len(found) == 1, (attack, protocol, decision)
    return found.to_dict("records")[0]


def test_table_shows_the_printed_number_beside_ours(cells):
    table = report.table(cells, list(COLUMNS), EPOCHS, list(ATTACKS), "T6")
    for attack in ("Clean", *ATTACKS):
        printed = line(table, attack, "paper")
        assert printed["no patches"] == ""
        for column in ("undefended", "7-P1"):
            assert float(printed[column]) == LEDGER[f"T6.{attack}.{column}"].printed
    sound = line(table, "FGSM", "sound", "any")
    found = numbers(cells, row="FGSM", column="7-P1", epoch=20, protocol="sound")
    assert sound["7-P1"] == f"20.00 [{found['low']:.2f}, {found['high']:.2f}]" and sound["images"] == str(TEST)
    assert line(table, "IFGSM", "margin", "last")["images"] == str(TEST)
    assert line(table, "Clean", "clean")["7-P1"].startswith("80.00")  # of epoch 20, not of 10 or 30


def test_table_has_every_row_that_was_measured(cells):
    table = report.table(cells, list(COLUMNS), EPOCHS, list(ATTACKS), "T6")
    shown = set(zip(table["attack"], table["protocol"], table["decision"], strict=True))
    measured = {(c["row"], c["protocol"], c["decision"] or "") for c in cells
                if EPOCHS.get(c["column"]) == c["epoch"] and c["protocol"] != "saturated"}
    assert measured <= shown
    assert line(table, "All attacks", "sound")["7-P1"].startswith("10.00")
    assert line(table, "PGD-v2, first start only", "probabilities", "last")["7-P1"].startswith("80.00")


def test_summary_keeps_the_printed_row_and_two_of_ours(cells):
    short = report.summary(cells, list(COLUMNS), EPOCHS, list(ATTACKS), "T6")
    kept = sorted(zip(short["attack"], short["protocol"], strict=True))
    ours = [(attack, protocol) for attack in ATTACKS for protocol in ("paper", "probabilities", "sound")]
    assert kept == sorted([("Clean", "paper"), ("Clean", "clean"), *ours])
    assert line(short, "FGSM", "sound")["7-P1"] == "20.00" and line(short, "FGSM", "paper")["7-P1"] == "87.85"
    assert line(short, "FGSM", "probabilities")["7-P1"] == "75.00"  # the five even ones below 10 break


def test_epochs_table(epoch_cells, plan):
    table = report.epochs_table(report.named(plan, epoch_cells), plan)
    assert table["epochs"].tolist() == ["10", "20", "30"]
    assert [float(text) for text in table["paper"]] == [LEDGER[f"T11.FMNIST.{epoch}"].printed for epoch in (10, 20, 30)]
    values_of = [text.split(" ")[0] for text in table["PGD-v2 sound"]]
    assert values_of == ["50.00", "60.00", "50.00"]  # 60 - 10 early and late, 80 - 20 at the table's epoch
    assert all(text.startswith("25.00") for text in table["saturated"])


@pytest.mark.parametrize("prefix, printed", [("T6", ["Clean", *ATTACKS]), ("Restarts", [])])
def test_the_paper_has_a_row_only_where_it_prints_something(cells, prefix, printed):
    table = report.table(cells, list(COLUMNS), EPOCHS, list(ATTACKS), prefix)
    assert table["attack"][table["protocol"] == "paper"].tolist() == printed


def test_table_page_says_where_its_numbers_come_from(cells, plan, tiny, artefacts):
    page = report.table_page(cells, plan, report.provenance(plan.settings, plan, tiny, artefacts))
    for text in ("made by the tests", "some GPU", "seed 3", "20 epochs of fine-tuning", torch.__version__, "20.00 ["):
        assert text in page
    path = report.save_markdown("table06", plan.settings, page)
    assert path == files.RESULTS / "custom" / "table06.md"
    assert path.read_text(encoding="utf-8").startswith(report.CUSTOM)


def test_banner():
    assert report.banner(specs.load_profile("quick")) == report.BANNER and "No verdict" in report.BANNER
    assert report.banner(specs.Settings(seed=1)) == report.CUSTOM and "No verdict" in report.CUSTOM
    assert report.banner(specs.load_profile("cpu")) == report.banner(specs.load_profile("paper")) == ""
    for profile, text in (("quick", f"{report.BANNER}\n\nbody\n"), ("cpu", "body\n")):
        assert report.save_markdown("page", specs.load_profile(profile), "body").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("profile", ["quick", "cpu", "paper"])
@pytest.mark.parametrize("name", ["table03_vgg16", "figure03_optimizer", "restarts_cifarconv"])
def test_every_table_says_what_was_reduced(name, profile):
    """Width, images and epochs, above the table in its notebook; a narrower network's name says so wherever it stands."""
    settings = specs.load_profile(profile)
    plan = specs.Plan(specs.load_grid(name), settings)
    text = report.scale(settings, plan)
    assert text.startswith(report.BANNER) == (profile == "quick") and f"Profile **{profile}**" in text
    width, epochs = plan.pretraining.width, plan.settings.finetune_epochs
    assert (f"(width {width:g})" in text) == (f"(width {width:g})" in plan.model_name) == (width != 1)
    assert f" {plan.test_size:,} test images" in text and f" {epochs} epoch{'s' * (epochs > 1)} of fine-tuning" in text
    assert f" {settings.cifar_train_size:,} training" in text


@pytest.mark.parametrize("name, title", [("table03_vgg16", "Table 3"), ("figure03_optimizer", "Figure 3"),
                                         ("restarts_cifarconv", "Restarts"), ("table03_resnet20", "Table 3")])
def test_titles(name, title):
    assert report.title(specs.Plan(specs.load_grid(name), specs.load_profile("quick"))) == title


def test_table_of_the_attacks_covers_table_2():
    table = report.attack_table()
    assert len(table) == sum(len(specs.attacks_of(d)) for d in ("cifar-10", "fashion-mnist", "imagenet-subset"))
    pgd = table[(table["data set"] == "fashion-mnist") & (table["attack"] == "PGD-v2")].to_dict("records")[0]
    assert [pgd[name] for name in ("eps", "alpha", "iterations", "restarts", "calls")] == [
        "0.3", "0.01", "100", "10", "1010"]


# --- pictures -------------------------------------------------------------------------------------------------------


def test_plot_attacks_has_a_bar_per_number_and_a_mark_per_printed_one(cells):
    figure = report.plot_attacks(cells, list(COLUMNS), EPOCHS, list(ATTACKS), "T6")
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert set(panels) == set(ATTACKS)
    # FGSM's logits are judged under any iterate too; each of three columns has three bars
    heights = sorted(patch.get_height() for patch in panels["FGSM"].patches)
    expected = [numbers(cells, row="FGSM", column=c, epoch=EPOCHS[c], protocol=p, decision=d)["value"]
                for c in COLUMNS for p, d in (("probabilities", "last"), ("logits", "any"), ("sound", "any"))]
    assert heights == sorted(expected)
    marks = [shape for shape in panels["FGSM"].lines if shape.get_label() == "printed in the paper"]
    assert sorted(marks[0].get_ydata()) == sorted(LEDGER[f"T6.FGSM.{c}"].printed for c in ("undefended", "7-P1"))


def test_plot_attacks_takes_a_single_attack(cells):
    assert len(report.plot_attacks(cells, list(COLUMNS), EPOCHS, ["FGSM"], "T6").axes[0].patches) == 9


@pytest.mark.parametrize("count", [1, 2, 3])
def test_plot_attacks_names_the_networks_below_the_lowest_panel_of_each_column(cells, count):
    figure = report.plot_attacks(cells, list(COLUMNS), EPOCHS, list(ATTACKS)[:count], "T6")
    assert len(figure.axes) == count
    figure.canvas.draw()
    lowest = {}
    for axis in figure.axes:
        left, bottom = axis.get_position().x0, axis.get_position().y0
        if left not in lowest or bottom < lowest[left].get_position().y0:
            lowest[left] = axis
    for axis in figure.axes:
        named = [label.get_text() for label in axis.get_xticklabels() if label.get_visible()]
        assert named == (list(COLUMNS) if axis in lowest.values() else [])


@pytest.mark.parametrize("table, says", [("T6", True), ("Restarts", False)])
def test_the_legend_names_the_paper_only_where_it_prints_something(cells, table, says):
    (legend,) = report.plot_attacks(cells, list(COLUMNS), EPOCHS, list(ATTACKS), table).legends
    assert ("printed in the paper" in [text.get_text() for text in legend.get_texts()]) == says


def test_plot_epochs_has_a_point_per_epoch(epoch_cells, plan):
    axis = report.plot_epochs(report.named(plan, epoch_cells), plan).axes[0]
    ours = {container.get_label(): container.lines[0] for container in axis.containers}
    assert len(ours) == 3 and all(list(drawn.get_xdata()) == [10, 20, 30] for drawn in ours.values())
    assert list(ours["7-P1: PGD-v2, sound"].get_ydata()) == [50, 60, 50]
    printed = next(drawn for drawn in axis.lines if drawn.get_label() == "printed in the paper")
    row = [claim.printed for name, claim in LEDGER.items() if name.startswith("T11.FMNIST.")]
    assert list(printed.get_ydata()) == row


def test_plot_scoreboard_has_a_point_per_measured_claim(cells):
    report.write_record("table06", origin("cpu"), cells)
    board = report.scoreboard()
    drawn = {re.sub(r" \(.*", "", part.get_label()): len(part.get_offsets())
             for part in report.plot_scoreboard(board).axes[0].collections}
    measured = board[board["notebook"] != ""]["protocol"].value_counts()
    assert drawn == {protocol: measured[protocol] for protocol in ("clean", "sound", "logits", "probabilities")}
    assert report.plot_scoreboard(board[board["notebook"] == ""]).axes  # nothing measured is a picture too


def test_galleries(tiny):
    gallery = report.plot_operations(tiny.train.images[:9], size=11, seed=0)
    assert len([axis for axis in gallery.axes if axis.images]) == 18
    assert len({axis.get_title() for axis in gallery.axes} - {""}) == 9
    before, after = (np.asarray(gallery.axes[i].images[0].get_array()) for i in (7, 16))  # the black patch
    inside, outside = np.zeros((28, 28), bool), np.ones((28, 28), bool)
    inside[8:19, 8:19] = True
    assert (before[outside & ~inside] == after[outside & ~inside]).all() and (before[inside] != after[inside]).any()
    assert len([axis for axis in report.plot_pipeline(tiny.train.images[:4], seed=0).axes if axis.images]) == 5 * 4


def test_measured_operations(tiny):
    found = report.measure_operations(tiny.train.images[:50], size=7, seed=0)
    assert len(found) == 9 and all(0 < c["low"] <= c["value"] <= c["high"] < 1 and c["n"] == 50 for c in found)
    masking = next(c for c in found if "mask" in c["row"])
    centres = [tiny.train.images[:50, :, i : i + 7, i : i + 7].double() / 255 for i in (10, 11)]  # (28 - 7) / 2 = 10.5
    assert masking["value"] in [pytest.approx(float(centre.mean()), abs=1e-4) for centre in centres]


def test_show_displays_with_the_text_alternative_writes_the_file_and_closes(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda figure, **options: shown.append((figure, options)))
    figure, _ = plt.subplots(figsize=(1, 1))
    report.show(figure, "a picture of nothing at all", "nothing", specs.load_profile("quick"))
    assert shown == [(figure, {"metadata": {"image/png": {"alt": "a picture of nothing at all"}}})]
    assert not plt.fignum_exists(figure.number)
    content = (files.RESULTS / "quick" / "nothing.png").read_bytes()
    assert content.startswith(b"\x89PNG") and b"a picture of nothing at all" in content


# --- README ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def readme(monkeypatch, tmp_path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n\nfirst é\n\n{scoreboard.START}\n\nold status\n\n{scoreboard.END}\n\nlast\n", encoding="utf-8")
    monkeypatch.setattr(scoreboard, "README", path)
    return path


def test_readme_changes_only_between_its_marks(readme, cells):
    report.write_record("table06_fashion_mnist", origin("cpu"), cells)
    report.write_readme()
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"# Title\n\nfirst é\n\n{scoreboard.START}\n") and text.endswith(f"\n{scoreboard.END}\n\nlast\n")
    assert "old status" not in text and text.count(scoreboard.START) == text.count(scoreboard.END) == 1
    measured = len({c["claim"] for c in cells if c["claim"]})
    assert f"{measured} of {len(LEDGER)} printed numbers" in text and "87.85" in text
    assert report.readme_text() == text  # written again, nothing changes


def test_readme_before_anything_was_measured(readme):
    text = report.readme_text()
    assert f"0 of {len(LEDGER)} printed numbers" in text and "Nothing is measured yet." in text
    readme.write_text(text, encoding="utf-8")
    assert report.readme_text() == text


@pytest.mark.parametrize("lost", [scoreboard.START, scoreboard.END])
def test_readme_without_its_marks_is_refused(readme, lost):
    readme.write_text(readme.read_text(encoding="utf-8").replace(lost, ""), encoding="utf-8")
    with pytest.raises(RecordError) as caught:
        report.readme_text()
    assert lost in sentence(caught) and "README.md" in str(caught.value)
