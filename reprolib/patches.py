"""The patch operations of the paper's section 3.1, batched on the device.

`sample` decides for each image which operation meets which patch, `apply` carries that out, and the same draws always
give the same pixels. A draw is fixed per image for the whole fine-tuning (section 3), so modified patches are made
once. Where the paper leaves a choice, the MATLAB reading is taken: its wording of the noises is that of `imnoise`. All
operations and `apply` take the patches of B images, float [B, C, n, n] in [0, 1] with n of at least 3, and B draws,
return the same shape and range, and raise ValueError for anything else."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from numbers import Integral

import torch
from torch import Tensor

from reprolib import streams

__all__ = ["OPERATIONS", "Draws", "apply", "boxes", "make_patches", "paste", "sample"]
__all__ += ["flip", "gaussian_blur", "gaussian_noise", "mask", "poisson_noise", "rotate", "salt_and_pepper"]
__all__ += ["speckle_noise", "translate"]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Draws:
    """What happens to one patch of each of B images. Raises ValueError for other types, lengths or operations."""

    operation: Tensor  # int64 [B], index into `OPERATIONS`
    horizontal: Tensor  # bool [B], direction of a flip: left-right where true, upside-down elsewhere
    ids: Tensor  # int64 [B]; with seed and stream the address of the noises' random numbers (see `streams.uniform`)
    seed: int
    stream: int

    def __post_init__(self) -> None:
        _check_rows("ids", self.ids, torch.int64)
        _check_rows("operation", self.operation, torch.int64, len(self.ids))
        _check_rows("horizontal", self.horizontal, torch.bool, len(self.ids))
        _check_range("operation ranges", self.operation, len(OPERATIONS) - 1, "indices into OPERATIONS, 0 to 8")

    def __getitem__(self, rows: Tensor) -> "Draws":
        return Draws(self.operation[rows], self.horizontal[rows], self.ids[rows], self.seed, self.stream)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        return streams.uniform(self.seed, self.ids, self.stream, shape)


def _checked(change: Callable[[Tensor, Draws], Tensor]) -> Callable[[Tensor, Draws], Tensor]:
    @wraps(change)
    def checked(patch: Tensor, draw: Draws) -> Tensor:
        count = len(draw.ids)
        fits = isinstance(patch, Tensor) and patch.is_floating_point() and patch.dim() == 4 and len(patch) == count
        expected = f"floats [{count}, C, n, n] in [0, 1], one for each draw, n at least 3 (uint8: divide by 255)"
        _require("patches are", patch, expected, fits and 3 <= patch.shape[2] == patch.shape[3])
        _check_range("patches range", patch, 1, "[0, 1]")
        return change(patch, draw)

    return checked


@_checked
def rotate(patch: Tensor, draw: Draws) -> Tensor:
    """Rotate by 10 degrees clockwise (operation 1), bicubic (Keys, a = -0.5), same size. Corners, for which the paper
    says nothing, are filled with 0, as by `imrotate(patch, -10, 'bicubic', 'crop')`."""
    return (patch.flatten(2) @ _rotation_weights(patch.shape[-1]).to(patch).T).view_as(patch).clamp(0, 1)


@lru_cache
def _rotation_weights(size: int) -> Tensor:
    """[size**2, size**2]: row = output pixel, column = weight of an input pixel."""
    position = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(position, position, indexing="ij")
    cos, sin = math.cos(math.radians(10)), math.sin(math.radians(10))
    # clockwise on screen (y points down): an output pixel's content comes from its place turned back
    source = torch.stack([cos * x + sin * y, -sin * x + cos * y])
    d = (source.reshape(2, -1, 1) - position).abs()
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    across, down = torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))
    return (down[:, :, None] * across[:, None, :]).flatten(1).float()


@_checked
def translate(patch: Tensor, draw: Draws) -> Tensor:
    """Shift by 2 pixels right and 2 down (operation 2; direction not printed); freed pixels get the channel's mean."""
    shifted = patch.mean((2, 3), keepdim=True).expand_as(patch).clone()
    shifted[:, :, 2:, 2:] = patch[:, :, :-2, :-2]
    return shifted


@_checked
def gaussian_noise(patch: Tensor, draw: Draws) -> Tensor:
    """Add Gaussian noise of mean 0 and variance 0.05 on the [0, 1] scale (operation 3), clipped to [0, 1]."""
    noise = torch.special.ndtri(draw.uniform(patch.shape[1:]))
    return (patch + noise.mul_(math.sqrt(0.05))).clamp_(0, 1)


@_checked
def poisson_noise(patch: Tensor, draw: Draws) -> Tensor:
    """Replace each pixel k (0 to 255) by a Poisson number with mean k (operation 4), clipped to 255, as MATLAB does."""
    level = (patch * 255).round().flatten()  # and from here the distribution function inverted:
    sought = level.double() + draw.uniform(patch.shape[1:]).flatten()  # one uniform number decides
    table, row = _poisson(patch.device), level.long() * 256
    place = row.clone()
    for step in (128, 64, 32, 16, 8, 4, 2, 1):  # halves the mean's row: twice as fast as `searchsorted` in all
        place += step * (table.index_select(0, place + (step - 1)) < sought)
    return ((place - row) / 255).to(patch.dtype).view_as(patch)


@lru_cache
def _poisson(device: torch.device) -> Tensor:
    """float64 [256 * 256]: mean + P(X <= count) for means and counts 0 to 255, beyond which all is clipped."""
    mean, count = torch.arange(256, dtype=torch.float64)[:, None], torch.arange(256, dtype=torch.float64)
    return (torch.special.gammaincc(count + 1, mean.clamp(min=1e-300)) + mean).flatten().to(device)


@_checked
def salt_and_pepper(patch: Tensor, draw: Draws) -> Tensor:
    """With density d = 0.5 (operation 5): below d/2 a pixel becomes 0, from d/2 to d 1; each channel alone (MATLAB)."""
    u = draw.uniform(patch.shape[1:])
    return torch.where(u < 0.5, (u >= 0.25).to(patch.dtype), patch)


@_checked
def speckle_noise(patch: Tensor, draw: Draws) -> Tensor:
    """Add n times the pixel, n uniform with mean 0 and variance 0.05, in +-0.387 (operation 6), clipped to [0, 1]."""
    return (patch + (2 * draw.uniform(patch.shape[1:]) - 1) * math.sqrt(3 * 0.05) * patch).clamp(0, 1)


@_checked
def gaussian_blur(patch: Tensor, draw: Draws) -> Tensor:
    """Blur with a Gaussian of sigma 1.5 (operation 7); 7x7 kernel and repeated borders are MATLAB's `imgaussfilt`."""
    weights = torch.exp(-(torch.arange(-3, 4, dtype=patch.dtype) ** 2) / (2 * 1.5**2))
    first, *others = (weights / weights.sum()).tolist()
    size = patch.shape[-1]
    place = torch.arange(-3, size + 3).clamp(0, size - 1).tolist()  # the border is repeated
    pixels = patch.flatten(0, 1).permute(1, 2, 0).contiguous()  # first, as a sum of whole rows is quicker than a filter
    for axis in (0, 1):
        rows = pixels.unbind(axis)
        sums = [rows[place[to]] * first for to in range(size)]
        for to, total in enumerate(sums):  # tap by tap, in the order of a convolution, whose last bits are these
            for tap, weight in enumerate(others, 1):
                total.add_(rows[place[to + tap]], alpha=weight)
        pixels = torch.stack(sums, axis)
    return pixels.permute(2, 0, 1).reshape(patch.shape)


@_checked
def mask(patch: Tensor, draw: Draws) -> Tensor:
    """Set the patch to 0 (operation 8). The masking value is not printed."""
    return torch.zeros_like(patch)


@_checked
def flip(patch: Tensor, draw: Draws) -> Tensor:
    """Flip left-right or upside-down, one of the two at random (operation 9; the paper names both, no more)."""
    return torch.where(draw.horizontal.view(-1, 1, 1, 1), patch.flip(3), patch.flip(2))


OPERATIONS = rotate, translate, gaussian_noise, poisson_noise, salt_and_pepper, speckle_noise, gaussian_blur, mask, flip


def boxes(height: int, width: int, size: int, count: int) -> list[tuple[int, int]]:
    """Top-left corners (row, column) of the patches "near the center" (section 4.2): one is centred, two lie side by
    side and straddle the centre; the exact places are not printed. Raises ValueError when the patches don't fit into
    the image, and for numbers that are not whole."""
    _check_count(count)
    fits = all(isinstance(n, Integral) for n in (height, width, size)) and 3 <= size <= height and count * size <= width
    expected = f"a whole number of pixels, 3 or more, that fits into an image of {height}x{width}"
    _require(f"size of {count} patch(es) is", size, expected, fits)
    left = (width - size) // 2 if count == 1 else width // 2 - size
    return [((height - size) // 2, left + number * size) for number in range(count)]


def sample(ids: Tensor, count: int, seed: int) -> list[Draws]:
    """For each of `count` patches, one draw per image id (int64 [B]); each patch draws its function independently."""
    _check_rows("ids", ids, torch.int64)
    _check_count(count)
    choices = [streams.uniform(seed, ids, 2 * patch, (2,)) for patch in range(count)]  # the noises have the odd streams
    operations = [(u[:, 0] * len(OPERATIONS)).long() for u in choices]
    return [Draws(operations[k], u[:, 1] < 0.5, ids, seed, 2 * k + 1) for k, u in enumerate(choices)]


@_checked
def apply(patch: Tensor, draw: Draws) -> Tensor:
    """Each image's patch changed by its own operation."""
    result = patch.clone()
    for index, operation in enumerate(OPERATIONS):
        rows = (draw.operation == index).nonzero().squeeze(1)
        if len(rows):
            result.index_copy_(0, rows, operation(patch[rows], draw[rows]))
    return result


def make_patches(images: Tensor, ids: Tensor, size: int, count: int, seed: int) -> Tensor:
    """The modified patches of a data set: uint8 [B, C, H, W] images with int64 [B] ids -> uint8 [B, count, C, n, n],
    rounded as in an image file. Raises ValueError for other images or ids, and patches that don't fit."""
    fits = isinstance(images, Tensor) and images.dtype == torch.uint8 and images.dim() == 4
    _require("images are", images, "uint8 [B, C, H, W] from 0 to 255 (grey images [B, H, W]: images[:, None])", fits)
    _check_rows("ids", ids, torch.int64, len(images))
    made, corners = [], boxes(images.shape[2], images.shape[3], size, count)
    for (top, left), draws in zip(corners, sample(ids, count, seed), strict=True):
        patch = images[:, :, top : top + size, left : left + size].float() / 255
        made.append((apply(patch, draws) * 255).round().to(torch.uint8))
    return torch.stack(made, 1)


def paste(images: Tensor, patches: Tensor, chosen: Tensor) -> Tensor:
    """Put patches [B, count, C, n, n] into the images [B, C, H, W] for which `chosen` (bool [B]) is true; a new tensor.
    Raises ValueError for patches of another type, number or channels than the images, or that don't fit."""
    _require("images are", images, "a tensor [B, C, H, W]", isinstance(images, Tensor) and images.dim() == 4)
    batch, channels, height, width = images.shape
    shape = tuple(patches.shape) if isinstance(patches, Tensor) and patches.dtype == images.dtype else ()
    fits = len(shape) == 5 and shape == (batch, shape[1], channels, shape[3], shape[3])
    _require("patches are", patches, f"{images.dtype} [{batch}, count, {channels}, n, n], as the images are", fits)
    _check_rows("chosen", chosen, torch.bool, batch)
    size, result = shape[3], images.clone()
    for index, (top, left) in enumerate(boxes(height, width, size, count=shape[1])):
        region = result[:, :, top : top + size, left : left + size]
        region.copy_(torch.where(chosen.view(-1, 1, 1, 1), patches[:, index], region))
    return result


def _require(subject: str, found: object, expected: str, fits: bool) -> None:
    if isinstance(found, Tensor):
        found = f"{found.dtype} of shape {tuple(found.shape)}"
    if not fits:
        shown = found if isinstance(found, (str, int, float)) else f"a {type(found).__name__}"
        raise ValueError(f"{subject} {shown}; expected {expected}")


def _check_count(count: int) -> None:
    _require("count is", count, "1 or 2 patches, as in the paper", isinstance(count, Integral) and count in (1, 2))


def _check_range(subject: str, values: Tensor, most: int, expected: str) -> None:
    least, greatest = values.aminmax() if values.numel() else (0, 0)
    _require(subject, f"from {least} to {greatest}", expected, bool(least >= 0 and greatest <= most))


def _check_rows(name: str, numbers: Tensor, dtype: torch.dtype, length: int | None = None) -> None:
    fits = isinstance(numbers, Tensor) and numbers.dtype == dtype and numbers.dim() == 1
    expected = f"{dtype} [{'B' if length is None else length}], one for each image"
    _require(f"{name} are", numbers, expected, fits and length in (None, len(numbers)))
