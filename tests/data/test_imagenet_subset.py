"""The ImageNet subset, from folders of pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reprolib import data
from reprolib.data import imagenet_subset


def write_pictures(folder: Path, per_class: int = 2) -> None:
    for label, wnid in enumerate(imagenet_subset.IMAGENETTE):
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
    assert "0 training" in found.variant and found.source == "REPROLIB_DATA"
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
    listed = "of the files listed in imagenet_subset.txt 4000 are missing, and 40 others are here"
    assert found.variant == f"Imagenette's ten classes, 30 training and 10 validation images: {listed}"


@pytest.fixture
def listed(place, monkeypatch, tmp_path):
    """A copy with two files of each class beside those that are listed, one of each class and split."""
    for split, count in (("train", 3), ("val", 2)):
        write_pictures(place / "imagenet-subset" / split, count)
    split = tmp_path / "listed.txt"
    split.write_text("".join(f"{part}/{wnid} 1\n" for part in ("train", "val") for wnid in imagenet_subset.IMAGENETTE))
    monkeypatch.setattr(imagenet_subset, "SPLIT", split)
    return place / "imagenet-subset"


def test_of_a_larger_copy_the_listed_files_are_taken(listed):
    found = data.load("imagenet-subset")
    assert found.variant == "Imagenette's ten classes, 10 training and 10 validation images"
    blue = found.train.images[:, 2].float().mean((1, 2))
    assert torch.allclose(blue[[0, 5, 9]], torch.tensor(100.0), atol=3)  # file 1, neither 0 nor 2


@pytest.mark.parametrize("name, side", [("imagenet-subset", 224), ("imagenet-subset-128", 128)])
def test_what_was_kept_is_what_the_files_give(listed, monkeypatch, name, side):
    """And nothing is decoded twice, unless a file changed."""
    first = data.load(name)
    path = listed / "val" / "n03028079" / "1.JPEG"
    with Image.open(path) as file:
        expected = file.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    assert np.array_equal(first.test.images[4].permute(1, 2, 0).numpy(), np.asarray(expected))

    decoded, calls = imagenet_subset._decoded, []
    monkeypatch.setattr(imagenet_subset, "_decoded", lambda *given: calls.append(given[2]) or decoded(*given))
    data._read_once.cache_clear()
    assert data.load(name).checksum == first.checksum and not calls
    Image.new("RGB", (200, 200), (1, 2, 3)).save(path)
    data._read_once.cache_clear()
    assert data.load(name).checksum != first.checksum and calls == ["val"]


def test_a_folder_that_is_none_of_the_classes(listed, one_sentence):
    (listed / "train" / "n00000001").mkdir()
    with pytest.raises(data.DataError, match="n00000001 is none of Imagenette's ten classes; remove it") as error:
        data.load("imagenet-subset")
    one_sentence(error)


def test_the_list_is_of_so_many_files_of_each_class():
    lines = [line.split() for line in imagenet_subset.SPLIT.read_text().splitlines()]
    expected = {f"{s}/{w}": n for s, n in (("train", 300), ("val", 100)) for w in imagenet_subset.IMAGENETTE}
    assert {folder: len(set(names)) for folder, *names in lines} == expected


def test_broken_picture_and_missing_class(place):
    folder = place / "imagenet-subset" / "val"
    write_pictures(folder)
    broken = folder / "n03028079" / "1.JPEG"
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(data.DataError, match=r"n03028079/1\.JPEG cannot be read"):
        data.load("imagenet-subset")
    for picture in (folder / "n03028079").iterdir():
        picture.unlink()
    with pytest.raises(data.DataError, match=r"n03028079 holds no \.JPEG"):
        data.load("imagenet-subset")
