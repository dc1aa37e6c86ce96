"""Per-example random numbers: what an image draws depends on its id, never on the batch or the device it is in.

A counter-based generator (the finaliser of splitmix64 over seed, image id, stream and position) in plain integer
tensor operations, so that the same bits come out on a CPU and on a GPU, for one image or for all of them at once.
The library generators draw in batch order: there, an image's numbers change with its neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["uniform"]

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number
_MIX1, _MIX2 = -4658895280553007687, -7723592293110705685  # 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def __dir__() -> list[str]:
    return __all__


def uniform(seed: int, ids: Tensor, stream: int | Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers in the open interval (0, 1).

    Args:
        seed: any integer below 2**62 in size.
        ids: int64 [B], the images' ids.
        stream: a number, or int64 [B], that keeps different uses for one image apart.
        shape: shape of one image's numbers.
    Returns:
        float32 [B, *shape] on the device of `ids`.
    """
    count = 1
    for length in shape:
        count *= length
    stream = torch.as_tensor(stream, dtype=torch.int64, device=ids.device)
    key = _mix(_mix(_mix(torch.full_like(ids, seed)) + ids * _GOLDEN) + stream * _MIX1)
    position = torch.arange(1, count + 1, device=ids.device, dtype=torch.int64) * _GOLDEN
    # the top 23 bits, which the last step of `_mix` leaves as they are: k + 1/2 is then exact in float32
    bits = _shift(_multiplied(key[:, None] + position), 41)
    return bits.float().add_(0.5).mul_(2.0**-23).view(len(ids), *shape)


def _mix(x: Tensor) -> Tensor:
    x = _multiplied(x.clone())
    return x ^ _shift(x, 31)


def _multiplied(x: Tensor) -> Tensor:
    """Changes x, as memory for each of its steps would take more time than they do."""
    x.bitwise_xor_(_shift(x, 30)).mul_(_MIX1)
    return x.bitwise_xor_(_shift(x, 27)).mul_(_MIX2)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's own keeps the sign."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)
