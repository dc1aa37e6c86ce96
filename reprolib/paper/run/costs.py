"""What a profile would cost, before anything is run: an estimate from the networks' operations, not a measurement.

An attack's step takes two times the operations of a forward pass (no gradient of the weights), a training's step what
the defence makes of it. An attack ends on an image as soon as it is broken, so its cost has a lower and an upper limit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reprolib import attacks, data, networks, training
from reprolib.defenses import Defence
from reprolib.paper import notebooks
from reprolib.paper.plan import (
    AnyNetwork,
    Changed,
    Evaluation,
    Plan,
    SpecError,
    Trained,
    Voted,
    load_plan,
    load_profile,
)
from reprolib.paper.run import published
from reprolib.paper.run.measure import answered

GPU = (20e12, "20 TFLOP/s of one GPU")
SUSTAINED = {"cpu": (0.1e12, "0.1 TFLOP/s of two cores"), "gpu": GPU, "paper": GPU}  # our assumptions
PARTS = ("autoattack", "square")
ATTACK_STEP = 2  # in forward passes
SQUARE = 50 // 2  # steps' worth of queries for each step of the attack; a query is half a step
# seconds on top of the operations, or at the least; roughly what the quick profile's small ones take on a CPU
TRAINING, EVALUATION, STEP = 2, 0.1, 0.01
AUTOATTACK = 1 + 9 + 9 + SQUARE  # APGD-CE, and towards each of nine classes APGD-T and FAB-T
CASCADE = 2 * 21 + 9 + 11 * 101  # two short PGDs, the order of nine classes, and eleven runs if none is given up


def page(profile: str, only: str = "") -> str:
    """The table as text, under a line that says what was assumed."""
    rows = table(profile, only).to_markdown(index=False, disable_numparse=True)
    return (
        f"Estimated, not measured, at an assumed {SUSTAINED[profile][1]}; attacks end early on images that fall.\n"
        f"What pages share is counted in the first of them, published networks' trainings nowhere:\n\n{rows}"
    )


def table(profile: str, only: str = "") -> pd.DataFrame:
    """Per page that asks networks: trainings, attacks, and the hours that they take at an assumed speed.

    Raises SpecError for an unknown profile, and for `quick`, whose pages take seconds.
    """
    rows, trained, asked = [], dict[str, int](), set[str]()
    for plan in _plans(profile, only):
        costs = [training_operations(one, more) for one, more in _new_trainings(plan, trained)]
        work = [attack_operations(evaluation) for evaluation in _new_evaluations(plan, asked)]
        hours = [sum(some) / SUSTAINED[profile][0] / 3600 for some in (costs, *zip(*work, strict=True))]
        rows.append(
            {
                "page": plan.page.record,
                "trainings": len(costs),
                "attacks": len(work),
                "training, hours": f"{hours[0]:.2g}",
                "attacks, hours": f"{hours[1]:.2g} to {hours[2]:.2g}" if work else "0",
            }
        )
    return pd.DataFrame(rows)


def by_value(profile: str, only: str = "") -> list[str]:
    """The pages that ask networks, by their records: first those that answer the most claims per minute, each page's
    minutes estimated as if it were the only one.

    Raises SpecError as `table` does.
    """
    worth = dict[str, float]()
    for plan in _plans(profile, only):
        trained = sum(training_seconds(one, more, profile) for one, more in _new_trainings(plan, {}))
        asked = sum(attack_seconds(evaluation, profile) for evaluation in _new_evaluations(plan, set()))
        worth[plan.page.record] = len(answered(plan)) / max(trained + asked, 1)
    return sorted(worth, key=lambda record: -worth[record])


def _plans(profile: str, only: str) -> Iterator[Plan]:
    load_profile(profile)
    if profile not in SUSTAINED:
        raise SpecError(f"there is no estimate for the profile {profile!r}; expected one of {', '.join(SUSTAINED)}")
    for sheet in notebooks.wanted(only):
        if sheet.network is not None:
            yield load_plan(sheet.notebook.stem, sheet.network, profile)


def _new_trainings(plan: Plan, trained: dict[str, int]) -> list[tuple[Trained, int]]:
    """A plan's trainings, with the epochs that `trained` lacks, which then has them, too."""
    found = []
    for name, (network, epochs) in plan.trainings.items():
        looks = [network.model_copy(update={"epochs": epoch}) for epoch in epochs]
        more = max(look.epochs for look in looks) - trained.get(name, 0)
        if more > 0 and not all(published.find(look) for look in looks):
            found.append((network, more))
            trained[name] = trained.get(name, 0) + more
    return found


def _new_evaluations(plan: Plan, asked: set[str]) -> list[Evaluation]:
    """A plan's evaluations that are not among those `asked`, which then has them, too."""
    wanted = {computation(job.evaluation): job.evaluation for job in [*plan.jobs, *plan.ladder]}
    found = [evaluation for name, evaluation in wanted.items() if name not in asked]
    asked |= wanted.keys()
    return found


def computation(evaluation: Evaluation) -> str:
    """What is computed: attacks of other names may be one, such as a PGD without restarts and an IFGSM."""
    attack = evaluation.attack.build(nn.Identity(), evaluation.loss, evaluation.decision, evaluation.seed)
    rest = evaluation.model_dump(mode="json", exclude={"attack", "loss", "decision"})
    return str((attacks.content(attack), rest))


def training_seconds(network: Trained, epochs: int, profile: str) -> float:
    """What so many epochs of a training may take at the assumed speed, in quick at that of `cpu`."""
    return TRAINING + training_operations(network, epochs) / _speed(profile)


def attack_seconds(evaluation: Evaluation, profile: str) -> float:
    """What an attack may take: something between its least and its most, of AutoAttack's parts the most."""
    least, most = steps(evaluation)
    likely = most if evaluation.attack.name in PARTS else math.sqrt(least * most)
    return EVALUATION + likely * max(_step_operations(evaluation) / _speed(profile), STEP)


def _speed(profile: str) -> float:
    return SUSTAINED[profile if profile in SUSTAINED else "cpu"][0]


def training_operations(network: Trained, epochs: int) -> float:
    """Floating-point operations of so many epochs of a training, without its parents'."""
    images = network.train or data.describe(network.data).train
    return training_factor(network.defence) * forward_operations(network, network.data) * images * epochs


def attack_operations(evaluation: Evaluation) -> tuple[float, float]:
    """Floating-point operations of an attack: if each image falls at once, and if none ever does."""
    step = _step_operations(evaluation)
    least, most = steps(evaluation)
    return step * least, step * most


def _step_operations(evaluation: Evaluation) -> float:
    made_on = evaluation.source or evaluation.network  # showing the images to another network costs next to nothing
    return ATTACK_STEP * forward_operations(made_on, evaluation.data) * evaluation.size


def steps(evaluation: Evaluation) -> tuple[int, int]:
    """Gradients per image, at least and at most. By the last iterate a run goes to its end, unless it cannot move."""
    attack = evaluation.attack
    if attack.name in PARTS:
        return 1, attack.get("steps") * (AUTOATTACK if attack.name == "autoattack" else SQUARE)
    if attack.name == "cascade":
        return 1, CASCADE
    run = attack.get("steps", 1) + 1
    waits = evaluation.decision == "last" and evaluation.loss != "probabilities"
    return run if waits else 1, run * max(attack.get("restarts", 0), 1)


def forward_operations(network: AnyNetwork, dataset: str) -> int:
    """Floating-point operations of one image's way through a network."""
    if isinstance(network, Voted):
        return sum(forward_operations(member, dataset) for member in network.members)
    if isinstance(network, Changed):
        return forward_operations(network.network, dataset)
    return _forward_operations(network.architecture, network.width, data.describe(dataset).shape)


@functools.cache
def _forward_operations(architecture: str, width: float, shape: tuple[int, int, int]) -> int:
    # on "meta" nothing is computed; under autocast F-MNISTconv is made of plain convolutions, as on a GPU
    with torch.device("meta"):
        model = networks.build(architecture, width=width).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(torch.zeros(1, *shape, device="meta"))
    return counter.get_total_flops()


class Operations(FlopCounterMode):
    """Counts all operations together: to tell modules apart it would hook gradients, which a defence may ask for."""

    def __enter__(self) -> Operations:
        super().__enter__()
        self.mod_tracker.__exit__(None, None, None)
        return self

    def __exit__(self, *error: Any) -> Any:
        self.mod_tracker.__enter__()
        return super().__exit__(*error)


@functools.cache
def training_factor(defence: Defence) -> float:
    """What an epoch of training costs for each image, in forward passes (3 plainly); counted on a small network."""
    layers = nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model, images = nn.Sequential(*layers, nn.Linear(64, 10)), torch.zeros(4, 1, 28, 28, dtype=torch.uint8)
    with Operations(display=False) as one:
        labels = model(images.float()).argmax(1)  # right ones, since what is wrong already need not be attacked
    with Operations(display=False) as all_of_it:
        training.fit(model, images, labels, defence, training.Recipe(batch_size=4), epochs=1, progress=False)
    return all_of_it.get_total_flops() / one.get_total_flops()
