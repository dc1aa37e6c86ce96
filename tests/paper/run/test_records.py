"""A record is what was measured and where it comes from; whatever else is in its place is refused in one sentence."""

import errno
import json
import os
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import torch
from paper import made

from reprolib.paper import files, plan, run
from reprolib.paper.plan import Cell, SpecError
from reprolib.paper.run import RecordError, StoreError, origin, published
from reprolib.paper.run.keys import digest


@pytest.fixture(autouse=True)
def own_results(results) -> Path:
    return results


def sentence(caught) -> str:
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def entry(claim=None, value=50.0, **fields) -> Cell:
    place = {"row": "FGSM", "column": "7-P1", "epoch": 20, "protocol": "sound", "decision": "any", "seeds": [0]}
    return Cell(claim=claim, value=value, low=value - 1, high=value + 1, n=10_000, **place | fields)


def made_by(profile: str) -> dict:
    return {"profile": profile, "text": "é", "commit": ["0" * 40]}


# --- files ----------------------------------------------------------------------------------------------------------


def test_round_trip():
    cells = [entry("T6.FGSM.7-P1", value=1 / 3, judged=True), entry(protocol="clean", decision=None, seeds=[0, 1])]
    path = run.write_record("table", made_by("quick"), cells)
    assert path == files.RESULTS / "quick" / "table.json"
    record = run.read_record(path)
    assert record.provenance == made_by("quick") and record.cells == cells
    beside = pd.read_csv(path.with_suffix(".csv"))
    assert beside["value"].tolist() == [1 / 3, 50.0] and beside["claim"].fillna("").tolist() == ["T6.FGSM.7-P1", ""]
    assert beside["seeds"].astype(str).tolist() == ["0", "0 1"]


def test_equal_runs_write_equal_files():
    first = run.write_record("table", made_by("quick"), [entry()]).read_bytes()
    assert run.write_record("table", made_by("quick"), [entry()]).read_bytes() == first


def test_record_without_cells():
    path = run.write_record("board", made_by("quick"), [])
    assert run.read_record(path).cells == [] and not path.with_suffix(".csv").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"value": 50.0', '"value": 51.0'),
        ('"row": "FGSM"', '"claim": "T6.FGSM.7-P1", "row": "FGSM"'),
        ('"profile": "cpu"', '"profile": "paper"'),
        ('"low": 49.0,', ""),
    ],
)
def test_a_record_edited_by_hand_is_refused(old, new):
    path = run.write_record("table06_x", made_by("cpu"), [entry()])
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(RecordError) as caught:
        run.read_record(path)
    message = sentence(caught)
    assert "table06_x.json" in message and "changed after it was written" in message
    assert "make tables PROFILE=cpu ONLY=table06_x" in message


def test_layout_may_change_as_no_number_does():
    path = run.write_record("table", made_by("cpu"), [entry()])
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    assert run.read_record(path).cells == [entry()]


@pytest.mark.parametrize(
    "content",
    [b"", b"not JSON", b"[]", b"[1, 2]", b"3", b"null", b'"text"', b"{}", b"\xff\xfe\x00",
     b'{"provenance": {}, "cells": []}', b'{"checksum": "0"}'],
)  # fmt: skip
def test_what_is_no_record_is_refused(results, content):
    path = results / "cpu" / "table.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(RecordError) as caught:
        run.read_record(path)
    assert "table.json" in sentence(caught) and "make tables PROFILE=cpu ONLY=table" in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_record_cut_off_is_refused(share):
    path = run.write_record("table", made_by("cpu"), [entry()])
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(RecordError) as caught:
        run.read_record(path)
    assert "table.json" in sentence(caught) and "make tables PROFILE=cpu ONLY=table" in str(caught.value)


def test_a_missing_record_is_named(results):
    with pytest.raises(RecordError) as caught:
        run.read_record(results / "paper" / "table09.json")
    assert "table09.json" in sentence(caught) and "make tables PROFILE=paper ONLY=table09" in str(caught.value)


@pytest.mark.parametrize("content", [{"cells": []}, {"provenance": {}, "cells": [{"row": "FGSM"}]}])
def test_a_sound_checksum_over_an_incomplete_record_is_refused(results, content):
    path = results / "cpu" / "table.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content | {"checksum": digest(content)}))
    with pytest.raises(RecordError):
        run.read_record(path)


@pytest.mark.parametrize(
    ("call", "number"), [("mkstemp", errno.EROFS), ("mkstemp", errno.EACCES), ("replace", errno.ENOSPC)]
)
def test_a_failed_write_is_one_sentence_and_leaves_the_old_record(monkeypatch, call, number):
    def refused(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    path = run.write_record("table", made_by("cpu"), [entry()])
    before = sorted(path.parent.iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(files.os if call == "replace" else files.tempfile, call, refused)
        with pytest.raises(StoreError) as caught:
            run.write_record("table", made_by("cpu"), [entry(value=99.0)])
    assert "table.json" in sentence(caught) and os.strerror(number) in str(caught.value)
    assert run.read_record(path).cells == [entry()]
    assert sorted(path.parent.iterdir()) == before


def test_no_folder_can_be_made(results):
    results.write_text("a file where the folder should be")
    with pytest.raises(StoreError) as caught:
        run.write_record("table", made_by("cpu"), [entry()])
    assert "results" in sentence(caught)


def test_the_paper_profiles_records_come_first_and_quick_and_custom_ones_not_at_all():
    for profile in ("cpu", "quick", "custom", "paper"):
        run.write_record("table", made_by(profile), [entry()])
    assert list(run.records()) == [("paper", "table"), ("cpu", "table")]


def test_a_record_of_another_profile_is_no_result(results):
    path = run.write_record("table", made_by("quick"), [entry()])
    (results / "cpu").mkdir()
    path.rename(results / "cpu" / "table.json")
    with pytest.raises(RecordError) as caught:
        run.records()
    assert "is a record of the quick profile" in sentence(caught)


# --- provenance -----------------------------------------------------------------------------------------------------


def values(content) -> list:
    if isinstance(content, dict):
        return [v for item in content.values() for v in values(item)]
    return [v for item in content for v in values(item)] if isinstance(content, list) else [content]


def test_provenance_is_that_of_the_artefacts_and_not_of_the_moment(table_6, tiny):
    """The checkpoints and outcomes say commit 000... and torch 2.0, which are not those of this process."""
    found = run.provenance(table_6)
    assert found["commit"] == ["0" * 40] and found["torch"] == ["2.0"] != [torch.__version__]
    assert found["dirty"] == ["False"] and found["device"] == ["some CPU", "some GPU"]
    assert found["profile"] == "cpu" and found["torchattacks"] == version("torchattacks")
    assert found["data"] == {"name": "tiny", "source": "made by the tests", "variant": "tiny", "sha256": tiny.checksum}
    outcomes = {run.evaluate.name_of(job.evaluation, table_6.shelf) for job in table_6.jobs}
    assert found["seconds"] == {"training": 7.0 * (5 + 20 + 20), "attacks": 0.5 * len(outcomes)}
    assert found["published"] == [] and found["pretraining"] == []


def test_what_two_rows_share_took_its_time_once(tiny, tmp_path):
    """On Fashion-MNIST PGD-v1 is IFGSM."""
    rows = plan.load_table("table06_fashion_mnist")["fmnistconv"].rows
    seconds = []
    for names in (["IFGSM"], ["IFGSM", "PGD-v1"]):
        page = made.page_of(
            "table06_fashion_mnist", shown=["7-P1"], rows={name: rows[name] for name in names}, claims=[]
        )
        filled = made.fill(plan.Plan(page, made.amounts(), "cpu"), tiny, tmp_path, made.outcome_of)
        seconds.append(run.provenance(filled)["seconds"]["attacks"])
    assert seconds[0] == seconds[1] > 0


def test_provenance_says_all_that_occur(tiny, tmp_path):
    page = made.fill(made.table_9(), tiny, tmp_path, made.outcome_of)
    name = run.evaluate.name_of(page.jobs[0].evaluation, page.shelf)
    tensors, meta = page.store.load(name)
    page.store.save(name, tensors, meta | {"commit": "1" * 40, "dirty": True, "torch": "2.1"})
    found = run.provenance(page)
    assert found["commit"] == ["0" * 40, "1" * 40] and found["torch"] == ["2.0", "2.1"]
    assert found["dirty"] == ["False", "True"]


def test_a_record_carries_the_amounts_that_made_it_and_no_others(table_6, table_11):
    assert run.provenance(table_6)["amounts"] == {
        "data": "full", "train": 200, "test": 100, "pretrain": 5, "finetune": 20, "steps": 10, "restarts": 10,
        "seed": 3, "engine": "reprolib",
    }  # fmt: skip
    assert run.provenance(table_11)["amounts"]["every"] == 10


def test_provenance_tells_nothing_about_the_machine(table_6):
    for text in filter(lambda value: isinstance(value, str), values(run.provenance(table_6))):
        assert not Path(text).is_absolute() and "\\" not in text
        assert str(Path.home()) not in text and str(files.ROOT) not in text and str(table_6.store.root) not in text


def test_provenance_without_networks(tiny):
    found = run.plain_provenance("cpu", tiny)
    assert (found["profile"], found["amounts"]) == ("cpu", {})
    assert found["torch"] == [torch.__version__] and found["commit"] == [origin.code()["commit"]]
    assert run.plain_provenance("quick", tiny, seed=0)["profile"] == "quick"
    assert run.plain_provenance("quick", tiny, seed=1)["profile"] == "custom"
    with pytest.raises(SpecError, match="unknown profile 'quik'; did you mean 'quick'"):
        run.plain_provenance("quik")


# --- published networks -----------------------------------------------------------------------------------------


def test_published_networks_must_stay_small(tiny, tmp_path, monkeypatch):
    page = made.fill(made.table_11(), tiny, tmp_path, made.outcome_of)
    monkeypatch.setattr(published, "MOST", 1_000_000)
    with pytest.raises(RecordError) as caught:
        run.publish_networks(page)
    assert "would take 3 MB, and 1 at most" in sentence(caught)
    assert not published.folder("cpu").exists(), "nothing is written"
    monkeypatch.setattr(published, "MOST", 4_000_000)
    assert run.publish_networks(page) == run.publish_networks(page), "what is replaced does not count twice"
