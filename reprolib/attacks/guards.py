"""What stands around a computation and changes no result: how many images at a time, and who is not let in.

As decorators, which `paper/run/keys.py` leaves out of what an artefact is called. Running out of a device's memory
halves the number of images that a network is asked about at once, and what was asked is asked again; so results stay
what they are, up to the rounding of sums, as for `slots`."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reprolib.attacks.inputs import check_count, described, shown

ON_CPU, ON_GPU = 128, 2048  # images of up to 64 x 64 pixels at once: what fits a CPU's caches, what keeps a GPU busy
SMALL = 64 * 64  # pixels; of larger images fewer, so that as many pixels are on their way
SEEDS = 2**28 - 1  # the largest seed of a training: a number below 2^62 is made of it for each step
FULL = ("out of memory", "not enough memory", "allocate memory", "ALLOC_FAILED")  # torch, CPUs, CUDA's libraries

Kind = TypeVar("Kind", bound=Callable[..., Any])

_most: WeakKeyDictionary[Any, int] = WeakKeyDictionary()  # network -> pixels at once that were not too many
_meant: WeakSet[nn.Module] = WeakSet()


class TooLarge(MemoryError):
    """Not one image fits, or not a training's batch; says so in a sentence."""


def usual(images: Tensor) -> int:
    """How many images of this size, on this device, go through a network together where nothing else is known."""
    most = ON_GPU if images.is_cuda else ON_CPU
    return max(1, min(most, most * SMALL // max(_pixels(images), 1)))


def usual_slots(begun: Kind) -> Kind:
    """Of `slots.begun`: where an attack leaves its slots open, as many as are usual for images of their size."""

    @functools.wraps(begun)
    def decided(attack: Any, network: Any, images: Any, *rest: Any) -> Any:
        is_large = isinstance(images, Tensor) and images.dim() == 4 and _pixels(images) > SMALL
        if is_large and attack.slots is None:
            attack = replace(attack, slots=usual(images))
        return begun(attack, network, images, *rest)

    return decided  # type: ignore[return-value]


def usual_batches(measured: Kind) -> Kind:
    """Of a function (model, images, labels, batch_size) that counts: batches that fit, whatever size is usual. Every
    layer gets its mode back where the memory ends midway, too: else the next try, and the training, go on without."""

    @functools.wraps(measured)
    def counted(model: Any, images: Tensor, labels: Tensor, batch_size: int = 500) -> Any:
        _check_pixels(images, labels)
        if _pixels(images) > SMALL:
            batch_size = min(batch_size, usual(images))
        modes = [(layer, layer.training) for layer in model.modules()]
        while True:
            try:
                return measured(model, images, labels, batch_size)
            except (RuntimeError, MemoryError) as error:
                batch_size = _halved(error, images, min(batch_size, len(images)))
            finally:
                for layer, mode in modes:
                    layer.training = mode

    return counted  # type: ignore[return-value]


def _check_pixels(images: Any, labels: Any) -> None:
    if not (isinstance(images, Tensor) and images.dtype == torch.uint8 and images.dim() == 4 and len(images)):
        raise ValueError(f"images are {described(images)}; expected a tensor uint8 [N, C, H, W] from 0 to 255, N >= 1")
    if not isinstance(labels, Tensor) or (labels.dtype, labels.shape) != (torch.int64, images.shape[:1]):
        raise ValueError(f"labels are {described(labels)}; expected int64 [{len(images)}] on {images.device}")


def in_parts(answer: Kind) -> Kind:
    """Of `network.answer`: asks about so many images at once as fit. Parts keep no maps for a gradient; they are worked
    out again for it, one part after the other."""

    @functools.wraps(answer)
    def asked(network: Any, images: Tensor) -> Tensor:
        while True:
            needs_gradient = images.requires_grad and torch.is_grad_enabled()
            most = _limit(network, images, len(images) if needs_gradient else usual(images))
            try:
                if len(images) <= most:
                    return answer(network, images)
                again = functools.partial(checkpoint, use_reentrant=False) if needs_gradient else _plainly
                return torch.cat([again(answer, network, part) for part in images.split(most)])
            except (RuntimeError, MemoryError) as error:
                _fewer(network, images, min(most, len(images)), error)

    return asked  # type: ignore[return-value]


def again_in_parts(gradients: Kind) -> Kind:
    """Of `Gradients.__call__`: a gradient that does not fit is asked for again, of an answer in smaller parts."""

    @functools.wraps(gradients)
    def asked(self: Any, x: Tensor, *rest: Any) -> Any:
        while True:
            try:
                return gradients(self, x, *rest)
            except (RuntimeError, MemoryError) as error:
                _fewer(self.model, x, _limit(self.model, x, len(x)), error)

    return asked  # type: ignore[return-value]


def says_which_batch(steps: Kind) -> Kind:
    """Of `training.Run._steps`: a batch too large is the reader's to choose, as half of it trains another network."""

    @functools.wraps(steps)
    def taken(run: Any, *rest: Any) -> Any:
        try:
            return steps(run, *rest)
        except (RuntimeError, MemoryError) as error:
            if not is_full(error):
                raise
            size = run.recipe.batch_size
            less = f"give the recipe batch_size={size // 2}" if size > 1 else "train on smaller images"
            raise TooLarge(
                f"training ran out of memory with batches of {size} images {tuple(run.images.shape[1:])} on "
                f"{run.images.device}; {less}, which trains a somewhat different network, or take a larger device"
            ) from error

    return taken  # type: ignore[return-value]


# --- trainings that would fail after an epoch ---


def checked(fit: Kind) -> Kind:
    """Of `training.fit`: refuses before the first epoch what would be found out after it."""

    @functools.wraps(fit)
    def begun(model: Any, images: Any, labels: Any, defence: Any = None, recipe: Any = None, **options: Any) -> Any:
        check_count("seed", options.get("seed", 0), 0, SEEDS)
        test, save = options.get("test"), options.get("save")
        both = [images, test[0]] if isinstance(test, tuple | list) and test else []
        if all(isinstance(some, Tensor) for some in both) and len({some.shape[1:] for some in both}) > 1:
            sizes = " and ".join(str(tuple(some.shape[1:])) for some in both)
            raise ValueError(f"training and test images are {sizes}; expected the same size")
        if save is not None and not callable(save):
            raise ValueError(f"save is {shown(save)}; expected a function of the run, such as lambda run: ...")
        if not isinstance(getattr(recipe, "augment", False), bool):
            raise ValueError(f"the recipe's augment is {shown(recipe.augment)}; expected True or False")
        return fit(model, images, labels, defence, recipe, **options)

    return begun  # type: ignore[return-value]


def is_full(error: BaseException) -> bool:
    """Whether an error says that a device's memory is full, and nobody has yet drawn the conclusion."""
    is_known = isinstance(error, torch.OutOfMemoryError | MemoryError) and not isinstance(error, TooLarge)
    return is_known or (isinstance(error, RuntimeError) and any(words in str(error) for words in FULL))


def _plainly(answer: Callable[..., Tensor], *given: Any) -> Tensor:
    return answer(*given)


def _pixels(images: Tensor) -> int:
    return images.shape[-2] * images.shape[-1]


def _limit(network: Any, images: Tensor, otherwise: int) -> int:
    known = _most.get(network)
    return max(1, otherwise if known is None else min(otherwise, known // _pixels(images)))


def _fewer(network: Any, images: Tensor, size: int, error: BaseException) -> None:
    """Note that so many images were too many."""
    _most[network] = _pixels(images) * _halved(error, images, size)


def _halved(error: BaseException, images: Tensor, size: int) -> int:
    """Half of so many; raises the error where it is another one, and `TooLarge` where nothing is left to halve."""
    if not is_full(error):
        raise error
    if size <= 1:
        raise TooLarge(
            f"the network ran out of memory on a single image {tuple(images.shape[1:])} on {images.device}; give it "
            "smaller images, or take a device with more memory"
        ) from error
    return size // 2


# --- networks that answer with probabilities ---


def means_probabilities(kind: type) -> type:
    """Of a network's class: its answers are attacked as they are, though they are probabilities."""
    kind.answers_probabilities = True  # type: ignore[attr-defined]
    return kind


@contextlib.contextmanager
def probabilities_meant(*networks: nn.Module) -> Iterator[None]:
    """These networks are attacked as they are inside, though they may answer with probabilities."""
    new = [network for network in networks if network not in _meant]
    _meant.update(new)
    try:
        yield
    finally:
        _meant.difference_update(new)


def wants_logits(are_probabilities: Callable[[Tensor], bool]) -> Callable[[Kind], Kind]:
    """Of `slots.begun`, which asks about all images: refuses a network that answers all of them with probabilities."""

    def guarded(begun: Kind) -> Kind:
        @functools.wraps(begun)
        def looked_at(attack: Any, network: Any, *rest: Any) -> Any:
            is_meant = getattr(network, "answers_probabilities", False) or network in _meant
            behind = getattr(network, "model", None) if is_meant else network  # what softmax is taken of on purpose
            if not isinstance(behind, nn.Module) or behind in _meant:
                return begun(attack, network, *rest)
            if isinstance(network, torch.jit.ScriptModule):
                behind = network = nn.Sequential(network)  # which, unlike itself, takes a hook
            seen: list[Tensor] = []
            hook = behind.register_forward_hook(lambda _module, _images, answers: seen.append(answers))
            try:
                found = begun(attack, network, *rest)
            finally:
                hook.remove()
            answers = torch.cat(seen) if seen else torch.zeros(0, 2)
            is_constant = len(answers) > 1 and bool((answers == answers[:1]).all())  # and so no classifier's softmax
            if len(answers) and not is_constant and are_probabilities(answers):
                _refuse(len(answers))
            return found

        return looked_at  # type: ignore[return-value]

    return guarded


def _refuse(count: int) -> None:
    what = "the network answers with probabilities (no number is below 0, and each image's sum to 1), not with logits"
    why = "where it is sure of itself, the attack's gradient is exactly zero, and images look robust that are not"
    remedy = "return what goes into the softmax, or wrap the network in a module that answers with its logarithm"
    way = "to attack these answers on purpose, set answers_probabilities = True on the network"
    if count == 1:  # which one image's logits may be by chance
        warnings.warn(f"for the one image, {what}; if they are: {why}; {remedy}", stacklevel=4)
    else:
        raise ValueError(f"{what}: {why}; {remedy} ({way})")
