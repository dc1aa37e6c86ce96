"""A notebook's results as files: numbers with their provenance, and networks to take away.

A record is `results/<folder>/<notebook>.json` with `provenance` and `cells`. Tables, the scoreboard and the README read
records and nothing else, and a record carries its own checksum, so that a number edited by hand is refused.
"""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from reprolib import data, evaluation, files, models, specs, store, training
from reprolib.specs import Plan, Settings


class RecordError(RuntimeError):
    """A results file is missing, damaged or was edited by hand; the message says which and what to do."""


def provenance(
    settings: Settings,
    plan: Plan | None = None,
    dataset: data.Dataset | None = None,
    artefacts: store.Store | None = None,
    jobs: list[specs.Job] | None = None,
) -> dict:
    """Where a record's numbers come from; no machine paths and no dates, so that equal runs give equal records.

    jobs: those of the plan that the record shows, when not all of `plan.jobs`.
    """
    jobs = plan.jobs if plan and jobs is None else jobs
    origin = {
        "commit": commit(),
        "dirty": bool(_git("status", "--porcelain", "-uno", "--", ".", ":!results")),
        "profile": settings.folder,
        "settings": settings.content(),
        "seeds": sorted({job.evaluation.training.seed for job in jobs or []} | {settings.seed}),
        "torch": torch.__version__,
        "torchattacks": version("torchattacks"),
        "pretraining": [],  # where it has a target: its last epoch
        "devices": [],
        "data": {},
        "seconds": {},
    }
    if dataset is not None:
        origin["data"] = {
            "name": dataset.name,
            "source": dataset.source,
            "variant": dataset.variant,
            "sha256": dataset.checksum,
        }
    if plan is not None:
        last = {job.column: job.evaluation for job in sorted(jobs, key=lambda job: job.evaluation.epoch)}
        checkpoints = [training.checkpoint(e.training, e.epoch, dataset, artefacts) for e in last.values()]
        evaluations = {evaluation.artefact(job.evaluation, dataset): job.evaluation for job in jobs}
        outcomes = [evaluation.outcome(spec, dataset, artefacts) for spec in evaluations.values()]
        if plan.pretraining.target is not None:
            parent = training.checkpoint(plan.pretraining, plan.settings.pretrain_epochs, dataset, artefacts)
            origin["pretraining"] = [parent.history[-1]]
        origin["devices"] = sorted({found.device for found in [*checkpoints, *outcomes]})
        origin["seconds"] = {
            "training": round(sum(c.seconds for c in checkpoints), 1),
            "attacks": round(sum(o.seconds for o in outcomes), 1),
        }
    return origin


def merged(origins: list[dict]) -> dict:
    """One provenance for a record about several data sets."""
    together = dict(origins[0])
    together["devices"] = sorted({device for origin in origins for device in origin["devices"]})
    together["data"] = {k: "; ".join(origin["data"][k] for origin in origins) for k in origins[0]["data"]}
    together["pretraining"] = [epoch for origin in origins for epoch in origin["pretraining"]]
    together["seconds"] = {k: round(sum(o["seconds"][k] for o in origins), 1) for k in origins[0]["seconds"]}
    return together


def commit() -> str:
    """The commit that is checked out, 40 hex digits; "unknown" outside a git checkout."""
    return _git("rev-parse", "HEAD") or "unknown"


def _git(*arguments: str) -> str:
    """Output of a git command in the repository; empty where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *arguments], cwd=files.ROOT, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def write_record(notebook: str, origin: dict, cells: list[dict]) -> Path:
    """Write results/<folder>/<notebook>.json, and the cells beside it as CSV. Returns the JSON's path."""
    path = files.RESULTS / origin["profile"] / f"{notebook}.json"
    record = {"provenance": origin, "cells": cells}
    record["checksum"] = store.digest(record)
    files.write_atomically(path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    if cells:
        table = pd.DataFrame(cells).assign(seeds=[" ".join(map(str, c["seeds"])) for c in cells])
        files.write_atomically(path.with_suffix(".csv"), table.to_csv(index=False).encode())
    return path


def read_record(path: str | Path) -> dict:
    """A record, verified. Raises RecordError when it is missing, not JSON, incomplete, or not as it was written."""
    path = Path(path)
    again = f"regenerate it with: make tables PROFILE={path.parent.name} ONLY={path.stem}"
    if path.parent.name == "custom":
        again = "run its notebook again"
    if not path.exists():
        raise RecordError(f"there is no results file {files.shown(path)}; {again}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        checksum = record.pop("checksum")
        intact = checksum == store.digest(record) and {"provenance", "cells"} <= set(record)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RecordError(f"{files.shown(path)} is not a results file (cut off, or no JSON); {again}") from None
    if not intact:
        raise RecordError(
            f"{files.shown(path)} was changed after it was written: its content does not match its checksum; {again}"
        )
    return record


def records() -> dict[tuple[str, str], dict]:
    """Every record that can earn a verdict: (profile, notebook) -> record, the paper profile before the cpu profile."""
    found = {}
    for profile in ("paper", "cpu"):
        for path in sorted((files.RESULTS / profile).glob("*.json")):
            found[profile, path.stem] = record = read_record(path)
            if record["provenance"]["profile"] != profile:
                raise RecordError(
                    f"{files.shown(path)} is a record of the {record['provenance']['profile']} profile; "
                    f"only {profile} runs belong into that folder: move it back"
                )
    return found


def save_networks(plan: Plan, dataset: data.Dataset, artefacts: store.Store) -> list[Path]:
    """Write the table's networks to results/<folder>/checkpoints/<column>.safetensors, each with its record."""
    written = []
    for column, (spec, epoch) in plan.networks.items():
        model = training.checkpoint(spec, epoch, dataset, artefacts).model
        meta = {
            "model": spec.model,
            "width": f"{spec.width:g}",
            "epoch": str(epoch),
            "training": json.dumps(spec.content(), sort_keys=True),
        }
        tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
        path = files.RESULTS / plan.settings.folder / "checkpoints" / f"{column.replace(' ', '_')}.safetensors"
        if not _holds(path, tensors):  # safetensors orders its header at random: don't rewrite what is the same
            files.write_atomically(path, safetensors.torch.save(tensors, meta))
        written.append(path)
    return written


def load_network(path: str | Path) -> torch.nn.Module:
    """A network that `save_networks` wrote, in eval mode; RecordError when the file is missing or damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            meta = file.metadata()
            model = models.build(meta["model"], width=float(meta.get("width", 1)))
            model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise RecordError(f"{path} is no network of this project ({error}); take it from results/ again") from None
    return model


def _holds(path: Path, tensors: dict[str, Tensor]) -> bool:
    try:
        found = load_network(path).state_dict()
    except RecordError:
        return False
    return found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in found)
