"""A content-addressed store: what took time is computed once and never read stale.

An artefact's name says everything that determines its content (see `keys`). Each artefact is one safetensors file that
carries its own checksum: written to a temporary name, flushed, then renamed, so that a killed process leaves the old
file or the new one, never half of either.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import filelock
import safetensors
import safetensors.torch
import torch

from reprolib.paper.files import StoreError, make_folder, store_root, unwritable, write_atomically
from reprolib.paper.run.keys import digest

CHECKSUM = "sha256"  # name under which a file's metadata holds its own checksum


class Store:
    """Artefacts under one folder; safe for several processes at once."""

    def __init__(self, root: str | Path | None = None):
        self.root = Path(root) if root is not None else store_root()

    def path(self, name: str) -> Path:
        return self.root / f"{name}.safetensors"

    def has(self, name: str) -> bool:
        return self.path(name).exists()

    def save(self, name: str, tensors: dict[str, torch.Tensor], meta: dict) -> None:
        """Write `tensors` and the JSON-able `meta` as artefact `name`, all or nothing.

        Raises StoreError when the folder cannot be written or the disk is full; what stood there before is kept.
        """
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        header = {"meta": json.dumps(meta, sort_keys=True), CHECKSUM: _checksum(tensors, meta)}
        write_atomically(self.path(name), safetensors.torch.save(tensors, header))

    def load(self, name: str, device: str | torch.device = "cpu") -> tuple[dict[str, torch.Tensor], dict]:
        """Read artefact `name` and verify its checksum.

        Raises StoreError when it is missing, truncated or altered.
        """
        path = self.path(name)
        if not path.exists():
            raise StoreError(f"the store has no {name} (looked in {self.root}); run the training or evaluation first")
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                # copies: a tensor that still maps the file kills the process if someone cuts the file off later
                tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118 (no dict)
            meta = json.loads(header["meta"])
            intact = header[CHECKSUM] == _checksum(tensors, meta)
        except KeyError as error:
            raise StoreError(_damaged(path, f"its header lacks {error}, so this library did not write it")) from None
        except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:
            raise StoreError(_damaged(path, f"it cannot be read ({error})")) from None
        if not intact:
            raise StoreError(_damaged(path, "its content does not match its own checksum"))
        return {k: v.to(device) for k, v in tensors.items()}, meta

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold artefact `name` for this process; a second process waits here, then finds the work done.

        Gives True; without `wait`, False where another process holds the artefact.
        """
        path = self.root / f"{name}.lock"
        make_folder(path.parent)
        lock = filelock.FileLock(path)
        try:
            lock.acquire(blocking=wait)
        except filelock.Timeout:
            yield False
            return
        except OSError as error:  # a read-only disk is no PermissionError
            raise StoreError(unwritable(path, error)) from None
        try:
            yield True
        finally:
            lock.release()


def _checksum(tensors: dict[str, torch.Tensor], meta: dict) -> str:
    sums = {
        k: hashlib.sha256(v.contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest() if v.numel() else ""
        for k, v in tensors.items()
    }
    shapes = {k: [str(v.dtype), list(v.shape)] for k, v in tensors.items()}
    return digest({"tensors": sums, "shapes": shapes, "meta": json.loads(json.dumps(meta))})


def _damaged(path: Path, what: str) -> str:
    return f"{path} is damaged: {what}; delete that file and run again, it will be computed anew"
