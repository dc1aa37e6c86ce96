"""The ImageNet subset at 128x128, a third of the work: what a machine without a GPU takes."""

from dataclasses import replace
from pathlib import Path

from reprolib.data import imagenet_subset, places

INFO = replace(imagenet_subset.INFO, name="imagenet-subset-128", shape=(3, 128, 128), small=None)
PLACES = imagenet_subset.PLACES


def read(folder: Path) -> tuple[places.Arrays, str]:
    """Images uint8 [N, 3, 128, 128], resized from the files, and labels."""
    return imagenet_subset.read_at(folder, INFO.shape[1])
