"""The site in a real browser, wide and narrow, light and dark: nothing spills over, fails, or comes from a network.

A script that is put into a copy of each page reports what the browser made of it. The copies stand in frames of the
widths asked for, since a window of Chromium's is never narrower than 500 pixels.
"""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup

from reprolib.paper import files, notebooks
from reprolib.paper.show.site import build_site

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGES = ("00_scoreboard", "figure02_augmentation", "saturation", "table06_fashion_mnist")
WIDTHS = (390, 1280)
FROM_A_NETWORK = "https://cdnjs.cloudflare.com/ajax/libs/require.js/2.1.10/require.min.js"
SPOILT = f"""<title>spoilt</title><img src="nothing.png"><p style="width: 2000px">wide</p>
<script src="{FROM_A_NETWORK}"></script><script>console.error("said"); undefined_function()</script>"""
REPORT = """<script>
const errors = [], said = console.error;
console.error = (...words) => { errors.push(words.join(" ")); said(...words); };
addEventListener("error", (event) => errors.push(event.message ?? String(event.target.src)), true);
addEventListener("load", () => {
  const filters = [...document.querySelectorAll(".filters select")].map((select) => {
    select.value = select.options[1].value;
    select.dispatchEvent(new Event("change", {bubbles: true}));
    return [select.name, select.value];
  });
  const board = document.querySelector(".filters")?.parentElement.querySelector("table:has(td a)");
  parent.postMessage({
    address: location.href, width: innerWidth, spill: document.documentElement.scrollWidth - innerWidth, errors,
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name),
    links: [...document.links].map((link) => link.href),
    pictures: [...document.images].map((image) => [image.naturalWidth, image.alt]),
    open: document.querySelectorAll("details.code[open]").length,
    ground: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
    filters, heads: [...(board?.tHead.rows[0].cells ?? [])].map((cell) => cell.innerText.trim()),
    rows: [...(board?.tBodies[0].rows ?? [])].map(
      (row) => [row.checkVisibility(), ...[...row.cells].map((cell) => cell.textContent.trim())]),
  }, "*");
});
</script>"""
COLLECT = """<meta name="color-scheme" content="light dark"><body><script>
const reports = [];
addEventListener("message", (event) => {
  reports.push(event.data);
  document.body.dataset.reports = JSON.stringify(reports);
});
</script>"""

pytestmark = [
    pytest.mark.slow,  # half a minute in all
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of real pages: some of the committed records, and quick runs as their notebooks hold them."""
    with pytest.MonkeyPatch.context() as patch:
        results = tmp_path_factory.mktemp("site") / "results"
        for path in (files.RESULTS / "cpu").iterdir():
            if path.name.split(".")[0].startswith(PAGES):
                (results / "cpu").mkdir(parents=True, exist_ok=True)
                shutil.copy(path, results / "cpu")
        patch.setattr(files, "RESULTS", results)
        (results / "quick").mkdir()
        for sheet in notebooks.sheets():
            if sheet.record in PAGES:
                path = sheet.outputs("quick")[1]
                notebook = nbformat.read(sheet.notebook, as_version=4)
                nbformat.write(notebooks.relocate(notebook, sheet.notebook.parent, path.parent), path)
        (results / "quick" / "table09_vgg16.failed.ipynb").touch()
        build_site("quick")
    return results


def browse(folder: Path, *options: str) -> list[dict]:
    """What Chromium makes of each page in a folder and in those below it, at each width."""
    pages = sorted(page for page in folder.rglob("*.html") if not page.name.startswith("copy_of_"))
    frames = []
    for page in pages:
        copy = page.with_name(f"copy_of_{page.name}")
        copy.write_text(page.read_text(encoding="utf-8").replace("<title>", f"{REPORT}<title>", 1), encoding="utf-8")
        frames += [f'<iframe src="{copy.as_uri()}" width="{width}" height="800"></iframe>' for width in WIDTHS]
    start = folder.parent / "frames.html"
    start.write_text(COLLECT + "".join(frames))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={folder.parent / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND", *options]
    done = subprocess.run(
        [*command, "--virtual-time-budget=60000", "--dump-dom", start.as_uri()],
        timeout=300,
        capture_output=True,
        text=True,
    )
    found = re.search(r'data-reports="([^"]*)"', done.stdout)
    assert found, done.stderr
    reports = json.loads(unescape(found[1]))
    assert len(reports) == len(frames)
    return reports


@pytest.fixture(scope="module")
def light(site) -> list[dict]:
    return browse(site)


def test_the_reports_tell_what_is_wrong_with_a_spoilt_page(tmp_path):
    """So that an empty list of errors below means something."""
    (tmp_path / "spoilt").mkdir()
    (tmp_path / "spoilt" / "page.html").write_text(SPOILT)
    narrow, wide = sorted(browse(tmp_path / "spoilt"), key=lambda report: report["width"])
    assert narrow["spill"] > 1000 and wide["spill"] > 500
    for report in (narrow, wide):
        errors = " ".join(report["errors"])
        assert all(words in errors for words in ("said", "undefined_function", "nothing.png", FROM_A_NETWORK))
        assert FROM_A_NETWORK in report["loaded"] and [0, ""] in report["pictures"]


def test_every_page_is_shown_without_an_error_and_without_a_network(light):
    names = {Path(report["address"]).name.removeprefix("copy_of_") for report in light}
    assert names == {"index.html", *(f"{page}.html" for page in PAGES)}
    for report in light:
        assert report["errors"] == [], report["address"]
        assert all(re.match("file:|data:", address) for address in report["loaded"]), report["address"]


def test_no_page_is_wider_than_its_window(light):
    assert {report["width"] for report in light} == set(WIDTHS)
    assert {report["address"]: report["spill"] for report in light if report["spill"] > 0} == {}


def test_every_picture_is_there_and_has_a_text_alternative(light):
    pictures = [picture for report in light for picture in report["pictures"]]
    assert len(pictures) > 20
    assert [alt for width, alt in pictures if width == 0 or len(alt) < 20 or "No description" in alt] == []


def test_every_link_leads_to_a_file_and_to_a_place_in_it(light):
    links = {link for report in light for link in report["links"] if link.startswith("file:")}
    assert len(links) > 40
    assert [link for link in links if not leads_somewhere(link)] == []


def leads_somewhere(link: str) -> bool:
    address = urlsplit(link)
    path = Path(unquote(address.path))
    if not address.fragment or not path.exists():
        return path.exists()
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").find(id=unquote(address.fragment)) is not None


def test_all_pages_are_reached_from_the_index(site, light):
    links = {unquote(urlsplit(report["address"]).path): report["links"] for report in light}
    waiting, seen = [site / "quick" / "index.html"], set()
    while waiting:
        page = waiting.pop()
        if page not in seen and page.suffix == ".html":
            seen.add(page)
            addresses = links[str(page.with_name(f"copy_of_{page.name}"))]
            here = [urlsplit(link) for link in addresses if link.startswith("file:")]
            waiting += [Path(unquote(link.path)) for link in here if "copy_of_" not in link.path]
    assert seen == {page for page in site.rglob("*.html") if "copy_of_" not in page.name}


def test_code_is_folded(light):
    assert {report["open"] for report in light} == {0}


def test_the_scoreboard_is_filtered_by_table_protocol_and_verdict(light):
    boards = [report for report in light if "00_scoreboard" in report["address"]]
    assert len(boards) == 2 * len(WIDTHS)
    for report in boards:
        assert [name for name, _ in report["filters"]] == ["where", "protocol", "verdict"]
        places = [1 + report["heads"].index(name) for name, _ in report["filters"]]
        wanted = [value for _, value in report["filters"]]
        fits = [row for row in report["rows"] if [row[place] for place in places] == wanted]
        assert [row for row in report["rows"] if row[0]] == fits and 0 < len(fits) < len(report["rows"])


def brightness(colour: str) -> int:
    """Of "rgb(r, g, b)", the sum."""
    return sum(map(int, re.findall(r"\d+", colour)[:3]))


def test_light_and_dark(site, light):
    for report in light:
        assert brightness(report["ground"]) > 700 and brightness(report["ink"]) < 150, report["address"]
    for report in browse(site, "--force-dark-mode"):
        assert brightness(report["ground"]) < 150 and brightness(report["ink"]) > 600, report["address"]
        assert report["errors"] == [] and report["spill"] <= 0
