"""From stored outcomes to cells: every measured number with its interval, under each protocol and decision rule.

A cell is one number: what it is (row, column, epoch, protocol, decision), its value and 95 % interval, on how many images,
from which seeds, and the claim of the paper that it answers.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from reprolib import claims, data, evaluation, ladder, patches, specs, store, training
from reprolib.attacks import LinfAttack
from reprolib.autoattack import STANDARD, part_of
from reprolib.specs import Plan

PROTOCOLS = ("clean", "sound", "logits", "probabilities", "transfer", "time")
# the decision rule under which each is compared with the paper, which judges by the last iterate
JUDGED = {"clean": None, "sound": "any", "logits": "last", "probabilities": "last", "transfer": "last", "time": None}


def share(mask: Tensor) -> dict:
    """A share of images in percent with its 95 % Wilson interval: bool [n] -> value, low, high, n."""
    hits, n = int(mask.sum()), len(mask)
    low, high = claims.wilson(hits, n)
    return {"value": round(100 * hits / n, 2), "low": round(low, 2), "high": round(high, 2), "n": n}


def gain(defended: Tensor, undefended: Tensor) -> dict:
    """Difference of two accuracies on the same images, in points, with a 95 % interval from the paired differences."""
    difference = defended.double() - undefended.double()
    mean, error = float(difference.mean()), 1.96 * float(difference.std()) / len(difference) ** 0.5
    return {
        "value": round(100 * mean, 2),
        "low": round(100 * (mean - error), 2),
        "high": round(100 * (mean + error), 2),
        "n": len(difference),
    }


def cell(
    row: str,
    column: str,
    epoch: int | None,
    protocol: str,
    decision: str | None,
    measured: dict,
    seed: int,
    claim: str | None = None,
) -> dict:
    return {
        "claim": claim,
        "row": row,
        "column": column,
        "epoch": epoch,
        "protocol": protocol,
        "decision": decision,
        **measured,
        "seeds": [seed],
    }


def count_cell(row: str, count: int) -> dict:
    """A number that was counted, not estimated: no interval, no seed."""
    return {
        "claim": None,
        "row": row,
        "column": "parameters",
        "epoch": None,
        "protocol": "count",
        "decision": None,
        "value": count,
        "low": None,
        "high": None,
        "n": None,
        "seeds": [],
    }


def measure(
    plan: Plan,
    dataset: data.Dataset,
    artefacts: store.Store,
    jobs: list[specs.Job] | None = None,
    table: str | None = None,
) -> list[dict]:
    """Every number of a table from the store: clean, each attack under each loss and both decision rules, sound, transfer.

    Sound robust accuracy counts an image only if it survives `margin` and `logits` under any iterate.

    jobs, table: the jobs and the claims (T11) of a table that shows another one's networks; by default the plan's own.
    """
    wanted, table = plan.jobs if jobs is None else jobs, table or plan.grid.table
    ledger = {name: claim for name, claim in claims.load_claims().items() if name.startswith(f"{table}.")}
    cells = []
    masks: dict[tuple[str, str, int, str, str], Tensor] = {}  # (row, column, epoch, protocol, decision) -> bool [n]
    for column, (spec, table_epoch) in plan.networks.items():
        epochs = {job.evaluation.epoch for job in wanted if job.column == column}
        for epoch in sorted(epochs):
            here = [job for job in wanted if job.column == column and job.evaluation.epoch == epoch]
            for (row, protocol, decision), mask in _masks(here, plan, dataset, artefacts).items():
                masks[row, column, epoch, protocol, decision] = mask
                cells += [
                    cell(row, column, epoch, protocol, decision or None, share(mask), spec.seed, claim)
                    for claim in _claims_of(plan, row, column, epoch, table_epoch, ledger) or [None]
                ]
            saturated = training.checkpoint(spec, epoch, dataset, artefacts).history[-1]["saturated"]
            hits, n = round(saturated * len(dataset.test) / 100), len(dataset.test)
            cells.append(
                cell(
                    "p(true) > 1-1e-7",
                    column,
                    epoch,
                    "saturated",
                    None,
                    share(torch.arange(n) < hits),
                    spec.seed,
                )
            )
    return cells + (_text_cells(plan, masks) if table == plan.grid.table else [])


def measure_ensemble(plan: Plan, dataset: data.Dataset, artefacts: store.Store) -> list[dict]:
    """A row of Table 9 from the store: clean, under AutoAttack given logits (sound) and given probabilities, and Square.

    Beside each AutoAttack, the share of the images that each of its parts broke.
    """
    ledger, cells, ensemble = claims.load_claims(), [], plan.grid.ensemble
    for job in plan.ensemble_jobs:
        attacked, given = evaluation.outcome(job.evaluation, dataset, artefacts), job.evaluation.attack.loss
        protocol = {"logits": "sound", "probabilities": "probabilities"}[given]
        claim = f"{ensemble.claims}.{ensemble.columns[job.column]}" if job.attack == "AutoAttack" else None
        rows = {(job.attack, protocol): attacked.robust()}
        if job.attack == "AutoAttack":
            rows |= {("Clean", "clean"): attacked.correct} if protocol == "sound" else {}
            broken_by = part_of(attacked.any_run)
            for number, part in enumerate(STANDARD):
                rows[f"broken by {part}", protocol] = attacked.correct & (broken_by == number)
        for (row, shown_as), mask in rows.items():
            cells.append(
                cell(
                    row,
                    job.column,
                    job.evaluation.epoch,
                    shown_as,
                    None if row == "Clean" else "any",
                    share(mask),
                    plan.settings.seed,
                    claim if row == job.attack and claim in ledger else None,
                )
            )
    return cells


def named(plan: Plan, cells: list[dict]) -> list[dict]:
    """The cells under their network's name, for a record about several: 7-P1 -> vgg16, 7-P1."""
    return [entry | {"column": f"{plan.grid.model}, {entry['column']}"} for entry in cells]


def of(plan: Plan, cells: list[dict]) -> list[dict]:
    """One plan's cells from such a record, under its own columns again."""
    name = f"{plan.grid.model}, "
    return [c | {"column": c["column"].removeprefix(name)} for c in cells if c["column"].startswith(name)]


LADDER_SIZE = 100  # images on which the sanity ladder is climbed


def measure_ladder(plan: Plan, dataset: data.Dataset, artefacts: store.Store) -> list[dict]:
    """The sanity ladder of the plan's PGD with two restarts, on the undefended network, for each loss."""
    network = training.checkpoint(plan.pretraining, plan.settings.pretrain_epochs, dataset, artefacts).model
    pgds = [attack for attack in specs.attacks_of(plan.grid.dataset).values() if attack.name == "pgd"]
    loop = plan.settings.limit(max(pgds, key=lambda attack: attack.eps)).loop() | {"restarts": 2}
    size = min(LADDER_SIZE, plan.test_size)
    images, labels = dataset.test.images[:size].float() / 255, dataset.test.labels[:size]
    return [
        rung
        for loss in specs.LOSSES
        for rung in ladder.climb(LinfAttack(network, **loop | {"loss": loss}, seed=plan.settings.seed), images, labels)
    ]


def _masks(jobs: list[specs.Job], plan: Plan, dataset: data.Dataset, artefacts: store.Store) -> dict:
    """(row, protocol, decision) -> which images are robust, for one network."""
    found: dict[tuple[str, str, str], Tensor] = {}
    for job in jobs:
        attacked = evaluation.outcome(job.evaluation, dataset, artefacts)
        loss, decision = job.evaluation.attack.loss, job.evaluation.decision
        counts = plan.grid.rows_of(job.attack)
        if job.evaluation.source:
            found[list(counts)[-1], "transfer", "last"] = attacked.robust("last")
            continue
        if len(attacked.correct) == plan.test_size:
            found["Clean", "clean", ""] = attacked.correct
            if job.evaluation.engine == "reprolib":  # torchattacks looks at the last iterate only
                found |= {(row, loss, "any"): attacked.robust("any", runs) for row, runs in counts.items()}
        if decision == "last":
            found |= {(row, loss, "last"): attacked.robust("last", runs) for row, runs in counts.items()}
        if loss == "probabilities" and job.evaluation.attack.restarts > 0:
            found[f"{job.attack}, first start only", loss, decision] = attacked.robust(decision, runs=1)
    rows = [
        row
        for row in dict.fromkeys(row for job in jobs for row in plan.grid.rows_of(job.attack))
        if (row, "margin", "any") in found and (row, "logits", "any") in found
    ]
    for row in rows:
        found[row, "sound", "any"] = found[row, "margin", "any"] & found[row, "logits", "any"]
    if rows:
        found["All attacks", "sound", "any"] = torch.stack([found[row, "sound", "any"] for row in rows]).all(0)
    return found


def _claims_of(plan: Plan, row: str, column: str, epoch: int, table_epoch: int, ledger: dict) -> list[str]:
    """The claims that a number is read as: a cell of the table, a cell of Table 11, or at the table's epoch both."""
    grid, found = plan.grid, []
    if epoch == table_epoch:
        found += names_of(grid.table, row, column)
    if [column, row] == grid.ablation_claimed:
        found.append(f"{grid.ablation_claims}.{epoch}")
    return [claim for claim in found if claim in ledger]


def names_of(table: str, row: str, column: str) -> list[str]:
    """What a cell of the paper's table may be called: its Tables 3, 4, 5 and 7 say "Natural" for clean images."""
    return [f"{table}.{word}.{column}" for word in ((row, "Natural") if row == "Clean" else (row,))]


def _text_cells(plan: Plan, masks: dict) -> list[dict]:
    """What the text repeats from the table, or subtracts in it, under each protocol."""
    cells = []
    for claim, places in plan.grid.text_claims.items():
        rows, columns = zip(*(place.split(".", 1) for place in places), strict=True)
        keys = [(row, column, plan.networks[column][1]) for row, column in zip(rows, columns, strict=True)]
        for protocol, decision in dict.fromkeys(key[3:] for key in masks if key[:3] == keys[0]):
            if (*keys[-1], protocol, decision) not in masks:  # nothing transfers to the network it was made on
                continue
            pair = [masks[*key, protocol, decision] for key in keys]
            measured = share(pair[0]) if len(pair) == 1 else gain(*pair)
            cells.append(
                cell(
                    " minus ".join(rows),
                    " minus ".join(columns),
                    keys[0][2],
                    protocol,
                    decision or None,
                    measured,
                    plan.settings.seed,
                    claim,
                )
            )
    return cells


def measure_operations(images: Tensor, size: int, seed: int) -> list[dict]:
    """Mean absolute change of a pixel of the patch under each operation, on the scale [0, 1], with a 95 % interval."""
    ((top, left),) = patches.boxes(*images.shape[2:], size, 1)
    before, cells = images[:, :, top : top + size, left : left + size].float() / 255, []
    for index, operation in enumerate(patches.OPERATIONS):
        change = (changed_patch(images, index, size, seed).float() / 255 - before).abs().flatten(1).mean(1)
        mean, error = float(change.mean()), 1.96 * float(change.std()) / len(change) ** 0.5
        measured = {
            "value": round(mean, 4),
            "low": round(mean - error, 4),
            "high": round(mean + error, 4),
            "n": len(images),
        }
        cells.append(cell(operation.__name__, f"patch {size}x{size}", None, "change", None, measured, seed))
    return cells


def changed_patch(images: Tensor, operation: int, size: int, seed: int) -> Tensor:
    """The centred patch of uint8 images after one operation, uint8."""
    ((top, left),) = patches.boxes(*images.shape[2:], size, 1)
    patch = images[:, :, top : top + size, left : left + size].float() / 255
    drawn = patches.sample(torch.arange(len(images)), 1, seed)[0]
    forced = replace(drawn, operation=torch.full((len(images),), operation))
    return (patches.apply(patch, forced) * 255).round().to(torch.uint8)
