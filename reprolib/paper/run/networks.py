"""Networks by their record: published ones are read, trained ones come from the store, the rest is made of these."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from reprolib import data, networks, training
from reprolib.networks.imagenet import with_ten_classes
from reprolib.networks.layers import seeded
from reprolib.networks.voted import SoftVote, Vote
from reprolib.paper.files import ROOT, StoreError
from reprolib.paper.plan import AnyNetwork, Changed, Pretrained, SpecError, Trained, Voted, read_network
from reprolib.paper.run import published
from reprolib.paper.run.keys import entry, key
from reprolib.paper.run.origin import stamp
from reprolib.paper.run.store import Store

PAUSE = 20  # times as long as a save took, an epoch goes on without another: what a defence remembers can be large
VOTES = {"hard": Vote, "soft": SoftVote}
# where published weights are looked for; the last is torchvision's
WEIGHTS = ("$REPROLIB_DATA/weights", "~/.cache/reprolib/weights", "~/.cache/torch/hub/checkpoints")


@dataclass(frozen=True)
class Shelf:
    """Where networks are found: a store, the data they are trained on, and the published ones unless all is made anew.

    What the store has comes before what is published: so nothing that was computed is lost by publishing its networks.
    """

    dataset: data.Dataset
    store: Store
    fresh: bool = False

    def published(self, network: Trained) -> Path | None:
        return None if self.fresh or self.store.has(self.artefact(network)) else published.find(network)

    # --- names ---

    def artefact(self, network: Trained) -> str:
        """Name of a network's checkpoint in the store."""
        return f"{self.name(network)}/epoch-{network.epochs:04d}"

    def name(self, network: Trained) -> str:
        """Folder of a training's checkpoints in the store."""
        record = network.training
        if network.parent is not None:
            record = record | {"parent": self.identity(network.parent)}
        return f"training/{key('training', record, self.dataset.checksum, _entries(network))}"

    def identity(self, network: AnyNetwork) -> str:
        """What a network is, for the keys of what is computed with it."""
        if isinstance(network, Trained):
            path = self.published(network)
            return self.artefact(network) if path is None else f"published/{published.sha256(path)}"
        if isinstance(network, Pretrained):
            path = _weights(network)
            known = None if path is None else _sha256(network, path, path.stat().st_mtime_ns)
            record = network.content() | {"weights": known}  # None: nothing can be computed with it, only planned
            code = [entry(with_ten_classes)] if _is_for_imagenet(network) else []
            return key("pretrained", record, "", [networks.ARCHITECTURES[network.architecture], *code])
        if isinstance(network, Voted):
            record = network.content() | {"members": [self.identity(member) for member in network.members]}
            return key("voted", record, "", [entry(VOTES[network.voting])])
        record = network.content() | {"network": self.identity(network.network)}
        return key("changed", record, "", [entry(type(network.change))])

    # --- networks ---

    def has(self, network: Trained, epoch: int) -> bool:
        at = network.model_copy(update={"epochs": epoch})
        return self.published(at) is not None or self.store.has(self.artefact(at))

    def load(self, network: AnyNetwork) -> nn.Module:
        """A network in eval mode, on the data's device; raises StoreError when it has not been trained."""
        if isinstance(network, Trained):
            model = _filled(network, self.checkpoint(network)[0])
        elif isinstance(network, Pretrained):
            model = _pretrained(network)
        elif isinstance(network, Voted):
            model = VOTES[network.voting]([self.load(member) for member in network.members])
        else:
            assert isinstance(network, Changed)
            model = network.change(self.load(network.network))
        return model.to(self.dataset.train.images.device).eval()

    def checkpoint(self, network: Trained) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A trained network's weights, and what is known of their making: history, seconds, commit, torch, device."""
        path = self.published(network)
        if path is None:
            return self.store.load(self.artefact(network), device=self.dataset.train.images.device)
        tensors, meta = published.read(path)
        return tensors, meta | {"published": path.stem}

    def train(self, network: Trained, epochs: Sequence[int], *, progress: bool = True) -> None:
        """Train until every epoch has its checkpoint; what is there already is not computed again.

        A killed run goes on from where it was some seconds before, to bitwise the same weights. Raises DataError when
        the data set has no training images.
        """
        if len(self.dataset.train) == 0:
            raise data.DataError(
                f"{self.dataset.name} has no training images here ({self.dataset.variant}), and nothing can be trained"
            )
        name = self.name(network)
        with self.store.lock(name):
            missing = sorted(epoch for epoch in epochs if not self.has(network, epoch))
            if missing:
                self._fit(network, missing, name, progress)

    def _fit(self, network: Trained, wanted: list[int], name: str, progress: bool) -> None:
        due = 0.0

        def save(run: training.Run) -> None:
            nonlocal due
            started = time.monotonic()
            if run.batch > 0 and started < due:
                return
            if run.batch == 0 and run.epoch in wanted:
                meta = {"history": run.history, "seconds": round(run.seconds, 2), **stamp(run.images.device)}
                self.store.save(f"{name}/epoch-{run.epoch:04d}", run.model.state_dict(), meta)
            # after the checkpoint: a kill between the two must not skip it
            self.store.save(f"{name}/latest", *run.state())
            ended = time.monotonic()
            due = ended + PAUSE * (ended - started)

        model = _built(network).to(self.dataset.train.images.device)
        if network.parent is not None:
            weights = self.load(network.parent).state_dict()
            if weights.keys() != model.state_dict().keys():
                raise SpecError(
                    f"the parent's training changed the layers of {network.architecture}, so its weights do not fit a "
                    "fresh one; choose a parent that was trained plainly"
                )
            model.load_state_dict(weights)
        split, test = self.dataset.train, self.dataset.test
        training.fit(
            model,
            split.images,
            split.labels,
            network.defence,
            network.recipe,
            epochs=wanted[-1],
            seed=network.seed,
            test=(test.images, test.labels),
            resume=self._latest(name, wanted[0]),
            save=save,
            progress=progress,
        )

    def _latest(self, name: str, first_wanted: int) -> training.State | None:
        """The last save, unless a wanted epoch lies before it."""
        if not self.store.has(f"{name}/latest"):
            return None
        tensors, meta = self.store.load(f"{name}/latest")
        return None if meta["epoch"] >= first_wanted else (tensors, meta)


def load_published(path: str | Path) -> nn.Module:
    """A published network, in eval mode: images float32 [B, C, H, W] in [0, 1] -> logits [B, K].

    path: of a file of results/<profile>/networks, from the top of the repository. RecordError when it is missing or
    damaged.
    """
    tensors, meta = published.read(ROOT / path)
    return _filled(read_network(meta["network"]), tensors).eval()


def _filled(network: AnyNetwork, tensors: dict[str, Tensor]) -> nn.Module:
    assert isinstance(network, Trained)  # only trained networks have checkpoints
    model = network.defence.network(_built(network))
    model.load_state_dict(tensors)
    return model


def _entries(network: Trained) -> list[str]:
    weights = [entry(seeded), networks.ARCHITECTURES[network.architecture]]
    return [entry(training.Run), entry(type(network.defence)), *weights]


def _built(network: Trained) -> nn.Module:
    return networks.build(network.architecture, network.seed, network.width)


def _weights(network: Pretrained) -> Path | None:
    """The file, in the first folder that has it."""
    folders = [str(ROOT), *(os.path.expanduser(os.path.expandvars(folder)) for folder in WEIGHTS)]
    return next((path for path in (Path(folder, network.weights) for folder in folders) if path.is_file()), None)


@functools.lru_cache(maxsize=16)
def _sha256(network: Pretrained, path: Path, modified: int) -> str:
    """Of a file's content, which is one of this network; `modified` makes the cache forget a file that changed."""
    _pretrained(network)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_for_imagenet(network: Pretrained) -> bool:
    return networks.ARCHITECTURES[network.architecture].startswith(f"{with_ten_classes.__module__}:")


def _pretrained(network: Pretrained) -> nn.Module:
    path = _weights(network)
    if path is None:
        raise StoreError(
            f"there is no file {network.weights} with weights for {network.architecture}; put it into one of the "
            f"folders {', '.join(WEIGHTS)}"
        )
    model = networks.build(network.architecture, width=network.width)
    try:
        if path.suffix == ".safetensors":
            tensors = safetensors.torch.load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        if _is_for_imagenet(network) and tensors.keys() != model.state_dict().keys():
            assert isinstance(model, nn.Sequential)  # as all of that file are
            tensors = with_ten_classes(_counted(tensors, model[1]), model, network.head)
        model.load_state_dict(tensors)
    except Exception as error:  # a wrong file raises almost anything
        reason = " ".join(str(error).split())[:200]
        raise SpecError(
            f"{network.weights} holds no weights for {network.architecture} ({reason}); choose another file"
        ) from None
    return model


def _counted(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights with the counters of batch normalisation, which files from before torch 0.4.1 lack, as Xception's may."""
    counters = {name: at_0 for name, at_0 in model.state_dict().items() if name.endswith("num_batches_tracked")}
    whole = counters | weights
    return whole if whole.keys() == model.state_dict().keys() else weights
