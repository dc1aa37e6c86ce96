"""The network as attacks ask it: left as it was found, never trusted with a tensor that somebody still needs."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from reprolib import streams
from reprolib.attacks import guards, inputs
from reprolib.attacks.captured import Captured
from reprolib.attacks.inputs import check_answer, check_choice, check_count, check_images, check_labels, check_network
from reprolib.devices import exact_float32

NOISE = 1 << 20  # first of the random streams used here, away from those of patches and random starts
LOSSES = ("margin", "logits", "probabilities")
CLIP = 1e-7  # Keras' epsilon: probabilities are clipped to [1e-7, 1 - 1e-7] before the logarithm
NO_GRADIENT = "the network gives no gradient with respect to its input (it detaches it, runs under no_grad or works on "
NO_GRADIENT += "integers); go around that with BPDA, or use what needs none: square, random_noise, transfer"

_locks: WeakKeyDictionary[nn.Module, contextlib.AbstractContextManager] = WeakKeyDictionary()  # a wrapper has its own
_locks_guard = threading.Lock()


@contextlib.contextmanager
def untouched(*networks: nn.Module) -> Iterator[None]:
    """Eval mode, frozen parameters and exact float32 inside; all of them restored as they were, come what may.

    A module's own context manager `weights_held`, in which it may keep what it works out of weights, is entered too.
    One thread at a time; who needs several networks names them in one call, as nested calls could wait for each other.
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
        for held in filter(None, [getattr(module, "weights_held", None) for module in modules]):
            stack.enter_context(held())
        with torch.inference_mode(False), torch.enable_grad(), exact_float32():
            yield


@guards.in_parts
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


def are_probabilities(answers: Tensor) -> bool:
    """Whether a network's answers [B, K] are what a softmax gives: nothing below 0, and rows that sum to 1."""
    return bool(((answers >= 0).all(1) & ((answers.sum(1) - 1).abs() < 1e-4)).all())


class Gradients:
    """Logits, a loss and its gradient; and whether an image is misclassified.

    With `bfloat16`, gradients are calculated in it (the images stay float32). What that calls misclassified, and every
    last iterate, is asked again in float32: no image counts as broken that float32 classifies correctly."""

    def __init__(self, model: nn.Module, *, bfloat16: bool = False):
        self.model, self.bfloat16 = model, bfloat16
        self.ask = Captured(lambda images: answer(model, images))

    @guards.again_in_parts
    def __call__(self, x: Tensor, loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [S, K], loss [S] and gradient [S, C, H, W] at x. Raises ValueError where there is no gradient."""
        x = x.detach().requires_grad_()
        logits = self._logits(x).float()
        losses = loss(logits)
        gradient = torch.autograd.grad(losses.sum(), x, allow_unused=True)[0] if losses.requires_grad else None
        if gradient is None:
            raise ValueError(NO_GRADIENT)
        return logits.detach(), losses.detach(), gradient.clone() if x.is_cuda else gradient  # a graph keeps its own

    def logits(self, x: Tensor) -> Tensor:
        """Logits [S, K] without a gradient."""
        with torch.no_grad():
            return self._logits(x).float()

    def misclassified(self, x: Tensor, logits: Tensor, labels: Tensor, last: Tensor) -> Tensor:
        """bool [S], by float32; `last` marks the rows that must not be missed."""
        wrong = is_wrong(logits, labels)
        if self.bfloat16 and len(asked := (wrong | last).nonzero().squeeze(1)):
            with torch.no_grad():
                wrong[asked] = is_wrong(answer(self.model, x[asked]), labels[asked])
        return wrong

    def _logits(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat16):
            return answer(self.model, x) if self.bfloat16 else self.ask(x)


def is_wrong(logits: Tensor, labels: Tensor) -> Tensor:
    """bool [S]; a network that answers with NaN has not been fooled, it has failed."""
    return (logits.argmax(1) != labels) & logits.isfinite().all(1)


def is_right(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 500) -> Tensor:
    """bool [B]: the network's largest logit is the label's, and all are finite.

    Images float32 [B, C, H, W] in [0, 1], labels int64 [B]. Raises ValueError for other images, labels or networks."""
    check_images(images, labels)
    with untouched(model), torch.no_grad():
        right = torch.zeros_like(labels, dtype=torch.bool)
        for first in range(0, len(images), check_count("batch_size", batch_size, 1)):
            rows = slice(first, first + batch_size)
            logits = answer(model, images[rows])
            check_labels(labels[rows], logits.shape[1])
            right[rows] = (logits.argmax(1) == labels[rows]) & logits.isfinite().all(1)
    return right


def loss_per_image(logits: Tensor, labels: Tensor, loss: str) -> Tensor:
    """What an attack climbs: logits [B, K] and labels int64 [B] -> float [B]. Raises ValueError for another loss.

    margin: largest wrong logit minus the true logit; its gradient never vanishes because a network is sure of itself.
    logits: cross-entropy from logits; in float32 its gradient is exactly 0 beyond a margin of about 100.
    probabilities: cross-entropy from float32 softmax outputs, clipped as Keras' string loss does; its gradient is
        exactly 0 once the true class's probability is clipped, at a margin of about 16."""
    check_choice("loss", loss, LOSSES)
    if loss == "margin":
        return logits.scatter(1, labels[:, None], -torch.inf).amax(1) - logit_of(logits, labels)
    if loss == "logits":
        return nn.functional.cross_entropy(logits, labels, reduction="none")
    return -logit_of(logits.float().softmax(1), labels).clamp(CLIP, 1 - CLIP).log()


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Difference of logits ratio (Croce and Hein 2020a), blind to scale and shift: logits [S, K], K >= 4 -> [S]."""
    ordered = logits.sort(1).values
    scale = ordered[:, -1] - (ordered[:, -3] + ordered[:, -4]) / 2 + 1e-12
    return (logit_of(logits, targets) - logit_of(logits, labels)) / scale


def logit_of(logits: Tensor, classes: Tensor) -> Tensor:
    """Each row's logit of its class: logits [S, K], classes int64 [S] -> [S]."""
    return logits.gather(1, classes[:, None]).squeeze(1)


def random_noise(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float, draws: int = 100, seed: int = 0
) -> Tensor:
    """bool [B]: right on the clean image and on the worst of `draws` random points of the eps-ball.

    Even draws are uniform in the ball, odd ones are corners (every pixel moved by eps, up or down); an image's draws
    depend on its row alone. Images, labels and what is refused as for `is_right`; numbers as for attacks."""
    eps, draws, seed = inputs.check_eps(eps), check_count("draws", draws), check_count("seed", seed, *inputs.SEEDS)
    with untouched(model), torch.no_grad():
        robust = is_right(model, images, labels)
        for draw in range(draws):
            rows = robust.nonzero().squeeze(1)
            u = 2 * streams.uniform(seed, rows, NOISE + draw, images.shape[1:]) - 1
            noisy = (images[rows] + eps * (u.sign() if draw % 2 else u)).clamp(0, 1)
            robust[rows] = is_right(model, noisy, labels[rows])
    return robust


def transfer(model: nn.Module, attack: Callable[[Tensor, Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """bool [B]: right on the clean image and on the adversarial image that `attack` made on its own network.

    Give `attack` decision="last": an image that has just crossed one boundary seldom crosses another. Refuses what
    `is_right` and the attack refuse."""
    return is_right(model, images, labels) & is_right(model, attack(images, labels), labels)


@guards.means_probabilities
class Probabilities(nn.Module):
    """A network that hands out float32 softmax probabilities [B, K] where an attack expects logits, as Keras' do."""

    def __init__(self, model: nn.Module):
        super().__init__()
        check_network(model)
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return answer(self.model, images).float().softmax(1)


class BPDA(nn.Module):
    """model(transform(x)) whose gradient ignores the transform (Athalye et al. 2018), as some shatter gradients.

    transform: images [B, C, H, W] -> images of the same shape, else ValueError; it gets a copy of its own."""

    def __init__(self, transform: Callable[[Tensor], Tensor], model: nn.Module):
        super().__init__()
        check_network(model)
        self.transform, self.model = transform, model

    def forward(self, images: Tensor) -> Tensor:
        seen = self.transform(images.detach().clone())
        if not isinstance(seen, Tensor) or seen.shape != images.shape:
            raise ValueError(f"BPDA's transform makes {inputs.described(seen)}; expected shape {tuple(images.shape)}")
        return self.model(images + (seen - images).detach())
