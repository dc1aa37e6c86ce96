"""The embedded sample: balanced, small, licensed, reproducible, and refused when damaged."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest
import torch

from reprolib import data
from reprolib.data import fashion_mnist, sample

ROOT = Path(__file__).resolve().parents[2]


def test_sample_shapes_types_and_balance():
    found = data.load("fashion-mnist-sample")
    for split, count in ((found.train, 3000), (found.test, 1000)):
        assert len(split) == count
        assert split.images.shape == (count, 1, 28, 28) and split.images.dtype == torch.uint8
        assert split.labels.shape == (count,) and split.labels.dtype == torch.int64
        assert torch.bincount(split.labels, minlength=10).tolist() == [count // 10] * 10
        assert split.images.min() == 0 and split.images.max() == 255
        assert len(torch.unique(split.images.flatten(1), dim=0)) == count  # no image twice
    assert found.classes == fashion_mnist.CLASSES
    assert found.source == "embedded sample"


def test_sample_prefix_is_balanced():
    found = data.load("fashion-mnist-sample", train_size=50, test_size=20)
    assert torch.bincount(found.train.labels).tolist() == [5] * 10
    assert torch.bincount(found.test.labels).tolist() == [2] * 10


def test_sample_in_the_format_of_cifar():
    """The same pictures with a black border and three equal channels, in the same order."""
    grey, rgb = (
        data.load(name, train_size=40, test_size=30) for name in ("fashion-mnist-sample", "fashion-mnist-sample-rgb")
    )
    for plain, wide in ((grey.train, rgb.train), (grey.test, rgb.test)):
        assert wide.images.shape[1:] == (3, 32, 32) and torch.equal(wide.labels, plain.labels)
        assert torch.equal(wide.images[:, :, 2:30, 2:30], plain.images.expand(-1, 3, -1, -1))
        assert wide.images.sum() == 3 * plain.images.sum()
    assert "in the format of CIFAR-10" in rgb.variant and rgb.classes == fashion_mnist.CLASSES


def test_sample_is_small_and_carries_its_licence():
    assert sample.FILE.stat().st_size <= 3_000_000
    licence = sample.FILE.with_name("LICENSE-fashion-mnist").read_text()
    assert "Copyright (c) 2017 Zalando SE" in licence and "MIT License" in licence
    assert "Permission is hereby granted" in licence and 'THE SOFTWARE IS PROVIDED "AS IS"' in licence


def test_damaged_sample_is_refused(monkeypatch, tmp_path, one_sentence):
    whole = sample.FILE.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for number, content in enumerate((whole[:100_000], bytes(flipped), b"")):
        copy = tmp_path / str(number) / sample.FILE.name
        copy.parent.mkdir()
        copy.write_bytes(content)
        places = dataclasses.replace(sample.PLACES, packaged=[("embedded sample", copy.parent)])
        monkeypatch.setattr(sample, "PLACES", places)
        with pytest.raises(data.DataError) as error:
            data.load("fashion-mnist-sample")
        assert str(copy) in one_sentence(error) and "make_sample.py" in str(error.value)
    copy.unlink()
    with pytest.raises(data.DataError, match="is in none of these places: .*make_sample.py"):
        data.load("fashion-mnist-sample")


def test_committed_sample_is_what_the_script_draws(full_fashion):
    spec = importlib.util.spec_from_file_location("make_sample", ROOT / "tools" / "make_sample.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    arrays = script.draw()
    assert script.differences(arrays) == []
    arrays["test_images"][5, 3, 3] ^= 1
    assert script.differences(arrays) == ["test_images"]
