"""A run before its first step, and a network whose worst images are known."""

import torch
from torch import nn

from reprolib.training import Batch, Recipe, Run

EPS = 0.1


def started(model: nn.Module, defence, images, labels, batch_size: int = 60, seed: int = 5, **recipe) -> Run:
    """A run before its first step, with plain gradient descent where nothing else is said."""
    usual = {"optimizer": "sgd", "lr": 0.01, "batch_size": batch_size}
    return Run(model.train(), images, labels, defence, Recipe(**usual | recipe), seed, None)


def batch_of(run: Run, rows: list[int]) -> Batch:
    chosen = torch.tensor(rows)
    return Batch(run.images[chosen], run.labels[chosen], chosen, torch.zeros(len(rows), dtype=torch.bool))


class Linear(nn.Module):
    """Two classes of 4x4 images, whose worst images are known: each pixel moves by eps towards the other class."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(16, 2)
        self.shown: list[torch.Tensor] = []

    def forward(self, images):
        if self.training:
            self.shown.append(images.detach().clone())
        return self.fc(images.flatten(1))

    def worst(self, images, labels, eps):
        """[B, 1, 4, 4]: clip(x + eps * sign(w_other - w_label), 0, 1)."""
        w = self.fc.weight
        return (images + eps * (w[1 - labels] - w[labels]).sign().view_as(images)).clamp(0, 1).detach()


def two_classes() -> tuple[torch.Tensor, torch.Tensor]:
    """What `Linear` is shown: 40 random images and labels."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (40, 1, 4, 4), generator=generator).to(torch.uint8)
    return images, torch.randint(0, 2, (40,), generator=generator)
