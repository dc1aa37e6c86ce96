"""Run an attack on a checkpoint, image by image, through the store: resumable, and never computed twice."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from reprolib import attacks, data, devices, models, probes, training
from reprolib.autoattack import STANDARD, AutoAttack, Probabilities
from reprolib.folding import folded
from reprolib.specs import ENSEMBLE, STANDARD_STEPS, Evaluation, Job, Plan
from reprolib.store import Store, key

CODE = tuple(
    f"reprolib.{name}" for name in ("attacks", "slots", "devices", "streams")
)  # behind an outcome, with what defines the networks


@dataclass(frozen=True)
class Outcome:
    """What an attack did to each of n test images; see `attacks.AttackResult` for `correct`, `any_run`, `last_run`."""

    correct: Tensor
    any_run: Tensor
    last_run: Tensor
    calls: int
    seconds: float
    device: str

    def robust(self, decision: str = "any", runs: int | None = None) -> Tensor:
        """See `attacks.robust`."""
        return attacks.robust(self.correct, {"any": self.any_run, "last": self.last_run}, decision, runs)


def artefact(spec: Evaluation, dataset: data.Dataset) -> str:
    """Name of an evaluation's outcome in the store; it changes with the checkpoint's own key."""
    record = spec.content() | {"checkpoint": training.artefact(spec.training, dataset)}
    if spec.source:
        record["source_checkpoint"] = training.artefact(spec.source, dataset)
    code = CODE + models.code_of(spec.training.model)
    if _is_deep(spec):
        code += ("reprolib.folding",)
    if spec.attack.name in ENSEMBLE:
        code += ("reprolib.autoattack", "reprolib.autoattack_parts")
    return f"evaluation/{key('evaluation', record, dataset.checksum, code)}"


def outcome(spec: Evaluation, dataset: data.Dataset, store: Store) -> Outcome:
    """The stored outcome of an evaluation; raises StoreError when it has not been run."""
    tensors, meta = store.load(artefact(spec, dataset))
    return Outcome(**tensors, calls=meta["calls"], seconds=meta["seconds"], device=meta["device"])


def evaluate(spec: Evaluation, dataset: data.Dataset, store: Store, *, progress: bool = True) -> None:
    """Attack the checkpoint, unless that has been done; the checkpoint must be in the store.

    A killed run goes on from its last save and loses the runs that were in flight, a few seconds of work.
    """
    name = artefact(spec, dataset)
    with store.lock(name):
        if not store.has(name):
            _run(spec, dataset, store, name, progress)


def _run(spec: Evaluation, dataset: data.Dataset, store: Store, name: str, progress: bool) -> None:
    if spec.source:
        return _run_transfer(spec, dataset, store, name, progress)
    model = training.checkpoint(spec.training, spec.epoch, dataset, store).model
    attack = _attack(spec, model)
    engine = attacks.run_torchattacks if spec.engine == "torchattacks" else type(attack).run
    images, labels = dataset.test.images[: spec.size].float() / 255, dataset.test.labels[: spec.size]
    resume, before = _unfinished(store, name, images)
    started = time.monotonic()
    device = devices.device_name(images.device)

    label = (
        f"{training.describe(spec.training)} epoch {spec.epoch}: {spec.attack.name} {spec.attack.loss} {spec.decision}"
    )
    with tqdm(total=len(images), desc=label, unit="image", disable=not progress) as bar:

        def save(result: attacks.AttackResult, to: str = f"{name}-unfinished") -> None:
            bar.update(int((result.next_run >= attack.runs).sum()) - bar.n)
            tensors = {k: getattr(result, k) for k in ("correct", "any_run", "last_run")}
            if to != name:
                tensors["next_run"] = result.next_run
            seconds = round(before + time.monotonic() - started, 2)
            store.save(
                to, tensors, {"spec": spec.content(), "calls": result.calls, "seconds": seconds, "device": device}
            )

        save(engine(attack, images, labels, resume=resume, save=save), to=name)
    store.path(f"{name}-unfinished").unlink(missing_ok=True)


def _run_transfer(spec: Evaluation, dataset: data.Dataset, store: Store, name: str, progress: bool) -> None:
    model = training.checkpoint(spec.training, spec.epoch, dataset, store).model
    images, labels = dataset.test.images[: spec.size].float() / 255, dataset.test.labels[: spec.size]
    started = time.monotonic()
    adversarial = _crafted(spec.crafting(), dataset, store, progress)
    correct, stands = probes.is_right(model, images, labels), probes.is_right(model, adversarial, labels)
    broken_in = torch.where(correct & stands, -1, 0).to(torch.int16)
    seconds, device = round(time.monotonic() - started, 2), devices.device_name(images.device)
    meta = {"spec": spec.content(), "calls": 2 * len(images), "seconds": seconds, "device": device}
    store.save(name, {"correct": correct, "any_run": broken_in, "last_run": broken_in.clone()}, meta)


CHUNK = 500  # adversarial images that a killed transfer attack may lose


def _crafted(spec: Evaluation, dataset: data.Dataset, store: Store, progress: bool) -> Tensor:
    """The attack's last iterates, float32 [size, C, H, W], made once for all the networks that they are shown to.

    Processes that want the same ones share the work: what another one is busy with is left for later.
    """
    name = artefact(spec, dataset).replace("evaluation/", "adversarial/")
    attack = _attack(spec, training.checkpoint(spec.training, spec.epoch, dataset, store).model)
    device = dataset.test.images.device
    chunks = torch.arange(spec.size, device=device).split(CHUNK)
    parts = {f"{name}/{int(ids[0]):06d}": ids for ids in chunks}
    for wait in (False, True):
        missing = {part: ids for part, ids in parts.items() if not store.has(part)}
        for part, ids in tqdm(missing.items(), desc="adversarial images", disable=not progress or not missing):
            with store.lock(part, wait=wait) as held:
                if held and not store.has(part):
                    images, labels = dataset.test.images[ids].float() / 255, dataset.test.labels[ids]
                    store.save(
                        part, {"adversarial": attack.run(images, labels, ids).adversarial}, {"spec": spec.content()}
                    )
    return torch.cat([store.load(part, device=device)[0]["adversarial"] for part in parts])


def _is_deep(spec: Evaluation) -> bool:
    """Whether the network has batch normalisation."""
    return spec.training.model in models.SCALABLE


def _attack(spec: Evaluation, model: nn.Module) -> attacks.LinfAttack | AutoAttack:
    model = folded(model) if _is_deep(spec) else model
    if spec.attack.name in ENSEMBLE:
        given = Probabilities(model) if spec.attack.loss == "probabilities" else model
        parts = STANDARD if spec.attack.name == "autoattack" else ("Square",)
        return AutoAttack(given, spec.attack.eps, spec.seed, parts, steps=spec.attack.steps or STANDARD_STEPS)
    return attacks.LinfAttack(model, **spec.attack.loop(), decision=spec.decision, seed=spec.seed)


def _unfinished(store: Store, name: str, images: Tensor) -> tuple[attacks.AttackResult | None, float]:
    """An interrupted evaluation's result so far and its seconds, or nothing."""
    if not store.has(f"{name}-unfinished"):
        return None, 0.0
    tensors, meta = store.load(f"{name}-unfinished", device=images.device)
    return attacks.AttackResult(**tensors, adversarial=images.clone(), calls=meta["calls"]), meta["seconds"]


def run_plan(
    plan: Plan, dataset: data.Dataset, store: Store, jobs: list[Job] | None = None, *, progress: bool = True
) -> None:
    """Do what a plan asks for and the store lacks: trainings, then attacks. Progress is one bar each.

    jobs: some of the plan's, when not all of `plan.jobs` are wanted; only what they attack is trained.
    """
    jobs = plan.jobs if jobs is None else jobs
    needed = [job.evaluation.training for job in jobs]
    needed += [spec.parent for spec in needed if spec.parent]
    todo = [
        (spec, epochs)
        for spec, epochs in plan.trainings
        if spec in needed and not all(store.has(f"{training.artefact(spec, dataset)}/epoch-{e:04d}") for e in epochs)
    ]
    for spec, epochs in tqdm(todo, desc="trainings", disable=not progress or not todo):
        training.train(spec, epochs, dataset, store, progress=False)
    missing = [job.evaluation for job in jobs if not store.has(artefact(job.evaluation, dataset))]
    for evaluation in tqdm(missing, desc="attacks", disable=not progress or not missing):
        evaluate(evaluation, dataset, store, progress=False)


def load_dataset(plan: Plan) -> data.Dataset:
    """The plan's training images and the whole test set, on the GPU where there is one."""
    return data.load(plan.dataset, train_size=plan.train_size, device="cuda" if torch.cuda.is_available() else "cpu")
