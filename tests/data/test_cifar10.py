"""CIFAR-10: the original files or a copy that declares its sums, never a damaged one, and how it is downloaded."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from reprolib import data
from reprolib.data import cifar10


def write_cifar(folder: Path, per_batch: int = 10) -> np.ndarray:
    """Tiny batches in the official format; returns all pixels, training batches first."""
    folder.mkdir(parents=True)
    pixels = np.random.RandomState(0).randint(0, 256, (6, per_batch, 3072)).astype(np.uint8)
    for number, file in enumerate(cifar10.MD5):
        labels = [(number + i) % 10 for i in range(per_batch)]
        content = pickle.dumps({"data": pixels[number], "labels": labels, "batch_label": file}, protocol=2)
        (folder / file).write_bytes(content)
    return pixels


def declare_sums(folder: Path) -> None:
    lines = [f"{hashlib.sha256((folder / file).read_bytes()).hexdigest()}  {file}\n" for file in cifar10.MD5]
    (folder / "SHA256SUMS").write_text("".join(lines))


@pytest.mark.parametrize("sub", ["", "cifar-10-batches-py"])
def test_rebuilt_cifar_with_its_own_sums_is_accepted_and_labelled(monkeypatch, tmp_path, sub):
    """REPROLIB_DATA names the folder of the batches itself, or the one above."""
    folder = tmp_path / "mine" / sub
    pixels = write_cifar(folder)
    declare_sums(folder)
    (folder / "jpeg_substitutes.json").write_text(json.dumps({"train": [1, 2], "test": [0]}))
    monkeypatch.setenv("REPROLIB_DATA", str(tmp_path / "mine"))
    found = data.load("cifar-10", test_size=4)
    assert found.train.images.shape == (50, 3, 32, 32) and found.train.images.dtype == torch.uint8
    assert np.array_equal(found.train.images.numpy().reshape(5, 10, 3072), pixels[:5])
    assert np.array_equal(found.test.images.numpy().reshape(4, 3072), pixels[5, :4])
    assert found.test.labels.tolist() == [5, 6, 7, 8] and found.test.labels.dtype == torch.int64
    assert found.source == "REPROLIB_DATA"
    assert found.variant == "rebuilt copy with its own SHA256SUMS (3 images are JPEG substitutes)"


def test_cifar_with_a_flipped_byte_is_refused(place, one_sentence):
    folder = place / "cifar-10-batches-py"
    write_cifar(folder)
    declare_sums(folder)
    content = bytearray((folder / "data_batch_3").read_bytes())
    content[2000] ^= 1
    (folder / "data_batch_3").write_bytes(content)
    with pytest.raises(data.DataError) as error:
        data.load("cifar-10")
    text = one_sentence(error)
    assert "data_batch_3" in text and hashlib.sha256(content).hexdigest() in text and "copy the folder again" in text


def test_cifar_without_sums_must_be_the_original(place, one_sentence):
    write_cifar(place / "cifar-10-batches-py")
    with pytest.raises(data.DataError) as error:
        data.load("cifar-10")
    text = one_sentence(error)
    assert "data_batch_1" in text and cifar10.MD5["data_batch_1"] in text and "SHA256SUMS" in text


def test_cifar_sums_must_cover_every_batch(place):
    folder = place / "cifar-10-batches-py"
    write_cifar(folder)
    declare_sums(folder)
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    (folder / "SHA256SUMS").write_text("\n".join(lines[:-1]))
    with pytest.raises(data.DataError, match="does not list test_batch"):
        data.load("cifar-10")


def test_incomplete_cifar_is_refused(place):
    folder = place / "cifar-10-batches-py"
    write_cifar(folder)
    declare_sums(folder)
    (folder / "data_batch_4").unlink()
    with pytest.raises(data.DataError, match="data_batch_4.*complete or remove it"):
        data.load("cifar-10")


class _Command:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("declared", [False, True])
def test_a_pickle_that_runs_code_is_never_run(place, tmp_path, declared, one_sentence):
    folder = place / "cifar-10-batches-py"
    write_cifar(folder)
    (folder / "test_batch").write_bytes(pickle.dumps({"data": _Command(tmp_path / "ran"), "labels": []}))
    if declared:
        declare_sums(folder)
    with pytest.raises(data.DataError) as error:
        data.load("cifar-10")
    one_sentence(error)
    assert not (tmp_path / "ran").exists()


def test_cifar_sums_are_those_of_torchvision():
    from torchvision.datasets.cifar import CIFAR10

    assert dict(CIFAR10.train_list + CIFAR10.test_list) == cifar10.MD5


def test_download_is_announced_checked_and_then_kept(monkeypatch, tmp_path, capsys):
    """A stand-in for torchvision's download: good files end up in the cache, bad ones nowhere."""
    import torchvision.datasets

    def fetch(root, download):
        assert download
        write_cifar(Path(root) / "cifar-10-batches-py")
        if good:
            declare_sums(Path(root) / "cifar-10-batches-py")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fetch)
    good = False
    with pytest.raises(data.DataError, match="the download failed"):
        data.load("cifar-10")
    assert list((tmp_path / "cache").iterdir()) == []
    good = True
    capsys.readouterr()
    assert data.load("cifar-10").source == "download"
    assert "downloading" in capsys.readouterr().err
    monkeypatch.delattr(torchvision.datasets, "CIFAR10")  # a second download would fail
    data._read_once.cache_clear()
    assert data.load("cifar-10").source == "torchvision cache"
    assert capsys.readouterr().err == ""
