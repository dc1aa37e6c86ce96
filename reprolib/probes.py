"""Attacks that need no gradient of the network under test, or go around a broken one: noise, transfer, BPDA."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reprolib import streams
from reprolib.attacks import LinfAttack
from reprolib.slots import check_images, untouched

NOISE = 1 << 20  # first of the random streams used here, away from those of patches and random starts


def random_noise(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float, draws: int = 100, seed: int = 0
) -> Tensor:
    """bool [B]: right on the clean image and on the worst of `draws` random points of the eps-ball.

    Even draws are uniform in the ball, odd ones are corners (every pixel moved by eps, up or down). Images float32
    [B, C, H, W] in [0, 1], labels int64 [B]; an image's draws depend on its row alone. Raises ValueError for other
    images or labels.
    """
    ids = torch.arange(len(images), device=images.device)
    check_images(images, labels, ids)
    with untouched(model), torch.no_grad():
        robust = is_right(model, images, labels)
        for draw in range(draws):
            rows = robust.nonzero().squeeze(1)
            u = 2 * streams.uniform(seed, ids[rows], NOISE + draw, images.shape[1:]) - 1
            noisy = (images[rows] + eps * (u.sign() if draw % 2 else u)).clamp(0, 1)
            robust[rows] = is_right(model, noisy, labels[rows])
    return robust


def transfer(model: nn.Module, attack: LinfAttack, images: Tensor, labels: Tensor) -> Tensor:
    """bool [B]: right on the clean image and on the adversarial image that `attack` made on its own network.

    Give `attack` decision="last": an image that has just crossed the other network's boundary seldom fools a second.
    """
    return is_right(model, images, labels) & is_right(model, attack(images, labels), labels)


class BPDA(nn.Module):
    """model(transform(x)) whose gradient ignores the transform (Athalye et al. 2018), for attacks on defences that
    shatter gradients at test time. The paper's defence has no test-time transform, and BPDA is then the attack itself.
    """

    def __init__(self, transform: Callable[[Tensor], Tensor], model: nn.Module):
        super().__init__()
        self.transform, self.model = transform, model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images + (self.transform(images) - images).detach())


def is_right(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 500) -> Tensor:
    """bool [B]: the network's largest logit is the label's; images float32 [B, C, H, W] in [0, 1], labels int64 [B]."""
    parts = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    with untouched(model), torch.no_grad():
        return torch.cat([model(some).argmax(1) == truth for some, truth in parts])
