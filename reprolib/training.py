"""Training: one loop for pre-training, the paper's fine-tuning and every other defence, on any network and tensors.

    run = training.fit(network, images, labels, defenses.Patched(size=7, count=1), epochs=10)
    run.model, run.history

What a method does differently stands in `defenses`. The loop keeps no files: its state goes out and comes in as
tensors, so that whoever stores it can go on after a kill to bitwise the same weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral, Real

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from reprolib import streams
from reprolib.attacks import guards
from reprolib.attacks.inputs import check_choice, check_count, check_labels, check_network, check_pair, described
from reprolib.attacks.network import answer, are_probabilities, untouched
from reprolib.defenses.base import Defence
from reprolib.devices import flushed_denormals, has_fast_bfloat16

__all__ = ["NEAR", "SATURATED", "Batch", "Recipe", "Run", "State"]
__all__ += ["clean_accuracy", "crop_and_flip", "fit", "is_saturated"]

CHECKS = 4  # looks at the clean accuracy per epoch, in a training that rests at a target
NEAR = 0.5  # points from the target that are near enough
CROP_STREAM = 1000  # and one more for each epoch: which crop and flip an image meets; patches use small numbers
SATURATED = 1e-7  # a true-class probability above 1 minus this counts as saturated
SAVE_EVERY = 5.0  # seconds of training between two calls of `save`

State = tuple[dict[str, Tensor], dict]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, without its length and its data.

    Without a cycle the learning rate is constant, so the first 10 of 60 epochs are the same as 10 epochs alone.

    optimizer, lr, batch_size: "adam" or "rmsprop" with Keras' constants, since the paper's settings are not printed and
        its wording fits Keras; or "sgd" with Nesterov momentum, which trains CIFAR-10 networks quickly and well.
    label_smoothing: share of a label that goes to all classes alike. weight_decay: times the weight, on the gradient.
    augment: random crops and left-right flips, anew in each epoch.
    cycle: epochs in which the rate climbs to lr and falls to 0; None = it is lr throughout.
    target: clean test accuracy in % at which training rests; it needs `test` images."""

    optimizer: str = "adam"
    lr: float = 1e-3
    batch_size: int = 128
    label_smoothing: float = 0.0
    weight_decay: float = 0.0
    augment: bool = False
    cycle: int | None = None
    target: float | None = None

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, ("adam", "rmsprop", "sgd"))
        for name, kind, fits, expected in (
            ("lr", Real, lambda lr: 0 < lr < math.inf, "a number above 0"),
            ("batch_size", Integral, lambda size: size >= 1, "a whole number, 1 or more"),
            ("label_smoothing", Real, lambda share: 0 <= share < 1, "a share of at least 0 and below 1"),
            ("weight_decay", Real, lambda decay: 0 <= decay < math.inf, "a number of 0 or more"),
            ("cycle", Integral, lambda epochs: epochs >= 1, "a whole number of epochs, 1 or more, or None"),
            ("target", Real, lambda percent: 0 < percent < 100, "an accuracy in percent, or None"),
        ):
            value = getattr(self, name)
            is_left_out = value is None and name in ("cycle", "target")
            if not is_left_out and (isinstance(value, bool) or not isinstance(value, kind) or not fits(value)):
                raise ValueError(f"{name} is {value!r}; expected {expected}")


@dataclass(frozen=True)
class Batch:
    """The examples of a step: images uint8 [B, C, H, W], labels int64 [B], their rows in the training set int64 [B],
    and bool [B], which of them are the second showing of an image in this epoch."""

    images: Tensor
    labels: Tensor
    rows: Tensor
    copies: Tensor


@guards.checked
def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    defence: Defence | None = None,
    recipe: Recipe | None = None,
    *,
    epochs: int,
    seed: int = 0,
    test: tuple[Tensor, Tensor] | None = None,
    resume: State | None = None,
    save: Callable[[Run], None] | None = None,
    progress: bool = True,
) -> Run:
    """Train a network, in place, for so many epochs; by default plainly, with Adam.

    Args:
        model: images float32 [B, C, H, W] in [0, 1] -> logits [B, K], on the images' device.
        images, labels: uint8 [N, C, H, W] from 0 to 255 and int64 [N].
        seed: of the order, the crops and whatever the defence draws. resume: state of an interrupted run of this call.
        test: images and labels like the training set's; their clean accuracy is noted after each epoch.
        save: called every few seconds and after each epoch (`run.batch == 0`); `run.state()` is what to keep.
    Returns the run: `model` in eval mode, `seconds`, and `history`: per epoch the loss, and with `test` clean accuracy
        and saturated share in percent.
    Raises ValueError: images or labels of another type or length, a network without a logit for each label or one that
        answers with probabilities, epochs below 1, a target without test images, test images of another size, a seed or
        a `save` of another kind."""
    for name, value, kind in (("defence", defence, Defence), ("recipe", recipe, Recipe)):
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"{name} is {value!r}; expected a {kind.__name__} such as {kind()!r}")
    recipe = recipe or Recipe()
    if test is not None:
        check_pair("test", test)
    check_count("epochs", epochs, 1)
    if recipe.target is not None and test is None:
        raise ValueError(f"the recipe rests at {recipe.target:g} % test accuracy; give it `test` images, or no target")
    for name, (x, y) in {"training": (images, labels), **({"test": test} if test else {})}.items():
        if not (isinstance(x, Tensor) and x.dtype == torch.uint8 and x.dim() == 4 and len(x)):
            raise ValueError(f"{name} images are {described(x)}; expected a tensor uint8 [N, C, H, W], N >= 1")
        if not (isinstance(y, Tensor) and y.dtype == torch.int64 and (y.shape, y.device) == (x.shape[:1], x.device)):
            raise ValueError(f"{name} labels are {described(y)}; expected a tensor int64 [{len(x)}] on {x.device}")
    check_network(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("no parameter of the network requires a gradient, so nothing can be trained; unfreeze some")
    run = Run(model, images, labels, defence or Defence(), recipe, seed, test)
    with untouched(run.model), torch.no_grad():  # before hours are spent on it: is there a class for each label?
        answers = answer(run.model, run.images[:1].float() / 255)
    if are_probabilities(answers):
        hint = "train it without its softmax, or as a module that answers with the logarithm of these"
        raise ValueError(f"the network answers with probabilities (they sum to 1), not with logits; {hint}")
    classes = answers.shape[1]
    check_labels(torch.cat([run.labels, *([test[1]] if test else [])]), classes)
    if resume is not None:
        run.restore(resume)
    with tqdm(total=epochs, initial=run.epoch, unit="epoch", disable=not progress) as bar:
        while run.epoch < epochs:
            run.finish_epoch(save)
            bar.update(1)
            bar.set_postfix(run.history[-1], refresh=False)
    run.model.eval()
    return run


@dataclass
class Run:
    """A training under way, as the hooks of a defence see it."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    defence: Defence
    recipe: Recipe
    seed: int
    test: tuple[Tensor, Tensor] | None
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    loss_sum: float | Tensor = 0.0
    history: list[dict] = field(default_factory=list)
    memory: dict[str, Tensor] = field(default_factory=dict)
    notes: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = self.defence.network(self.model).to(self.images.device)
        self.optimizer = _optimizer(self.recipe, self.model)
        self.defence.begin(self)

    def augmented(self, batch: Batch) -> Tensor:
        """A batch's images as float32 in [0, 1], cropped and flipped where the recipe says so."""
        images = crop_and_flip(batch.images, batch.rows, self.seed, self.epoch) if self.recipe.augment else batch.images
        return images.float() / 255

    def logits(self, images: Tensor) -> Tensor:
        """The network's answers in train mode, float32 [B, K]; in bfloat16 inside where that is faster."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=has_fast_bfloat16(images.device)):
            return self.model(images).float()

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

    def descend(self, loss: Tensor) -> None:
        """One step of the optimiser."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def step_random(self) -> np.random.Generator:
        """Random numbers of this step alone, the same after a resume."""
        return np.random.default_rng((self.seed, self.epoch, self.batch))

    def step_seed(self) -> int:
        """A number that is another one in each step."""
        return (self.seed * 10_007 + self.epoch) * 1_000_003 + self.batch

    def finish_epoch(self, save: Callable[[Run], None] | None) -> None:
        """The rest of an epoch, of which a resumed run may have done a part."""
        with flushed_denormals():
            if self.history and self.history[-1].get("rests"):
                self.epoch += 1
            else:
                self._end_epoch(self._steps(save))
        if save is not None:
            save(self)

    @guards.says_which_batch
    def _steps(self, save: Callable[[Run], None] | None) -> bool:
        """Train to the epoch's end, or until the target is near; says which."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.images) * self.defence.passes, generator=generator).to(self.images.device)
        size, rests = self.recipe.batch_size, False
        batches = -(-len(order) // size)
        last_save = started = time.monotonic()
        self.model.train()
        while self.batch < batches and not rests:
            self._set_rate(self.epoch + self.batch / batches)
            numbers = order[self.batch * size : (self.batch + 1) * size]
            rows = numbers % len(self.images)  # a number modulo N is an image, divided by N its showing
            batch = Batch(self.images[rows], self.labels[rows], rows, numbers >= len(self.images))
            self.loss_sum = self.loss_sum + self.defence.step(self, batch) * len(rows)
            self.batch += 1
            rests = self.batch * CHECKS % batches < CHECKS and self._is_near_target()
            if save is not None and not rests and self.batch < batches and time.monotonic() - last_save > SAVE_EVERY:
                self.seconds += time.monotonic() - started
                save(self)
                last_save = started = time.monotonic()
        self.seconds += time.monotonic() - started
        return rests

    def _end_epoch(self, rests: bool) -> None:
        trained = min(self.batch * self.recipe.batch_size, len(self.images) * self.defence.passes)
        entry: dict = {"epoch": self.epoch + 1, "loss": round(float(self.loss_sum) / trained, 6)}
        if self.test is not None:
            clean, saturated = clean_accuracy(self.model, *self.test)
            entry |= {"clean": round(clean, 4), "saturated": round(saturated, 4)}
        self.history.append(entry | ({"rests": True} if rests else {}))
        self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, 0.0

    def _is_near_target(self) -> bool:
        target, test = self.recipe.target, self.test
        return target is not None and test is not None and abs(clean_accuracy(self.model, *test)[0] - target) <= NEAR

    def _set_rate(self, epoch: float) -> None:
        """One cycle: the rate climbs for a quarter of it and falls to 0 in the rest, both in a straight line."""
        if self.recipe.cycle is not None:
            part = min(epoch / self.recipe.cycle, 1.0)
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.lr * min(part / 0.25, (1 - part) / 0.75)

    def state(self) -> State:
        """Everything that the rest of the run depends on, as copies: tensors by name, and JSON-able data."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
        tensors |= {f"memory.{k}": v for k, v in self.memory.items()}
        tensors["loss_sum"] = torch.as_tensor(self.loss_sum, dtype=torch.float32)
        meta = {"epoch": self.epoch, "batch": self.batch, "seconds": self.seconds, "history": list(self.history)}
        return {k: v.detach().clone() for k, v in tensors.items()}, meta

    def restore(self, state: State) -> None:
        tensors, meta = state
        self.epoch, self.batch, self.seconds = meta["epoch"], meta["batch"], meta["seconds"]
        self.history, self.loss_sum = list(meta["history"]), tensors["loss_sum"].to(self.images.device)
        self.model.load_state_dict(_under(tensors, "model."))
        states: dict[int, dict] = {}
        for k, v in _under(tensors, "optimizer.").items():
            index, name = k.split(".")
            states.setdefault(int(index), {})[name] = v.clone()  # the optimiser works on what it is given
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": states})
        self.memory = {k: v.to(self.images.device, copy=True) for k, v in _under(tensors, "memory.").items()}


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    weights, lr, decay = model.parameters(), recipe.lr, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(weights, lr=lr, momentum=0.9, nesterov=True, weight_decay=decay)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(weights, lr=lr, eps=1e-7, weight_decay=decay)
    return torch.optim.RMSprop(weights, lr=lr, alpha=0.9, eps=1e-7, weight_decay=decay)


def crop_and_flip(images: Tensor, ids: Tensor, seed: int, epoch: int) -> Tensor:
    """uint8 [B, C, H, W] shifted by up to 4 pixels each way (0 comes in) and flipped left-right at even odds."""
    height, width = images.shape[2:]
    u = streams.uniform(seed, ids, CROP_STREAM + epoch, (3,))
    top, left = ((u[:, i] * 9).long()[:, None] for i in (0, 1))
    rows, columns = torch.arange(height, device=ids.device) + top, torch.arange(width, device=ids.device) + left
    columns = torch.where(u[:, 2:] < 0.5, columns.flip(1), columns)
    padded = F.pad(images, (4, 4, 4, 4)).permute(0, 2, 3, 1)
    numbers = torch.arange(len(images), device=ids.device)[:, None, None]
    return padded[numbers, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@guards.usual_batches
@torch.no_grad()
def clean_accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 500) -> tuple[float, float]:
    """Clean accuracy in percent, and the percentage of images whose true-class probability is above 1 - 1e-7.
    Images uint8 [N, C, H, W], labels int64 [N]; ValueError for others. The model's modes are left as they were."""
    was_training = model.training
    model.eval()
    parts = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))
    logits = [(model(some.float() / 255), truth) for some, truth in parts]
    model.train(was_training)
    correct = sum(int((found.argmax(1) == truth).sum()) for found, truth in logits)
    sure = sum(int(is_saturated(found, truth).sum()) for found, truth in logits)
    return 100 * correct / len(images), 100 * sure / len(images)


def is_saturated(logits: Tensor, labels: Tensor) -> Tensor:
    """bool [B]: the true class's probability is above 1 - 1e-7, in float64 from float32 logits [B, K]: no rounding."""
    rest = logits.double().softmax(1).scatter(1, labels[:, None], 0.0).sum(1)  # 1 - p(true), without cancellation
    return rest < SATURATED
