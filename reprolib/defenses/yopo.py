"""You Only Propagate Once (Zhang et al. 2019, arXiv 1905.00877): YOPO-m-n, here m = `steps` and n = `inner`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reprolib import attacks
from reprolib.attacks.inputs import check_count
from reprolib.attacks.slots import ball
from reprolib.defenses.base import Defence
from reprolib.defenses.pgd_at import random_start

if TYPE_CHECKING:
    from reprolib.training import Batch, Run


@dataclass(frozen=True)
class YOPO(Defence):
    """Few passes through the whole network, each followed by `inner` updates of the perturbation through the first
    layer alone, with the loss's gradient p at that layer's output frozen; then one step of the optimiser.

    The first layer is the network's first convolution with what stands before it. As in the authors' code it gets its
    weights' gradient at the updated images, from p, and all others get theirs in the full passes. That code sums over
    the passes and divides the learning rate by m; here it is the mean, so that a rate means what it does elsewhere.
    Such a layer being linear, n updates all point the same way: they are one of size n * alpha, cut off at the ball.

    Raises ValueError at the start of a training whose network has no convolution, or does not use it."""

    eps: float
    alpha: float
    steps: int = 5
    inner: int = 3

    def __post_init__(self) -> None:
        attacks.pgd(nn.Identity(), self.eps, self.alpha, check_count("steps", self.steps, 1))
        check_count("inner", self.inner, 1)

    def begin(self, run: Run) -> None:
        first_output(run, first_convolution(run.model), run.images[:1].float() / 255)  # where there is none, it refuses

    def step(self, run: Run, batch: Batch) -> Tensor:
        clean, layer = self.images(run, batch), first_convolution(run.model)
        low, high = ball(clean, self.eps)
        shown = random_start(run, batch, clean, self.eps).clamp(low, high)
        run.optimizer.zero_grad()
        mean = torch.zeros((), device=clean.device)
        for _ in range(self.steps):
            outputs: list[Tensor] = []
            with layer.register_forward_hook(cut_into(outputs)):
                loss = self.loss(run, shown, batch.labels) / self.steps
            loss.backward()
            p = outputs[0].grad
            for _ in range(self.inner):
                shown.requires_grad_()
                (gradient,) = torch.autograd.grad(first_output(run, layer, shown), shown, p)
                shown = (shown.detach() + self.alpha * gradient.sign()).clamp(low, high)
            first_output(run, layer, shown.requires_grad_()).backward(p)
            shown, mean = shown.detach(), mean + loss.detach()
        run.optimizer.step()
        return mean


def first_convolution(model: nn.Module) -> nn.Conv2d:
    layer = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if layer is None:
        raise ValueError(f"{type(model).__name__} has no convolution, which YOPO needs as a first layer")
    return layer


def cut_into(outputs: list[Tensor]) -> Callable[..., Tensor]:
    """A forward hook where gradients end: it puts the layer's output into the list, and there its gradient arrives."""

    def cut(layer: nn.Module, images: tuple[Tensor], output: Tensor) -> Tensor:
        outputs.append(output.detach().requires_grad_())
        return outputs[-1].clone()  # as the next layer may work in place

    return cut


def first_output(run: Run, layer: nn.Module, images: Tensor) -> Tensor:
    """The layer's output for images float32 [B, C, H, W], without a pass through the layers behind it."""
    try:
        with layer.register_forward_hook(_stop):
            run.logits(images)
    except _Reached as reached:
        return reached.args[0]
    raise ValueError(f"the network answers without its first convolution, {layer}, which YOPO needs as a first layer")


class _Reached(Exception):
    """Ends a pass, and carries what the layer made."""


def _stop(layer: nn.Module, images: tuple[Tensor], output: Tensor) -> None:
    raise _Reached(output)
