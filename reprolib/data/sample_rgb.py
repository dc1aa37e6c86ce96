"""The sample in CIFAR-10's format, so that its networks can be tried without a download."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from reprolib.data import cifar10, places, sample

# it stands in for CIFAR-10, whose networks are tried on it as they are: mean and std are theirs
INFO = replace(sample.INFO, name=f"{sample.INFO.name}-rgb", shape=(3, 32, 32), mean=cifar10.MEAN, std=cifar10.STD)
PLACES = sample.PLACES


def read(folder: Path) -> tuple[places.Arrays, str]:
    """Images uint8 [N, 3, 32, 32] and labels: a black border, and three equal channels."""
    (images, labels, test_images, test_labels), variant = sample.read(folder)
    border = ((0, 0), (0, 0), (2, 2), (2, 2))
    images, test_images = (np.pad(grey, border).repeat(3, 1) for grey in (images, test_images))
    return (images, labels, test_images, test_labels), f"{variant}, in the format of CIFAR-10"
