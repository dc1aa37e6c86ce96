"""3x3 convolution with 4.6 times fewer multiplications (Winograd 1980; for networks Lavin and Gray 2016).

A convolution multiplies two polynomials, and a product of degree 6 is known from its values at 7 points. So the map
and the filter are evaluated at 7 points per axis, multiplied there, and the 5x5 outputs interpolated from the 49
products. PyTorch has no such convolution for training on a CPU, where multiplications are what an attack waits for."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

POINTS = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0)  # and infinity; small numbers, so that float32 keeps four digits


def convolve(maps: Tensor, points: Tensor) -> Tensor:
    """Slide 3x3 filters over 7x7 maps: maps [49, B, C], filters `at_points` [49, C, K] -> [25, B, K].
    Pixels, in rows, stand first because each of the 49 points is one matrix product over the channels."""
    evaluate_maps, _, interpolate = _transforms(maps.device, maps.dtype)
    products = torch.bmm((evaluate_maps @ maps.flatten(1)).view(maps.shape), points)
    return (interpolate @ products.flatten(1)).view(-1, *products.shape[1:])


def at_points(filters: Tensor) -> Tensor:
    """3x3 filters [9, C, K] at the 49 points, [49, C, K]."""
    _, evaluate_filters, _ = _transforms(filters.device, filters.dtype)
    return (evaluate_filters @ filters.flatten(1)).view(len(evaluate_filters), *filters.shape[1:])


@cache
def _transforms(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """The three linear maps in two dimensions: [49, 49] for maps, [49, 9] for filters, [25, 49] for outputs."""
    # [7, n] each: a polynomial with n coefficients at the 7 points; at infinity, the leading one
    seven, three, five = (np.vstack([np.vander(POINTS, n, increasing=True), np.eye(n)[-1]]) for n in (7, 3, 5))
    # sliding a filter is the transpose of multiplying polynomials, hence the transposed roles of maps and outputs
    axes = np.linalg.inv(seven).T, three, five.T
    with torch.inference_mode(False):  # they outlive the call, and a later one may want gradients
        maps, filters, outputs = (torch.tensor(np.kron(axis, axis), dtype=dtype, device=device) for axis in axes)
    return maps, filters, outputs
