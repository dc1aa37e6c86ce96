"""All networks by name. Inputs are images in [0, 1]; normalisation is part of the network."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from torch import nn

from reprolib.convnets import CIFARConv, FMNISTConv
from reprolib.layers import Normalize, seeded

__all__ = ["Normalize", "build", "code_of", "parameter_count"]


def _deep(name: str, *shape: int) -> Callable[[float], nn.Module]:
    """A network of deepnets, whose torchvision takes seconds to import: no other network should wait for it."""
    return lambda width: getattr(import_module("reprolib.deepnets"), name)(*shape, width=width)


BUILDERS = {
    "fmnistconv": FMNISTConv,
    "cifarconv": lambda: CIFARConv("table1"),
    "cifarconv-empir": lambda: CIFARConv("empir"),
}
SCALABLE = {  # their channels can be multiplied by a width
    "vgg16": _deep("VGG16"),
    "resnet50": _deep("ResNet50"),
    "resnet20": _deep("ResNet20"),
    "wide-resnet-16-4": _deep("WideResNet", 16, 4),
    "wide-resnet-28-10": _deep("WideResNet", 28, 10),
}


def build(name: str, seed: int = 0, width: float = 1.0) -> nn.Module:
    """A freshly initialised network, in eval mode; the same seed gives the same weights and the global RNG is untouched.

    Raises KeyError with the known names when `name` is not one of them, and ValueError for a width other than 1 of a
    network that the paper describes layer by layer.
    """
    if name in SCALABLE:
        return seeded(lambda: SCALABLE[name](width), seed)
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
