"""Ten classes of ImageNet (Deng et al. 2009), those of fastai's Imagenette, 224x224."""

from pathlib import Path

import numpy as np

from reprolib.data import places

IMAGENETTE = {  # wnid -> (name, index among the 1000 classes of ImageNet-1k)
    "n01440764": ("tench", 0),
    "n02102040": ("English springer", 217),
    "n02979186": ("cassette player", 482),
    "n03000684": ("chain saw", 491),
    "n03028079": ("church", 497),
    "n03394916": ("French horn", 566),
    "n03417042": ("garbage truck", 569),
    "n03425413": ("gas pump", 571),
    "n03445777": ("golf ball", 574),
    "n03888257": ("parachute", 701),
}
CLASSES = tuple(name for name, _ in IMAGENETTE.values())
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# 3000 and 1000 images of the copy that the results here come from; the whole of Imagenette has 9469 and 3925
INFO = places.Info("imagenet-subset", (3, 224, 224), CLASSES, MEAN, STD, 3000, 1000)
PLACES = places.Places(
    parts=[f"val/{wnid}" for wnid in IMAGENETTE],
    subfolders=("", "imagenet-subset", "imagenette2", "imagenette2-320", "imagenette2-160"),
    how="python -c \"from torchvision.datasets import Imagenette; Imagenette('FOLDER', split='val', size='320px', "
    "download=True)\" fetches it, as fastai's Imagenette, into an existing FOLDER",
)


def read(folder: Path) -> tuple[places.Arrays, str]:
    """Images uint8 [N, 3, 224, 224] and labels 0..9 from val/<wnid>/* and, where there is one, train/<wnid>/*. Whole
    pictures are resized, so their aspect ratio is not kept. There are no published sums to check against."""
    train, test = (_read_folder(folder / split) for split in ("train", "val"))
    variant = f"Imagenette's ten classes, {len(train[1])} training and {len(test[1])} validation images"
    return (*train, *test), variant


def _read_folder(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image
    from tqdm import tqdm

    order = []  # the classes in turn
    for label, wnid in enumerate(IMAGENETTE):
        files = sorted(path for path in (folder / wnid).glob("*") if path.suffix.lower() in (".jpeg", ".jpg", ".png"))
        order += [(turn, label, path) for turn, path in enumerate(files)]
        if folder.is_dir() and not files:
            raise places.DataError(f"{folder / wnid} holds no .JPEG file; all ten classes of Imagenette are needed")
    order.sort()
    images = np.empty((len(order), *INFO.shape), dtype=np.uint8)
    for image, (_, _, path) in zip(images, tqdm(order, f"reading {folder.name}", delay=2, leave=False), strict=True):
        with places.reading(path, "a picture"), Image.open(path) as file:
            picture = file.convert("RGB")  # some are greyscale
            if picture.size != INFO.shape[1:]:
                picture = picture.resize(INFO.shape[1:], Image.Resampling.BILINEAR)
            image[:] = np.asarray(picture).transpose(2, 0, 1)
    return images, np.array([label for _, label, _ in order], dtype=np.int64)
