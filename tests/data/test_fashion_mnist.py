"""Fashion-MNIST: the official values, from the first place that has them."""

import gzip
import hashlib

import pytest
import torch

from reprolib import data
from reprolib.data import fashion_mnist


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_truncated_idx_file_is_refused(place, suffix, one_sentence):
    content = b"\0\0\x08\x03" + bytes(12) + bytes(range(256)) * 100
    packed = gzip.compress(content) if suffix else content
    path = place / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(data.DataError) as error:
        data.load("fashion-mnist")
    text = one_sentence(error)
    assert str(path) in text and fashion_mnist.SHA256["train-images-idx3-ubyte"] in text and "replace it" in text


def test_full_fashion_mnist(full_fashion):
    found = data.load("fashion-mnist")
    assert found.source == "Debian package dataset-fashion-mnist" and found.variant == "original"
    assert found.train.images.shape == (60_000, 1, 28, 28) and found.test.images.shape == (10_000, 1, 28, 28)
    assert torch.bincount(found.train.labels).tolist() == [6000] * 10
    assert torch.bincount(found.test.labels).tolist() == [1000] * 10
    assert found.train.labels[:5].tolist() == [9, 0, 0, 3, 0]
    pixels, info = found.train.images.double() / 255, data.describe("fashion-mnist")
    assert (pixels.mean().item(), pixels.std().item()) == pytest.approx(info.mean + info.std, abs=1e-4)
    assert (len(found.train), len(found.test)) == (info.train, info.test)
    tensors = (found.train.images, found.train.labels.byte(), found.test.images, found.test.labels.byte())
    sums = [hashlib.sha256(tensor.numpy()).hexdigest() for tensor in tensors]
    assert sums == list(fashion_mnist.SHA256.values())


@pytest.mark.parametrize("sub", ["", "fashion-mnist", "FashionMNIST/raw"])
def test_reprolib_data_comes_before_debian(full_fashion, place, sub):
    folder = place / sub
    folder.mkdir(parents=True, exist_ok=True)
    for stem in fashion_mnist.SHA256:
        packed = (full_fashion / f"{stem}.gz").read_bytes()
        if "labels" in stem:
            (folder / stem).write_bytes(gzip.decompress(packed))  # unpacked files are read too
        else:
            (folder / f"{stem}.gz").write_bytes(packed)
    assert data.load("fashion-mnist", train_size=1, test_size=1).source == "REPROLIB_DATA"
    (folder / "t10k-labels-idx1-ubyte").unlink()
    data._read_once.cache_clear()
    with pytest.raises(data.DataError, match=r"t10k-labels-idx1-ubyte cannot be read as .*No such file"):
        data.load("fashion-mnist")
