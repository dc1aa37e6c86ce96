"""L2L-DA (Jang, Zhao, Hong and Lee 2019, "Adversarial Defense via Learning to Generate Diverse Attacks", ICCV): each
step on images that a generator perturbs, which learns meanwhile to raise the loss in more than one way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprolib import streams
from reprolib.attacks.inputs import check_count, check_eps
from reprolib.attacks.network import untouched
from reprolib.defenses.base import Defence
from reprolib.devices import has_fast_bfloat16
from reprolib.networks.layers import seeded

if TYPE_CHECKING:
    from reprolib.training import Batch, Run

NOISE = 8  # numbers of a noise vector z
STRIDE = 0.25  # a step's share of the radius
DIVERSITY = 0.5  # weight in the generator's loss, as published for CIFAR-10 (0.02 for MNIST)
LARGEST = 1.0  # norm at which gradients are cut, the generator's and the classifier's
RATE, MOMENTUM, DECAY = 0.01, 0.9, 1e-5  # of the generator's gradient descent


@dataclass(frozen=True)
class L2LDA(Defence):
    """The generator sees the images, the loss's gradient there and the perturbation so far, and adds to it, so many
    times, within eps. Each image is then shown as it is and with the perturbations of two noise vectors. Published are
    10 steps and a generator of width 64; a narrower one saves most of the time beside a small network.

    The authors train 200 epochs from a trained classifier and stop early by the test accuracy, which nothing here does.
    Their normalisation's factor is the sum of a class's and a common one; here each class has its own. Raises
    ValueError for images whose height or width is no multiple of 4."""

    eps: float
    steps: int = 10
    width: int = 64

    def __post_init__(self) -> None:
        check_eps(self.eps)
        check_count("steps", self.steps, 1)
        check_count("width", self.width, 1)

    def begin(self, run: Run) -> None:
        if any(side % 4 for side in run.images.shape[2:]):
            sides = "x".join(map(str, run.images.shape[2:]))
            raise ValueError(f"images have {sides} pixels; expected multiples of 4 for L2L-DA's generator, so pad them")
        for name, weight in seeded(partial(self._generator, run), run.seed).named_parameters():
            run.memory[f"weight.{name}"] = weight.detach().to(run.images.device)
            run.memory[f"momentum.{name}"] = torch.zeros_like(run.memory[f"weight.{name}"])

    def step(self, run: Run, batch: Batch) -> Tensor:
        clean = self.images(run, batch)
        perturbed = self._perturbed(run, batch, clean)
        loss = self.loss(run, torch.cat([clean, perturbed]), batch.labels.repeat(3))
        run.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(run.model.parameters(), LARGEST)
        run.optimizer.step()
        return loss.detach()

    def _perturbed(self, run: Run, batch: Batch, clean: Tensor) -> Tensor:
        """[2B, C, H, W]: each image with two perturbations, of the generator before the step that it then makes."""
        images, labels = clean.repeat(2, 1, 1, 1), batch.labels.repeat(2)
        uniform = streams.uniform(run.step_seed(), batch.rows, 0, (2, NOISE))
        noise = torch.special.ndtri(uniform).transpose(0, 1)  # normally distributed, [2, B, NOISE]
        distance = (noise[0] - noise[1]).abs().mean(1) + 1e-8
        weights = {k.removeprefix("weight."): v for k, v in run.memory.items() if k.startswith("weight.")}
        generate = partial(torch.func.functional_call, self._generator(run, "meta"))
        total = torch.zeros((), device=images.device)
        with untouched(run.model):
            shown, delta = images.clone().requires_grad_(), torch.zeros_like(images)
            for weight in weights.values():
                weight.requires_grad_()
            _, gradient = _loss_and_direction(run, shown, labels)
            for _ in range(self.steps):
                with torch.autocast(images.device.type, torch.bfloat16, enabled=has_fast_bfloat16(images.device)):
                    more = generate(weights, (torch.cat([images, gradient, delta], 1), labels, noise.flatten(0, 1)))
                delta = (delta + STRIDE * self.eps * more.float()).clamp(-self.eps, self.eps)
                shown = (images + delta).clamp(0, 1)
                loss, gradient = _loss_and_direction(run, shown, labels)
                one, other = shown.chunk(2)
                total = total - loss - DIVERSITY * ((one - other).abs().mean((1, 2, 3)) / distance).mean()
            total.backward()
        _descend(run, weights)
        return shown.detach()

    def _generator(self, run: Run, device: str = "cpu") -> Generator:
        with torch.device(device):
            return Generator(run.images.shape[1], int(run.labels.max()) + 1, self.width)


def _loss_and_direction(run: Run, shown: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The mean loss, and its gradient at the images, of norm 1 in each image's channels."""
    loss = F.cross_entropy(run.logits(shown), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, shown, retain_graph=True)
    return loss / len(labels), F.normalize(gradient.flatten(2), dim=2).view_as(shown)


@torch.no_grad()
def _descend(run: Run, weights: dict[str, Tensor]) -> None:
    """The generator's step: gradient descent with momentum, as torch.optim.SGD makes it."""
    nn.utils.clip_grad_norm_(list(weights.values()), LARGEST)
    for name, weight in weights.items():
        assert weight.grad is not None
        momentum = run.memory[f"momentum.{name}"]
        momentum.mul_(MOMENTUM).add_(weight.grad + DECAY * weight)
        weight -= RATE * momentum
        weight.grad = None


class Generator(nn.Module):
    """A U-Net of three levels, as the authors': images, gradients and perturbations [B, 3 * C, H, W], labels int64 [B]
    and noise [B, NOISE] -> [B, C, H, W] in (-1, 1). Noise goes into each layer on the way down."""

    def __init__(self, channels: int, classes: int, width: int):
        super().__init__()
        self.noise = nn.Sequential(nn.Linear(NOISE, NOISE), nn.ReLU(), nn.Linear(NOISE, NOISE), nn.ReLU())
        halving = partial(nn.Conv2d, width + NOISE, kernel_size=4, stride=2, padding=1, bias=False)
        doubling = partial(nn.ConvTranspose2d, 2 * width, width, 4, stride=2, padding=1, bias=False)
        self.down0 = nn.Conv2d(3 * channels + NOISE, width, 3, padding=1, bias=False)
        self.down1, self.down2 = halving(width), halving(2 * width)
        self.up1, self.up0 = doubling(), doubling()
        self.norm_down1, self.norm_up1, self.norm_up0 = (ClassNorm(classes, width) for _ in range(3))
        self.last = nn.Conv2d(2 * width, channels, 3, padding=1, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, seen: Tensor, labels: Tensor, noise: Tensor) -> Tensor:
        encoded = self.noise(noise)[:, :, None, None]

        def with_noise(maps: Tensor) -> Tensor:
            return torch.cat([maps, encoded.expand(-1, -1, *maps.shape[2:])], 1)

        down0 = F.leaky_relu(self.down0(with_noise(seen)), 0.2)
        down1 = F.leaky_relu(self.norm_down1(self.down1(with_noise(down0)), labels), 0.2)
        down2 = F.leaky_relu(self.down2(with_noise(down1)), 0.2)
        up1 = F.relu(self.norm_up1(self.up1(down2), labels))
        up0 = F.relu(self.norm_up0(self.up0(torch.cat([up1, down1], 1)), labels))
        return self.last(torch.cat([up0, down0], 1)).tanh()


class ClassNorm(nn.Module):
    """Batch normalisation by the batch's own statistics, with a factor and an offset for each class."""

    def __init__(self, classes: int, channels: int):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(classes, channels))
        self.offset = nn.Parameter(torch.zeros(classes, channels))

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        normal = F.batch_norm(maps.float(), None, None, training=True, eps=1e-10)  # the maps begin small
        return normal * self.factor[labels][:, :, None, None] + self.offset[labels][:, :, None, None]
