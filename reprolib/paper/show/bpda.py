"""Section 5's BPDA beside PGD, on networks with nothing to go around."""

from __future__ import annotations

import torch
from torch import Tensor

from reprolib import attacks
from reprolib.paper.run import Page
from reprolib.paper.run.evaluate import attacked, predicted


def unchanged(images: Tensor) -> Tensor:
    """What BPDA is told to go around: nothing."""
    return images


def bpda_beside_pgd(page: Page, row: str, column: str, count: int = 10) -> str:
    """A sentence: how many of the first `count` test images a row's attack makes bitwise the same on a column's network
    and on BPDA of it, with the identity as its transform (Athalye et al. 2018, arXiv 1802.00420).

    By the row's first loss, and away from the classes that the network predicts: an image that it gets wrong would
    stay as it is. Raises StoreError when the network has not been trained.
    """
    network = page.plan.networks[column, 0]
    asked = next(job.evaluation for job in page.plan.jobs if job.row == row and job.evaluation.network == network)
    model, images = page.shelf.load(network), page.dataset.test.images[: min(count, asked.size)]
    classes = predicted(model, images)
    by_pgd, by_bpda = (
        attacked(each, asked, images, classes).adversarial for each in (model, attacks.BPDA(unchanged, model))
    )
    moved = (by_pgd != images.float() / 255).flatten(1).any(1)
    same = (by_pgd.view(torch.int32) == by_bpda.view(torch.int32)).flatten(1).all(1)
    return (
        f"Of {len(images)} test images, {row} by {asked.loss} on {column} moves {int(moved.sum())}; "
        f"{int(same.sum())} come out bitwise the same on the network and on BPDA of it."
    )
