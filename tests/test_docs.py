"""README and docs: what they say is measured, their links lead somewhere, and what they print runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reprolib.paper import judge, run, show
from reprolib.paper.show.status import STATUS

ROOT = Path(__file__).resolve().parent.parent
README, EVIDENCE = ROOT / "README.md", ROOT / "docs" / "evidence.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), ROOT / "notebooks" / "lessons" / "README.md"]


def test_the_status_is_as_the_results_are():
    assert STATUS.read_text(encoding="utf-8") == show.status_text(), "docs/status.md is stale: run `make status`"


def test_the_readme_begins_with_the_commands():
    text = README.read_text(encoding="utf-8")
    places = [text.index(command) for command in ("make start", "make tables", "make test", "\n## ")]
    assert places == sorted(places)


@pytest.mark.parametrize("page, least", [(README, 5), (EVIDENCE, 50)], ids=["README", "evidence"])
def test_every_percentage_among_the_findings_is_printed_or_in_a_record_that_its_point_links(page, least):
    """A point may also rest on what its section's opening links."""
    text = page.read_text(encoding="utf-8").split("## What was found")[-1].split("## Pick your path")[0]
    numbers = [claim.printed for claim in judge.load_claims().values()]
    printed = {f"{number:.2f}" for number in numbers if isinstance(number, int | float)} | {"0.03"}  # the usual ε
    found, unknown = [], {}
    for section in re.split(r"\n(?=## )", text):
        blocks = re.split(r"\n(?=\* |\d\. |\n)", section)
        opening = set().union(*(linked(block) for block in blocks if not re.match(r"\* |\d\. ", block.strip())))
        for block in blocks:
            said = re.findall(r"(?<!torch )\b\d+\.\d\d", block)
            strange = set(said) - printed - set().union(*map(values, linked(block) | opening))
            found, unknown = found + said, unknown | ({block.strip()[:60]: strange} if strange else {})
    assert len(found) >= least and unknown == {}


def linked(block: str) -> set[Path]:
    paths = {ROOT / "results" / each for each in re.findall(r"results/(\w+/\w[\w-]*)\.(?:md|ipynb)", block)}
    return {path.with_name(f"{path.name}.json") for path in paths}


def values(record: Path) -> set[str]:
    return {f"{cell.value:.2f}" for cell in run.read_record(record).cells}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    inside = [link.partition("#")[0] for link in links if not link.startswith(("http", "#"))]
    assert [link for link in inside if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_say_what_they_show(page):
    assert all(len(alt) > 40 for alt in re.findall(r"!\[([^]]*)\]", page.read_text(encoding="utf-8")))


@pytest.mark.slow
@pytest.mark.parametrize("folder", [".", "notebooks"], ids=["from the top", "from JupyterLab's folder"])
def test_the_readme_runs_as_printed(folder):
    """Block after block, as a reader would paste them."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 6 and all(
        len([line for line in block.splitlines() if line.strip()]) <= 11 for block in blocks
    )
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=ROOT / folder,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "withstand it" in done.stdout and "quick check before" in done.stdout
