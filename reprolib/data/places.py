"""What is known of a data set, where its files are looked for, and how torchvision fetches them. Knows no data set."""

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TORCHVISION_ROOT = Path("~/.cache/reprolib/torchvision")  # the `root` handed to torchvision.datasets.*

Arrays = tuple[np.ndarray, ...]  # training images uint8 [N, C, H, W] and labels [N], test images and labels
Read = Callable[[Path], tuple[Arrays, str]]  # what a data set makes of a folder: the arrays, and which variant they are


class DataError(OSError):
    """A data set is missing, incomplete or damaged; the message says where and what to do."""


@dataclass(frozen=True)
class Info:
    """What is known of a data set before it is read."""

    name: str
    shape: tuple[int, int, int]  # of an image: C, H, W
    classes: tuple[str, ...]  # in the order of the labels
    mean: tuple[float, ...]  # of each channel over the training images, pixels in [0, 1]
    std: tuple[float, ...]
    train: int  # number of images; a copy that a user made may have others
    test: int
    sample: str | None = None  # name of the embedded data set that stands in for it, of as many channels and classes
    small: str | None = None  # name of the same pictures in a smaller size
    free: bool = True  # whether anyone may pass its pictures on, as a published page with some of them does


@dataclass(frozen=True)
class Places:
    """Where a data set may be."""

    parts: Collection[str]  # how names of its files and folders begin; one of them shows that a folder is meant
    subfolders: Collection[str] = ()  # of $REPROLIB_DATA
    packaged: Collection[tuple[str, Path]] = ()  # kind of place, folder
    how: str = ""  # what to do to have it
    torchvision: str = ""  # its name in torchvision.datasets, where that downloads it
    cache: str = ""  # the folder below torchvision's root in which its files then are


def find(name: str, where: Places, read: Read, reprolib_data: str | None) -> tuple[Arrays, str, str]:
    """What `read` makes of the first folder that holds one of the parts, and the kind of place. What is nowhere is
    downloaded, unless REPROLIB_OFFLINE is set. Raises DataError."""
    places, cache = list(where.packaged), Path(os.path.expanduser(TORCHVISION_ROOT))
    if reprolib_data and where.subfolders:
        root = Path(os.path.expanduser(reprolib_data))  # the ~ stays where the home folder is not known
        if not (root.is_absolute() and root.is_dir()):  # a shell, the batch and a notebook work in folders of their own
            expected = "expected the whole path of a folder: correct or unset it"
            raise DataError(f"REPROLIB_DATA is {reprolib_data!r}; {expected}")
        places = [*(("REPROLIB_DATA", root / sub) for sub in where.subfolders), *places]
    if where.torchvision and cache.is_absolute():
        places.append(("torchvision cache", cache / where.cache))
    for source, folder in places:
        if any(True for part in where.parts for _ in folder.glob(f"{part}*")):
            return *read(folder), source
    how, reason = where.how, "it is not downloaded for you"
    if where.torchvision:
        code = f"from torchvision.datasets import {where.torchvision} as D; D('{TORCHVISION_ROOT}', download=True)"
        how += f'python -c "{code}" on a machine with internet'
        if not cache.is_absolute():
            reason = f"there is no home folder to download it to {cache} (set HOME)"
        elif os.environ.get("REPROLIB_OFFLINE"):
            reason = "REPROLIB_OFFLINE is set"
        else:
            try:
                return *_download(name, where, read, cache), "download"
            except (OSError, RuntimeError) as error:
                reason = f"the download failed ({' '.join(str(error).split())})"
    looked = [*([] if reprolib_data else ["$REPROLIB_DATA (not set)"]), *(str(folder) for _, folder in places)]
    missing = f"{name} is in none of these places: {', '.join(looked)}; and {reason}"
    raise DataError(f"{missing}. To have it: {how}; or set REPROLIB_DATA to a folder that has it.")


@contextmanager
def reading(path: Path, what: str, remedy: str = "remove or replace it") -> Iterator[None]:
    """Whatever goes wrong inside, as a DataError about the file: what is damaged makes its reader raise anything."""
    try:
        yield
    except Exception as error:
        raise DataError(f"{path} cannot be read as {what} ({' '.join(str(error).split())}); {remedy}") from error


def _download(name: str, where: Places, read: Read, root: Path) -> tuple[Arrays, str]:
    """Fetched into a folder of its own, checked, and only then moved to where data are looked for: if killed, never."""
    from torchvision import datasets  # takes seconds to import, and most runs need no download

    print(f"{name} is not on this machine: downloading it to {TORCHVISION_ROOT}", file=sys.stderr, flush=True)
    root.mkdir(parents=True, exist_ok=True)
    waited, top = socket.getdefaulttimeout(), Path(where.cache).parts[0]
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=root) as unfinished:
        socket.setdefaulttimeout(30)  # seconds without a byte; torchvision itself would wait for ever
        try:
            getattr(datasets, where.torchvision)(unfinished, download=True)
        finally:
            socket.setdefaulttimeout(waited)
        result = read(Path(unfinished) / where.cache)
        if not (root / top).exists():  # else another process was faster
            os.rename(Path(unfinished) / top, root / top)
    return result
