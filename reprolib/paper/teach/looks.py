"""What a lesson looks at: accuracies, gradients, how float32 rounds, and what the paper prints."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from reprolib import attacks
from reprolib.paper.judge import ledger

LAST_LAYERS = nn.Linear | nn.Conv2d


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """How many of the images float32 [B, C, H, W] in [0, 1] are classified correctly, in percent."""
    return 100 * float(attacks.is_right(network, images, labels).double().mean())


def gradient(network: nn.Module, images: Tensor, labels: Tensor, loss: str = "logits") -> Tensor:
    """The loss's gradient at each image, float32 [B, C, H, W]; loss: margin, logits or probabilities."""
    with attacks.untouched(network):
        _, _, found = attacks.Gradients(network)(images, lambda logits: attacks.loss_per_image(logits, labels, loss))
    return found


def sharpened(network: nn.Module, factor: float) -> nn.Module:
    """A copy of a network that ends in a linear layer, its logits times `factor`: surer, with the same decisions."""
    changed = copy.deepcopy(network)
    last = [module for module in changed.modules() if isinstance(module, LAST_LAYERS)][-1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(factor)
    return changed


def curve_table(x: Sequence[float], curves: Mapping[str, Sequence[float]], name: str) -> pd.DataFrame:
    """The numbers of `plot_curves`: a row per x, which is called `name`."""
    columns = {label: [f"{value:.1f}" for value in values] for label, values in curves.items()}
    return pd.DataFrame({name: [f"{value:g}" for value in x]} | columns)


def rounding_table(margins: Sequence[float]) -> pd.DataFrame:
    """Of two classes whose logits are m and 0: 1 - p(true) in float64 and in float32, and the size of each loss's
    gradient with respect to the logits, in float32."""
    rows = []
    for m in margins:
        exact = torch.tensor([[m, 0.0]], dtype=torch.float64)
        row = {"margin m": f"{m:g}", "1 - p, exactly": f"{exact.softmax(1)[0, 1]:.1e}"}
        row["1 - p in float32"] = f"{1 - exact.float().softmax(1)[0, 0]:.1e}"
        for loss in reversed(attacks.LOSSES):
            logits = exact.float().requires_grad_()
            found = torch.autograd.grad(attacks.loss_per_image(logits, torch.tensor([0]), loss).sum(), logits)[0]
            row[f"gradient, {loss}"] = f"{found.abs().max():.1e}" if found.any() else "0 exactly"
        rows.append(row)
    return pd.DataFrame(rows)


def printed(claim: str) -> float:
    """A number of the paper by its id in params/claims.yaml, such as T6.PGD-v1.7-P1."""
    return ledger()[claim].number
