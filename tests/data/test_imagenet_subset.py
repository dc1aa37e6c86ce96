"""The ImageNet subset, from folders of pictures."""

from pathlib import Path

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
    assert found.variant == "Imagenette's ten classes, 30 training and 10 validation images"


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
