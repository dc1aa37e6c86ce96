"""Random Erasing (Zhong et al. 2020, arXiv:1708.04896): half of the images lose a rectangle, anew in each epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reprolib import streams
from reprolib.defenses.base import Defence

if TYPE_CHECKING:
    from reprolib.training import Batch, Run

PROBABILITY = 0.5
AREA = 0.02, 0.4  # share of the image
ASPECT = 0.3, 1 / 0.3  # height by width
TRIES = 10  # one in ten rectangles is higher or wider than the image


@dataclass(frozen=True)
class RandomErasing(Defence):
    """An image keeps all its pixels or loses a rectangle, of uniform area and aspect ratio, to the training set's mean
    colour. The authors' code fills with the mean's numbers after normalisation, which is a lighter grey, and tries up
    to 100 rectangles until one lies in the image, not 10; torchvision draws the logarithm of the aspect ratio."""

    def begin(self, run: Run) -> None:
        sums = sum(part.sum((0, 2, 3)) for part in run.images.split(1000))  # in parts: a sum is made of int64
        mean = torch.as_tensor(sums).double() / (255 * run.images[:, 0].numel())
        run.notes["mean"] = mean.float()[:, None, None]

    def images(self, run: Run, batch: Batch) -> Tensor:
        images = super().images(run, batch)
        inside = rectangles(run.step_seed(), batch.rows, *images.shape[2:])
        return torch.where(inside[:, None], run.notes["mean"], images)


def rectangles(seed: int, ids: Tensor, height: int, width: int) -> Tensor:
    """bool [B, H, W]: what an image of that id loses, which is nothing for half of them; ids int64 [B]."""
    area, aspect, down, right = streams.uniform(seed, ids, 0, (4, TRIES)).unbind(1)
    area, aspect = _between(area, *AREA) * height * width, _between(aspect, *ASPECT)
    tall, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    top, left = (down * (height - tall + 1)).floor(), (right * (width - wide + 1)).floor()
    fitting = ((tall < height) & (wide < width)).int().argmax(1, keepdim=True)  # the first that does
    top, left, tall, wide = (values.gather(1, fitting) for values in (top, left, tall, wide))
    rows, columns = (torch.arange(side, device=ids.device) for side in (height, width))
    in_rows, in_columns = (rows >= top) & (rows < top + tall), (columns >= left) & (columns < left + wide)
    is_erased = streams.uniform(seed, ids, 1, (1, 1)) < PROBABILITY
    return in_rows[:, :, None] & in_columns[:, None, :] & is_erased


def _between(share: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * share
