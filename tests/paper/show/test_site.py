"""The site: an index, pages that link with each other and with other profiles' pages, whatever is there or lacking."""

import base64
import os
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from reprolib.paper import notebooks, run, show
from reprolib.paper.show.pictures import png
from reprolib.paper.show.site import QUESTIONS, build_site

ALT = 'Bars <and> a "diamond"'
TABLE = "table06_fashion_mnist"


@pytest.fixture
def executed(notebook, results):
    """executed(profile, record, *links) leaves what a run of a notebook of that name leaves, but for its page."""
    picture = png(plt.figure(figsize=(1, 1)), ALT)
    plt.close("all")

    def write(profile: str, record: str, *links: str) -> Path:
        notebook(record)
        data = {"image/png": base64.b64encode(picture).decode(), "text/plain": ALT}
        shown = new_output("display_data", data, metadata={"image/png": {"alt": ALT}})
        text = " ".join(f"[to {number}]({link})" for number, link in enumerate(links))
        cells = [new_markdown_cell(f"# The page {record}\n\n{text}"), new_code_cell("secret = 1", outputs=[shown])]
        path = results / profile / f"{record}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=cells), path)
        path.with_suffix(".png").write_bytes(picture)
        if profile == "quick":
            path.with_suffix(".json").write_text("{}")
        else:
            run.write_record(record, run.plain_provenance(profile), [])
        return path.with_suffix(".html")

    return write


def parsed(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def links(page: Path) -> dict[str, str]:
    """Text -> address of a page's links."""
    return {link.get_text().strip(): link["href"] for link in parsed(page).select("a[href]")}


def dead(page: Path) -> list[str]:
    """The links that lead to no file."""
    relative = [address for address in links(page).values() if not re.match("[a-z]+:|#", address)]
    assert relative
    return [address for address in relative if not (page.parent / address.partition("#")[0]).exists()]


def test_the_index_and_the_pages_link_with_each_other(executed, results):
    pages = [executed("quick", name) for name in ("table1", "table2", "table3")]
    index = build_site("quick")
    assert index == results / "quick" / "index.html"
    assert links(index)["The page table2"] == "table2.html"
    assert links(index)["executed notebook"] == "table3.ipynb" and links(index)["record"] == "table3.json"
    for page in pages:
        assert links(page)["All pages of the quick profile"] == "index.html"
    assert links(pages[1])["← The page table1"] == "table1.html"
    assert links(pages[1])["The page table3 →"] == "table3.html"
    assert not any("←" in text for text in links(pages[0])) and not any("→" in text for text in links(pages[2]))
    assert not [address for page in (index, *pages) for address in dead(page)]


def test_a_page_has_its_pictures_text_alternative_and_folded_code_and_loads_nothing(executed):
    page = executed("quick", "table1")
    index = build_site("quick")
    for file in (page, index):
        assert ALT in [picture["alt"] for picture in parsed(file).select("img")]
        text = file.read_text(encoding="utf-8")
        assert not re.search(r'(src|srcset|data)="(?!data:|table1)', text) and "<link" not in text
        assert not re.search(r"@import|url\(|import\(|fetch\(|https?://", text)
    (code,) = parsed(page).select("details.code")
    assert code.get_text().split() == ["Code", "secret", "=", "1"] and not code.has_attr("open")
    assert page.read_text(encoding="utf-8").count("secret") == 1


def test_the_same_page_of_another_profile_is_linked_both_ways(executed):
    quick, cpu = executed("quick", "table1"), executed("cpu", "table1")
    index = build_site("quick")
    assert links(quick)["The same page, cpu profile"] == "../cpu/table1.html"
    assert links(cpu)["The same page, quick profile"] == "../quick/table1.html"
    assert links(index)["Results of the cpu profile"] == "../cpu/index.html"
    assert not [address for page in (index, quick, cpu, cpu.with_name("index.html")) for address in dead(page)]


def test_a_link_leads_to_a_page_else_to_the_recorded_one_else_to_its_text(executed, results):
    executed("quick", "table2")
    for profile in ("cpu", "gpu"):
        executed(profile, "table3")
    executed("cpu", "table4").with_suffix(".ipynb").unlink()
    (results / "cpu" / "table4.md").touch()
    asked = ("table2.ipynb#a", "table3.ipynb", "table4.ipynb#a", "table5.ipynb", "../cpu/table3.ipynb", "gone.py", "#a")
    page = executed("quick", "table1", *asked)
    build_site("quick")
    led = ["table2.html#a", "../gpu/table3.html", "../cpu/table4.md", None, "../cpu/table3.html", None, "#a"]
    assert [links(page).get(f"to {number}") for number in range(len(asked))] == led
    assert "to 3" in page.read_text() and "to 5" in page.read_text(), "what leads nowhere is plain text"


def test_a_page_whose_notebook_failed_has_none_and_costs_the_others_nothing(executed, results):
    page, failed = executed("quick", "table1"), executed("quick", "table2")
    failed.with_suffix(".failed.ipynb").touch()
    index = build_site("quick")
    assert page.exists() and not failed.exists()
    assert links(index)["table2.failed.ipynb"] == "table2.failed.ipynb"
    assert not dead(index) and not dead(page)
    failed.touch()  # a run by hand leaves the page of an earlier one
    build_site("quick")
    assert links(page)["The page table2 →"] == "table2.html" and "The page table2" in failed.read_text()


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"cells": 3, "nbformat": 4}'])
def test_a_damaged_notebook_costs_the_others_nothing(content, executed):
    page, damaged = executed("quick", "table1"), executed("quick", "table2")
    damaged.with_suffix(".ipynb").write_text(content)
    index = build_site("quick")
    assert page.exists() and not damaged.exists()
    assert "The page table1" in links(index) and not dead(index) and not dead(page)


def test_a_damaged_record_is_named_and_costs_the_verdicts_alone(executed, results):
    page = executed("cpu", "table1")
    page.with_suffix(".json").write_text("{}")
    index = build_site("cpu")
    text = index.read_text()
    assert "No verdicts:" in text and "table1.json is not a results file" in text and page.exists()


def test_nothing_made_yet(notebook, results):
    index = build_site("quick")
    assert "Nothing is measured yet" in index.read_text() and list(index.parent.iterdir()) == [index]


def test_a_page_whose_notebook_was_run_by_hand_has_its_title_without_a_page(notebook, results):
    """Papermill writes the executed notebook elsewhere; a record is there all the same."""
    notebook("tiny")
    run.write_record("tiny", run.plain_provenance("quick"), [])
    titles = [heading.get_text().strip() for heading in parsed(build_site("quick")).select("h1, h2, h3")]
    assert any("A table" in title for title in titles) and "tiny" not in titles


def test_an_unknown_profile_is_refused(results):
    with pytest.raises(notebooks.UnknownName, match="did you mean 'cpu'"):
        build_site("cpuu")


def test_the_batch_does_not_take_a_page_for_its_own_work(executed):
    mine, other = executed("quick", "table1"), executed("cpu", "table1")
    mine.touch()
    os.utime(mine, (2e9, 2e9))
    build_site("quick")
    assert mine.stat().st_mtime == 2e9 and "The page table1" in mine.read_text()
    assert other.stat().st_mtime < Path(notebooks.__file__).stat().st_mtime, "older than any source: made again"


def test_the_verdicts_of_a_quick_page_are_those_of_the_recorded_run(executed, cells, table_6, results):
    quick, cpu = executed("quick", TABLE), executed("cpu", TABLE)
    run.write_record(TABLE, run.provenance(table_6), cells)
    counts = show.verdict_counts(show.scoreboard(run.records()).query("record != ''"))
    build_site("quick")
    for page, said in ((quick, "Verdicts of the recorded cpu run:"), (cpu, "Verdicts:")):
        index = page.with_name("index.html").read_text()
        card = index.split(f'<article id="{TABLE}">')[1].split("</article>")[0]
        assert said in card
        for protocol, numbers in counts.items():
            sentence = ", ".join(f"{number} {verdict}" for verdict, number in numbers.items() if number)
            assert f"<li>{protocol}: {sentence}</li>" in card


def test_questions_lead_to_this_profiles_page_else_to_the_recorded_one(executed):
    executed("quick", TABLE)
    executed("cpu", TABLE)
    executed("cpu", "saturation")
    index = build_site("quick")
    (answer,) = re.findall(r"Does the printed robustness hold\?</dt>\s*<dd>(.*?)</dd>", index.read_text())
    assert f'href="{TABLE}.html"' in answer and 'href="../cpu/saturation.html"' in answer and "(cpu profile)" in answer
    assert "AutoAttack, the usual referee" not in index.read_text(), "no page answers it"


def test_every_page_of_the_project_answers_a_question():
    assert {sheet.record for sheet in notebooks.sheets()} == {name for _, names in QUESTIONS for name in names}
