"""Beside a quick run stands what a full run found, and nobody can take the one for the other."""

from html import unescape
from itertools import combinations

import matplotlib.pyplot as plt
import pytest
from matplotlib.transforms import Bbox

from reprolib.paper import files, plan, run, show
from reprolib.paper.show import notebook as module
from reprolib.paper.show.pictures import png
from reprolib.paper.show.recorded import alt_of, plan_of, recorded

QUICK = plan.load_plan("table06_fashion_mnist", "fmnistconv", "quick")
NAME = QUICK.page.record


@pytest.fixture
def record(cells, table_6, results):
    """record(profile) writes Table 6's made-up cells as that profile's record, with a picture."""

    def write(profile: str) -> None:
        run.write_record(NAME, run.provenance(table_6) | {"profile": profile}, cells)
        content = png(plt.figure(figsize=(1, 1)), f"a picture of the {profile} run")
        files.write_atomically(results / profile / f"{NAME}.png", content)

    return write


def test_a_quick_page_shows_the_recorded_figures_and_whose_they_are(record, results, cells, table_6):
    record("cpu")
    text = recorded(QUICK, results / "quick")
    assert "Recorded with the cpu profile, not made by this run" in text
    assert "made by the tests" in text and "some GPU" in text and "seed 3" in text, "where they come from"
    for row in show.summary(cells, table_6.plan)["7-P1"]:
        assert f" {row} " in text
    assert f"![Recorded: a picture of the cpu run](../cpu/{NAME}.png)" in text


def test_of_several_records_the_fullest_is_shown(record, results):
    for profile in ("cpu", "paper", "gpu"):
        record(profile)
    assert "Recorded with the paper profile" in recorded(QUICK, results)


def test_along_the_epochs_the_first_and_the_last_are_shown(epoch_cells, table_11, results):
    run.write_record("table11_epochs", run.provenance(table_11), epoch_cells)
    full = show.epochs_table(epoch_cells, table_11.plan)
    assert set(full["epochs"]) > {"10", "30"}
    text = recorded(plan.load_plan("table11", "fmnistconv", "quick"), results)
    rows = [row.split("|")[1:3] for row in text.splitlines() if row.startswith("| 7-P1")]
    assert [[cell.strip() for cell in row] for row in rows] == [["7-P1", "10"], ["7-P1", "30"]]


def test_attacks_told_apart_by_what_they_are_given(given_cells, table_9, results):
    run.write_record("table09_autoattack", run.provenance(table_9), given_cells)
    text = recorded(plan.load_plan("table09", "fmnistconv", "quick"), results)
    assert "AutoAttack, given logits (sound)" in text and "59.00 [" in text


@pytest.mark.parametrize("profile", [profile for profile in plan.PROFILES if profile != "quick"])
def test_other_pages_show_their_own_run_alone(profile, record, results):
    record("cpu")
    assert recorded(plan.load_plan(QUICK.page.table, QUICK.page.network, profile), results) == ""


def test_a_page_without_a_record_says_how_to_make_one(results):
    assert f"make tables PROFILE=cpu ONLY={NAME}" in recorded(QUICK, results)


def test_a_damaged_record_costs_a_quick_page_nothing_else(record, results):
    record("cpu")
    path = results / "cpu" / f"{NAME}.json"
    path.write_text(path.read_text().replace("20.0", "90.0"))
    text = recorded(QUICK, results)
    assert "does not match its checksum" in text and "|" not in text


def test_a_quick_page_shows_it_beside_its_own_table_and_its_text_has_it(
    record, results, cells, table_6, monkeypatch, tmp_path
):
    record("cpu")
    shown: list = []
    monkeypatch.setattr(module, "show_in_notebook", shown.append)
    monkeypatch.chdir(tmp_path)
    quick = plan.Plan(table_6.plan.page, table_6.plan.amounts, "quick")
    page = run.Page(quick, store=table_6.store, dataset=table_6.dataset)
    show.full_run(page)
    show.full_run(table_6)  # a full run itself
    show.publish(page, cells)
    assert [text.data for text in shown] == [recorded(quick, tmp_path)]
    written = (results / "quick" / f"{NAME}.md").read_text(encoding="utf-8")
    assert written.startswith(show.banner("quick")) and written.endswith(f"{recorded(quick, results / 'quick')}\n")


def test_a_picture_without_a_text_alternative(tmp_path):
    (tmp_path / "damaged.png").write_bytes(b"no picture")
    plt.figure(figsize=(1, 1)).savefig(tmp_path / "plain.png")
    plt.close("all")
    assert alt_of(tmp_path / "damaged.png") == alt_of(tmp_path / "plain.png") == ""


# --- the committed pictures -----------------------------------------------------------------------------------------

COMMITTED = sorted(path for profile in plan.JUDGED for path in (files.RESULTS / profile).glob("*.png"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_committed_picture_has_words_and_a_vector_twin(path):
    vector = path.with_suffix(".svg").read_text(encoding="utf-8")
    assert len(alt_of(path)) > 20 and alt_of(path)[:40] in " ".join(unescape(vector).split())
    assert path.with_suffix(".svg").stat().st_size < 400_000


@pytest.mark.parametrize("name", ["table03_vgg16", "table06_fashion_mnist"])
def test_numbers_and_marks_do_not_run_into_each_other(name):
    """As drawn from the committed record: a picture is only scaled, so what is apart stays apart on every screen."""
    (page,) = [page for page in plan.all_pages() if page.record == name]
    record = run.read_record(files.RESULTS / "cpu" / f"{name}.json")
    show.style()
    figure = show.plot_attacks(record.cells, plan_of(page, "cpu", record))
    figure.canvas.draw()
    for axis in figure.axes:
        boxes = [text.get_window_extent() for text in axis.texts]
        marks = [line for line in axis.lines if line.get_marker() == "D"]
        half = 6 * 2**0.5 / 2 * figure.dpi / 72  # of a mark's diagonal, in pixels
        for line in marks:
            for x, y in axis.transData.transform(line.get_xydata()):
                boxes.append(Bbox([[x - half, y - half], [x + half, y + half]]))
        names = [label.get_window_extent() for label in axis.get_xticklabels() if label.get_visible()]
        crossing = [
            pair for some in (boxes, names if not marks or len(names) < 7 else []) for pair in combinations(some, 2)
            if pair[0].overlaps(pair[1])
        ]  # fmt: skip
        assert not crossing, axis.get_title()
    plt.close(figure)
