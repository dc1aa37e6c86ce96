"""The sample of Fashion-MNIST in the package, drawn by tools/make_sample.py: a first look needs no download."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from reprolib.data import fashion_mnist, places

INFO = replace(fashion_mnist.INFO, name="fashion-mnist-sample", train=3000, test=1000, sample=None)
FILE = Path(__file__).with_name("fashion_mnist_sample.npz")
HOW = "reinstall the package or run python tools/make_sample.py"
PLACES = places.Places([FILE.name], packaged=[("embedded sample", FILE.parent)], how=HOW)


def read(folder: Path) -> tuple[places.Arrays, str]:
    """Images uint8 [N, 1, 28, 28] and labels, the classes in turn; the zip file's own checksums are verified."""
    path = folder / FILE.name
    with places.reading(path, "the embedded sample", HOW), np.load(io.BytesIO(path.read_bytes())) as archive:
        images, test_images = (archive[f"{split}_images"][:, None] for split in ("train", "test"))
        labels, test_labels = (archive[f"{split}_labels"] for split in ("train", "test"))
    variant = f"class-balanced sample of Fashion-MNIST ({len(labels)} training, {len(test_labels)} test images)"
    return (images, labels, test_images, test_labels), variant
