"""Several GPUs on one machine: each process of a batch takes one of them, the one that the fewest others have.

Nobody has to be asked which is free: a process holds a file's lock for as long as it lives, however it ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path

import filelock

VISIBLE = "CUDA_VISIBLE_DEVICES"


def take_one() -> str | None:
    """Have this process, and those that it starts, see one GPU of several: its name, or None where there is no choice.

    Call it before anything asks for a GPU. Slurm shows a job its own GPU alone, so there is no choice either.
    """
    several = _visible()
    if len(several) < 2:
        return None
    folder = Path(tempfile.gettempdir()) / f"reprolib-gpus-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for turn in count():
        for device in several:
            lock = filelock.FileLock(folder / f"{device}.{turn}", is_singleton=False)
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                continue
            _HELD.append(lock)
            os.environ[VISIBLE] = device
            return device
    raise AssertionError("some turn is always free")


_HELD: list[filelock.BaseFileLock] = []  # until this process ends; a lock that nobody holds in mind lets go


def _visible() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (said := os.environ.get(VISIBLE)) is not None:
        return [name for name in said.split(",") if name.strip()]
    if not shutil.which("nvidia-smi"):
        return []
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return [str(number) for number, _ in enumerate(line for line in done.stdout.splitlines() if line.startswith("GPU"))]
