"""Pre-training and the paper's fine-tuning: one loop, resumable, its checkpoints in the store.

The paper's fine-tuning (section 3) runs over the union of the N images and their N modified copies. Its control runs
over the same union with copies that nobody modified, so both take the same number of steps and see the same images;
the patches are the only difference.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from reprolib import data, models, patches, streams
from reprolib.devices import device_name, has_fast_bfloat16
from reprolib.specs import Training
from reprolib.store import Store, key

CODE = tuple(
    f"reprolib.{name}" for name in ("training", "devices", "patches", "streams")
)  # behind a checkpoint, with what defines its network
SAVE_EVERY = 5.0  # seconds of training that a killed process may lose
CHECKS = 4  # looks at the clean accuracy per epoch, in a training that rests at a target
NEAR = 0.5  # points from the target that are near enough
CROP_STREAM = 1000  # and one more for each epoch: which crop and flip an image meets; patches use small numbers
SATURATED = 1e-7  # a true-class probability above 1 minus this counts as saturated


@dataclass(frozen=True)
class Checkpoint:
    """A network after an epoch: `model` in eval mode; `history`, one dict per epoch; `seconds` of training until then."""

    model: nn.Module
    history: list[dict]
    seconds: float
    device: str


def artefact(spec: Training, dataset: data.Dataset) -> str:
    """Folder of a training's checkpoints in the store."""
    code = CODE + models.code_of(spec.model)
    return f"training/{key('training', spec.content(), dataset.checksum, code)}"


def checkpoint(spec: Training, epoch: int, dataset: data.Dataset, store: Store) -> Checkpoint:
    """The network of `spec` after `epoch`; raises StoreError when it has not been trained that far."""
    tensors, meta = store.load(f"{artefact(spec, dataset)}/epoch-{epoch:04d}", device=dataset.train.images.device)
    model = models.build(spec.model, width=spec.width).to(dataset.train.images.device)
    model.load_state_dict(tensors)
    return Checkpoint(model.eval(), meta["history"], meta["seconds"], meta["device"])


def train(spec: Training, epochs: list[int], dataset: data.Dataset, store: Store, *, progress: bool = True) -> None:
    """Train until every epoch in `epochs` has its checkpoint; what is there already is not computed again.

    A killed run goes on from where it was at most `SAVE_EVERY` seconds before, to bitwise the same weights. A training
    with a target rests as soon as its clean test accuracy is within `NEAR` points of it: later epochs change nothing.
    Raises ValueError when the data set has no training images.
    """
    if len(dataset.train) == 0:
        raise ValueError(
            f"{dataset.name} has no training images here ({dataset.variant}); nothing can be trained on it"
        )
    name = artefact(spec, dataset)
    with store.lock(name):
        missing = [e for e in epochs if not store.has(f"{name}/epoch-{e:04d}")]
        if missing:
            with _flushed_denormals():
                _Run(spec, dataset, store, name, progress).until(sorted(missing))


@contextlib.contextmanager
def _flushed_denormals():
    """Numbers below 1e-38 become 0 inside: as a network saturates, its gradients sink that low, where a CPU calculates
    slowly. Attacks go without, since for them an exactly zero gradient is a finding.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class _Run:
    """The state of one training between two saves: network, optimiser, position in the epoch, history."""

    def __init__(self, spec: Training, dataset: data.Dataset, store: Store, name: str, progress: bool):
        self.spec, self.dataset, self.store, self.name, self.progress = spec, dataset, store, name, progress
        self.device = dataset.train.images.device
        self.model = models.build(spec.model, spec.seed, spec.width).to(self.device)
        if spec.parent is not None:
            self.model.load_state_dict(checkpoint(spec.parent, spec.parent_epoch, dataset, store).model.state_dict())
        self.optimizer = _optimizer(spec, self.model)
        self.epoch, self.batch, self.loss_sum, self.seconds, self.history = 0, 0, 0.0, 0.0, []
        self.patches = None
        if spec.copies == "patched":
            ids = torch.arange(len(dataset.train), device=self.device)
            self.patches = patches.make_patches(dataset.train.images, ids, spec.patch_size, spec.patch_count, spec.seed)

    def until(self, wanted: list[int]) -> None:
        self._resume(wanted[0])
        label = f"{self.spec.model} {describe(self.spec)}"
        with tqdm(total=wanted[-1], initial=self.epoch, desc=label, unit="epoch", disable=not self.progress) as bar:
            while self.epoch < wanted[-1]:
                self._finish_epoch()
                bar.update(1)
                bar.set_postfix(self.history[-1], refresh=False)
                if self.epoch in wanted:
                    meta = {
                        "spec": self.spec.content(),
                        "history": self.history,
                        "seconds": round(self.seconds, 2),
                        "device": device_name(self.device),
                    }
                    self.store.save(f"{self.name}/epoch-{self.epoch:04d}", self.model.state_dict(), meta)
                self._save()  # after the checkpoint: a kill between the two must not skip it

    def _finish_epoch(self) -> None:
        if self.history and self.history[-1].get("rests"):
            self.epoch += 1
            return
        order = self._order()
        size = self.spec.batch_size
        batches = -(-len(order) // size)
        last_save = started = time.monotonic()
        self.model.train()
        rests = False
        while self.batch < batches and not rests:
            self._set_rate(self.epoch + self.batch / batches)
            self.loss_sum += self._step(order[self.batch * size : (self.batch + 1) * size])
            self.batch += 1
            rests = self.batch * CHECKS % batches < CHECKS and self._is_near_target()
            if not rests and time.monotonic() - last_save > SAVE_EVERY:
                self.seconds += time.monotonic() - started
                self._save()
                last_save = started = time.monotonic()
        self.seconds += time.monotonic() - started
        trained = min(self.batch * size, len(order))
        self.epoch, self.batch = self.epoch + 1, 0
        clean, saturated = clean_accuracy(self.model, self.dataset.test)
        self.history.append(
            {
                "epoch": self.epoch,
                "loss": round(float(self.loss_sum) / trained, 6),
                "clean": round(clean, 4),
                "saturated": round(saturated, 4),
            }
            | ({"rests": True} if rests else {})
        )
        self.loss_sum = 0.0

    def _is_near_target(self) -> bool:
        target = self.spec.target
        return target is not None and abs(clean_accuracy(self.model, self.dataset.test)[0] - target) <= NEAR

    def _set_rate(self, epoch: float) -> None:
        """One cycle: the rate climbs for a quarter of it and falls to 0 in the rest, both in a straight line."""
        if self.spec.cycle is not None:
            part = min(epoch / self.spec.cycle, 1.0)
            for group in self.optimizer.param_groups:
                group["lr"] = self.spec.lr * min(part / 0.25, (1 - part) / 0.75)

    def _order(self) -> Tensor:
        """Shuffled numbers of an epoch's examples: below N an image, from N on the copy of image number - N."""
        count = len(self.dataset.train) * (1 if self.spec.copies == "none" else 2)
        generator = torch.Generator().manual_seed(self.spec.seed * 1_000_003 + self.epoch)
        return torch.randperm(count, generator=generator).to(self.device)

    def _step(self, numbers: Tensor) -> Tensor:
        rows = numbers % len(self.dataset.train)
        images, labels = self.dataset.train.images[rows], self.dataset.train.labels[rows]
        if self.patches is not None:
            images = patches.paste(images, self.patches[rows], numbers >= len(self.dataset.train))
        if self.spec.augment:
            images = crop_and_flip(images, rows, self.spec.seed, self.epoch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=has_fast_bfloat16(self.device)):
            logits = self.model(images.float() / 255)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.spec.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach() * len(rows)

    def _save(self) -> None:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
        tensors["loss_sum"] = torch.as_tensor(self.loss_sum, dtype=torch.float32)
        meta = {"epoch": self.epoch, "batch": self.batch, "seconds": self.seconds, "history": self.history}
        self.store.save(f"{self.name}/latest", tensors, meta)

    def _resume(self, first_wanted: int) -> None:
        """Go on from the last save, unless a wanted epoch lies before it."""
        if not self.store.has(f"{self.name}/latest"):
            return
        tensors, meta = self.store.load(f"{self.name}/latest")
        if meta["epoch"] >= first_wanted:
            return
        self.epoch, self.batch, self.seconds, self.history = (
            meta["epoch"],
            meta["batch"],
            meta["seconds"],
            meta["history"],
        )
        self.loss_sum = tensors["loss_sum"].to(self.device)
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        states: dict[int, dict] = {}
        for k, v in tensors.items():
            if k.startswith("optimizer."):
                _, index, field = k.split(".")
                states.setdefault(int(index), {})[field] = v
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": states})


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


def _optimizer(spec: Training, model: nn.Module) -> torch.optim.Optimizer:
    """Adam or RMSprop with Keras' constants, since the paper's settings are not printed and its wording fits Keras.

    SGD with Nesterov momentum is what trains CIFAR-10 networks quickly and well.
    """
    if spec.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(), lr=spec.lr, momentum=0.9, nesterov=True, weight_decay=spec.weight_decay
        )
    if spec.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=spec.lr, eps=1e-7, weight_decay=spec.weight_decay)
    return torch.optim.RMSprop(model.parameters(), lr=spec.lr, alpha=0.9, eps=1e-7, weight_decay=spec.weight_decay)


@torch.no_grad()
def clean_accuracy(model: nn.Module, split: data.Split, batch_size: int = 500) -> tuple[float, float]:
    """Clean accuracy in percent, and the percentage of images whose true-class probability is above 1 - 1e-7.

    The probability is computed in float64 from float32 logits, so that the threshold is not a matter of rounding.
    The model's mode is left as it was.
    """
    was_training = model.training
    model.eval()
    correct = saturated = 0
    for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
        logits = model(images.float() / 255)
        rest = logits.double().softmax(1).scatter(1, labels[:, None], 0.0).sum(1)  # 1 - p(true), without cancellation
        correct += int((logits.argmax(1) == labels).sum())
        saturated += int((rest < SATURATED).sum())
    model.train(was_training)
    return 100 * correct / len(split), 100 * saturated / len(split)


def describe(spec: Training) -> str:
    """A training in two words: its column of the paper's tables."""
    if spec.copies == "patched":
        return f"{spec.patch_size}-P{spec.patch_count} {spec.optimizer}"
    return f"no patches {spec.optimizer}" if spec.copies == "unmodified" else f"pre-training {spec.optimizer}"
