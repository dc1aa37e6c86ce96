"""What a network answers before anybody attacks it: the same twice, in any batch, as logits, with a gradient?"""

from functools import partial

import torch
from torch import Tensor, nn

from reprolib.attacks import Gradients, loss_per_image
from reprolib.attacks.network import answer

BATCH = 256  # images that go through the network together
SAME = 1e-4  # of the largest logit: answers that differ by less are the same (AutoAttack's)
TENTH = 0.1  # of the images may answer otherwise in another batch: sums are rounded otherwise there


class LogProbabilities(nn.Module):
    """Logits again, from a network that answers with probabilities: as good, up to a margin of 69."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return answer(self.model, images).float().clamp(min=1e-30).log()


@torch.no_grad()
def logits_of(model: nn.Module, images: Tensor, size: int = BATCH) -> Tensor:
    """Float [n, K], asked in batches of `size` or a few more, so that no last image is left alone."""
    batches = images.tensor_split(max(len(images) // size, 1))
    return torch.cat([answer(model, some).float() for some in batches])


def why_not_judged(model: nn.Module, images: Tensor, first: Tensor) -> str:
    """Why an image has no answer of its own, and the remedy; "" where it has one. `first`: the logits of all images."""

    def differ(other: Tensor, rows: slice) -> float:
        limit = SAME * first.abs().max().clamp(min=1e-12)
        return float(((other - first[rows]).abs().amax(1) > limit).float().mean())

    everything, some = slice(None), slice(8)
    if share := differ(logits_of(model, images), everything):
        remedy = "switch its noise off, or hand in a module that averages many answers under a seed of its own"
        return f"the network answers {share:.0%} of the images differently when it is asked again (noise); {remedy}"
    backwards = logits_of(model, images.flip(0), 7).flip(0)
    if differ(backwards, everything) > TENTH or differ(logits_of(model, images[some], 1), some) > TENTH:
        remedy = "give batch normalisation running statistics, or whatever else looks at the whole batch fixed values"
        return f"the network's answer to an image depends on the batch it comes in; {remedy}"
    return ""


def gradient_of(network: nn.Module, images: Tensor, labels: Tensor, loss: str) -> Tensor | None:
    """Of the loss, float [n, C*H*W]; None from a network that answers, but gives no gradient."""
    found, gradients = [], Gradients(network)
    for some, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        try:
            found.append(gradients(some, partial(loss_per_image, labels=truth, loss=loss))[2].flatten(1))
        except torch.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError):  # NumPy, integers and operations without a derivative raise the latter
            return None
    return torch.cat(found)
