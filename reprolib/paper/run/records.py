"""A page's results as files: numbers with their provenance, and networks to take away.

A record is `results/<folder>/<name>.json` with `provenance` and `cells`. Tables, the scoreboard and the README read
records and nothing else, and a record carries its own checksum, so that a number edited by hand is refused.
"""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from reprolib import data
from reprolib.paper import files
from reprolib.paper.files import RecordError
from reprolib.paper.plan import JUDGED, Amounts, Cell, Trained, label, load_profile, trainings, used
from reprolib.paper.run import evaluate, origin, published
from reprolib.paper.run.keys import digest
from reprolib.paper.run.page import Page

UNION = ("commit", "dirty", "torch", "device")  # said by each artefact; a record says all that occur


def provenance(page: Page) -> dict[str, Any]:
    """Where a page's numbers come from; no machine paths and no dates, so that equal runs give equal records.

    Commit, torch and device are those of the artefacts, whenever the record is written.
    """
    networks = {str(n.content()): n for job in page.jobs for n in trainings(job.evaluation.network)}
    made = {name: page.shelf.checkpoint(network)[1] for name, network in networks.items() if _is_there(page, network)}
    found = {evaluate.name_of(job.evaluation, page.shelf): page.outcome(job).meta for job in page.jobs}
    metas = [*made.values(), *found.values()]
    targets = [n for n in networks.values() if n.recipe.target is not None and str(n.content()) in made]
    return {
        "profile": page.plan.folder,
        "amounts": used(page.plan.page, page.plan.amounts),
        **{name: sorted({str(meta[name]) for meta in metas}) for name in UNION},
        "torchattacks": version("torchattacks"),
        **_by_others(page),
        "data": _data(page.dataset),
        "published": sorted({meta["published"] for meta in made.values() if "published" in meta}),
        "pretraining": [
            made[str(n.content())]["history"][-1] for n in targets
        ],  # where it has a target: its last epoch
        "seconds": {
            "training": round(sum(_longest(networks, made).values()), 1),
            "attacks": round(sum(meta["seconds"] for meta in found.values()), 1),
        },
    }


def _by_others(page: Page) -> dict[str, Any]:
    """What a library refused to attack, in its words, and the rows that were skipped; nothing where all were run."""
    metas = {job.row: page.outcome(job).meta for job in page.plan.jobs}
    refused = {row: meta["refused"] for row, meta in metas.items() if "refused" in meta}
    art = any(job.evaluation.engine.startswith("art") for job in page.plan.jobs)
    said = {"art": version("adversarial-robustness-toolbox") if art else "", "refused": refused}
    return {name: value for name, value in (said | {"skipped": page.plan.skipped}).items() if value}


def _is_there(page: Page, network: Trained) -> bool:
    return page.shelf.has(network, network.epochs)


def _longest(networks: dict[str, Trained], made: dict[str, dict]) -> dict[str, float]:
    """Seconds per training: those until the last epoch that the page looks at."""
    seconds: dict[str, float] = {}
    for name, meta in made.items():
        training = str(networks[name].training)
        seconds[training] = max(seconds.get(training, 0.0), meta.get("seconds", 0.0))
    return seconds


def _data(dataset: data.Dataset) -> dict[str, str]:
    return {"name": dataset.name, "source": dataset.source, "variant": dataset.variant, "sha256": dataset.checksum}


def plain_provenance(profile: str, dataset: data.Dataset | None = None, seed: int | None = None) -> dict[str, Any]:
    """Of a record behind which no network stands: it was made by this code, now. Raises SpecError for an unknown
    profile, and for a seed that is none.
    """
    usual = load_profile(profile).default
    amounts = {} if seed is None else {"seed": Amounts(**usual | {"seed": seed}).seed}
    code = origin.code()
    return {
        "profile": profile if not seed else "custom",
        "amounts": amounts,
        "commit": [code["commit"]],
        "dirty": [str(code["dirty"])],
        "torch": [torch.__version__],
        "device": [],
        "torchattacks": version("torchattacks"),
        "data": {} if dataset is None else _data(dataset),
        "published": [],
        "pretraining": [],
        "seconds": {},
    }


def write_record(name: str, made: dict[str, Any], cells: list[Cell]) -> Path:
    """Write results/<folder>/<name>.json, and the cells beside it as CSV. Returns the JSON's path."""
    path = files.RESULTS / made["profile"] / f"{name}.json"
    record: dict[str, Any] = {"provenance": made, "cells": [cell.content() for cell in cells]}
    record["checksum"] = digest(record)
    files.write_atomically(path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    if cells:
        frame = pd.DataFrame([cell.model_dump() for cell in cells])
        frame["seeds"] = [" ".join(map(str, cell.seeds)) for cell in cells]
        files.write_atomically(
            path.with_suffix(".csv"), frame.dropna(axis="columns", how="all").to_csv(index=False).encode()
        )
    return path


class Stored:
    """A record that was read: `provenance`, a dict, and `cells`."""

    def __init__(self, provenance: dict[str, Any], cells: list[Cell]):
        self.provenance, self.cells = provenance, cells


def read_record(path: str | Path) -> Stored:
    """A record, verified. Raises RecordError when it is missing, not JSON, incomplete, or not as it was written."""
    path = Path(path)
    again = f"regenerate it with: make tables PROFILE={path.parent.name} ONLY={path.stem}"
    if "custom" in path.parts[-3:-1]:
        again = "run its notebook again"
    if not path.exists():
        raise RecordError(f"there is no results file {files.shown(path)}; {again}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        checksum = record.pop("checksum")
        intact = checksum == digest(record) and {"provenance", "cells"} <= set(record)
        cells = [Cell(**cell) for cell in record["cells"]] if intact else []
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RecordError(f"{files.shown(path)} is not a results file (cut off, or no JSON); {again}") from None
    if not intact:
        raise RecordError(
            f"{files.shown(path)} was changed after it was written: its content does not match its checksum; {again}"
        )
    return Stored(record["provenance"], cells)


def records() -> dict[tuple[str, str], Stored]:
    """Every record that can earn a verdict: (profile, name) -> record, the fullest profile first."""
    found = {}
    for profile in JUDGED:
        for path in sorted((files.RESULTS / profile).glob("*.json")):
            found[profile, path.stem] = record = read_record(path)
            if record.provenance["profile"] != profile:
                raise RecordError(
                    f"{files.shown(path)} is a record of the {record.provenance['profile']} profile; "
                    f"only {profile} runs belong into that folder: move it back"
                )
    return found


def publish_networks(page: Page) -> list[Path]:
    """Publish the page's networks as they are at the end of their training:
    results/<profile>/networks/<record>_<column>.

    Raises RecordError, and writes nothing, where all published networks together would grow too large for a clone.
    """
    chosen = {}
    for (column, seed), network in page.plan.networks.items():
        if isinstance(network, Trained):
            tensors, meta = page.shelf.checkpoint(network)
            if "published" not in meta:
                name = re.sub(r"[^\w-]+", "_", f"{page.plan.page.record}_{label(column, seed)}")
                meta = {"network": network.content(), **{k: meta[k] for k in ("history", "seconds", *UNION)}}
                chosen[name] = tensors, meta
    replaced = [published.folder(page.plan.folder) / f"{name}.safetensors" for name in chosen]
    kept = [path for path in files.RESULTS.glob("*/networks/*.safetensors") if path not in replaced]
    size = sum(path.stat().st_size for path in kept)
    size += sum(tensor.nbytes for tensors, _ in chosen.values() for tensor in tensors.values())
    if size > published.MOST:
        raise RecordError(
            f"with {', '.join(chosen)} the published networks would take {size / 1e6:.0f} MB, and "
            f"{published.MOST / 1e6:.0f} at most: remove some from results/*/networks"
        )
    return [published.publish(name, page.plan.folder, *what) for name, what in chosen.items()]
