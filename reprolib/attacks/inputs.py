"""What attacks accept. Every check raises ValueError, in one sentence; those of numbers return plain ones."""

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

SEEDS = (1 - 2**62, 2**62 - 1)  # what `streams` takes
COUNTS = {"steps": (0, math.inf), "restarts": (0, 2**15 - 1), "seed": SEEDS, "slots": (1, math.inf)}


class Options(TypedDict, total=False):
    """What every attack's constructor takes by name; see `LinfAttack`."""

    loss: str
    decision: str
    seed: int
    slots: int | None
    bfloat16: bool


def check_eps(eps: object) -> float:
    """A radius is a number from 0 to 1."""
    return check_number("eps", eps, "a number from 0 to 1 on the images' scale (8/255, not 8)", most=1)


def check_number(name: str, value: object, expected: str = "0 or more", most: float = math.inf) -> float:
    """A finite number from 0 to `most`."""
    return float(_check(name, value, Real, 0, most, expected))


def check_count(name: str, value: object, least: float = 0, most: float = math.inf) -> int:
    """A whole number from `least` to `most`."""
    limit = f"{least} or more" if most == math.inf else f"from {least} to {most}"
    return int(_check(name, value, Integral, least, most, f"a whole number, {limit}"))


def _check(name: str, value: Any, kind: Any, least: float, most: float, expected: str) -> Any:
    if isinstance(value, kind) and not isinstance(value, bool) and least <= value <= most and value < math.inf:
        return value
    text = " (this is text: in YAML write 0.001 or 1.0e-3, and no quotes)" if isinstance(value, str) else ""
    hint = " (round up, for example with math.ceil)" if kind is Integral and isinstance(value, float) else text
    raise ValueError(f"{name} is {shown(value)}; expected {expected}{hint}")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """One of these names."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {shown(value)}; expected one of {', '.join(choices)}")


def check_attack(attack: Any) -> None:
    """The model and the numbers of an attack's record, in which plain numbers are kept."""
    check_network(attack.model)
    fields = vars(attack)  # which are frozen for others
    fields["eps"] = check_eps(attack.eps)
    if "alpha" in fields:
        fields["alpha"] = check_number(
            "alpha", attack.alpha, "a number from 0 to 1 on the images' scale (2/255, not 2)", most=1
        )
    for name, limits in COUNTS.items():
        if name in fields and (name, fields[name]) != ("slots", None):
            fields[name] = check_count(name, fields[name], *limits)
    if not isinstance(attack.bfloat16, bool):
        raise ValueError(f"bfloat16 is {shown(attack.bfloat16)}; expected True or False")


def check_pair(name: str, value: object) -> None:
    """Images and labels that belong together."""
    if not (isinstance(value, tuple | list) and len(value) == 2):
        raise ValueError(f"{name} is {described(value)}; expected a pair of tensors, (images, labels)")


def shown(value: object) -> str:
    """A wrong value as a sentence can name it: its first characters on one line."""
    return " ".join(repr(value).split())[:80]


def described(value: object) -> str:
    """What somebody gave for a tensor."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{value.dtype} of shape {tuple(value.shape)} on {value.device}"


def check_images(images: Tensor, labels: Tensor, ids: Tensor | None = None) -> None:
    """Images float32 [B, C, H, W] in [0, 1]; labels, and ids where they are given, int64 [B] beside them."""
    if not isinstance(images, Tensor) or images.dtype != torch.float32 or images.dim() != 4:
        form = "a tensor float32 [B, C, H, W] in [0, 1]; divide uint8 by 255, and make tensors with torch.as_tensor"
        raise ValueError(f"images are {described(images)}; expected {form}")
    for name, numbers in (("labels", labels), ("ids", labels if ids is None else ids)):
        fit = (torch.int64, images.shape[:1], images.device)
        if not isinstance(numbers, Tensor) or (numbers.dtype, numbers.shape, numbers.device) != fit:
            form = f"a tensor int64 [{len(images)}] on {images.device}, as the images"
            raise ValueError(f"{name} are {described(numbers)}; expected {form}")
    if images.numel():
        low, high = (float(end) for end in images.detach().aminmax())
        if not (low >= 0 and high <= 1):
            hint = "(normalisation belongs into the model)"
            raise ValueError(f"images range from {low:.9g} to {high:.9g}; expected [0, 1] {hint}")


def check_network(network: object) -> None:
    """A module, of which attacks know how to put back its modes and its parameters' flags."""
    if not isinstance(network, nn.Module):
        what = f"the class {network.__name__}" if isinstance(network, type) else f"a {type(network).__name__}"
        raise ValueError(f"the network is {what}; expected a torch.nn.Module, such as one whose `forward` calls it")


def check_answer(logits: Any, count: int) -> None:
    """A network's answer to `count` images: one tensor of logits [count, K], K >= 2."""
    fits = isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == count and logits.shape[1] >= 2
    if not fits or logits.dtype == torch.bool or logits.is_complex():
        hint = "a module around it can pick them out, keep the batch's dimension, or make 0 and z of a single logit z"
        form = f"real logits [{count}, K] of K >= 2 classes ({hint})"
        raise ValueError(f"the network answers {count} images with {described(logits)}; expected {form}")


def check_labels(labels: Tensor, classes: int) -> None:
    """Labels that a network of so many classes has a logit for."""
    if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < classes):
        form = f"0 to {classes - 1} for a network with {classes} classes"
        raise ValueError(f"labels range from {int(labels.min())} to {int(labels.max())}; expected {form}")
