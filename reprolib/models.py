"""All networks by name. Inputs are images in [0, 1]; normalisation is part of the network."""

from __future__ import annotations

from torch import nn

from reprolib.convnets import CIFARConv, FMNISTConv
from reprolib.deepnets import ResNet20, ResNet50, VGG16, WideResNet
from reprolib.layers import Normalize, seeded

__all__ = ["Normalize", "build", "code_of", "parameter_count"]

BUILDERS = {
    "fmnistconv": FMNISTConv,
    "cifarconv": lambda: CIFARConv("table1"),
    "cifarconv-empir": lambda: CIFARConv("empir"),
}
SCALABLE = {  # their channels can be multiplied by a width
    "vgg16": VGG16,
    "resnet50": ResNet50,
    "resnet20": ResNet20,
    "wide-resnet-16-4": lambda width: WideResNet(16, 4, width),
    "wide-resnet-28-10": lambda width: WideResNet(28, 10, width),
}


def build(name: str, seed: int = 0, width: float = 1.0) -> nn.Module:
    """A freshly initialised network, in eval mode; the same seed gives the same weights and the global RNG is untouched.

    Raises KeyError with the known names when `name` is not one of them, and ValueError for a width other than 1 of a
    network that the paper describes layer by layer.
    """
    if name in SCALABLE:
        return seeded(lambda: SCALABLE[name](width=width), seed)
    if name not in BUILDERS:
        raise KeyError(f"unknown network {name!r}; expected one of {', '.join([*BUILDERS, *SCALABLE])}")
    if width != 1:
        raise ValueError(f"width is {width:g}, but {name} has the widths that the paper prints; leave it at 1")
    return seeded(BUILDERS[name], seed)


def code_of(name: str) -> tuple[str, ...]:
    """The modules that define a network, for the keys of what is computed with it."""
    own = ("deepnets",) if name in SCALABLE else ("convnets", "winograd")
    return tuple(f"reprolib.{module}" for module in ("layers", *own))


def parameter_count(model: nn.Module) -> int:
    """Number of trainable numbers (the normalisation's constants don't count)."""
    return sum(p.numel() for p in model.parameters())
