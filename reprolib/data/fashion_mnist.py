"""Fashion-MNIST (Xiao et al. 2017): 70,000 grey pictures of clothes, 28x28."""

import gzip
import hashlib
from pathlib import Path

import numpy as np

from reprolib.data import places

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
MEAN, STD = (0.2860,), (0.3530,)
INFO = places.Info("fashion-mnist", (1, 28, 28), CLASSES, MEAN, STD, 60_000, 10_000, sample="fashion-mnist-sample")

# sha256 of the decoded values (uint8, without the IDX header), from the Debian package. Not of the .gz files: Debian's
# are compressed anew without name and date. They give the published md5 sums once these (UTC 2017-08-31, 10:50:06 for
# train-*, 10:50:27 for t10k-*) are put back into the gzip headers, so these are the original values.
SHA256 = {
    "train-images-idx3-ubyte": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
    "train-labels-idx1-ubyte": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "t10k-images-idx3-ubyte": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    "t10k-labels-idx1-ubyte": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
}
PLACES = places.Places(
    parts=SHA256,
    subfolders=("", "fashion-mnist", "FashionMNIST/raw"),
    packaged=[("Debian package dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist"))],
    how="apt-get install dataset-fashion-mnist, or ",
    torchvision="FashionMNIST",
    cache="FashionMNIST/raw",
)


def read(folder: Path) -> tuple[places.Arrays, str]:
    """Images uint8 [N, 1, 28, 28] and labels of the four IDX files, checked."""
    return tuple(_read_idx(folder, stem) for stem in SHA256), "original"


def _read_idx(folder: Path, stem: str) -> np.ndarray:
    path = folder / f"{stem}.gz"  # rather than the unpacked one: it has a checksum of its own
    path = path if path.is_file() else folder / stem
    header = 16 if "images" in stem else 8  # magic number, then one 32-bit count per dimension
    with places.reading(path, f"the published file, whose values have sha256 {SHA256[stem]}"):
        content = path.read_bytes()
        values = (gzip.decompress(content) if path.suffix == ".gz" else content)[header:]
        found = hashlib.sha256(values).hexdigest()
        if found != SHA256[stem]:
            raise ValueError(f"these have {found}")
    return np.frombuffer(bytearray(values), dtype=np.uint8).reshape(-1, *(INFO.shape if "images" in stem else ()))
