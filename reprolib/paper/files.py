"""Where the project's files lie, and how they are written: whole or not at all. Imports nothing that takes seconds."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "results"


class StoreError(RuntimeError):
    """Something in the store cannot be read or written; the message says what and what to do."""


class RecordError(RuntimeError):
    """A results file is missing, damaged or was edited by hand; the message says which and what to do."""


def shown(path: Path) -> str:
    """A path as a reader knows it: from the top of the repository."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def other_checkout() -> Path | None:
    """The checkout of this project that the current folder is in, where it is not the one whose code runs."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "reprolib" / "paper" / "files.py").exists():
            return None if folder.resolve() == ROOT else folder
    return None


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at `path` by `content`, or leave it as it was.

    Raises StoreError when the folder cannot be written or the disk is full.
    """
    make_folder(path.parent)
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise StoreError(unwritable(path, error)) from None


def store_root() -> Path:
    """`$REPROLIB_STORE`, taken from the top of the repository where it is relative; or `.store` there."""
    given = os.environ.get("REPROLIB_STORE") or ".store"
    try:
        return ROOT / Path(given).expanduser()
    except RuntimeError as error:  # there is no such user, or this one has no home
        raise StoreError(f"REPROLIB_STORE is {given!r}, but: {error} Give it the folder's full path.") from None


def make_folder(folder: Path) -> None:
    """The folder, with all above it; raises StoreError when it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(unwritable(folder, error)) from None


def unwritable(path: Path, error: OSError) -> str:
    """What to say when something cannot be written."""
    return (
        f"cannot write {path} ({error.strerror or error}); free some space or make the folder writable "
        "(REPROLIB_STORE moves the store elsewhere); what was there before is unchanged"
    )
