"""Which code made something: the commit of this checkout, and nobody else's. What git cannot tell is unknown, not
clean.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

import torch

from reprolib.devices import has_fast_bfloat16
from reprolib.paper import files

UNKNOWN = "unknown"


def stamp(device: torch.device) -> dict[str, Any]:
    """What an artefact says of its making: commit, whether the code differed from it, torch, device."""
    return {**code(), "torch": torch.__version__, "device": device_name(device)}


@functools.cache
def code() -> dict[str, Any]:
    """The commit that is checked out, 40 hex digits, and whether the files here are others: a tracked file that is no
    result was changed, or code or a declaration is new. Both are "unknown" where this folder is no git checkout of its
    own. Asked once, since a process goes on with the code that it began with."""
    is_top = Path(_git("rev-parse", "--show-toplevel") or "/").resolve() == files.ROOT.resolve()
    if not (is_top and _git("ls-tree", "HEAD", "--", "reprolib")):
        return {"commit": UNKNOWN, "dirty": UNKNOWN}
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "-uno", "--", ".", ":!results")
    new = _git("ls-files", "--others", "--exclude-standard", "--", "reprolib", "params")
    dirty = UNKNOWN if changed is None or new is None else bool(changed or new)
    return {"commit": commit or UNKNOWN, "dirty": dirty}


def _git(*arguments: str) -> str | None:
    """Output of a git command in this folder; None where there is no git or no repository."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}  # GIT_DIR would name another repository
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=files.ROOT, capture_output=True, text=True, timeout=30, env=clean
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def device_name(device: torch.device) -> str:
    """The device and the precision that training uses there, for a table's provenance."""
    precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    return f"CPU, {torch.get_num_threads()} thread(s), {precision}"
