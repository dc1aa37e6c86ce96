"""The README's status is made from the records, and nothing else of the README is touched."""

from pathlib import Path

import pytest

from reprolib.paper import judge, run, show
from reprolib.paper.show import readme as module

LEDGER = judge.ledger()


@pytest.fixture
def readme(monkeypatch, tmp_path, results) -> Path:
    path = tmp_path / "README.md"
    text = f"# Title\n\nfirst é\n\n{module.START}\n\nold status\n\n{module.END}\n\nlast\n"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(module, "README", path)
    return path


def test_readme_changes_only_between_its_marks(readme, cells, table_6, given_cells, table_9):
    run.write_record("table06_fashion_mnist", run.provenance(table_6), cells)
    run.write_record("table09_autoattack", run.provenance(table_9), given_cells)
    show.write_readme()
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"# Title\n\nfirst é\n\n{module.START}\n")
    assert text.endswith(f"\n{module.END}\n\nlast\n")
    assert "old status" not in text and text.count(module.START) == text.count(module.END) == 1
    measured = len({c.claim for c in [*cells, *given_cells] if c.claim})
    assert f"{measured} of {len(LEDGER)} printed numbers" in text and "87.85" in text
    assert "broken by" not in text and "59.00 [" in text and "PROFILE=paper DRY_RUN=1" in text
    assert show.readme_text() == text  # written again, nothing changes


def test_the_status_says_the_amounts_of_the_record_and_not_of_todays_profile(readme, cells, table_6):
    run.write_record("table06_fashion_mnist", run.provenance(table_6), cells)
    assert "100 test images, 20 epochs of fine-tuning)" in show.readme_text()


def test_a_page_may_stay_out_of_the_readme(readme, epoch_cells, table_11):
    run.write_record("table11_epochs", run.provenance(table_11), epoch_cells)
    text = show.readme_text()
    assert f"3 of {len(LEDGER)} printed numbers" in text and "Table 11" not in text


def test_readme_before_anything_was_measured(readme):
    text = show.readme_text()
    assert f"0 of {len(LEDGER)} printed numbers" in text and "Nothing is measured yet." in text
    readme.write_text(text, encoding="utf-8")
    assert show.readme_text() == text


@pytest.mark.parametrize("lost", [module.START, module.END])
def test_readme_without_its_marks_is_refused(readme, lost):
    readme.write_text(readme.read_text(encoding="utf-8").replace(lost, ""), encoding="utf-8")
    with pytest.raises(run.RecordError) as caught:
        show.readme_text()
    assert lost in str(caught.value) and "README.md" in str(caught.value) and "\n" not in str(caught.value)
