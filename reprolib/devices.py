"""What a device is good at, and its name in a table's provenance."""

from __future__ import annotations

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 pays: CUDA from Ampere on, and CPUs that multiply it (AMX or AVX-512; others are slower with it)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def device_name(device: torch.device) -> str:
    """The device and the precision that training uses there, for a table's provenance."""
    precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    return f"CPU, {torch.get_num_threads()} thread(s), {precision}"
