"""What networks have in common: a layer that knows its images, first and last layers, widths, and weights by seed."""

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from reprolib.data import cifar10


class Normalize(nn.Module):
    """Subtract the training set's mean and divide by its standard deviation, per channel: [B, C, H, W] -> the same.
    The first layer of every network here, so that images are always in [0, 1]; `side` is their height and width, where
    the network behind takes no others. Raises ValueError for images of another shape or type."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], side: int | None = None):
        super().__init__()
        self.side, self.passes_on = side, False  # or images go on as they are
        self.mean, self.std = (nn.Buffer(torch.tensor(values).view(1, -1, 1, 1)) for values in (mean, std))

    def forward(self, images: Tensor) -> Tensor:
        images = checked(images, self.mean.shape[1], self.side)
        return images if self.passes_on else (images - self.mean) / self.std


def checked(images: Tensor, channels: int, side: int | None) -> Tensor:
    """The images, channels last in memory: narrow networks then take up to a third less time. Errors: `Normalize`'s."""
    is_tensor = isinstance(images, Tensor)
    fits = is_tensor and images.is_floating_point() and images.dim() == 4 and images.shape[1] == channels
    if not fits or (side is not None and images.shape[2:] != (side, side)):
        found = f"{images.dtype} of shape {tuple(images.shape)}" if is_tensor else f"a {type(images).__name__}"
        found += f"; this network takes floats in [0, 1] of shape [B, {channels}, {side or 'H'}, {side or 'W'}]"
        remedy = "resize or reshape them (a single image is a batch of one), and divide uint8 by 255"
        raise ValueError(f"images are {found}: {remedy}")
    return images.contiguous(memory_format=torch.channels_last)


torch.fx.wrap("checked")  # one step in what `cpu.folding` traces: it asks about images that are not there yet


def cifar_network(channels: int, side: int | None = None, **parts: nn.Module) -> nn.Sequential:
    """Images [B, 3, H, W] in [0, 1], made for 32x32, through parts that end in a map of so many channels -> [B, 10]."""
    last = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(channels, 10)}
    return nn.Sequential(OrderedDict(normalize=Normalize(cifar10.MEAN, cifar10.STD, side), **parts, **last))


def scaled(channels: int, width: float) -> int:
    """That number of channels in a network of that width; at least 1."""
    return max(round(channels * width), 1)


def seeded(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """What `make` makes, in eval mode; the same seed gives the same weights, and the global RNG is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every GPU as well
        return make().eval()
