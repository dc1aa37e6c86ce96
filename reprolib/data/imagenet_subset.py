"""Ten classes of ImageNet (Deng et al. 2009), those of fastai's Imagenette, 224x224. The paper does not say which
classes and pictures it has; `imagenet_subset.txt` lists those that are meant here, a folder and its files per line."""

import hashlib
import os
from collections.abc import Callable
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
SPLIT = Path(__file__).with_suffix(".txt")
STORE = Path("~/.cache/reprolib/pictures")  # decoded and resized pictures
INFO = places.Info(
    "imagenet-subset",
    (3, 224, 224),
    CLASSES,
    MEAN,
    STD,
    3000,
    1000,
    sample="fashion-mnist-sample-rgb",
    small="imagenet-subset-128",
    free=False,
)
PLACES = places.Places(
    parts=[f"val/{wnid}" for wnid in IMAGENETTE],
    subfolders=("", "imagenet-subset", "imagenette2", "imagenette2-320", "imagenette2-160"),
    how="python -c \"from torchvision.datasets import Imagenette; Imagenette('FOLDER', split='val', size='320px', "
    "download=True)\" fetches it, as fastai's Imagenette, into an existing FOLDER",
)


def read(folder: Path) -> tuple[places.Arrays, str]:
    """Images uint8 [N, 3, 224, 224] and labels 0..9 from val/<wnid>/* and, where there is one, train/<wnid>/*. Whole
    pictures are resized, so their aspect ratio is not kept. There are no published sums to check against.

    A copy that has all the listed files gives these; of another one, all files are taken, and the variant says so."""
    return read_at(folder, INFO.shape[1])


def read_at(folder: Path, side: int) -> tuple[places.Arrays, str]:
    """As `read`, at so many pixels a side."""
    found = {split: _files(folder / split) for split in ("train", "val")}
    wanted = {split: _listed(split) for split in found}
    missing = sum(len(wanted[split] - found[split]) for split in found)
    others = sum(len(found[split] - wanted[split]) for split in found)
    chosen = found if missing else wanted
    train, test = (_pictures(folder / split, files, side) for split, files in chosen.items())
    variant = f"Imagenette's ten classes, {len(train[1])} training and {len(test[1])} validation images"
    if missing:
        variant += f": of the files listed in {SPLIT.name} {missing} are missing, and {others} others are here"
    return (*train, *test), variant


def _listed(split: str) -> set[str]:
    """<wnid>/<name>.JPEG, of the listed files of a split."""
    folders = (line.split() for line in SPLIT.read_text().splitlines())
    return {f"{folder.split('/')[1]}/{n}.JPEG" for folder, *names in folders if folder.startswith(split) for n in names}


def _files(folder: Path) -> set[str]:
    """<wnid>/<name> of a split's pictures; none where there is no such split."""
    if not folder.is_dir():
        return set()
    if extra := sorted({path.name for path in folder.iterdir() if path.is_dir()} - IMAGENETTE.keys()):
        raise places.DataError(f"{folder / extra[0]} is none of Imagenette's ten classes; remove it from {folder}")
    found = set()
    for wnid in IMAGENETTE:
        own = [path for path in (folder / wnid).glob("*") if path.suffix.lower() in (".jpeg", ".jpg", ".png")]
        if not own:
            raise places.DataError(f"{folder / wnid} holds no .JPEG file; all ten classes of Imagenette are needed")
        found |= {f"{wnid}/{path.name}" for path in own}
    return found


def _pictures(folder: Path, files: set[str], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, the classes in turn. Pictures are decoded once: then they are in the cache, memory-mapped."""
    by_class = [sorted(file for file in files if file.startswith(wnid)) for wnid in IMAGENETTE]
    order = sorted((turn, label, file) for label, own in enumerate(by_class) for turn, file in enumerate(own))
    paths = [folder / file for _, _, file in order]
    images = _kept(_store(paths, side), lambda: _decoded(paths, side, folder.name))
    return images, np.array([label for _, label, _ in order], dtype=np.int64)


def _store(paths: list[Path], side: int) -> Path:
    """Where these files' pictures are kept; others, changed files and another Pillow have another place."""
    import PIL

    known = [PIL.__version__, side, *((str(path), *os.stat(path)[6:9:2]) for path in paths)]
    return Path(os.path.expanduser(STORE)) / f"{hashlib.sha256(repr(known).encode()).hexdigest()[:24]}.npy"


def _kept(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """What stands at `path`, memory-mapped, made before if need be; a folder that cannot be written keeps nothing."""
    if not path.is_file():
        images = make()
        unfinished = path.with_suffix(f".{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished.open("wb") as file:
                np.save(file, images)
            os.replace(unfinished, path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            return images
    return np.load(path, mmap_mode="c")


def _decoded(paths: list[Path], side: int, what: str) -> np.ndarray:
    from PIL import Image
    from tqdm import tqdm

    images = np.empty((len(paths), 3, side, side), dtype=np.uint8)
    for image, path in zip(images, tqdm(paths, f"reading {what}", delay=2, leave=False), strict=True):
        with places.reading(path, "a picture"), Image.open(path) as file:
            picture = file.convert("RGB")  # some are greyscale
            if picture.size != (side, side):
                picture = picture.resize((side, side), Image.Resampling.BILINEAR)
            image[:] = np.asarray(picture).transpose(2, 0, 1)
    return images
