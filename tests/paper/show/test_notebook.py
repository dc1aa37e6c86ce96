"""What a notebook calls: pictures that are there under any backend, headings, and the last cell's files."""

import base64
from dataclasses import replace

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbclient import NotebookClient

from reprolib.paper import files, plan, run, show
from reprolib.paper.show import notebook as module


@pytest.fixture
def displayed(monkeypatch) -> list:
    shown: list = []
    monkeypatch.setattr(module, "show_in_notebook", lambda content, **options: shown.append((content, options)))
    return shown


def test_show_displays_with_the_text_alternative_writes_the_file_and_closes(displayed, results):
    figure, _ = plt.subplots(figsize=(1, 1))
    show.picture(figure, "a picture of nothing at all", "quick", "nothing")
    content = (results / "quick" / "nothing.png").read_bytes()
    assert content.startswith(b"\x89PNG") and b"a picture of nothing at all" in content
    ((data, options),) = displayed
    assert base64.b64decode(data["image/png"]) == content
    assert options == {"raw": True, "metadata": {"image/png": {"alt": "a picture of nothing at all"}}}
    assert not plt.fignum_exists(figure.number)
    vector = (results / "quick" / "nothing.svg").read_text(encoding="utf-8")
    assert "<svg" in vector and "a picture of nothing at all" in vector


def test_equal_figures_are_equal_files(displayed, results):
    show.style()
    for name in ("one", "two"):
        figure, axis = plt.subplots(figsize=(2, 2))
        axis.plot([0, 1], [0, 1], label="a line")
        axis.legend()
        show.picture(figure, "a line from corner to corner", "quick", name)
    for kind in ("png", "svg"):
        one, two = ((results / "quick" / f"{name}.{kind}").read_bytes() for name in ("one", "two"))
        assert one == two


def test_what_an_attack_makes_of_images_is_shown_by_each_loss_that_is_measured(displayed, results, table_6):
    show.under_attack(table_6, "FGSM", "7-P1", "probabilities", "margin")
    alts = [content["text/plain"] for content, _ in displayed]
    assert len(alts) == 2 and all(alt.startswith("6 test images in three rows") for alt in alts)
    assert all("6 are classified correctly before the attack" in alt for alt in alts)
    assert "after FGSM by probabilities on 7-P1" in alts[0] and "after FGSM by margin on 7-P1" in alts[1]
    made = {path.name for path in (results / "cpu").iterdir()}
    stems = [f"table06_fashion_mnist_under_attack_{loss}" for loss in ("probabilities", "margin")]
    assert made == {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    engine = plan.Plan(table_6.plan.page, table_6.plan.amounts.model_copy(update={"engine": "torchattacks"}), "cpu")
    for names, said in (
        (("FGSM", "7-P3", "margin"), "unknown column '7-P3'; did you mean '7-P"),
        (("FSGM", "7-P1", "margin"), "unknown attack 'FSGM'; did you mean 'FGSM'"),
        (("FGSM", "7-P1", "margins"), "unknown loss 'margins'; did you mean 'margin'"),
    ):
        with pytest.raises(plan.SpecError, match=said):
            show.under_attack(table_6, *names)
    show.under_attack(run.Page(engine, store=table_6.store, dataset=table_6.dataset), "FGSM", "7-P1", "margin")
    assert len(displayed) == 2, "torchattacks measures logits alone"


@pytest.mark.parametrize("folder, pictures", [("cpu", 0), ("custom/mine", 1)])
def test_a_published_page_passes_no_picture_on_that_nobody_may(displayed, results, table_6, folder, pictures):
    planned = plan.Plan(table_6.plan.page, table_6.plan.amounts, folder)
    planned.info = replace(planned.info, free=False)
    show.under_attack(run.Page(planned, store=table_6.store, dataset=table_6.dataset), "FGSM", "7-P1", "margin")
    made = list((results / folder).glob("*")) if (results / folder).exists() else []
    assert len(made) == 2 * pictures and len(displayed) == 1
    said = getattr(displayed[0][0], "data", "")
    assert ("may not be passed on" in said) == (not pictures)


def test_a_pages_pictures_stand_beside_its_record(displayed, results):
    planned = plan.load_plan("saturation", "fmnistconv", "quick")
    show.show(plt.figure(), "a picture of nothing at all", planned, "share")
    show.show(plt.figure(), "a picture of nothing at all", planned)
    found = sorted(path.name for path in (results / "quick").iterdir())
    assert found == ["saturation.png", "saturation.svg", "saturation_share.png", "saturation_share.svg"]


@pytest.mark.slow
def test_a_picture_is_in_the_notebook_whatever_the_backend(monkeypatch, tmp_path):
    """MPLBACKEND=Agg is common on clusters; with it, a figure itself would be displayed as its name alone."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("PYTHONPATH", str(files.ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = f"""
from pathlib import Path
from reprolib.paper import files
files.RESULTS = Path({str(tmp_path)!r})
import matplotlib.pyplot as plt
from reprolib.paper import show
show.style()
show.picture(plt.subplots(figsize=(1, 1))[0], "a picture of nothing at all", "quick", "nothing")
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    (output,) = notebook.cells[0].outputs
    assert base64.b64decode(output.data["image/png"]) == (tmp_path / "quick" / "nothing.png").read_bytes()
    assert output.metadata["image/png"]["alt"] == "a picture of nothing at all"


def test_a_figure_can_be_displayed_without_a_file(displayed, results):
    figure, _ = plt.subplots(figsize=(1, 1))
    assert show.display_figure(figure, "a picture of nothing at all") is None
    ((content, options),) = displayed
    assert content["image/png"] and options["metadata"]["image/png"]["alt"] == content["text/plain"]
    assert not plt.fignum_exists(figure.number) and not results.exists()


def test_a_heading_says_what_the_page_is_about_and_how_much_was_run(displayed):
    for table, network, title in (("table03", "resnet20", True), ("table06_fashion_mnist", "fmnistconv", False)):
        page = run.Page(plan.load_plan(table, network, "quick"))
        show.heading(page)
        text = displayed.pop()[0].data
        assert text.startswith("## Table 3: ResNet-20") == title  # where a table has one page, its notebook says it
        assert page.plan.page.prose.strip() in text and text.endswith(show.scale(page.plan))


def test_the_outline_is_the_same_on_every_machine():
    lines = show.outline(run.Page(plan.load_plan("table11", "vgg16", "quick"))).splitlines()
    assert lines[0] == "attacks: PGD-v2; FGSM-v2 | losses: margin, logits, probabilities | epochs: 1"
    assert lines[1] == "answers none of the paper's numbers"
    lines = show.outline(run.Page(plan.load_plan("table06_fashion_mnist", "fmnistconv", "quick"))).splitlines()
    assert lines[1] == "answers 29 of the paper's numbers, T6.Clean.11-P1 to X19"


def test_publishing_writes_the_record_and_the_page(cells, table_6, results):
    assert show.publish(table_6, cells) == "table06_fashion_mnist.json"
    record = run.read_record(results / "cpu" / "table06_fashion_mnist.json")
    assert record.cells == cells and record.provenance == run.provenance(table_6)
    text = (results / "cpu" / "table06_fashion_mnist.md").read_text(encoding="utf-8")
    assert text == show.page_text(cells, table_6.plan, record.provenance).rstrip() + "\n"
