"""Published networks: results/<profile>/networks/*.safetensors, each with the record that it was made by.

A fresh clone finds them by that record and need not train. A network whose record is not among them is trained.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from reprolib.paper import files
from reprolib.paper.files import RecordError, write_atomically
from reprolib.paper.plan import JUDGED, Trained
from reprolib.paper.run.keys import digest

MOST = 120_000_000  # bytes of all published networks together, since a clone carries them


def folder(profile: str) -> Path:
    return files.RESULTS / profile / "networks"


def find(network: Trained) -> Path | None:
    """The file of a published network with exactly this record."""
    known = tuple((folder(profile), _changed(folder(profile))) for profile in JUDGED)
    record = digest(network.content())
    path = _index(known).get(record)
    return path if path and _record(path, _changed(path)) == record else None  # who overwrites a file changes no folder


def _changed(path: Path) -> int:
    """When the file was written, or when a file was put into the folder or taken out of it."""
    return path.stat().st_mtime_ns if path.exists() else 0


@functools.lru_cache(maxsize=256)
def _record(path: Path, changed: int) -> str:
    return digest(_meta(path)["network"])


@functools.lru_cache(maxsize=4)
def _index(known: tuple[tuple[Path, int], ...]) -> dict[str, Path]:
    files = [path for folder, _ in known for path in sorted(folder.glob("*.safetensors"))]
    return {_record(path, _changed(path)): path for path in reversed(files)}


def _meta(path: Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            meta = json.loads(file.metadata()["published"])
        return {name: meta[name] for name in ("network", "sha256")} | meta
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{files.shown(path)} is none of the networks published in results/<profile>/networks ({error}); take "
            "it from the repository again, or delete it and its network is trained"
        ) from None


def sha256(path: Path) -> str:
    """What its weights ought to be, without reading them."""
    return _meta(path)["sha256"]


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A published network's weights, and its provenance: network, history, seconds, commit, torch, device."""
    meta = _meta(path)
    tensors = safetensors.torch.load_file(path)
    if meta["sha256"] != fingerprint(tensors):
        raise RecordError(
            f"{files.shown(path)} is damaged: its weights are not those that were published; take it from the "
            "repository again, or delete it and its network is trained"
        )
    return tensors, meta


def publish(name: str, profile: str, tensors: dict[str, Tensor], meta: dict[str, Any]) -> Path:
    """Write a network's weights and its provenance, unless they stand there already.

    safetensors orders its header at random, so what is the same is not written again.
    """
    path = folder(profile) / f"{name}.safetensors"
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    meta = meta | {"sha256": fingerprint(tensors)}
    if path.exists() and _meta(path) == meta:
        return path
    write_atomically(path, safetensors.torch.save(tensors, {"published": json.dumps(meta, sort_keys=True)}))
    return path


def fingerprint(tensors: dict[str, Tensor]) -> str:
    """A checksum of the weights alone."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(name.encode() + tensors[name].detach().cpu().contiguous().view(-1).numpy().tobytes())
    return total.hexdigest()
