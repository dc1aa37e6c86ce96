"""Run a notebook with a profile's parameters and decide whether it succeeded.

Success is papermill's exit and the record that the notebook's last cell wrote. Papermill's own metadata is no evidence:
after a timeout or a dead kernel it calls cells completed that never ran.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from pathlib import Path

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbconvert import HTMLExporter

from reprolib import specs
from reprolib.files import RESULTS, ROOT, shown, write_atomically

NOTEBOOKS = ROOT / "notebooks"


class NotebookError(RuntimeError):
    """A notebook failed; the message names the cell, the error and where to look."""


def find_notebook(name: str | Path) -> Path:
    """The notebook of that path or name; raises SpecError with a suggestion when there is none."""
    known = {path.stem: path for path in sorted(NOTEBOOKS.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts}
    stem = Path(name).stem
    if stem not in known:
        raise specs.SpecError(specs.suggest(stem, list(known), "notebook"))
    return known[stem]


def parameters_for(path: Path, settings: specs.Settings) -> dict:
    """Those of the profile's settings that the notebook declares.

    Raises SpecError when the notebook declares a parameter that no profile has: papermill would only warn.
    """
    declared = papermill.inspect_notebook(str(path))
    for name in declared:
        if name not in specs.Settings.model_fields:
            raise specs.SpecError(f"{path.name}: {specs.suggest(name, list(specs.Settings.model_fields), 'parameter')}")
    return {name: value for name, value in settings.content().items() if name in declared}


def run_notebook(name: str | Path, profile: str) -> str:
    """Run a notebook with a profile's parameters; results/<profile> then has its record, .ipynb and .html.

    Returns one line that says so. Raises NotebookError when a cell fails or no record was written.
    """
    path, settings = find_notebook(name), specs.load_profile(profile)
    parameters = parameters_for(path, settings)
    folder = RESULTS / profile
    folder.mkdir(parents=True, exist_ok=True)
    attempt, record = folder / f"{path.stem}.failed.ipynb", folder / f"{path.stem}.json"
    started = time.time()
    try:
        with tempfile.TemporaryDirectory(prefix="kernel-") as sockets, _kernel(sockets) as kernel:
            papermill.execute_notebook(
                str(path),
                str(attempt),
                parameters,
                kernel_name="python3",
                progress_bar=False,
                cwd=str(path.parent),
                km=kernel,
            )
    except Exception as error:  # whatever stopped the kernel: the reader needs the cell and the way to it
        raise NotebookError(_failure(path, attempt, error)) from None
    if not record.exists() or record.stat().st_mtime < started - 1:
        raise NotebookError(f"{path.stem} ended without writing its record {record.name}; see {shown(attempt)}")
    notebook = relocate(clean(nbformat.read(attempt, as_version=4)), path.parent, folder)
    write_atomically(folder / f"{path.stem}.ipynb", nbformat.writes(notebook).encode())
    write_atomically(folder / f"{path.stem}.html", html(notebook, path.stem).encode())
    attempt.unlink()
    return f"{path.stem}: {time.time() - started:.0f} s, {shown(folder / path.stem)}.html"


@contextlib.contextmanager
def _kernel(sockets: str):
    """A kernel on sockets in a folder of its own: notebooks that start together would race for ports or file names."""
    manager = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
    try:
        yield manager
    finally:  # papermill leaves a kernel that it was given running
        if manager.has_kernel:
            run_sync(manager.shutdown_kernel)(now=True)


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take out what differs between machines and runs: papermill's paths and times, cell timestamps, progress bars."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    for item in notebook.cells:
        for key in ("papermill", "execution"):
            item.metadata.pop(key, None)
        if "outputs" in item:
            item.outputs = [out for out in item.outputs if not _is_progress(out)]
    return notebook


def _is_progress(output: nbformat.NotebookNode) -> bool:
    widget = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return widget or (output.get("name") == "stderr" and re.search(r"\d+%\|", output.get("text", "")) is not None)


def relocate(notebook: nbformat.NotebookNode, source: Path, target: Path) -> nbformat.NotebookNode:
    """Make relative links in text and tables work from another folder; a link to a notebook leads to its sibling there."""

    def moved(link: re.Match) -> str:
        place = (source / link[1]).resolve()
        if place.suffix == ".ipynb" and place.is_relative_to(NOTEBOOKS):
            return f"]({place.name})"
        return f"]({os.path.relpath(place, target)})"

    def rewritten(text: str) -> str:
        return re.sub(r"\]\((?![a-z]+:|#)([^)\s]+)\)", moved, text)

    for item in notebook.cells:
        if item.cell_type == "markdown":
            item.source = rewritten(item.source)
        for output in item.get("outputs", []):
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = rewritten(output.data["text/markdown"])
    return notebook


def html(notebook: nbformat.NotebookNode, title: str) -> str:
    """The notebook as one page; links to notebooks beside it lead to their pages."""
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
    return re.sub(r'(href="[^":/]*)\.ipynb"', r'\1.html"', page)


def _failure(path: Path, attempt: Path, error: Exception) -> str:
    """The first failing cell and its error in one sentence."""
    name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    cell = getattr(error, "exec_count", None)
    where = f"in cell {cell}" if cell else "while it ran"
    see = f"; see {shown(attempt)}" if os.path.exists(attempt) else ""
    return f"{path.stem} failed {where}: {name}: {' '.join(str(value).split())}{see}"
