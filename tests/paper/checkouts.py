"""A checkout of one's own, in which a batch of real pages can run; and what it made, to compare it with another's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from reprolib.paper import files
from reprolib.paper.run import Store

PAGES = (
    "table09_autoattack table11_epochs"  # of one data set and network, with trainings, attacks, and both kinds of page
)


def copy_to(checkout: Path) -> Path:
    """Code, declarations and notebooks; the published networks by a link."""
    for name in ("Snakefile", "Makefile", "pyproject.toml", "requirements.lock", "params", "reprolib", "notebooks"):
        source, skip = files.ROOT / name, shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        if source.is_dir():
            shutil.copytree(source, checkout / name, ignore=skip)
        else:
            checkout.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, checkout)
    (checkout / "results" / "cpu").mkdir(parents=True)
    (checkout / "results" / "cpu" / "networks").symlink_to(files.RESULTS / "cpu" / "networks")
    return checkout


def start(checkout: Path, store: Path, *words: str, pages: str) -> subprocess.Popen:
    """Begin `make tables` of some pages there, as a process group of its own."""
    environment = os.environ | {"REPROLIB_STORE": str(store), "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "reprolib", "tables", "--only", pages, *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=checkout, env=environment, start_new_session=True, **pipes)


def run(checkout: Path, store: Path, *words: str, pages: str) -> tuple[int, str]:
    """`make tables` to its end: its exit code and what it said."""
    process = start(checkout, store, *words, pages=pages)
    said, _ = process.communicate()
    return process.returncode, said


def numbers(checkout: Path, profile: str = "quick") -> dict[str, Any]:
    """Per page the cells of its record, without the seconds that something took."""
    found = {}
    for path in sorted((checkout / "results" / profile).glob("*.json")):
        cells = json.loads(path.read_text())["cells"]
        found[path.stem] = [cell for cell in cells if cell.get("protocol") not in ("time", "cost")]
    return found


def artefacts(store: Path) -> dict[str, Path]:
    """Every finished artefact by its name: trained networks and outcomes, not what a kill leaves to go on from."""
    found = {str(path.relative_to(store)): path for path in store.rglob("*.safetensors")}
    return {name: path for name, path in found.items() if "-unfinished" not in name and path.stem != "latest"}


def same_tensors(one: Path, other: Path) -> bool:
    """Whether two stores hold the same artefacts, bit for bit; the seconds that they took may differ."""
    if artefacts(one).keys() != artefacts(other).keys():
        return False
    for name in artefacts(one):
        mine, theirs = (Store(root).load(name.removesuffix(".safetensors"))[0] for root in (one, other))
        if mine.keys() != theirs.keys() or not all(torch.equal(mine[key], theirs[key]) for key in mine):
            return False
    return True
