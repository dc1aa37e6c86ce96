"""What a profile would cost, before anything is run: an estimate from the networks' operations, not a measurement.

A training step takes three times the operations of a forward pass, an attack's step two (no gradient of the weights).
An attack ends on an image as soon as it is broken, so its cost has a lower and an upper limit.
"""

from __future__ import annotations

import functools

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from reprolib import models, specs
from reprolib.specs import ENSEMBLE, Evaluation, Plan, Training

SUSTAINED = {"cpu": (0.1e12, "0.1 TFLOP/s of two cores"), "paper": (20e12, "20 TFLOP/s of one GPU")}  # our assumptions
SHAPES = {"fashion-mnist": (1, 28, 28), "cifar-10": (3, 32, 32)}
AUTOATTACK = (
    100 + 9 * 100 + 9 * 100 + 5000 // 2
)  # steps on an image that nothing breaks; a query of Square is half a step


def page(profile: str) -> str:
    """The table as text, under a line that says what was assumed."""
    rows = table(profile).to_markdown(index=False, disable_numparse=True)
    return f"Estimated, not measured, at an assumed {SUSTAINED[profile][1]}; attacks end early on images that fall:\n\n{rows}"


def table(profile: str) -> pd.DataFrame:
    """Per table that trains networks: trainings, attacks, and the hours that they take at an assumed speed.

    Raises SpecError for an unknown profile, and for `quick`, whose notebooks take seconds.
    """
    settings = specs.load_profile(profile)
    if profile not in SUSTAINED:
        raise specs.SpecError(
            f"there is no estimate for the profile {profile!r}; expected one of {', '.join(SUSTAINED)}"
        )
    rows = []
    for name in specs.grid_names():
        plan = specs.Plan(specs.load_grid(name), settings)
        trained, (least, most) = training_operations(plan), attack_operations(plan)
        hours = [operations / SUSTAINED[profile][0] / 3600 for operations in (trained, least, most)]
        rows.append(
            {
                "table": name,
                "trainings": len(_trainings(plan)),
                "attacks": len(_evaluations(plan)),
                "training, hours": f"{hours[0]:.2g}",
                "attacks, hours": f"{hours[1]:.2g} to {hours[2]:.2g}",
            }
        )
    return pd.DataFrame(rows)


def training_operations(plan: Plan) -> float:
    """Floating-point operations of all trainings of a plan, their parents' included."""
    images = plan.train_size or specs.SIZES[plan.dataset][0]
    return sum(
        3 * forward_operations(spec.model, spec.width, plan.grid.dataset)
        * images * epochs * (1 if spec.copies == "none" else 2)
        for spec, epochs in _trainings(plan).items()
    )  # fmt: skip


def attack_operations(plan: Plan) -> tuple[float, float]:
    """Floating-point operations of all attacks of a plan: if each image falls at once, and if none ever does."""
    pairs = [
        [2 * forward_operations(spec.training.model, spec.training.width, plan.grid.dataset) * spec.size * steps
         for steps in _steps(spec)]
        for spec in _evaluations(plan)
    ]  # fmt: skip
    least, most = (sum(operations) for operations in zip(*pairs, strict=True))
    return least, most


def _steps(spec: Evaluation) -> tuple[int, int]:
    """Gradients per image, at least and at most. By the last iterate a run is made to its end, unless it cannot move."""
    if spec.attack.name in ENSEMBLE:
        return 1, AUTOATTACK if spec.attack.name == "autoattack" else 2500
    run = spec.attack.loop()["steps"] + 1
    waits = spec.decision == "last" and spec.attack.loss != "probabilities"
    return run if waits else 1, run * max(spec.attack.restarts, 1)


def _trainings(plan: Plan) -> dict[Training, int]:
    """Each training once, with its last epoch."""
    wanted = {spec: epochs[-1] for spec, epochs in plan.trainings}
    parents = {spec.parent: spec.parent_epoch for spec in wanted if spec.parent}
    return parents | wanted


def _evaluations(plan: Plan) -> list[Evaluation]:
    jobs = [*plan.jobs, *plan.epoch_jobs, *plan.ensemble_jobs, *plan.sweep_jobs]
    return list({str(job.evaluation.content()): job.evaluation for job in jobs}.values())


@functools.lru_cache
def forward_operations(model: str, width: float, dataset: str) -> int:
    """Floating-point operations of one image's way through a network."""
    network = models.build(model, width=width)
    # under autocast F-MNISTconv is made of plain convolutions, as on a GPU
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network(torch.zeros(1, *SHAPES[dataset]))
    return counter.get_total_flops()
