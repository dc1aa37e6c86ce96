"""Data sets as uint8 tensors that stay on the device: no per-item loading, no transforms.

`load(name)` looks for a data set in $REPROLIB_DATA, the Debian package, torchvision's cache, and downloads it only
when none of them has it. Whatever the place, the bytes are checked before use, and the returned `Dataset` says which
kind of place and which variant it is and carries a checksum of the tensors handed out.
"""

from __future__ import annotations

import codecs
import difflib
import functools
import gzip
import hashlib
import importlib.resources
import io
import json
import os
import pickle
import socket
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

NAMES = ("fashion-mnist-sample", "fashion-mnist-sample-rgb", "fashion-mnist", "cifar-10", "imagenet-subset")
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
TORCHVISION_ROOT = Path("~/.cache/reprolib/torchvision")  # the `root` handed to torchvision.datasets.*
DOWNLOAD_TIMEOUT = 30  # seconds without a byte; torchvision itself would wait for ever

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# The ten ImageNet classes of fastai's Imagenette: wnid -> (name, index among the 1000 classes of ImageNet-1k).
IMAGENETTE = {
    "n01440764": ("tench", 0),
    "n02102040": ("English springer", 217),
    "n02979186": ("cassette player", 482),
    "n03000684": ("chain saw", 491),
    "n03028079": ("church", 497),
    "n03394916": ("French horn", 566),
    "n03417042": ("garbage truck", 569),
    "n03425413": ("gas pump", 571),
    "n03445777": ("golf ball", 574),
    "n03888257": ("parachute", 701),
}
IMAGENET_SIDE = 224

# sha256 of the decoded values (uint8, without the IDX header). Not of the .gz files: Debian's are compressed anew
# without name and date, so the published md5 sums hold for the download only. Computed from the Debian package
# dataset-fashion-mnist; its four files give the published md5 sums once name and date (UTC 2017-08-31, 10:50:06 for
# train-*, 10:50:27 for t10k-*) are put back into the gzip headers, so these are the original values.
FASHION_SHA256 = {
    "train-images-idx3-ubyte": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train-labels-idx1-ubyte": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "t10k-images-idx3-ubyte": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "t10k-labels-idx1-ubyte": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}
# md5 of the original files, as published (the same list as in torchvision).
CIFAR_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}


class DataError(OSError):
    """A data set is missing, incomplete or damaged; the message says where and what to do."""


@dataclass(frozen=True, eq=False)
class Split:
    """images: uint8 [N, C, H, W], 0..255; labels: int64 [N]; both on the same device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test split, and where they come from (a kind of place, never a path of this machine)."""

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    source: str  # "embedded sample", "REPROLIB_DATA", "Debian package dataset-fashion-mnist", "torchvision cache", ...
    variant: str  # "original", or what a rebuilt or partial copy declares
    checksum: str  # sha256, hex, over the bytes of train images, train labels, test images, test labels as returned


def load(
    name: str, *, train_size: int | None = None, test_size: int | None = None, device: str | torch.device = "cpu"
) -> Dataset:
    """The first `train_size` and `test_size` images of a data set (None: all), as uint8 tensors on `device`.

    name: one of NAMES. The order is that of the official files; the samples and `imagenet-subset`, which
    have none, take the classes in turn, so that a short prefix is balanced too. Files are read once per process; the
    tensors are copies and may be changed. Raises ValueError (unknown name, size or device) and DataError (missing or
    damaged files).
    """
    if name not in NAMES:
        close = difflib.get_close_matches(str(name), NAMES, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else "choose one of them."
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(NAMES)}: {hint}")
    for option, size in (("train_size", train_size), ("test_size", test_size)):
        _require_size(option, size)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {str(device)!r} cannot be used here; use 'cpu' or a device torch sees") from error

    full = _read_once(name, os.environ.get("REPROLIB_DATA") or None)
    train = _first(full.train, "train_size", train_size, name)
    test = _first(full.test, "test_size", test_size, name)
    return Dataset(
        name=name,
        train=Split(train.images.to(device), train.labels.to(device)),
        test=Split(test.images.to(device), test.labels.to(device)),
        classes=full.classes,
        source=full.source,
        variant=full.variant,
        checksum=_checksum(train.images, train.labels, test.images, test.labels),
    )


def _require_size(option: str, size: int | None) -> None:
    if size is None:
        return
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ValueError(f"{option} is {size!r}; give a whole number of images, at least 1, or None for all of them")


def _first(split: Split, option: str, size: int | None, name: str) -> Split:
    """A copy of the first images, so that a caller who writes into them does not change the cached data."""
    if size is not None and size > len(split):
        raise ValueError(f"{option} is {size}, but this copy of {name} has {len(split)} such images; ask for fewer")
    return Split(split.images[:size].clone(), split.labels[:size].clone())


def _checksum(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()


@functools.lru_cache(maxsize=len(NAMES))
def _read_once(name: str, reprolib_data: str | None) -> Dataset:
    """The whole data set on the CPU. `reprolib_data` is an argument so that a changed variable is noticed."""
    if name == "fashion-mnist-sample":
        return _make(name, "embedded sample", *_read_sample())
    if name == "fashion-mnist-sample-rgb":
        return _make(name, "embedded sample", *_as_cifar(*_read_sample()))
    read = {"fashion-mnist": _read_fashion, "cifar-10": _read_cifar, "imagenet-subset": _read_imagenet}[name]
    places = _places(name, reprolib_data)
    for source, folder in places:
        if _present(name, folder):
            return _make(name, source, *read(folder))
    if name == "imagenet-subset":
        raise DataError(_not_found(name, reprolib_data, places, "it is not downloaded for you"))
    try:
        return _make(name, "download", *_download(name, read))
    except (OSError, RuntimeError) as error:
        # torchvision reports one failed mirror over several lines; the message here stays on one.
        reason = f"the download failed ({' '.join(str(error).split())})"
        raise DataError(_not_found(name, reprolib_data, places, reason)) from error


def _make(name: str, source: str, arrays: tuple[np.ndarray, ...], variant: str) -> Dataset:
    """arrays: train images, train labels, test images, test labels."""
    images, labels, test_images, test_labels = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    classes = {"cifar-10": CIFAR_CLASSES, "imagenet-subset": tuple(label for label, _ in IMAGENETTE.values())}
    return Dataset(
        name=name,
        train=Split(images, labels.long()),
        test=Split(test_images, test_labels.long()),
        classes=classes.get(name, FASHION_CLASSES),
        source=source,
        variant=variant,
        checksum="",  # load() fills it in for the images it hands out
    )


# --- places -------------------------------------------------------------------------------------------------------

_SUBFOLDERS = {
    "fashion-mnist": ("", "fashion-mnist", "FashionMNIST/raw"),
    "cifar-10": ("", "cifar-10-batches-py"),
    "imagenet-subset": ("", "imagenet-subset", "imagenette2", "imagenette2-320", "imagenette2-160"),
}
_IN_TORCHVISION_ROOT = {"fashion-mnist": "FashionMNIST/raw", "cifar-10": "cifar-10-batches-py"}


def _places(name: str, reprolib_data: str | None) -> list[tuple[str, Path]]:
    """(kind of place, folder), in the order in which they are tried."""
    places = []
    if reprolib_data is not None:
        root = Path(reprolib_data).expanduser()
        if not root.is_dir():
            raise DataError(f"REPROLIB_DATA is {reprolib_data!r}, which is not a folder; correct it or unset it")
        places += [("REPROLIB_DATA", root / sub) for sub in _SUBFOLDERS[name]]
    if name == "fashion-mnist":
        places.append(("Debian package dataset-fashion-mnist", DEBIAN_FOLDER))
    if name in _IN_TORCHVISION_ROOT:
        places.append(("torchvision cache", TORCHVISION_ROOT.expanduser() / _IN_TORCHVISION_ROOT[name]))
    return places


def _present(name: str, folder: Path) -> bool:
    """Whether the folder means to hold the data set: one of its files is enough, a missing rest is then an error."""
    if name == "fashion-mnist":
        return any(_idx_file(folder, stem) for stem in FASHION_SHA256)
    if name == "cifar-10":
        return any((folder / file).is_file() for file in CIFAR_MD5)
    return any((folder / "val" / wnid).is_dir() for wnid in IMAGENETTE)


def _not_found(name: str, reprolib_data: str | None, places: list[tuple[str, Path]], reason: str) -> str:
    looked = [] if reprolib_data else ["$REPROLIB_DATA (not set)"]
    looked += [str(folder) for _, folder in places]
    return f"{name} is in none of these places: {', '.join(looked)}; and {reason}. {_how_to_fetch(name)}"


def _how_to_fetch(name: str) -> str:
    code = "from torchvision.datasets import {0}; {0}({1})"
    if name == "imagenet-subset":
        command = code.format("Imagenette", "'FOLDER', split='val', size='320px', download=True")
        return (
            f'It is fastai\'s Imagenette: python -c "{command}" fetches it into an existing FOLDER; '
            "then set REPROLIB_DATA=FOLDER."
        )
    command = code.format(
        {"fashion-mnist": "FashionMNIST", "cifar-10": "CIFAR10"}[name], f"'{TORCHVISION_ROOT}', download=True"
    )
    debian = "apt-get install dataset-fashion-mnist, or " if name == "fashion-mnist" else ""
    return (
        f'To fetch it: {debian}python -c "{command}" on a machine with internet; '
        "or set REPROLIB_DATA to a folder that has it."
    )


def _download(name: str, read: Callable) -> tuple[tuple[np.ndarray, ...], str]:
    """Fetch by torchvision into a folder of its own, check, and only then move it to where the next run looks.

    A killed download therefore never lies where data are looked for.
    """
    from torchvision import datasets  # takes seconds to import, and most runs need no download

    megabytes = {"fashion-mnist": 31, "cifar-10": 170}[name]
    print(
        f"{name} is not on this machine: downloading {megabytes} MB to {TORCHVISION_ROOT}", file=sys.stderr, flush=True
    )
    root = TORCHVISION_ROOT.expanduser()
    root.mkdir(parents=True, exist_ok=True)
    waited = socket.getdefaulttimeout()
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=root) as unfinished:
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
        try:
            fetch = datasets.FashionMNIST if name == "fashion-mnist" else datasets.CIFAR10
            fetch(unfinished, download=True)
        finally:
            socket.setdefaulttimeout(waited)
        result = read(Path(unfinished) / _IN_TORCHVISION_ROOT[name])
        top = Path(_IN_TORCHVISION_ROOT[name]).parts[0]
        try:
            os.rename(Path(unfinished) / top, root / top)
        except OSError:
            if not _present(name, root / _IN_TORCHVISION_ROOT[name]):  # else another process was faster
                raise
    return result


# --- Fashion-MNIST ------------------------------------------------------------------------------------------------


def _idx_file(folder: Path, stem: str) -> Path | None:
    """The .gz file before the unpacked one: it has a checksum of its own, a killed unpacking leaves none."""
    return next((path for path in (folder / f"{stem}.gz", folder / stem) if path.is_file()), None)


def _read_fashion(folder: Path) -> tuple[tuple[np.ndarray, ...], str]:
    """Images uint8 [N, 1, 28, 28] and labels of the four IDX files (Xiao et al. 2017), checked."""
    return tuple(_read_idx(folder, stem, expected) for stem, expected in FASHION_SHA256.items()), "original"


def _read_idx(folder: Path, stem: str, expected: str) -> np.ndarray:
    path = _idx_file(folder, stem)
    if path is None:
        raise DataError(f"{folder} has a part of fashion-mnist but lacks {stem}[.gz]; complete or remove that folder")
    header = 16 if "images" in stem else 8  # magic number, then one 32-bit count per dimension
    try:
        content = path.read_bytes()
        values = (gzip.decompress(content) if path.suffix == ".gz" else content)[header:]
        found = hashlib.sha256(values).hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        values, found = b"", f"a file that cannot be unpacked ({error})"
    if found != expected:
        raise DataError(_damaged(path, f"sha256 {expected} of the decoded values", found))
    array = np.frombuffer(bytearray(values), dtype=np.uint8)
    return array.reshape(-1, 1, 28, 28) if "images" in stem else array


def _damaged(path: Path, expected: str, found: str) -> str:
    return f"{path} is damaged or not the published file: expected {expected}, found {found}; remove or replace it"


def _read_sample() -> tuple[tuple[np.ndarray, ...], str]:
    """The sample in the package (drawn by tools/make_sample.py); the zip file's own checksums are verified."""
    resource = importlib.resources.files("reprolib") / "sample" / "fashion_mnist_sample.npz"
    keys = ("train_images", "train_labels", "test_images", "test_labels")
    try:
        with np.load(io.BytesIO(resource.read_bytes()), allow_pickle=False) as archive:
            images, labels, test_images, test_labels = (archive[key] for key in keys)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"the embedded sample reprolib/sample/fashion_mnist_sample.npz is missing or damaged ({error}); "
            "reinstall the package or run python tools/make_sample.py"
        ) from error
    variant = f"class-balanced sample of Fashion-MNIST ({len(labels)} training, {len(test_labels)} test images)"
    return (images[:, None], labels, test_images[:, None], test_labels), variant


def _as_cifar(arrays: tuple[np.ndarray, ...], variant: str) -> tuple[tuple[np.ndarray, ...], str]:
    """The sample in CIFAR-10's format, so that its networks can be tried without a download: 32x32, three equal channels."""
    images, labels, test_images, test_labels = arrays
    images, test_images = (
        np.pad(part, ((0, 0), (0, 0), (2, 2), (2, 2))).repeat(3, 1) for part in (images, test_images)
    )
    return (images, labels, test_images, test_labels), f"{variant}, in the format of CIFAR-10"


# --- CIFAR-10 -----------------------------------------------------------------------------------------------------


def _read_cifar(folder: Path) -> tuple[tuple[np.ndarray, ...], str]:
    """Images uint8 [N, 3, 32, 32] and labels of the python batches (Krizhevsky 2009).

    Accepted are the original files, and a folder whose own SHA256SUMS lists all six batches and holds for every file
    it lists. Nothing is unpickled before its checksum matched.
    """
    contents = {}
    for file in CIFAR_MD5:
        if not (folder / file).is_file():
            raise DataError(f"{folder} has a part of cifar-10 but lacks {file}; complete or remove that folder")
        contents[file] = (folder / file).read_bytes()
    md5 = {file: hashlib.md5(content, usedforsecurity=False).hexdigest() for file, content in contents.items()}
    if md5 == CIFAR_MD5:
        variant = "original"
    elif (folder / "SHA256SUMS").is_file():
        _verify_declared(folder, contents)
        variant = f"rebuilt copy with its own SHA256SUMS{_substitutes(folder)}"
    else:
        file = next(file for file in CIFAR_MD5 if md5[file] != CIFAR_MD5[file])
        raise DataError(
            _damaged(folder / file, f"md5 {CIFAR_MD5[file]}", md5[file])
            + ", or, if the folder is a rebuilt copy, declare its sums in a file SHA256SUMS beside it"
        )
    batches = [_unpickle_batch(folder / file, content) for file, content in contents.items()]
    images = np.concatenate([images for images, _ in batches[:-1]])
    labels = np.concatenate([labels for _, labels in batches[:-1]])
    return (images, labels, *batches[-1]), variant


def _verify_declared(folder: Path, contents: dict[str, bytes]) -> None:
    sums = folder / "SHA256SUMS"
    declared = {}
    for number, line in enumerate(sums.read_text(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        digest, _, file = line.partition(" ")
        file = file.strip().removeprefix("*")
        if len(digest) != 64 or not file:
            raise DataError(f"{sums}, line {number}: expected 'sha256  file name', found {line!r}; write it anew")
        declared[file] = digest.lower()
    for file in contents:
        if file not in declared:
            raise DataError(f"{sums} does not list {file}; write it anew with sha256sum, or use the original files")
    for file, expected in declared.items():
        if not (folder / file).is_file():
            raise DataError(f"{sums} lists {file}, which is not there; copy the folder again")
        content = contents[file] if file in contents else (folder / file).read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise DataError(
                f"{folder / file} is damaged: SHA256SUMS beside it declares {expected}, found {found}; "
                "copy the folder again"
            )


def _substitutes(folder: Path) -> str:
    """What a rebuilt copy says about images that are not lossless."""
    path = folder / "jpeg_substitutes.json"
    if not path.is_file():
        return ""
    try:
        listed = json.loads(path.read_text())
        count = len(listed["train"]) + len(listed["test"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} should hold two lists of image numbers, 'train' and 'test'; copy it again") from error
    return f" ({count} images are JPEG substitutes)"


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what a pickled array needs and nothing else: a sum that a folder declares itself proves no origin."""

    admitted = {
        ("_codecs", "encode"): codecs.encode,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
        ("numpy._core.numeric", "_frombuffer"): np._core.numeric._frombuffer,
    }

    def find_class(self, module: str, name: str):
        found = self.admitted.get((module.replace("numpy.core.", "numpy._core."), name))  # numpy 1 said numpy.core
        if found is None:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which no image batch needs")
        return found


def _unpickle_batch(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
        images, labels = batch["data"], np.asarray(batch["labels"], dtype=np.int64)
        if images.dtype != np.uint8 or images.shape != (len(labels), 3 * 32 * 32):
            raise ValueError(f"it has {images.dtype} {images.shape} for {len(labels)} labels")
        if labels.size and not 0 <= labels.min() <= labels.max() <= 9:
            raise ValueError(f"it has labels from {labels.min()} to {labels.max()}")
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(
            f"{path} is no CIFAR-10 batch (uint8 [N, 3072] under 'data', labels 0 to 9 under 'labels'): "
            f"{error}; replace it"
        ) from error
    return images.reshape(-1, 3, 32, 32), labels


# --- ImageNet subset ----------------------------------------------------------------------------------------------


def _read_imagenet(folder: Path) -> tuple[tuple[np.ndarray, ...], str]:
    """Images uint8 [N, 3, 224, 224] and labels 0..9 (order of IMAGENETTE) from val/<wnid>/* and train/<wnid>/*.

    The whole picture is resized, so its aspect ratio is not kept. There are no published sums to check against: the
    data set's checksum says what was read.
    """
    test = _read_folder(folder / "val")
    if (folder / "train").is_dir():
        train, number = _read_folder(folder / "train"), "{} training"
    else:
        train, number = (test[0][:0], test[1][:0]), "no training"
    variant = f"Imagenette's ten classes, {number.format(len(train[1]))} and {len(test[1])} validation images"
    return (*train, *test), variant


def _read_folder(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image
    from tqdm import tqdm

    by_class = []
    for label, wnid in enumerate(IMAGENETTE):
        files = sorted(path for path in (folder / wnid).glob("*") if path.suffix.lower() in (".jpeg", ".jpg", ".png"))
        if not files:
            raise DataError(f"{folder / wnid} holds no .JPEG file; imagenet-subset needs all ten classes of Imagenette")
        by_class.append([(turn, label, path) for turn, path in enumerate(files)])
    order = sorted(item for items in by_class for item in items)
    images = np.empty((len(order), 3, IMAGENET_SIDE, IMAGENET_SIDE), dtype=np.uint8)
    for target, (_, _, path) in zip(images, tqdm(order, desc=f"reading {folder.name}", delay=2, leave=False)):
        try:
            with Image.open(path) as picture:
                picture = picture.convert("RGB")  # some are greyscale
        except (OSError, SyntaxError) as error:
            raise DataError(f"{path} cannot be read as a picture ({error}); remove or replace it") from error
        if picture.size != (IMAGENET_SIDE, IMAGENET_SIDE):
            picture = picture.resize((IMAGENET_SIDE, IMAGENET_SIDE), Image.Resampling.BILINEAR)
        target[:] = np.asarray(picture).transpose(2, 0, 1)
    return images, np.array([label for _, label, _ in order], dtype=np.int64)
