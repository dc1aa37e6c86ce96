"""What a device is good at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 pays: CUDA from Ampere on, and CPUs that multiply it (AMX or AVX-512; others are slower with
    it).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


@contextlib.contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers below 1e-38 become 0 inside: as a network saturates, its gradients sink that low, where a CPU calculates
    slowly. Attacks on finished networks go without, since for them an exactly zero gradient is a finding.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
