"""What trainings cost: how often each image goes through the network, and the time, taken in turn on one machine."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Iterable
from typing import Any

import torch

from reprolib import data, networks, training
from reprolib.defenses import Defence
from reprolib.paper.plan import AnyNetwork, Cell, Changed, Trained, Voted, epoch_of, known_claims
from reprolib.paper.run.page import Page

FEW = 4  # images on which passes are counted
ROUNDS = 9  # in each of them every training takes a step
TIMED = ("AT", "proposed", "reduction")  # columns of Table 8
COST: dict[str, Any] = {"quantity": "count", "protocol": "cost"}


# --- passes: of the network alone, whatever machine it runs on ---


def passes(network: Trained) -> float:
    """How many images an epoch of a training sends through the network for each training image.

    1 plainly, 2 with copies, 8 for seven steps of an attack and the step on what they found. What the network itself
    does not see, such as a generator beside it, is not counted.
    """
    return _passes(network.architecture, network.width, data.describe(network.data).shape, network.defence)


@functools.cache
def _passes(architecture: str, width: float, shape: tuple[int, int, int], defence: Defence) -> float:
    images = torch.randint(256, (FEW, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    recipe, model = training.Recipe(batch_size=FEW, augment=True), networks.build(architecture, width=width)
    run, seen = training.Run(model, images, torch.arange(FEW), defence, recipe, 0, None), []
    run.model.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    run.finish_epoch(None)
    return sum(seen) / FEW


def measure_training(page: Page) -> list[Cell]:
    """Per network and look: passes per training image and seconds, of its own training and with those of its parents.

    The seconds are those that its maker took, which may have had other work beside it; `measure_times` takes them in
    turn. A network without training costs what the one costs that it was made from; a vote, all of its members.
    """
    cells = []
    for (column, seed), network in page.plan.networks.items():
        for looked_at in page.plan.looks(network):
            for part, whole in (("alone", False), ("with its parents", True)):
                counted, seconds = _spent(page, looked_at, whole)
                place: dict[str, Any] = {"column": column, "epoch": epoch_of(looked_at), "part": part}
                place["seeds"] = [page.plan.amounts.seed + seed]
                cells.append(Cell(row="Passes per image", value=round(counted, 2), **place, **COST))
                if seconds is not None:
                    cells.append(Cell(row="Seconds", value=round(seconds, 1), **place, **COST))
    return cells


def _spent(page: Page, network: AnyNetwork, whole: bool) -> tuple[float, float | None]:
    """(passes per image, seconds) of a network's training; with `whole`, of those before it, too. Seconds are None
    where a published network does not say them."""
    if isinstance(network, Changed):
        return _spent(page, network.network, True) if whole else (0.0, 0.0)
    if isinstance(network, Voted):
        return _sum(_spent(page, member, whole) for member in network.members)
    if not isinstance(network, Trained):
        return 0.0, 0.0
    made = page.shelf.checkpoint(network)[1]
    own = passes(network) * made["history"][-1]["epoch"], made.get("seconds")
    return _sum([own, _spent(page, network.parent, True)] if whole and network.parent else [own])


def _sum(spent: Iterable[tuple[float, float | None]]) -> tuple[float, float | None]:
    counted, seconds = zip(*spent, strict=True)
    return sum(counted), None if None in seconds else sum(seconds)


# --- time ---


def measure_times(page: Page, pretrained: str, finetuned: str, adversarial: str) -> list[Cell]:
    """Table 8: what pre-training, fine-tuning and adversarial training take, of the page's columns of these names.

    In each of several rounds every training takes one step, so that whatever slows the machine slows all three. A
    training takes as many minutes as its steps; an epoch that it rested in counts whole. Medians with their 95 %
    intervals. `proposed` is pre-training and fine-tuning together, as the paper has it; `reduction` is adversarial
    training over proposed.
    """
    chosen = {name: _trained(page, name) for name in (pretrained, finetuned, adversarial)}
    runs = {name: _begun(page, network) for name, network in chosen.items()}
    rounds = [{name: _seconds_of_a_step(run) for name, run in runs.items()} for _ in range(ROUNDS + 1)][1:]
    epochs = {name: page.shelf.checkpoint(network)[1]["history"][-1]["epoch"] for name, network in chosen.items()}
    minutes = [{name: step * _steps(runs[name], epochs[name]) / 60 for name, step in one.items()} for one in rounds]
    both = [one[pretrained] + one[finetuned] for one in minutes]
    found = {
        pretrained: [one[pretrained] for one in minutes],
        finetuned: [one[finetuned] for one in minutes],
        "AT": [one[adversarial] for one in minutes],
        "proposed": both,
        "reduction": [one[adversarial] / spent for one, spent in zip(minutes, both, strict=True)],
    }
    cells = [
        Cell(row="Milliseconds per step", column=name, **COST, **_median([1000 * one[name] for one in rounds]))
        for name in runs
    ]
    cells += [Cell(row="Epochs", column=name, value=float(count), **COST) for name, count in epochs.items()]
    for name, values in found.items():
        ids = [answer.id("Minutes", name, None) for answer in page.plan.page.claims]
        claim = next((id for id in ids if id in known_claims()), None)
        row = "Reduction" if name == "reduction" else "Minutes"
        place: dict[str, Any] = {"row": row, "column": name, "quantity": "count", "protocol": "time"}
        cells.append(Cell(claim=claim, judged=claim is not None, **place, **_median(values)))
    return cells


def _trained(page: Page, column: str) -> Trained:
    network = page.plan.networks[column, 0]
    assert isinstance(network, Trained)
    return network


def _begun(page: Page, network: Trained) -> training.Run:
    """A training before its first step, from fresh weights: how long a step takes does not depend on them."""
    device = page.dataset.train.images.device
    model = networks.build(network.architecture, network.seed, network.width).to(device).train()
    split = page.dataset.train
    return training.Run(model, split.images, split.labels, network.defence, network.recipe, network.seed, None)


def _seconds_of_a_step(run: training.Run) -> float:
    size = min(run.recipe.batch_size, len(run.images))
    rows = torch.arange(size, device=run.images.device)
    copies = rows % 2 == 0 if run.defence.passes == 2 else torch.zeros_like(rows, dtype=torch.bool)
    _wait(run)
    started = time.perf_counter()
    run.defence.step(run, training.Batch(run.images[rows], run.labels[rows], rows, copies))
    _wait(run)
    return time.perf_counter() - started


def _wait(run: training.Run) -> None:
    if run.images.is_cuda:
        torch.cuda.synchronize()


def _steps(run: training.Run, epochs: int) -> int:
    return epochs * -(-len(run.images) * run.defence.passes // run.recipe.batch_size)


def _median(values: list[float]) -> dict[str, Any]:
    """The median with its 95 % interval, whose ends are values themselves (order statistics)."""
    from scipy.stats import binom  # takes a second to import

    ordered, n = sorted(values), len(values)
    below = int(binom.ppf(0.025, n, 0.5))
    ends = ordered[max(below - 1, 0)], ordered[min(n - below, n - 1)]
    found = {"value": statistics.median(ordered), "low": ends[0], "high": ends[1]}
    return {name: round(value, 4) for name, value in found.items()} | {"n": n}
