"""What the tests of attacks share: small networks whose answers are known, and ways to look at results."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprolib.attacks import AttackResult

EPS, ALPHA, STEPS = 0.06, 0.015, 6  # breaks some of the small net's images and not others: `test_the_small_net_...`


class Scaled(nn.Module):
    """A network whose logits are multiplied. In double precision inside, so that the order of a sum flips no sign."""

    def __init__(self, net: nn.Module, scale: float = 1.0):
        super().__init__()
        self.net, self.scale = net.double(), scale

    def forward(self, images: Tensor) -> Tensor:
        return (self.net(images.double()) * self.scale).float()


class Linear(nn.Module):
    """Two classes, logits (0, w.x + b): the nearest adversarial example is at |w.x + b| / ||w||_1 in L-infinity."""

    def __init__(self, pixels: int = 16):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.w = nn.Parameter(torch.randn(pixels, generator=generator))
        self.b = nn.Parameter(-0.5 * self.w.detach().sum())

    def forward(self, images: Tensor) -> Tensor:
        score = (images.flatten(1) * self.w).sum(1) + self.b
        return torch.stack([torch.zeros_like(score), score], 1)


def make_task(count: int) -> tuple[Tensor, Tensor]:
    """Four 8x8 patterns under noise."""
    generator = torch.Generator().manual_seed(5)
    patterns = torch.rand(4, 1, 8, 8, generator=generator)
    labels = torch.randint(0, 4, (count,), generator=generator)
    noise = torch.rand(count, 1, 8, 8, generator=generator)
    return 0.4 * patterns[labels] + 0.6 * noise, labels


def small_net() -> nn.Module:
    """Trained on that task, not too well."""
    images, labels = make_task(512)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 4))
    for _ in range(250):  # by hand: the first import of torch's optimisers takes many seconds
        gradients = torch.autograd.grad(F.cross_entropy(net(images), labels), list(net.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter -= 0.3 * gradient
    return net


def far_from_the_box(linear: Linear, count: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Images at least 0.2 from the box, the linear model's labels of them, and their distances (all below 0.15)."""
    images = 0.3 + 0.4 * torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        score = linear(images)[:, 1]
    distance = score.abs() / linear.w.detach().abs().sum()
    assert (distance < 0.15).all() and (distance > 1e-3).all()
    return images, (score > 0).long(), distance


def assert_same(one: AttackResult, two: AttackResult) -> None:
    for name in ("correct", "any_run", "last_run", "next_run"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist(), name
    torch.testing.assert_close(one.adversarial, two.adversarial, rtol=0, atol=0)


def stop_after(saved: list, count: int, now: AttackResult) -> None:
    saved.append(copy.deepcopy(now))
    if len(saved) == count:
        raise RuntimeError("killed")


def model_in_a_strange_state() -> nn.Module:
    """In train mode, but for a frozen BatchNorm; with dropout, a frozen weight, and gradients waiting."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.BatchNorm2d(4),
            nn.Flatten(),
            nn.Linear(144, 4),
        )
        model(torch.rand(8, 1, 8, 8)).sum().backward()
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    return model


def state_of(model: nn.Module) -> list:
    return [
        [module.training for module in model.modules()],
        [(p.requires_grad, p.clone(), None if p.grad is None else p.grad.clone()) for p in model.parameters()],
        [buffer.clone() for buffer in model.buffers()],
        torch.random.get_rng_state(),
        torch.is_grad_enabled(),
    ]


def assert_equal_state(one, two) -> None:
    if isinstance(one, Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for left, right in zip(one, two, strict=True):
            assert_equal_state(left, right)
    else:
        assert one == two


class InPlace(nn.Module):
    """Normalises its images, in place or not, with the same answers."""

    def __init__(self, net: nn.Module, in_place: bool = True):
        super().__init__()
        self.net, self.in_place = net, in_place

    def forward(self, images: Tensor) -> Tensor:
        if self.in_place:
            images.sub_(0.5).mul_(4).mul_(0.25).add_(0.5)
        else:
            images = (images - 0.5) * 4 * 0.25 + 0.5
        return self.net(images)


class NoGradient(nn.Module):
    """A network that hides its gradient, in one of the ways in which networks do."""

    def __init__(self, net: nn.Module, how: str):
        super().__init__()
        self.net, self.how = net, how
        self.scale = torch.ones(1, requires_grad=True)  # no parameter, so that no attack freezes it

    def forward(self, images: Tensor) -> Tensor:
        if self.how == "detached":
            return self.net(images.detach())
        if self.how == "integers":
            return self.net((images * 255).to(torch.uint8).float() / 255)
        if self.how == "not the images":
            return self.net(images.detach()) * self.scale
        with torch.no_grad() if self.how == "no_grad" else torch.inference_mode():
            return self.net(images)


def result_when_killed(attack: Any, images: Tensor, labels: Tensor, calls: float) -> AttackResult:
    """What an attack has saved when it is killed after so many evaluations; `slots.SAVE_EVERY` says how often."""
    saved: list[AttackResult] = []

    def save(result: AttackResult) -> None:
        if result.calls > calls:
            saved.append(copy.deepcopy(result))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attack.run(images, labels, save=save)
    return saved[0]
