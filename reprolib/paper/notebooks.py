"""Run a notebook with a profile's parameters, once for each page that it makes, and decide whether it succeeded.

Success is papermill's exit and the record that the notebook's last cell wrote. Papermill's own metadata is no evidence:
after a timeout or a dead kernel it calls cells completed that never ran.

A batch starts a process of this module for each page, and the kernel is another one. So it stands beside the rooms and
imports none of them, whose torch takes seconds: the names of pages are read from the declarations as they stand.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import yaml

from reprolib.paper import files
from reprolib.paper.files import ROOT, make_folder, shown, unwritable, write_atomically
from reprolib.paper.kernels import NotebookError, kernel
from reprolib.paper.own_runs import earlier_settings, value
from reprolib.paper.parameters import suggest, why_no_run_name

if TYPE_CHECKING:
    import nbformat
    from nbconvert import HTMLExporter

NOTEBOOKS = ROOT / "notebooks"
TABLES = ROOT / "params" / "tables"
TEMPLATES = ROOT / "reprolib" / "paper" / "show" / "templates"
LESSONS = NOTEBOOKS / "lessons"  # worked through by hand: no pages of the paper, and no records
FIRST = "start_here"  # for whoever has not seen one
LAST = "00_scoreboard"  # reads what the others wrote
# a grammar of addresses, which no notebook has: jsonschema, which nbformat imports, compiles it for more than a second
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
WIDGET = "application/vnd.jupyter.widget-view+json"  # of no use without the kernel that made it


class UnknownName(ValueError):
    """There is no such page, notebook, profile or parameter, or no such run can be; the message says what to do."""


@dataclass(frozen=True)
class Sheet:
    """What one run of a notebook makes: results/<folder>/<record>.json, .ipynb and .html."""

    record: str
    notebook: Path
    network: str | None = None  # where the notebook's table is declared, with a page for each network

    def outputs(self, folder: str) -> list[Path]:
        return [files.RESULTS / folder / f"{self.record}{suffix}" for suffix in (".json", ".ipynb", ".html")]


# --- which notebook makes which page ---


def sheets() -> list[Sheet]:
    """Everything that notebooks make: a page per network of a declared table, else one of the notebook's own name."""
    found = []
    for path in sorted(NOTEBOOKS.rglob("*.ipynb"), key=lambda path: (path.stem == LAST, path.stem)):
        if ".ipynb_checkpoints" not in path.parts and not path.is_relative_to(LESSONS):
            records = record_names(path.stem).items()
            found += [Sheet(record, path, network) for network, record in records] or [Sheet(path.stem, path)]
    return found


def lessons() -> dict[str, Path]:
    """The lessons by name."""
    return {path.stem: path for path in sorted(LESSONS.glob("*.ipynb"))}


def record_names(table: str) -> dict[str, str]:
    """network -> record, of a declared table's pages in the file's order; empty for another notebook's name."""
    file = TABLES / f"{table}.yaml"
    if not file.exists():
        return {}
    pages = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("pages") or {}
    return {network: (fields or {}).get("record", f"{table}_{network}") for network, fields in pages.items()}


def wanted(only: str) -> list[Sheet]:
    """The pages whose record or notebook has a name that begins with one of these words; all of them for no words.

    Raises UnknownName for a word that begins none.
    """
    everything = sheets()
    names = {sheet: (sheet.record, sheet.notebook.stem) for sheet in everything}
    for word in only.split():
        if not any(name.startswith(word) for both in names.values() for name in both):
            short = [name.split("_")[0] for both in names.values() for name in both]
            known = dict.fromkeys(name for both in names.values() for name in both)
            raise UnknownName(suggest(word, dict.fromkeys([*short, *known]), "page"))
    words = tuple(only.split()) or ("",)
    return [sheet for sheet in everything if any(name.startswith(words) for name in names[sheet])]


def find_sheet(name: str | Path) -> Sheet:
    """The page of that record, or the one that the notebook of that path or name makes by default.

    Raises UnknownName, with a suggestion, when there is none.
    """
    known, stem = sheets(), Path(name).name.removesuffix(".ipynb")
    if not stem:
        pages = ", ".join(sheet.record for sheet in known)
        example = 'make own PAGE=table06_fashion_mnist RUN=mine SET="eps=0.1 steps=20"'
        raise UnknownName(f"no page is named; say which, as in {example}; there are {pages}")
    for sheet in known:
        if sheet.record == stem:
            return sheet
    made = {sheet.network: sheet for sheet in known if sheet.notebook.stem == stem}
    if not made:
        names = dict.fromkeys(name for sheet in known for name in (sheet.record, sheet.notebook.stem))
        raise UnknownName(suggest(stem, names, "page or notebook"))
    return made.get(default_network(next(iter(made.values())).notebook), next(iter(made.values())))


@functools.cache
def default_network(notebook: Path) -> str | None:
    """The network whose page a notebook makes where nobody says another."""
    declared = _declared(notebook).get("network")
    return None if declared is None else ast.literal_eval(declared)


def own_settings(sheet: Sheet, run_name: str, words: Iterable[str]) -> dict[str, Any]:
    """The parameters of a run of one's own, from words such as eps=0.1; the notebook checks their values.

    Raises UnknownName for a word of another form, a parameter that the notebook does not declare, and settings without
    a name to keep their results under.
    """
    pairs = [word.partition("=") for word in words]
    declared = [name for name in _declared(sheet.notebook) if name not in ("profile", "network", "run_name")]
    for name, sign, _ in pairs:
        if name not in declared:
            raise UnknownName(f"{sheet.notebook.name}: {suggest(name, declared, 'parameter')}")
        if not sign:
            raise UnknownName(f"{name} has no value; write it as {name}=VALUE")
    if pairs and not run_name:
        raise UnknownName(f"a run with {pairs[0][0]} of its own needs a name; say --run-name NAME, or RUN=NAME to make")
    if run_name and (why := why_no_run_name(run_name)):
        raise UnknownName(why)
    return {name: value(text) for name, _, text in pairs} | ({"run_name": run_name} if run_name else {})


def _declared(notebook: Path) -> dict[str, str]:
    """The parameters that a notebook declares, with their defaults as they are written."""
    import papermill

    return {name: found["default"] for name, found in papermill.inspect_notebook(_literal(notebook)).items()}


def _literal(path: Path) -> str:
    """A path that papermill takes as it is: braces would be parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def check_profile(profile: str) -> None:
    """Raises UnknownName for a profile that there is not."""
    known = sorted(path.stem for path in (ROOT / "params" / "profiles").glob("*.yaml"))
    if profile not in known:
        raise UnknownName(suggest(profile, known, "profile"))


def parameters_for(sheet: Sheet, profile: str) -> dict[str, Any]:
    """What is injected: the profile, which says all amounts, and the network where the notebook makes several pages.

    Raises UnknownName where the notebook does not declare them: papermill would only warn, and the page be another one.
    """
    declared = _declared(sheet.notebook)
    several = len(record_names(sheet.notebook.stem)) > 1
    given = {"profile": profile} | ({"network": sheet.network} if "network" in declared or several else {})
    for name in given:
        if name not in declared:
            raise UnknownName(
                f"{sheet.notebook.name} does not declare the parameter {name!r}, so its page cannot be asked for; "
                "declare it in the cell tagged `parameters`"
            )
    return {name: value for name, value in given.items() if value is not None}


# --- running ---


def run_notebook(name: str | Path, profile: str, run_name: str = "", settings: Iterable[str] = ()) -> str:
    """Make a page: results/<profile> then has its record, .ipynb and .html; with a run_name results/custom/<run_name>.

    settings: of a run of one's own, as `own_settings` takes them. Returns one line that says so. Raises UnknownName for
    an unknown page, profile or setting, and for the name of an earlier run with others, and NotebookError when a cell
    fails or no record was written; what an earlier run wrote is then as it was. A second process that makes the same
    page waits for the first.
    """
    check_profile(profile)
    sheet = find_sheet(name)
    parameters = parameters_for(sheet, profile) | own_settings(sheet, run_name, settings)
    if run_name and "run_name" not in _declared(sheet.notebook):
        raise UnknownName(f"{sheet.notebook.name} declares no run_name, so it makes no run of one's own; leave it out")
    folder = f"custom/{run_name}" if run_name else profile
    with _alone(files.RESULTS / folder / ".locks" / sheet.record):
        if run_name:
            _refuse_another_run(sheet, folder, parameters)
        started = time.time()
        _execute(sheet, folder, parameters, started)
        return f"{sheet.record}: {time.time() - started:.0f} s, {shown(sheet.outputs(folder)[-1])}"


def _refuse_another_run(sheet: Sheet, folder: str, parameters: dict[str, Any]) -> None:
    """A run may be made again, and may not take the place of one with other settings, which its notebook tells."""
    executed = sheet.outputs(folder)[1]
    before = earlier_settings(executed) if executed.exists() else parameters
    if before != parameters:
        told = " ".join(f"{name}={value}" for name, value in before.items() if name != "run_name")
        raise UnknownName(
            f"{shown(executed.parent)} has {sheet.record} with other settings ({told}); choose another name, or delete "
            f"{shown(executed)} to make it anew"
        )


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    make_folder(lock.parent)
    try:
        with filelock.FileLock(lock):
            yield
    except PermissionError as error:
        raise files.StoreError(unwritable(lock, error)) from None


def _execute(sheet: Sheet, folder: str, parameters: dict[str, Any], started: float) -> None:
    import nbformat
    import papermill

    record, executed, page = sheet.outputs(folder)
    attempt = executed.with_suffix(".failed.ipynb")
    try:
        with kernel() as running:
            papermill.execute_notebook(
                _literal(sheet.notebook),
                _literal(attempt),
                parameters,
                kernel_name="python3",
                progress_bar=False,
                cwd=str(sheet.notebook.parent),
                km=running,
            )
    except Exception as error:  # whatever stopped the kernel: the reader needs the cell and the way to it
        raise NotebookError(_failure(sheet, attempt, error)) from None
    if not record.exists() or record.stat().st_mtime < started - 1:
        raise NotebookError(f"{sheet.record} ended without writing its record {shown(record)}; see {shown(attempt)}")
    notebook = relocate(clean(nbformat.read(attempt, as_version=4)), sheet.notebook.parent, executed.parent)
    write_atomically(executed, nbformat.writes(notebook).encode())
    write_atomically(page, html(notebook, sheet.record).encode())
    attempt.unlink()


def _failure(sheet: Sheet, attempt: Path, error: Exception) -> str:
    """The first failing cell and its error in one sentence."""
    name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    cell = getattr(error, "exec_count", None)
    where = f"in cell {cell}" if cell else "while it ran"
    see = f"; see {shown(attempt)}" if os.path.exists(attempt) else ""
    return f"{sheet.record} failed {where}: {name}: {' '.join(str(value).split())}{see}"


# --- what is stored ---


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take out what differs between machines and runs: papermill's paths and times, cell timestamps, progress bars."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    for item in notebook.cells:
        for key in ("papermill", "execution"):
            item.metadata.pop(key, None)
        for output in item.get("outputs", []):
            if {WIDGET, "text/html"} <= output.get("data", {}).keys():  # says itself what stands for the widget
                del output.data[WIDGET]
        if "outputs" in item:
            item.outputs = [out for out in item.outputs if not _is_progress(out)]
    return notebook


def _is_progress(output: nbformat.NotebookNode) -> bool:
    return WIDGET in output.get("data", {}) or (
        output.get("name") == "stderr" and re.search(r"\d+%\|", output.get("text", "")) is not None
    )


def relocate(notebook: nbformat.NotebookNode, source: Path, target: Path) -> nbformat.NotebookNode:
    """Make relative links in text and tables work from another folder.

    A link to a notebook leads to the page beside this one: `table03.ipynb#resnet20` to that network's, `table03.ipynb`
    to the one that the notebook makes by default.
    """

    def moved(link: re.Match[str]) -> str:
        address, _, anchor = link[1].partition("#")
        place = (source / address).resolve()
        if place.suffix == ".ipynb" and place.is_relative_to(NOTEBOOKS) and not place.is_relative_to(LESSONS):
            return f"]({_page_link(place, anchor)})"
        return f"]({os.path.relpath(place, target)}{'#' * bool(anchor)}{anchor})"

    def rewritten(text: str) -> str:
        return re.sub(r"\]\((?![a-z]+:|#)([^)\s]+)\)", moved, text)

    for item in notebook.cells:
        if item.cell_type == "markdown":
            item.source = rewritten(item.source)
        for output in item.get("outputs", []):
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = rewritten(output.data["text/markdown"])
    return notebook


def _page_link(notebook: Path, anchor: str) -> str:
    pages = {sheet.network: sheet.record for sheet in sheets() if sheet.notebook == notebook}
    if anchor in pages:
        return f"{pages[anchor]}.ipynb"
    network = default_network(notebook) if len(pages) > 1 else next(iter(pages), None)
    return f"{pages.get(network, notebook.stem)}.ipynb{'#' * bool(anchor)}{anchor}"


def html(notebook: nbformat.NotebookNode, title: str, site: dict[str, Any] | None = None) -> str:
    """The notebook as one page, which loads nothing; links to notebooks beside it lead to their pages.

    site: what the page's template says of its neighbours, as show/site.py gives it.
    """
    page, _ = _exporter().from_notebook_node(notebook, {"metadata": {"name": title}, "site": site})
    return re.sub(r'(href="[^":/#]*)\.ipynb(["#])', r"\1.html\2", page)


@functools.cache
def _exporter() -> HTMLExporter:
    from nbconvert import HTMLExporter

    return HTMLExporter(
        extra_template_basedirs=[str(TEMPLATES)],
        template_name="site",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
    )
