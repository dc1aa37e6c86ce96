"""What attacks climb: three ways to ask a network for its loss, and the targeted loss of AutoAttack."""

import torch
import torch.nn.functional as F
from torch import Tensor

from reprolib.attacks.inputs import check_choice

LOSSES = ("margin", "logits", "probabilities")
CLIP = 1e-7  # Keras' epsilon: probabilities are clipped to [1e-7, 1 - 1e-7] before the logarithm


def loss_per_image(logits: Tensor, labels: Tensor, loss: str) -> Tensor:
    """What an attack climbs: logits [B, K] and labels int64 [B] -> float [B].

    margin: largest wrong logit minus the true logit; its gradient never vanishes because a network is sure of itself.
    logits: cross-entropy from logits; in float32 its gradient is exactly 0 beyond a margin of about 100.
    probabilities: cross-entropy from float32 softmax outputs clipped to [1e-7, 1 - 1e-7], as Keras' string loss does;
        its gradient is exactly 0 once the true class's probability is clipped, at a margin of about 16.
    """
    check_choice("loss", loss, LOSSES)
    if loss == "margin":
        wrong = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        return wrong - logit_of(logits, labels)
    if loss == "logits":
        return F.cross_entropy(logits, labels, reduction="none")
    return -logit_of(logits.float().softmax(1), labels).clamp(CLIP, 1 - CLIP).log()


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy from logits; `targets` plays no part."""
    return F.cross_entropy(logits, labels, reduction="none")


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Difference of logits ratio towards a target class (Croce and Hein 2020a): logits [S, K], K >= 4 -> [S].

    It does not change when all logits are scaled or shifted.
    """
    ordered = logits.sort(1).values
    scale = ordered[:, -1] - (ordered[:, -3] + ordered[:, -4]) / 2 + 1e-12
    return (logit_of(logits, targets) - logit_of(logits, labels)) / scale


def logit_of(logits: Tensor, classes: Tensor) -> Tensor:
    """Each row's logit of its class: logits [S, K], classes int64 [S] -> [S]."""
    return logits.gather(1, classes[:, None]).squeeze(1)
