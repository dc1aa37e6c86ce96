"""What a device is good at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["exact_float32", "flushed_denormals", "has_fast_bfloat16"]


def __dir__() -> list[str]:
    return __all__


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 pays: CUDA from Ampere on, and CPUs that multiply it (AMX or AVX-512; others are slower with
    it).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """A GPU multiplies float32 as such inside. By default its convolutions round to TensorFloat-32, with ten bits,
    and other images would count as misclassified than on a CPU. A caller's autocast is off inside, as it would, too.
    """
    places = torch.backends.cudnn.conv, torch.backends.cuda.matmul  # type: ignore[attr-defined]  # torch makes it late
    before = [place.fp32_precision for place in places]
    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    try:
        for place in places:
            place.fp32_precision = "ieee"
        with contextlib.ExitStack() as off:
            for kind in kinds:
                off.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


@contextlib.contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers below 1e-38 become 0 inside: as a network saturates, its gradients sink that low, where a CPU calculates
    slowly. Attacks on finished networks go without, since for them an exactly zero gradient is a finding. Afterwards
    they are kept, as torch does by default: it does not tell what was set before.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
