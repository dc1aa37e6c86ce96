"""Attacks that need no gradient of the network under test, or go around a broken one: noise, transfer, BPDA."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reprolib import streams
from reprolib.attacks.inputs import SEEDS, check_count, check_eps, check_network, described
from reprolib.attacks.network import is_right, untouched

NOISE = 1 << 20  # first of the random streams used here, away from those of patches and random starts


def random_noise(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float, draws: int = 100, seed: int = 0
) -> Tensor:
    """bool [B]: right on the clean image and on the worst of `draws` random points of the eps-ball.

    Even draws are uniform in the ball, odd ones are corners (every pixel moved by eps, up or down); an image's draws
    depend on its row alone. Images, labels and what is refused as for `is_right`; numbers as for attacks.
    """
    eps, draws, seed = check_eps(eps), check_count("draws", draws), check_count("seed", seed, *SEEDS)
    with untouched(model), torch.no_grad():
        robust = is_right(model, images, labels)
        for draw in range(draws):
            rows = robust.nonzero().squeeze(1)
            u = 2 * streams.uniform(seed, rows, NOISE + draw, tuple(images.shape[1:])) - 1
            noisy = (images[rows] + eps * (u.sign() if draw % 2 else u)).clamp(0, 1)
            robust[rows] = is_right(model, noisy, labels[rows])
    return robust


def transfer(model: nn.Module, attack: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """bool [B]: right on the clean image and on the adversarial image that `attack` made on its own network.

    Give `attack` decision="last": an image that has just crossed the other network's boundary seldom fools a second.
    Raises ValueError for what `is_right` and the attack refuse.
    """
    return is_right(model, images, labels) & is_right(model, attack(images, labels), labels)


class BPDA(nn.Module):
    """model(transform(x)) whose gradient ignores the transform (Athalye et al. 2018), for attacks on defences that
    shatter gradients at test time. The paper's defence has no test-time transform, and BPDA is then the attack itself.

    transform: images [B, C, H, W] -> images of the same shape; it gets a copy of its own.
    """

    def __init__(self, transform: Callable[[Tensor], Tensor], model: nn.Module):
        super().__init__()
        check_network(model)
        self.transform, self.model = transform, model

    def forward(self, images: Tensor) -> Tensor:
        seen = self.transform(images.detach().clone())
        if not isinstance(seen, Tensor) or seen.shape != images.shape:
            form = f"images of shape {tuple(images.shape)}, as they were"
            raise ValueError(f"BPDA's transform makes {described(seen)}; expected {form}")
        return self.model(images + (seen - images).detach())
