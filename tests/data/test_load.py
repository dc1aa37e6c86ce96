"""What can be asked of `load` and `describe`, and what is handed out."""

import hashlib
import subprocess
import sys

import pytest
import torch

from reprolib import data

# --- arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist", "xyz"])
def test_unknown_name_lists_the_known_ones(name, one_sentence):
    with pytest.raises(ValueError) as error:
        data.load(name)
    with pytest.raises(ValueError) as described:
        data.describe(name)
    assert str(described.value) == str(error.value) and repr(name) in str(error.value)
    assert all(known in one_sentence(error) for known in data.names())


def test_a_misspelt_name_gets_the_nearest_one():
    with pytest.raises(ValueError, match="did you mean 'fashion-mnist'"):
        data.load("fasion-mnist")


@pytest.mark.parametrize("option", ["train_size", "test_size"])
@pytest.mark.parametrize("size", [0, -3, 1.5, 1.0, "10", True, 1_000_000])
def test_bad_sizes(option, size, one_sentence):
    with pytest.raises(ValueError) as error:
        data.load("fashion-mnist-sample", **{option: size})
    assert option in one_sentence(error) and str(size) in str(error.value)


def test_unusable_device():
    for device in ("gpu7", "meta7"):
        with pytest.raises(ValueError, match=f"device '{device}' cannot be used here"):
            data.load("fashion-mnist-sample", device=device)


# --- what is returned ---------------------------------------------------------------------------------------------


def test_sizes_take_the_first_images():
    whole = data.load("fashion-mnist-sample")
    part = data.load("fashion-mnist-sample", train_size=30, test_size=7)
    assert (len(part.train), len(part.test)) == (30, 7)
    assert torch.equal(part.train.images, whole.train.images[:30])
    assert torch.equal(part.test.labels, whole.test.labels[:7])


def test_checksum_is_of_the_returned_bytes():
    part = data.load("fashion-mnist-sample", train_size=30, test_size=7)
    digest = hashlib.sha256()
    for tensor in (part.train.images, part.train.labels, part.test.images, part.test.labels):
        digest.update(tensor.numpy().tobytes())
    assert part.checksum == digest.hexdigest()
    assert part.checksum != data.load("fashion-mnist-sample", train_size=30, test_size=8).checksum


def test_writing_into_the_tensors_leaves_the_next_load_alone():
    first = data.load("fashion-mnist-sample", train_size=10)
    before = first.train.images.clone()
    first.train.images.zero_()
    assert torch.equal(data.load("fashion-mnist-sample", train_size=10).train.images, before)


# --- what is known beforehand -------------------------------------------------------------------------------------


def test_descriptions_are_complete():
    for name in data.names():
        info = data.describe(name)
        assert info.name == name and len(set(info.classes)) == 10
        assert len(info.mean) == len(info.std) == info.shape[0] and all(0 < value < 1 for value in info.mean + info.std)
        if info.sample is not None:
            small = data.describe(info.sample)
            assert (small.shape[0], len(small.classes)) == (info.shape[0], len(info.classes))
            if small.shape == info.shape:
                assert (small.mean, small.std) == (info.mean, info.std)
            assert small.train <= info.train and small.test <= info.test


@pytest.mark.parametrize("name", ["fashion-mnist-sample", "fashion-mnist-sample-rgb"])
def test_descriptions_of_the_samples_are_true(name):
    info, found = data.describe(name), data.load(name)
    assert (len(found.train), len(found.test)) == (info.train, info.test)
    assert found.train.images.shape[1:] == found.test.images.shape[1:] == info.shape
    assert found.classes == info.classes
    if name == "fashion-mnist-sample":  # drawn from the images that mean and std describe
        values = found.train.images.float() / 255
        assert torch.allclose(torch.stack([values.mean(), values.std()]), torch.tensor(info.mean + info.std), atol=0.01)


def test_descriptions_cost_no_import_of_torch():
    code = "import sys; from reprolib import data; data.describe('cifar-10'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
