"""Data sets as uint8 tensors that stay on the device: no per-item loading, no transforms.

`load(name)` reads one from $REPROLIB_DATA, a package or torchvision's cache, or downloads it, and checks the bytes.
`describe(name)` reads no file, and needs no torch, whose import takes seconds. A data set is a file of this folder with
INFO, PLACES and `read(folder)`, and an entry in `_FILES`."""

from __future__ import annotations

import difflib
import functools
import hashlib
import os
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

from reprolib.data import cifar10, fashion_mnist, imagenet_subset, imagenet_subset_128, places, sample, sample_rgb
from reprolib.data.places import DataError, Info

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["DataError", "Dataset", "Info", "Split", "describe", "load", "names"]

_IMAGENET = imagenet_subset, imagenet_subset_128
_FILES = {file.INFO.name: file for file in (sample, sample_rgb, fashion_mnist, cifar10, *_IMAGENET)}


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


def __dir__() -> list[str]:
    return __all__


def names() -> tuple[str, ...]:
    """The data sets that `load` and `describe` know."""
    return tuple(_FILES)


def describe(name: str) -> Info:
    """Shape, classes, statistics and sizes of a data set; raises ValueError for an unknown name."""
    if not isinstance(name, str) or name not in _FILES:
        near = difflib.get_close_matches(str(name), _FILES, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"unknown data set {name!r}{hint}; expected one of {', '.join(_FILES)}")
    return _FILES[name].INFO


def load(
    name: str, *, train_size: int | None = None, test_size: int | None = None, device: str | torch.device = "cpu"
) -> Dataset:
    """The first `train_size` and `test_size` images of a data set (None: all), as uint8 tensors on `device`.

    The order is that of the official files; the samples and `imagenet-subset`, which have none, take the classes in
    turn, so that a short prefix is balanced too. Files are read once per process; the tensors are copies and may be
    changed. Raises ValueError (unknown name or device, impossible size) and DataError (missing or damaged files)."""
    classes = describe(name).classes
    whole, variant, source = _read_once(name, os.environ.get("REPROLIB_DATA") or None)
    splits, digest = [], hashlib.sha256()
    for option, size, tensors in (("train_size", train_size, whole[:2]), ("test_size", test_size, whole[2:])):
        is_count = isinstance(size, Integral) and not isinstance(size, bool)
        if size is not None and not (is_count and 1 <= size <= len(tensors[0])):
            found = f"{option} is {size!r}, but this copy of {name} has {len(tensors[0])} such images"
            raise ValueError(f"{found}; give a whole number from 1 to that, or None for all")
        first = [tensor[:size].clone() for tensor in tensors]  # who writes into them does not change the cached ones
        for tensor in first:
            digest.update(tensor.numpy().data)
        try:
            splits.append(Split(*(tensor.to(device) for tensor in first)))
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise ValueError(f"device {str(device)!r} cannot be used here; use 'cpu' or one that torch sees") from error
    train, test = splits
    return Dataset(name, train, test, classes, source, variant, digest.hexdigest())


@functools.lru_cache(maxsize=len(_FILES))
def _read_once(name: str, reprolib_data: str | None) -> tuple[list[Tensor], str, str]:
    """The whole data set on the CPU. `reprolib_data` is an argument so that a changed variable is noticed."""
    import torch

    arrays, variant, source = places.find(name, _FILES[name].PLACES, _FILES[name].read, reprolib_data)
    images, labels, test_images, test_labels = (torch.from_numpy(array) for array in arrays)
    return [images, labels.long(), test_images, test_labels.long()], variant, source
