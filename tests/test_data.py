"""Data sets: the embedded sample, where full data sets are looked for, and what is refused. No network."""

import gzip
import hashlib
import importlib.util
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reprolib import data

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_FOLDER = ROOT / "reprolib" / "sample"


@pytest.fixture(autouse=True)
def only_fake_places(monkeypatch, tmp_path):
    """An empty $REPROLIB_DATA, no Debian package, an empty cache, and a download that always fails."""
    import torchvision.datasets

    def no_network(*_args, **_kwargs):
        raise OSError("no route to host")

    place = tmp_path / "data"
    place.mkdir()
    monkeypatch.setenv("REPROLIB_DATA", str(place))
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setattr(data, "TORCHVISION_ROOT", tmp_path / "cache")
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", no_network)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", no_network)
    data._read_once.cache_clear()
    yield place
    data._read_once.cache_clear()


@pytest.fixture
def place(only_fake_places) -> Path:
    return only_fake_places


@pytest.fixture
def full_fashion(monkeypatch):
    """The real files of the Debian package."""
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip("full Fashion-MNIST is not on this machine (apt-get install dataset-fashion-mnist)")
    monkeypatch.setattr(data, "DEBIAN_FOLDER", folder)
    return folder


def one_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# --- embedded sample ----------------------------------------------------------------------------------------------


def test_sample_shapes_types_and_balance():
    sample = data.load("fashion-mnist-sample")
    for split, count in ((sample.train, 3000), (sample.test, 1000)):
        assert len(split) == count
        assert split.images.shape == (count, 1, 28, 28) and split.images.dtype == torch.uint8
        assert split.labels.shape == (count,) and split.labels.dtype == torch.int64
        assert torch.bincount(split.labels, minlength=10).tolist() == [count // 10] * 10
        assert split.images.min() == 0 and split.images.max() == 255
        assert len(torch.unique(split.images.flatten(1), dim=0)) == count  # no image twice
    assert sample.classes == data.FASHION_CLASSES
    assert sample.source == "embedded sample"


def test_sample_prefix_is_balanced():
    sample = data.load("fashion-mnist-sample", train_size=50, test_size=20)
    assert torch.bincount(sample.train.labels).tolist() == [5] * 10
    assert torch.bincount(sample.test.labels).tolist() == [2] * 10


def test_sample_in_the_format_of_cifar():
    """The same pictures with a black border and three equal channels, in the same order."""
    sample, rgb = (data.load(name, train_size=40, test_size=30) for name in ("fashion-mnist-sample", "fashion-mnist-sample-rgb"))
    for plain, wide in ((sample.train, rgb.train), (sample.test, rgb.test)):
        assert wide.images.shape[1:] == (3, 32, 32) and torch.equal(wide.labels, plain.labels)
        assert torch.equal(wide.images[:, :, 2:30, 2:30], plain.images.expand(-1, 3, -1, -1))
        assert wide.images.sum() == 3 * plain.images.sum()
    assert "in the format of CIFAR-10" in rgb.variant and rgb.classes == data.FASHION_CLASSES


def test_sample_is_small_and_carries_its_licence():
    assert sum(path.stat().st_size for path in SAMPLE_FOLDER.iterdir()) <= 3_000_000
    licence = (SAMPLE_FOLDER / "LICENSE-fashion-mnist").read_text()
    assert "Copyright (c) 2017 Zalando SE" in licence and "MIT License" in licence
    assert "Permission is hereby granted" in licence and 'THE SOFTWARE IS PROVIDED "AS IS"' in licence


def test_damaged_sample_is_refused(monkeypatch, tmp_path):
    (tmp_path / "sample").mkdir()
    whole = (SAMPLE_FOLDER / "fashion_mnist_sample.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    monkeypatch.setattr(data.importlib.resources, "files", lambda _package: tmp_path)
    for content in (whole[:100_000], bytes(flipped), b""):
        (tmp_path / "sample" / "fashion_mnist_sample.npz").write_bytes(content)
        with pytest.raises(data.DataError) as error:
            data.load("fashion-mnist-sample")
        assert "make_sample.py" in one_sentence(error)


def test_committed_sample_is_what_the_script_draws(full_fashion):
    spec = importlib.util.spec_from_file_location("make_sample", ROOT / "tools" / "make_sample.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    arrays = script.draw()
    assert script.differences(arrays) == []
    arrays["test_images"][5, 3, 3] ^= 1
    assert script.differences(arrays) == ["test_images"]


# --- arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "meant"), [("cifar10", "cifar-10"), ("fashion_mnist", "fashion-mnist")])
def test_misspelt_name(name, meant):
    with pytest.raises(ValueError) as error:
        data.load(name)
    assert f"did you mean '{meant}'?" in one_sentence(error) and repr(name) in str(error.value)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError) as error:
        data.load("xyz")
    assert all(name in one_sentence(error) for name in data.NAMES)


@pytest.mark.parametrize("option", ["train_size", "test_size"])
@pytest.mark.parametrize("size", [0, -3, 1.5, "10", True, 1_000_000])
def test_bad_sizes(option, size):
    with pytest.raises(ValueError) as error:
        data.load("fashion-mnist-sample", **{option: size})
    assert option in one_sentence(error) and str(size) in str(error.value)


def test_unusable_device():
    with pytest.raises(ValueError, match="'gpu7' cannot be used"):
        data.load("fashion-mnist-sample", device="gpu7")


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


# --- CIFAR-10 -----------------------------------------------------------------------------------------------------


def write_cifar(folder: Path, per_batch: int = 10) -> np.ndarray:
    """Tiny batches in the official format; returns all pixels, training batches first."""
    folder.mkdir(parents=True)
    pixels = np.random.RandomState(0).randint(0, 256, (6, per_batch, 3072)).astype(np.uint8)
    for number, file in enumerate(data.CIFAR_MD5):
        labels = [(number + i) % 10 for i in range(per_batch)]
        content = pickle.dumps({"data": pixels[number], "labels": labels, "batch_label": file}, protocol=2)
        (folder / file).write_bytes(content)
    return pixels


def declare_sums(folder: Path) -> None:
    lines = [f"{hashlib.sha256((folder / file).read_bytes()).hexdigest()}  {file}\n" for file in data.CIFAR_MD5]
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


def test_cifar_with_a_flipped_byte_is_refused(place):
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


def test_cifar_without_sums_must_be_the_original(place):
    write_cifar(place / "cifar-10-batches-py")
    with pytest.raises(data.DataError) as error:
        data.load("cifar-10")
    text = one_sentence(error)
    assert "data_batch_1" in text and data.CIFAR_MD5["data_batch_1"] in text and "SHA256SUMS" in text


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
    with pytest.raises(data.DataError, match="lacks data_batch_4"):
        data.load("cifar-10")


class _Command:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("declared", [False, True])
def test_a_pickle_that_runs_code_is_never_run(place, tmp_path, declared):
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

    assert data.CIFAR_MD5 == dict(CIFAR10.train_list + CIFAR10.test_list)


# --- ImageNet subset ----------------------------------------------------------------------------------------------


def write_pictures(folder: Path, per_class: int = 2) -> None:
    for label, wnid in enumerate(data.IMAGENETTE):
        (folder / wnid).mkdir(parents=True)
        for number in range(per_class):
            size = (224, 224) if number == 0 else (300, 200)
            picture = Image.new("RGB", size, (20 * label, 255 - 20 * label, 100 * number))
            picture.convert("L" if label == 3 else "RGB").save(folder / wnid / f"{number}.JPEG")


def test_image_folder_without_a_training_split(place):
    write_pictures(place / "imagenet-subset" / "val")
    found = data.load("imagenet-subset")
    assert found.test.images.shape == (20, 3, 224, 224) and found.test.images.dtype == torch.uint8
    assert found.test.labels.tolist() == list(range(10)) * 2
    assert len(found.train) == 0 and found.train.images.shape == (0, 3, 224, 224)
    assert "no training" in found.variant and found.source == "REPROLIB_DATA"
    assert found.classes[:2] == ("tench", "English springer")
    colours = found.test.images[:10].float().mean(dim=(2, 3))  # one-coloured pictures survive JPEG within 3 grey levels
    assert torch.allclose(colours[7], torch.tensor([140.0, 115.0, 0.0]), atol=3)
    assert torch.equal(found.test.images[3, 0], found.test.images[3, 1])  # the greyscale one
    with pytest.raises(ValueError, match="train_size is 1, but this copy of imagenet-subset has 0"):
        data.load("imagenet-subset", train_size=1)


def test_image_folder_with_a_training_split(place):
    write_pictures(place / "imagenette2-320" / "val", per_class=1)
    write_pictures(place / "imagenette2-320" / "train", per_class=3)
    found = data.load("imagenet-subset", train_size=10)
    assert (len(found.train), len(found.test)) == (10, 10)
    assert found.variant == "Imagenette's ten classes, 30 training and 10 validation images"


def test_broken_picture_and_missing_class(place):
    folder = place / "imagenet-subset" / "val"
    write_pictures(folder)
    broken = folder / "n03028079" / "1.JPEG"
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(data.DataError, match="n03028079/1.JPEG cannot be read"):
        data.load("imagenet-subset")
    for picture in (folder / "n03028079").iterdir():
        picture.unlink()
    with pytest.raises(data.DataError, match="n03028079 holds no .JPEG"):
        data.load("imagenet-subset")


# --- nothing there, and damaged Fashion-MNIST ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("fashion-mnist", ["apt-get install dataset-fashion-mnist", "import FashionMNIST"]),
        ("cifar-10", ["import CIFAR10"]),
        ("imagenet-subset", ["Imagenette"]),
    ],
)
def test_nothing_found_lists_places_and_command(name, commands, place, tmp_path):
    with pytest.raises(data.DataError) as error:
        data.load(name)
    text = one_sentence(error)
    assert str(place) in text and all(command in text for command in commands)
    if name != "imagenet-subset":
        assert str(tmp_path / "cache") in text and "no route to host" in text
    if name == "fashion-mnist":
        assert str(tmp_path / "debian") in text


def test_the_command_in_the_message_is_python():
    for name in ("fashion-mnist", "cifar-10", "imagenet-subset"):
        compile(re.search(r'python -c "([^"]*)"', data._how_to_fetch(name)).group(1), name, "exec")


def test_unset_variable_is_named(monkeypatch):
    monkeypatch.delenv("REPROLIB_DATA")
    with pytest.raises(data.DataError, match=r"\$REPROLIB_DATA \(not set\)"):
        data.load("cifar-10")


def test_variable_that_names_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("REPROLIB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(data.DataError, match="nowhere', which is not a folder"):
        data.load("fashion-mnist")


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


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_truncated_idx_file_is_refused(place, suffix):
    content = b"\0\0\x08\x03" + bytes(12) + bytes(range(256)) * 100
    packed = gzip.compress(content) if suffix else content
    path = place / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(data.DataError) as error:
        data.load("fashion-mnist")
    text = one_sentence(error)
    assert str(path) in text and data.FASHION_SHA256["train-images-idx3-ubyte"] in text and "replace it" in text


def test_full_fashion_mnist(full_fashion):
    found = data.load("fashion-mnist")
    assert found.source == "Debian package dataset-fashion-mnist" and found.variant == "original"
    assert found.train.images.shape == (60_000, 1, 28, 28) and found.test.images.shape == (10_000, 1, 28, 28)
    assert torch.bincount(found.train.labels).tolist() == [6000] * 10
    assert torch.bincount(found.test.labels).tolist() == [1000] * 10
    assert found.train.labels[:5].tolist() == [9, 0, 0, 3, 0]
    tensors = (found.train.images, found.train.labels.byte(), found.test.images, found.test.labels.byte())
    sums = [hashlib.sha256(tensor.numpy()).hexdigest() for tensor in tensors]
    assert sums == list(data.FASHION_SHA256.values())


@pytest.mark.parametrize("sub", ["", "fashion-mnist", "FashionMNIST/raw"])
def test_reprolib_data_comes_before_debian(full_fashion, place, sub):
    folder = place / sub
    folder.mkdir(parents=True, exist_ok=True)
    for stem in data.FASHION_SHA256:
        packed = (full_fashion / f"{stem}.gz").read_bytes()
        if "labels" in stem:
            (folder / stem).write_bytes(gzip.decompress(packed))  # unpacked files are read too
        else:
            (folder / f"{stem}.gz").write_bytes(packed)
    assert data.load("fashion-mnist", train_size=1, test_size=1).source == "REPROLIB_DATA"
    (folder / "t10k-labels-idx1-ubyte").unlink()
    data._read_once.cache_clear()
    with pytest.raises(data.DataError, match=r"lacks t10k-labels-idx1-ubyte"):
        data.load("fashion-mnist")
