"""The network as attacks ask it: left as it was found, never trusted with a tensor that somebody still needs."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from reprolib.attacks.inputs import check_answer, check_count, check_images, check_labels, check_network

NO_GRADIENT = "the network gives no gradient with respect to its input (it detaches it, runs under no_grad or works on "
NO_GRADIENT += "integers); go around that with BPDA, or use what needs none: square, random_noise, transfer"

_locks: WeakKeyDictionary[nn.Module, contextlib.AbstractContextManager] = WeakKeyDictionary()  # a wrapper has its own
_locks_guard = threading.Lock()


@contextlib.contextmanager
def untouched(*networks: nn.Module) -> Iterator[None]:
    """Eval mode and frozen parameters inside; every module's mode and every parameter's flag restored, come what may.

    A module may keep what it works out of its weights inside its own context manager `weights_held`, which is entered:
    nobody changes weights here. One thread at a time; others wait until a network is as it was. Who needs several
    networks names them in one call, as nested calls in two threads could wait for each other.
    """
    for network in networks:
        check_network(network)
    together = nn.ModuleList(networks)
    modules = sorted(together.modules(), key=id)  # in one order, so that threads never wait for each other in a circle
    with _locks_guard:
        locks = [_locks.setdefault(module, threading.RLock()) for module in modules]
    with contextlib.ExitStack() as stack:
        for lock in locks:
            stack.enter_context(lock)
        for module in modules:
            stack.callback(setattr, module, "training", module.training)
        for parameter in together.parameters():
            stack.callback(parameter.requires_grad_, parameter.requires_grad)
        together.eval().requires_grad_(False)
        for held in [getattr(module, "weights_held", None) for module in modules]:
            if held is not None:
                stack.enter_context(held())
        with torch.inference_mode(False), torch.enable_grad():
            yield


def answer(network: nn.Module, images: Tensor) -> Tensor:
    """The network's logits [B, K] for a copy of the images, which it may change as it likes.

    Raises ValueError for an answer of another form; what the network raises passes, with a note on what it was asked.
    """
    try:
        logits = network(images.clone())
    except Exception as error:
        if not isinstance(error, ValueError):  # which is a sentence of its own
            hint = "attacks ask about any number at once, so one of a fixed batch size needs a wrapper that fills up"
            error.add_note(f"the network raised this on {len(images)} images {tuple(images.shape[1:])}; {hint}")
        raise
    check_answer(logits, len(images))
    return logits


class Gradients:
    """The network as attacks ask it: logits, a loss and the loss's gradient; and whether an image is misclassified.

    With `bfloat16`, gradients are calculated in it (the images stay float32). What that calls misclassified, and every
    last iterate, is asked again in float32: no image counts as broken that float32 classifies correctly.
    """

    def __init__(self, model: nn.Module, *, bfloat16: bool = False):
        self.model, self.bfloat16 = model, bfloat16

    def __call__(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [S, K], loss [S] and gradient [S, C, H, W] at x. Raises ValueError where there is no gradient."""
        x = x.detach().requires_grad_()
        logits = self._logits(x).float()
        losses = loss(logits)
        gradient = torch.autograd.grad(losses.sum(), x, allow_unused=True)[0] if losses.requires_grad else None
        if gradient is None:
            raise ValueError(NO_GRADIENT)
        return logits.detach(), losses.detach(), gradient

    def logits(self, x: Tensor) -> Tensor:
        """Logits [S, K] without a gradient."""
        with torch.no_grad():
            return self._logits(x).float()

    def misclassified(self, x: Tensor, logits: Tensor, labels: Tensor, last: Tensor) -> Tensor:
        """bool [S], by float32; `last` marks the rows that must not be missed."""
        wrong = is_wrong(logits, labels)
        if self.bfloat16 and (wrong | last).any():
            asked = (wrong | last).nonzero().squeeze(1)
            with torch.no_grad():
                wrong[asked] = is_wrong(answer(self.model, x[asked]), labels[asked])
        return wrong

    def _logits(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16):
            return answer(self.model, x)


def is_wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """bool [S]; a network that answers with NaN has not been fooled, it has failed."""
    return (logits.argmax(1) != labels) & logits.isfinite().all(1)


def is_right(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 500) -> Tensor:
    """bool [B]: the network's largest logit is the label's, and all are finite.

    Images float32 [B, C, H, W] in [0, 1], labels int64 [B]. Raises ValueError for other images, labels or networks.
    """
    check_images(images, labels)
    with untouched(model), torch.no_grad():
        right = torch.zeros_like(labels, dtype=torch.bool)
        for first in range(0, len(images), check_count("batch_size", batch_size, 1)):
            rows = slice(first, first + batch_size)
            logits = answer(model, images[rows])
            check_labels(labels[rows], logits.shape[1])
            right[rows] = (logits.argmax(1) == labels[rows]) & logits.isfinite().all(1)
    return right


class Probabilities(nn.Module):
    """A network that hands out float32 softmax probabilities [B, K] where an attack expects logits, as Keras' do."""

    def __init__(self, model: nn.Module):
        super().__init__()
        check_network(model)
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return answer(self.model, images).float().softmax(1)
