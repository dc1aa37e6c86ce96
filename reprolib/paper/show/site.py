"""The site: results/<profile>/index.html, and every page linked with it, its neighbours and the other profiles.

Pages are made again from their executed notebooks, so that a clone has the pages of its committed records too, and
each link leads to what is there now. The batch must not take such a page for its own work: one that the batch made
keeps its time, another gets one so old that the batch would make it anyway.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jinja2
import nbformat
import pandas as pd

from reprolib.paper import files, notebooks
from reprolib.paper.files import RecordError
from reprolib.paper.judge import scoreboard, verdict_counts
from reprolib.paper.plan import JUDGED, PROFILES, all_pages
from reprolib.paper.run import records
from reprolib.paper.show.recorded import alt_of, pictures

TIMES = ("table08_fmnistconv", "table08_vgg16", "table08_resnet20", "table08_vgg16-imagenet")
IMAGENET: tuple[str, ...] = ("table07_squeezenet", "table07_efficientnet-lite0", "table07_vgg16-imagenet")
IMAGENET += ("table09_squeezenet", "table09_efficientnet-lite0", "table09_vgg16-imagenet")
IMAGENET += ("table09_wide-resnet-50-2", "table10_vgg16-imagenet", "table11_vgg16-imagenet", "figure04_imagenet")
IMAGENET += tuple(f"xception_mobilenet_{network}" for network in ("xception", "mobilenet-v1", "mobilenet-v2"))
QUESTIONS = (
    ("What is the finding, in a minute?", (notebooks.FIRST,)),
    ("Does the printed robustness hold?", ("table06_fashion_mnist", "saturation")),
    ("Why do the printed numbers look robust?", ("saturation",)),
    ("How may the printed numbers have been made?", ("pipelines",)),
    ("Does it take patches, or does more training do the same?", ("table11_epochs", "table11_vgg16")),
    ("What does AutoAttack, the usual referee, say?", ("table09_autoattack", "table09_vgg16", "table09_resnet50")),
    ("How do other defences fare?", ("table05_vgg16", "table04_cifarconv", "figure04_cifar10", "renofeat")),
    ("What does it cost, and what else is there?", ("figure01_costs", *TIMES, "budget_fmnistconv", "budget_vgg16")),
    ("Is it the same on larger networks and CIFAR-10?", ("table03_vgg16", "table03_resnet20", "table03_resnet50")),
    ("And on ImageNet's pictures?", (*IMAGENET, "bpda")),
    ("Do more restarts or another optimiser change it?", ("restarts_cifarconv", "figure03_optimizer")),
    ("Is it one lucky seed?", ("seeds",)),
    ("What do the changed images look like?", ("figure02_augmentation",)),
    ("What exactly are the networks and the attacks?", ("table01_networks", "table02_attack_parameters")),
    ("How long does all of it take, on how many GPUs?", ("scaling",)),
    ("Which printed numbers were measured, with which verdict?", (notebooks.LAST,)),
)
MADE_BY_NO_BATCH = (1.0, 1.0)
KINDS = {".md": "text", ".csv": "numbers", ".json": "record", ".ipynb": "executed notebook", ".svg": "picture"}

Pages = dict[str, dict[str, nbformat.NotebookNode]]  # profile -> record -> executed notebook, of all that have a page


def build_site(profile: str) -> Path:
    """Make the index and the pages of a profile, and of all others that have results; returns the index.

    A page whose notebook failed keeps none, and its card says so. Raises UnknownName for an unknown profile and
    StoreError where results/ cannot be written.
    """
    notebooks.check_profile(profile)
    sheets = notebooks.sheets()
    found = {each: executed(each, sheets) for each in PROFILES}
    pages = {each: some for each, some in found.items() if some or each == profile}
    titles = titles_of(pages)
    try:
        board, problem = scoreboard(records()), ""
    except RecordError as error:
        board, problem = pd.DataFrame(), str(error)
    for each in pages:
        write_pages(each, pages, titles)
        index = contents(each, sheets, pages, titles, board, problem)
        files.write_atomically(files.RESULTS / each / "index.html", index.encode())
    return files.RESULTS / profile / "index.html"


def executed(profile: str, sheets: list[notebooks.Sheet]) -> dict[str, nbformat.NotebookNode]:
    """record -> executed notebook, in the order of the site, of those whose last run succeeded or left the page."""
    found = {}
    for sheet in sheets:
        _, path, page = sheet.outputs(profile)
        if path.exists() and (page.exists() or not path.with_suffix(".failed.ipynb").exists()):
            try:
                found[sheet.record] = nbformat.read(path, as_version=4)
            except Exception:  # nbformat raises as many kinds as a file can be damaged in ways; the others have theirs
                page.unlink(missing_ok=True)
    return found


def titles_of(pages: Pages) -> dict[str, str]:
    """record -> title: as declared, else the first heading of its notebook."""
    found = {page.record: page.title for page in all_pages()}
    for notebook_of in pages.values():
        for record, notebook in notebook_of.items():
            found.setdefault(record, heading_of(notebook) or record)
    return found


def heading_of(notebook: nbformat.NotebookNode) -> str:
    """The first heading of a notebook's text; empty where there is none."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    first = re.search(r"^# (.+)$", text, re.MULTILINE)
    return first[1].strip() if first else ""


# --- pages ---


def write_pages(profile: str, pages: Pages, titles: dict[str, str]) -> None:
    """Make a profile's pages from their notebooks, with links to what surrounds them."""
    folder, order = files.RESULTS / profile, list(pages[profile])
    for place, record in enumerate(order):
        near = {"previous": order[place - 1 : place], "next": order[place + 1 : place + 2]}
        site: dict[str, Any] = {
            name: {"href": f"{other}.html", "title": titles[other]} for name, some in near.items() for other in some
        }
        site |= {"profile": profile, "others": others(profile, pages, record)}
        text = linked(notebooks.html(pages[profile][record], titles[record], site), folder, pages)
        path = folder / f"{record}.html"
        times = (path.stat().st_atime, path.stat().st_mtime) if path.exists() else MADE_BY_NO_BATCH
        files.write_atomically(path, text.encode())
        os.utime(path, times)


def others(profile: str, pages: Pages, record: str = "") -> list[dict[str, str]]:
    """The other profiles that have this page, or an index, with links to it."""
    return [
        {"profile": other, "href": f"../{other}/{record or 'index'}.html"}
        for other in pages
        if other != profile and (not record or record in pages[other])
    ]


def linked(text: str, folder: Path, pages: Pages) -> str:
    """A page in which each relative link leads to something; what it cannot be is plain text."""

    def replaced(link: re.Match[str]) -> str:
        before, address, after, inside = link.groups()
        if re.match(r"[a-z]+:|#", address):
            return link[0]
        target = resolved(address, folder, pages)
        return inside if target is None else f'<a {before}href="{target}"{after}>{inside}</a>'

    return re.sub(r'<a ([^>]*)href="([^"]*)"([^>]*)>(.*?)</a>', replaced, text, flags=re.DOTALL)


def resolved(address: str, folder: Path, pages: Pages) -> str | None:
    """Where a relative link from a profile's page leads: to a page of that profile, else to that of the fullest
    recorded run, else to its text; None where nothing is there."""
    path, mark, anchor = address.partition("#")
    target = (folder / unquote(path)).resolve()
    if target.parent.parent != files.RESULTS.resolve() or target.suffix not in (".ipynb", ".html"):
        return address if target.exists() else None
    if target.stem == "index":
        return address
    for suffix in (".html", ".md"):
        for profile in (target.parent.name, *JUDGED):
            file = files.RESULTS / profile / f"{target.stem}{suffix}"
            if (target.stem in pages.get(profile, {})) if suffix == ".html" else file.exists():
                return os.path.relpath(file, folder) + (mark + anchor if suffix == ".html" else "")
    return address if target.exists() and target.suffix == ".ipynb" else None


# --- the index ---


def contents(
    profile: str,
    sheets: list[notebooks.Sheet],
    pages: Pages,
    titles: dict[str, str],
    board: pd.DataFrame,
    problem: str,
) -> str:
    """The index: questions, verdicts, a card for each page."""
    counts = verdict_counts(board[board["record"] != ""]) if len(board) else pd.DataFrame()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(notebooks.TEMPLATES / "site"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("contents.html.j2").render(
        profile=profile,
        judged=profile in JUDGED,
        others=others(profile, pages),
        questions=questions(profile, pages, titles),
        problem=problem,
        protocols=list(counts.columns),
        counts=[(verdict, [int(number) for number in numbers]) for verdict, numbers in counts.iterrows()],
        scoreboard=resolved(f"{notebooks.LAST}.html", files.RESULTS / profile, pages),
        cards=cards(profile, sheets, pages, titles, board),
    )


def questions(profile: str, pages: Pages, titles: dict[str, str]) -> list[dict[str, Any]]:
    """The questions that some page answers, with links: into this profile, else into the fullest recorded run."""
    asked = []
    for text, answers in QUESTIONS:
        links = []
        for record in answers:
            home = next((each for each in (profile, *JUDGED) if record in pages.get(each, {})), None)
            if home:
                href = f"{record}.html" if home == profile else f"../{home}/{record}.html"
                links.append({"href": href, "title": titles[record], "profile": home})
        asked += [{"text": text, "links": links}] if links else []
    return asked


def cards(
    profile: str, sheets: list[notebooks.Sheet], pages: Pages, titles: dict[str, str], board: pd.DataFrame
) -> list[dict[str, Any]]:
    """What the index says of each page that was made or tried."""
    made = []
    for sheet in sheets:
        record, folder = sheet.record, files.RESULTS / profile
        failed = folder / f"{record}.failed.ipynb"
        there = [folder / f"{record}{suffix}" for suffix in KINDS if (folder / f"{record}{suffix}").exists()]
        if there or failed.exists():
            picture = next(iter(pictures(profile, record)), None)
            judged_in, verdicts = verdicts_of(record, profile, board)
            # one whose notebook was run by hand has a record, and no page to take its title from
            title = titles.get(record) or heading_of(nbformat.read(sheet.notebook, as_version=4)) or record
            made.append(
                {
                    "record": record,
                    "title": title,
                    "href": f"{record}.html" if record in pages[profile] else "",
                    "picture": picture.name if picture else "",
                    "alt": (alt_of(picture) if picture else "") or f"Picture of {title}",
                    "failed": failed.name if failed.exists() else "",
                    "judged_in": judged_in,
                    "verdicts": verdicts,
                    "links": [{"href": path.name, "text": KINDS[path.suffix]} for path in there]
                    + [
                        {"href": other["href"], "text": f"{other['profile']} profile"}
                        for other in others(profile, pages, record)
                    ],
                }
            )
    return made


def verdicts_of(record: str, profile: str, board: pd.DataFrame) -> tuple[str, list[tuple[str, str]]]:
    """The profile whose run of a page is judged, this one or the fullest, and its claims per protocol and verdict."""
    mine = board[board["record"] == record] if len(board) else board
    for judged_in in (profile, *JUDGED):
        here = mine[mine["profile"] == judged_in] if len(mine) else mine
        if len(here):
            counts = verdict_counts(here)
            said = {
                protocol: ", ".join(f"{number} {verdict}" for verdict, number in counts[protocol].items() if number)
                for protocol in counts.columns
            }
            return judged_in, list(said.items())
    return "", []
