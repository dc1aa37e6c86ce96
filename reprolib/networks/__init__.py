"""All networks by name. Inputs are float images [B, C, H, W] in [0, 1]; normalisation is part of the network.
What stands in `cpu/` changes no answer, only how long it takes without a GPU."""

import inspect
from collections.abc import Callable
from functools import partial
from importlib import import_module

from torch import nn

from reprolib.networks.layers import Normalize, seeded

__all__ = ["ARCHITECTURES", "Normalize", "build", "names", "parameter_count", "scalable"]

# name -> "module:callable", imported when built: torchvision takes seconds, and no other network should wait for it.
# The callable takes `width`, a factor on its numbers of channels, unless the paper prints the network layer by layer.
ARCHITECTURES = {
    "fmnistconv": "reprolib.networks.cpu.fmnistconv:QuickFMNISTConv",
    "cifarconv": "reprolib.networks.cifarconv:table1",
    "cifarconv-empir": "reprolib.networks.cifarconv:empir",
    "vgg16": "reprolib.networks.vgg:vgg16",
    "resnet50": "reprolib.networks.resnet:resnet50",
    "resnet20": "reprolib.networks.resnet:resnet20",
    "wide-resnet-16-4": "reprolib.networks.wideresnet:wide_resnet_16_4",
    "wide-resnet-28-10": "reprolib.networks.wideresnet:wide_resnet_28_10",
    # for the ImageNet subset
    "squeezenet": "reprolib.networks.imagenet:squeezenet",
    "efficientnet-lite0": "reprolib.networks.imagenet:efficientnet_lite0",
    "vgg16-imagenet": "reprolib.networks.imagenet:vgg16",
    "resnet50-imagenet": "reprolib.networks.imagenet:resnet50",
    "wide-resnet-50-2": "reprolib.networks.imagenet:wide_resnet_50_2",
    "mobilenet-v1": "reprolib.networks.imagenet:mobilenet_v1",
    "mobilenet-v2": "reprolib.networks.imagenet:mobilenet_v2",
    "xception": "reprolib.networks.imagenet:xception",
}


def build(name: str, seed: int = 0, width: float = 1.0) -> nn.Module:
    """A freshly initialised network, in eval mode; the same seed gives the same weights, the global RNG is untouched.

    Raises ValueError for an unknown name, a seed that is no whole number, and a width that is not positive, or not 1
    for a network of one width."""
    options = {"width": width} if scalable(name) else {}
    if not isinstance(seed, int):
        raise ValueError(f"seed is {seed!r}; expected a whole number")
    if not (isinstance(width, (int, float)) and 0 < width < float("inf")) or (width != 1 and not options):
        expected = "a positive factor on the numbers of channels" if options else f"1, as {name} is printed"
        raise ValueError(f"width is {width!r}; expected {expected}")
    return seeded(partial(_maker(name), **options), seed)


def names() -> tuple[str, ...]:
    """The names that `build` knows."""
    return tuple(ARCHITECTURES)


def scalable(name: str) -> bool:
    """Whether the network's numbers of channels can be multiplied by a width. Raises ValueError for an unknown name."""
    return "width" in inspect.signature(_maker(name)).parameters


def parameter_count(model: nn.Module) -> int:
    """Number of trainable numbers (the normalisation's constants don't count)."""
    return sum(p.numel() for p in model.parameters())


def _maker(name: str) -> Callable[..., nn.Module]:
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown network {name!r}; expected one of {', '.join(ARCHITECTURES)}")
    module, _, maker = ARCHITECTURES[name].partition(":")
    return getattr(import_module(module), maker)


def __dir__() -> list[str]:
    return __all__
