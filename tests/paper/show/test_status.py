"""docs/status.md is made from the records."""

from pathlib import Path

import pytest

from reprolib.paper import judge, run, show
from reprolib.paper.show import status as module

LEDGER = judge.ledger()


@pytest.fixture
def status(monkeypatch, tmp_path, results) -> Path:
    monkeypatch.setattr(module, "STATUS", tmp_path / "docs" / "status.md")
    return module.STATUS


def test_the_status_counts_and_shows_what_was_measured(status, cells, table_6, given_cells, table_9):
    run.write_record("table06_fashion_mnist", run.provenance(table_6), cells)
    run.write_record("table09_autoattack", run.provenance(table_9), given_cells)
    show.write_status()
    text = status.read_text(encoding="utf-8")
    measured = len({c.claim for c in [*cells, *given_cells] if c.claim})
    assert f"{measured} of {len(LEDGER)} printed numbers" in text and "87.85" in text
    assert "broken by" not in text and "59.00 [" in text and "PROFILE=paper DRY_RUN=1" in text
    assert show.status_text() == text  # written again, nothing changes


def test_the_status_says_the_amounts_of_the_record_and_not_of_todays_profile(status, cells, table_6):
    run.write_record("table06_fashion_mnist", run.provenance(table_6), cells)
    assert "100 test images, 20 epochs of fine-tuning)" in show.status_text()


def test_a_page_may_stay_out_of_the_status(status, epoch_cells, table_11):
    run.write_record("table11_epochs", run.provenance(table_11), epoch_cells)
    text = show.status_text()
    assert f"3 of {len(LEDGER)} printed numbers" in text and "Table 11" not in text


def test_status_before_anything_was_measured(status):
    text = show.status_text()
    assert f"0 of {len(LEDGER)} printed numbers" in text and "Nothing is measured yet." in text
