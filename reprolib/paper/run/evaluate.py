"""Run an attack on a network, image by image, through the store: resumable, and never computed twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from reprolib import attacks, networks
from reprolib.networks.cpu.folding import folded
from reprolib.paper.plan import AnyNetwork, Evaluation, trainings
from reprolib.paper.run import pipelines, shards
from reprolib.paper.run.keys import entry, key
from reprolib.paper.run.networks import Shelf
from reprolib.paper.run.origin import stamp
from reprolib.paper.run.store import Store
from reprolib.paper.run.torchattacks_engine import run_torchattacks

CHUNK = 500  # adversarial images that a killed transfer attack may lose


@dataclass(frozen=True)
class Outcome:
    """What an attack did to each of n test images; see `attacks.AttackResult` for `correct`, `any_run`, `last_run`."""

    correct: Tensor
    any_run: Tensor
    last_run: Tensor
    meta: dict[str, Any]  # calls, seconds, commit, torch, device

    def robust(self, decision: str = "any", runs: int | None = None) -> Tensor:
        """See `attacks.robust`."""
        return attacks.robust(self.correct, {"any": self.any_run, "last": self.last_run}, decision, runs)


# --- the computation: tensors in, tensors out; its code is in the keys ---


def attacked(
    model: nn.Module,
    evaluation: Evaluation,
    images: Tensor,
    labels: Tensor,
    ids: Tensor | None = None,
    resume: attacks.AttackResult | None = None,
    save: Callable[[attacks.AttackResult], None] | None = None,
) -> attacks.AttackResult:
    """The evaluation's attack on images uint8 [B, C, H, W] and labels int64 [B]; the model is `folded`."""
    attack = evaluation.attack.build(model, evaluation.loss, evaluation.decision, evaluation.seed)
    run = run_torchattacks if evaluation.engine == "torchattacks" else type(attack).run
    return run(attack, images.float() / 255, labels, ids, resume=resume, save=save)


def shown(model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """bool [B] twice: right on the clean images, uint8 [B, C, H, W], and on adversarial ones made for another
    network.
    """
    return attacks.is_right(model, images.float() / 255, labels), attacks.is_right(model, adversarial, labels)


def predicted(model: nn.Module, images: Tensor) -> Tensor:
    """int64 [B]: the network's classes of images uint8 [B, C, H, W]; what an attack goes away from without labels."""
    with attacks.untouched(model), torch.no_grad():
        return model(images.float() / 255).argmax(1)


def rounded(images: Tensor) -> Tensor:
    """Images float32 [B, C, H, W] in [0, 1] as they come back from a file of 8 bits per pixel."""
    return (images * 255).round() / 255


# --- through the store ---


def _computation(evaluation: Evaluation) -> Callable[..., attacks.AttackResult]:
    """Whose code attacks: called, and in the keys."""
    if evaluation.order != "clipped":
        return pipelines.in_order
    if evaluation.engine.startswith("art"):
        return pipelines.by_art
    if evaluation.engine == "torchattacks" and evaluation.attack.name == "autoattack":
        return pipelines.by_torchattacks
    return attacked


def name_of(evaluation: Evaluation, shelf: Shelf) -> str:
    """Name of an evaluation's outcome in the store."""
    attack = evaluation.attack.build(nn.Identity(), evaluation.loss, evaluation.decision, evaluation.seed)
    record = {
        # attacks that are the same computation have the same content, and share one artefact
        "attack": attacks.content(attack),
        "network": shelf.identity(evaluation.network),
        "source": None if evaluation.source is None else shelf.identity(evaluation.source),
        "size": evaluation.size,
        "engine": evaluation.engine,
    }
    entries = [entry(_computation(evaluation)), entry(folded), entry(type(attack)), *_architectures(evaluation.network)]
    if evaluation.source is not None:
        entries += [entry(shown), *_architectures(evaluation.source)]
    if evaluation.labels == "predicted":
        record["labels"] = evaluation.labels
        entries.append(entry(predicted))
    if evaluation.order != "clipped":
        record["order"] = evaluation.order
    if evaluation.bits:
        record["bits"] = evaluation.bits
        entries.append(entry(rounded))
    return f"evaluation/{key('evaluation', record, shelf.dataset.checksum, entries)}"


def _architectures(network: AnyNetwork) -> list[str]:
    """The code of the networks that are asked: training it is in a network's own key, answering is here."""
    found = [networks.ARCHITECTURES[t.architecture] for t in trainings(network)] + [
        entry(type(t.defence)) for t in trainings(network)
    ]
    return found


def has(evaluation: Evaluation, shelf: Shelf) -> bool:
    return shelf.store.has(name_of(evaluation, shelf))


def outcome(evaluation: Evaluation, shelf: Shelf) -> Outcome:
    """The stored outcome of an evaluation; raises StoreError when it has not been run."""
    tensors, meta = shelf.store.load(name_of(evaluation, shelf))
    return Outcome(**tensors, meta=meta)


def evaluate(evaluation: Evaluation, shelf: Shelf, *, progress: bool = True) -> None:
    """Attack the network, unless that has been done; the network must be there.

    A killed run goes on from its last save and loses the runs that were in flight, a few seconds of work. Where the
    test set has been split, see `shards`, its parts are put together, and those that nobody has made are made here.
    """
    name = name_of(evaluation, shelf)
    with shelf.store.lock(name):
        if shelf.store.has(name):
            return
        if count := shards.begun(shelf.store, name):
            for wait in (False, True):  # what another process is busy with is left for later
                for part in shards.names(name, count):
                    _run_part(evaluation, shelf, part, progress, wait=wait)
            shards.merge(shelf.store, name, count)
        else:
            (_run if evaluation.source is None else _run_transfer)(evaluation, shelf, name, progress)


def evaluate_part(evaluation: Evaluation, shelf: Shelf, part: str, *, progress: bool = True) -> None:
    """Attack the network on one of the parts that the test set is split into, unless that has been done."""
    whole = shards.whole(part)
    with shelf.store.lock(whole):  # whoever makes the whole in one go, or puts it together, has the part too
        if shelf.store.has(whole) and not shelf.store.has(part):
            shelf.store.save(part, *shards.cut(*shelf.store.load(whole), part))
    _run_part(evaluation, shelf, part, progress)


def _run_part(evaluation: Evaluation, shelf: Shelf, part: str, progress: bool, *, wait: bool = True) -> None:
    with shelf.store.lock(part, wait=wait) as held:
        if held and not shelf.store.has(part):
            _run(evaluation, shelf, part, progress)


def _run(evaluation: Evaluation, shelf: Shelf, name: str, progress: bool) -> None:
    """The whole test set, or the part of it that the name says."""
    images, labels = _test(evaluation, shelf)
    rows = shards.rows(name, len(images))
    images, labels, ids = images[rows], labels[rows], torch.arange(len(images), device=images.device)[rows]
    resume, before = _unfinished(shelf.store, name, images)
    started, made = time.monotonic(), stamp(images.device)
    words = f"{evaluation.attack.name} {evaluation.loss} {evaluation.decision}"
    with tqdm(total=len(images), desc=words, unit="image", disable=not progress) as bar:

        def save(result: attacks.AttackResult, to: str = f"{name}-unfinished") -> None:
            bar.update(int((result.next_run >= result.next_run.max()).sum()) - bar.n)
            tensors = {k: getattr(result, k) for k in ("correct", "any_run", "last_run")}
            if to != name:
                tensors["next_run"] = result.next_run
            seconds = round(before + time.monotonic() - started, 2)
            shelf.store.save(to, tensors, {"calls": result.calls, "seconds": seconds, **made})

        model = _folded(evaluation.network, shelf)
        try:
            save(_computation(evaluation)(model, evaluation, images, labels, ids, resume=resume, save=save), to=name)
        except pipelines.Refused as refusal:
            nothing = torch.zeros(len(images), dtype=torch.int16)
            tensors = {"correct": nothing > 0, "any_run": nothing, "last_run": nothing.clone()}
            shelf.store.save(name, tensors, {"calls": 0, "seconds": 0.0, "refused": str(refusal), **made})
    shelf.store.path(f"{name}-unfinished").unlink(missing_ok=True)


_FOLDED: dict[tuple[str, str], nn.Module] = {}


def _folded(network: AnyNetwork, shelf: Shelf) -> nn.Module:
    """A network as it is attacked. The last two are kept: a page asks each of its networks many times in a row, and
    folding one takes as long as a small attack. Nobody else has them, and an attack leaves a network as it was."""
    which = str(shelf.store.root), shelf.identity(network)
    if which not in _FOLDED:
        while len(_FOLDED) > 1:
            del _FOLDED[next(iter(_FOLDED))]
        _FOLDED[which] = folded(shelf.load(network))
    return _FOLDED[which]


def _test(evaluation: Evaluation, shelf: Shelf) -> tuple[Tensor, Tensor]:
    return shelf.dataset.test.images[: evaluation.size], shelf.dataset.test.labels[: evaluation.size]


def _unfinished(store: Store, name: str, images: Tensor) -> tuple[attacks.AttackResult | None, float]:
    """An interrupted evaluation's result so far and its seconds, or nothing; a part goes on from the whole's."""
    begun = next((each for each in (name, shards.whole(name)) if store.has(f"{each}-unfinished")), None)
    if begun is None:
        return None, 0.0
    tensors, meta = store.load(f"{begun}-unfinished", device=images.device)
    if begun != name:
        tensors, meta = shards.cut(tensors, meta, name)
    result = attacks.AttackResult(**tensors, adversarial=images.float() / 255, calls=meta["calls"])
    return result, meta["seconds"]


def _run_transfer(evaluation: Evaluation, shelf: Shelf, name: str, progress: bool) -> None:
    images, labels = _test(evaluation, shelf)
    started = time.monotonic()
    adversarial = _crafted(evaluation.crafting(), shelf, progress)
    if evaluation.bits:
        adversarial = rounded(adversarial)
    correct, stands = shown(shelf.load(evaluation.network), images, adversarial, labels)
    # without true labels an attack may push an image into its class; EMPIR's code counts it as right, and so is it here
    right = stands if evaluation.labels == "predicted" else correct & stands
    broken_in = torch.where(right, -1, 0).to(torch.int16)
    meta = {"calls": 2 * len(images), "seconds": round(time.monotonic() - started, 2), **stamp(images.device)}
    shelf.store.save(name, {"correct": correct, "any_run": broken_in, "last_run": broken_in.clone()}, meta)


def _crafted(evaluation: Evaluation, shelf: Shelf, progress: bool) -> Tensor:
    """The attack's last iterates, float32 [size, C, H, W], made once for all the networks that they are shown to.

    Processes that want the same ones share the work: what another one is busy with is left for later.
    """
    name, store = name_of(evaluation, shelf).replace("evaluation/", "adversarial/"), shelf.store
    images, labels = _test(evaluation, shelf)
    chunks = torch.arange(evaluation.size, device=images.device).split(CHUNK)
    parts = {f"{name}/{int(ids[0]):06d}": ids for ids in chunks}
    model = None
    for wait in (False, True):
        missing = {part: ids for part, ids in parts.items() if not store.has(part)}
        for part, ids in tqdm(missing.items(), desc="adversarial images", disable=not progress or not missing):
            with store.lock(part, wait=wait) as held:
                if held and not store.has(part):
                    model = model or _folded(evaluation.network, shelf)
                    told = predicted(model, images[ids]) if evaluation.labels == "predicted" else labels[ids]
                    found = _computation(evaluation)(model, evaluation, images[ids], told, ids)
                    store.save(part, {"adversarial": found.adversarial}, stamp(images.device))
    return torch.cat([store.load(part, device=images.device)[0]["adversarial"] for part in parts])
