"""CIFAR-10 (Krizhevsky 2009): 60,000 colour pictures of animals and vehicles, 32x32."""

import hashlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from reprolib.data import places

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
INFO = places.Info(
    "cifar-10", (3, 32, 32), CLASSES, MEAN, STD, 50_000, 10_000, sample="fashion-mnist-sample-rgb", free=False
)

MD5 = {  # of the original files, as published (the same list as in torchvision)
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
FOLDER = "cifar-10-batches-py"
PLACES = places.Places(MD5, subfolders=("", FOLDER), torchvision="CIFAR10", cache=FOLDER)
NUMPY = ("numpy.ndarray", "numpy.dtype", "numpy._core.multiarray._reconstruct", "numpy._core.numeric._frombuffer")


def read(folder: Path) -> tuple[places.Arrays, str]:
    """Images uint8 [N, 3, 32, 32] and labels of the python batches: the original files, or a folder whose own
    SHA256SUMS lists all six and holds for every file it lists. Nothing is unpickled before its checksum matched."""
    with places.reading(folder, "the six batches of CIFAR-10", "complete or remove it"):
        contents = {file: (folder / file).read_bytes() for file in MD5}
    md5 = {file: hashlib.md5(content, usedforsecurity=False).hexdigest() for file, content in contents.items()}
    changed = [file for file in MD5 if md5[file] != MD5[file]]
    variant = _variant_of_copy(folder, contents, changed[0]) if changed else "original"
    batches = [_unpickle_batch(folder / file, content) for file, content in contents.items()]
    images, labels = (np.concatenate(parts) for parts in zip(*batches[:-1], strict=True))
    return (images, labels, *batches[-1]), variant


def _variant_of_copy(folder: Path, contents: dict[str, bytes], changed: str) -> str:
    """What a rebuilt copy is, once the sums that it declares have been found true."""
    remedy = "replace it, or, in a rebuilt copy, list the sha256sum of all batches in a file SHA256SUMS"
    with places.reading(folder / changed, f"the published file (md5 {MD5[changed]}) or a declared one", remedy):
        lines = [line.split(maxsplit=1) for line in (folder / "SHA256SUMS").read_text().splitlines() if line.strip()]
        declared = {file.removeprefix("*"): digest.lower() for digest, file in lines}
        if not declared.keys() >= contents.keys():
            raise ValueError(f"SHA256SUMS does not list {', '.join(contents.keys() - declared.keys())}")
    for file, expected in declared.items():
        with places.reading(folder / file, f"what SHA256SUMS declares, {expected}", "copy the folder again"):
            found = hashlib.sha256(contents[file] if file in contents else (folder / file).read_bytes()).hexdigest()
            if found != expected:
                raise ValueError(f"found {found}")
    variant = "rebuilt copy with its own SHA256SUMS"
    substitutes = folder / "jpeg_substitutes.json"
    if substitutes.is_file():  # images that were not kept without loss
        with places.reading(substitutes, "two lists of image numbers, 'train' and 'test'"):
            listed = json.loads(substitutes.read_text())
            variant += f" ({len(listed['train']) + len(listed['test'])} images are JPEG substitutes)"
    return variant


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what a pickled array needs and nothing else: a sum that a folder declares itself proves no origin."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")  # as numpy 1 said
        if f"{module}.{name}" not in (*NUMPY, "_codecs.encode"):
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which no image batch needs")
        return super().find_class(module, name)


def _unpickle_batch(path: Path, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    with places.reading(path, "a CIFAR-10 batch: uint8 [N, 3072] under 'data', labels 0 to 9 under 'labels'"):
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
        images, labels = batch["data"], np.asarray(batch["labels"], dtype=np.int64)
        if images.dtype != np.uint8 or images.shape != (len(labels), 3072) or not np.isin(labels, range(10)).all():
            raise ValueError(f"it has {images.dtype} {images.shape} and labels {np.unique(labels)}")
        return images.reshape(-1, *INFO.shape), labels
