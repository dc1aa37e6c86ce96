"""The patch operations of the paper's section 3.1, batched on the device.

Sampling is kept apart from applying: `sample` decides for each image which operation meets which patch, `apply` carries
the decisions out, and the same draws always give the same pixels. A draw is fixed per image for the whole fine-tuning
(section 3), so modified patches are made once; only they are stored, not a second copy of the data set.

Where the paper leaves a choice, the MATLAB reading is taken, because its wording of the noises is that of MATLAB's
`imnoise`. Each operation's docstring names its choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from reprolib import streams

_CHOICE, _PIXELS = 0, 1  # streams of random numbers: which operation and flip; what the noises draw


@dataclass(frozen=True)
class Draws:
    """What happens to one patch of each of B images.

    operation: int64 [B], index into `OPERATIONS`.
    horizontal: bool [B], direction of a flip: left-right where true, upside-down elsewhere.
    ids: int64 [B] and seed, stream: the address of the noises' random numbers (see `streams.uniform`).
    """

    operation: Tensor
    horizontal: Tensor
    ids: Tensor
    seed: int
    stream: int

    def __getitem__(self, rows: Tensor) -> Draws:
        return Draws(self.operation[rows], self.horizontal[rows], self.ids[rows], self.seed, self.stream)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        return streams.uniform(self.seed, self.ids, self.stream, shape)


def rotate(patch: Tensor, draw: Draws) -> Tensor:
    """Rotate by 10 degrees clockwise (operation 1), bicubic (Keys, a = -0.5), same size, corners filled with 0.

    The paper fills missing values "using bicubic interpolation", which resamples but defines no values outside the
    patch; MATLAB's `imrotate(patch, -10, 'bicubic', 'crop')` takes 0 there, and so does this.
    """
    weights = _rotation_weights(patch.shape[-1]).to(patch)
    return (patch.flatten(2) @ weights.T).view_as(patch).clamp(0, 1)


@lru_cache
def _rotation_weights(size: int, degrees: float = 10.0) -> Tensor:
    """[size**2, size**2]: row = output pixel, column = weight of an input pixel."""
    position = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(position, position, indexing="ij")
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # clockwise on screen (y points down): an output pixel's content comes from its place turned back
    source_x, source_y = cos * x + sin * y, -sin * x + cos * y
    across = _keys_cubic(source_x.reshape(-1, 1) - position)
    down = _keys_cubic(source_y.reshape(-1, 1) - position)
    return (down[:, :, None] * across[:, None, :]).flatten(1).float()


def _keys_cubic(distance: Tensor) -> Tensor:
    d = distance.abs()
    near = 1.5 * d**3 - 2.5 * d**2 + 1
    far = -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def translate(patch: Tensor, draw: Draws) -> Tensor:
    """Shift by 2 pixels right and 2 down (operation 2); freed pixels get the patch's mean, per channel.

    The direction is not printed; it is the same for all images here.
    """
    shifted = patch.mean((2, 3), keepdim=True).expand_as(patch).clone()
    shifted[:, :, 2:, 2:] = patch[:, :, :-2, :-2]
    return shifted


def gaussian_noise(patch: Tensor, draw: Draws) -> Tensor:
    """Add Gaussian noise of mean 0 and variance 0.05 on the [0, 1] scale (operation 3), clipped to [0, 1]."""
    normal = torch.special.ndtri(draw.uniform(patch.shape[1:]))
    return (patch + math.sqrt(0.05) * normal).clamp(0, 1)


def poisson_noise(patch: Tensor, draw: Draws) -> Tensor:
    """Replace each pixel k (0 to 255) by a Poisson number with mean k (operation 4), clipped to 255.

    MATLAB's reading for 8-bit images; drawn by inverting the distribution function, so that one uniform number per
    pixel decides and a draw can be replayed anywhere.
    """
    level = (patch * 255).round()
    # one ascending line of all 256 functions, each raised by its mean: a single search instead of a row per pixel
    line = (_poisson_cumulative() + torch.arange(256, dtype=torch.float64)[:, None]).flatten().to(patch.device)
    place = torch.searchsorted(line, level.double() + draw.uniform(patch.shape[1:]).double())
    return ((place - level.long() * _POISSON_COUNTS) / 255).to(patch.dtype).clamp(0, 1)


_POISSON_COUNTS = 512  # the largest mean is 255, and P(X > 511) is then below 1e-45


@lru_cache
def _poisson_cumulative() -> Tensor:
    """float64 [256, 512]: P(X <= column) for a Poisson number X whose mean is the row."""
    mean, count = torch.arange(256, dtype=torch.float64)[:, None], torch.arange(_POISSON_COUNTS, dtype=torch.float64)
    return torch.special.gammaincc(count + 1, mean.clamp(min=1e-300))


def salt_and_pepper(patch: Tensor, draw: Draws) -> Tensor:
    """With density d = 0.5 (operation 5): below d/2 a pixel becomes 0, from d/2 to d it becomes 1.

    Decided for each pixel and each channel alone, as MATLAB does.
    """
    u = draw.uniform(patch.shape[1:])
    return torch.where(u < 0.25, 0.0, torch.where(u < 0.5, 1.0, patch))


def speckle_noise(patch: Tensor, draw: Draws) -> Tensor:
    """Add n times the pixel, n uniform with mean 0 and variance 0.05, i.e. in +-0.387 (operation 6), clipped to [0, 1]."""
    n = (2 * draw.uniform(patch.shape[1:]) - 1) * math.sqrt(3 * 0.05)
    return (patch + n * patch).clamp(0, 1)


def gaussian_blur(patch: Tensor, draw: Draws) -> Tensor:
    """Blur with a Gaussian of sigma 1.5 (operation 7): 7x7 kernel, borders repeated, nothing from outside the patch.

    Sigma is printed; kernel size 2 * ceil(2 sigma) + 1 and borders are MATLAB's `imgaussfilt`.
    """
    weights = torch.exp(-(torch.arange(-3, 4, device=patch.device, dtype=patch.dtype) ** 2) / (2 * 1.5**2))
    weights = weights / weights.sum()
    flat = F.pad(patch.flatten(0, 1)[:, None], (3, 3, 3, 3), mode="replicate")
    return F.conv2d(F.conv2d(flat, weights.view(1, 1, 7, 1)), weights.view(1, 1, 1, 7)).view_as(patch)


def mask(patch: Tensor, draw: Draws) -> Tensor:
    """Set the patch to 0 (operation 8). The masking value is not printed."""
    return torch.zeros_like(patch)


def flip(patch: Tensor, draw: Draws) -> Tensor:
    """Flip left-right or upside-down, one of the two at random (operation 9; the paper names both, not how they meet)."""
    return torch.where(draw.horizontal.view(-1, 1, 1, 1), patch.flip(3), patch.flip(2))


OPERATIONS = (
    rotate,
    translate,
    gaussian_noise,
    poisson_noise,
    salt_and_pepper,
    speckle_noise,
    gaussian_blur,
    mask,
    flip,
)


def boxes(height: int, width: int, size: int, count: int) -> list[tuple[int, int]]:
    """Top-left corners (row, column) of the patches "near the center" (section 4.2).

    One patch is centred; two lie side by side and straddle the centre. The exact places are not printed.
    Raises ValueError when the patches don't fit into the image.
    """
    if count not in (1, 2):
        raise ValueError(f"count is {count}; the paper modifies 1 or 2 patches")
    if size < 3 or size > height or count * size > width:
        raise ValueError(
            f"{count} patch(es) of {size}x{size} pixels don't fit into an image of {height}x{width}; "
            "choose a size of at least 3 that fits"
        )
    top = (height - size) // 2
    if count == 1:
        return [(top, (width - size) // 2)]
    return [(top, width // 2 - size), (top, width // 2)]


def sample(ids: Tensor, count: int, seed: int) -> list[Draws]:
    """For each of `count` patches, one draw per image id (int64 [B]); each patch draws its function independently."""
    draws = []
    for patch in range(count):
        choice = streams.uniform(seed, ids, 2 * patch + _CHOICE, (2,))
        operation = (choice[:, 0] * len(OPERATIONS)).long()
        draws.append(Draws(operation, choice[:, 1] < 0.5, ids, seed, 2 * patch + _PIXELS))
    return draws


def apply(patch: Tensor, draws: Draws) -> Tensor:
    """Each image's patch (float [B, C, n, n] in [0, 1]) changed by its own operation; same shape and range."""
    result = patch.clone()
    for index, operation in enumerate(OPERATIONS):
        rows = (draws.operation == index).nonzero().squeeze(1)
        if len(rows):
            result[rows] = operation(patch[rows], draws[rows])
    return result


def make_patches(images: Tensor, ids: Tensor, size: int, count: int, seed: int) -> Tensor:
    """The modified patches of a data set: uint8 [B, C, H, W] images with int64 [B] ids -> uint8 [B, count, C, n, n].

    Rounded to 8 bits as an image file would be. Raises ValueError for images that are not uint8 or patches that don't fit.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype}; expected uint8 from 0 to 255")
    made = []
    for (top, left), draws in zip(boxes(*images.shape[2:], size, count), sample(ids, count, seed), strict=True):
        patch = images[:, :, top : top + size, left : left + size].float() / 255
        made.append((apply(patch, draws) * 255).round().to(torch.uint8))
    return torch.stack(made, 1)


def paste(images: Tensor, patches: Tensor, chosen: Tensor) -> Tensor:
    """Put patches [B, count, C, n, n] into the images [B, C, H, W] for which `chosen` (bool [B]) is true; a new tensor."""
    size, result = patches.shape[-1], images.clone()
    for index, (top, left) in enumerate(boxes(*images.shape[2:], size, patches.shape[1])):
        region = result[:, :, top : top + size, left : left + size]
        region.copy_(torch.where(chosen.view(-1, 1, 1, 1), patches[:, index], region))
    return result
