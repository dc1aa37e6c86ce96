"""From stored outcomes to cells: every measured number with its interval, under each protocol and decision rule."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from reprolib import attacks, data, training
from reprolib.diagnostics.verdict import wilson
from reprolib.paper.plan import LOSSES, Cell, Decision, Evaluation, Job, Plan, Trained, epoch_of, known_claims
from reprolib.paper.run.page import Page
from reprolib.paper.run.timing import TIMED

CLEAN, ALL = "Clean", "All attacks"
# the decision rule under which each protocol is compared with the paper, which judges by the last iterate
RULES = {
    "clean": None, "sound": "any", "logits": "last", "probabilities": "last", "transfer": "last",
    "predicted labels": "last", "time": None,
}  # fmt: skip
PROTOCOLS = tuple(RULES)

Mask = tuple[str, str, Decision | None]  # row, protocol, decision


def share(mask: Tensor) -> dict[str, Any]:
    """A share of images in percent with its 95 % Wilson interval: bool [n] -> value, low, high, n."""
    hits, n = int(mask.sum()), len(mask)
    low, high = wilson(hits, n)
    return {"value": round(100 * hits / n, 2), "low": round(low, 2), "high": round(high, 2), "n": n}


def gain(defended: Tensor, undefended: Tensor) -> dict[str, Any]:
    """Difference of two accuracies on the same images, in points, with a 95 % interval from the paired differences."""
    return {
        name: value if name == "n" else round(100 * value, 2)
        for name, value in mean(defended.double() - undefended.double()).items()
    }


def mean(values: Tensor) -> dict[str, Any]:
    """A mean with its 95 % interval from the spread: float [n] -> value, low, high, n."""
    middle, error = float(values.mean()), 1.96 * float(values.std()) / len(values) ** 0.5
    return {"value": middle, "low": middle - error, "high": middle + error, "n": len(values)}


def measure(page: Page) -> list[Cell]:
    """Every number of a page: clean, each attack under each loss and both decision rules, sound, transfer, saturated
    share, what AutoAttack's parts broke, what the text claims, and the sanity ladder.

    Sound robust accuracy counts an image only if it survives `margin` and `logits` under any iterate.
    """
    ids = set(known_claims())
    cells: list[Cell] = []
    masks: dict[tuple[str, int, int | None], dict[Mask, Tensor]] = {}
    for (column, seed), network in page.plan.networks.items():
        for looked_at in page.plan.looks(network):
            jobs = [
                j for j in page.plan.jobs if (j.column, j.seed) == (column, seed) and j.evaluation.network == looked_at
            ]
            epoch = jobs[0].epoch if jobs else None
            found = masks[column, seed, epoch] = _masks(jobs, page)
            place: dict[str, Any] = {"column": column, "epoch": epoch, "seeds": [page.plan.amounts.seed + seed]}
            for (row, protocol, decision), mask in found.items():
                shown: dict[str, Any] = {"row": row, "protocol": protocol, "decision": decision, **place, **share(mask)}
                judged = decision == RULES.get(protocol, "never") or _has_no_last(page, row)
                answers = [answer.id(row, column, epoch) for answer in page.plan.page.claims if not answer.over]
                cells += [Cell(claim=id, judged=judged and id is not None, **shown) for id in _known(answers, ids)]
            cells += _parts(jobs, page, place)
            if isinstance(looked_at, Trained):
                found_sure = share(_sure(page, looked_at))
                cells.append(Cell(quantity="saturated", row=CLEAN, protocol="saturated", **place, **found_sure))
    return cells + _gains(page, masks) + _ladder(page)


def _sure(page: Page, network: Trained) -> Tensor:
    """Which of all test images are saturated, bool [n]; of a network trained on this data as many as its history says,
    in no order.
    """
    n = len(page.dataset.test)
    if network.data != page.plan.data:
        return _saturated(page, network, page.dataset.test)
    return torch.arange(n) < round(page.shelf.checkpoint(network)[1]["history"][-1]["saturated"] * n / 100)


def answered(plan: Plan) -> list[str]:
    """The claims of the paper that a page's cells answer, sorted."""
    looks = {(column, epoch_of(one)) for (column, _), network in plan.networks.items() for one in plan.looks(network)}
    places = [(row, column, epoch) for row in (CLEAN, *plan.page.rows) for column, epoch in looks]
    places += [("Minutes", column, None) for column in TIMED]
    return sorted({str(answer.id(*place)) for answer in plan.page.claims for place in places} & set(known_claims()))


def _known(answers: list[str | None], ids: set[str]) -> list[str | None]:
    """The claims that there are among these; None alone where there is none."""
    return [id for id in answers if id in ids] or [None]


def _has_no_last(page: Page, row: str) -> bool:
    """Whether an attack has no last iterate that could be judged: it returns what it found, as AutoAttack does."""
    declared = page.plan.page.rows.get(row)
    return declared is not None and not declared.attack.takes(decision="last")


def _masks(jobs: list[Job], page: Page) -> dict[Mask, Tensor]:
    """(row, protocol, decision) -> which images are robust, for one network at one epoch."""
    found: dict[Mask, Tensor] = {}
    for job in jobs:
        row, outcome = page.plan.page.rows[job.row], page.outcome(job)
        loss, decision = job.evaluation.loss, job.evaluation.decision
        if "refused" in outcome.meta:
            continue
        if job.evaluation.labels == "predicted":
            found[job.row, "predicted labels", "last"] = outcome.last_run < 0
            continue
        if job.evaluation.source is not None:
            found[job.row, "saved" if job.evaluation.bits else "transfer", "last"] = outcome.robust("last")
            continue
        protocol = row.protocols.get(loss, loss)
        found.setdefault((CLEAN, "clean", None), outcome.correct)
        # torchattacks looks at the last iterate only; a row of its own losses says by which rule it is shown
        if decision == "any" or (job.evaluation.engine == "reprolib" and row.losses is None):
            found[job.row, protocol, "any"] = outcome.robust("any", row.runs)
        if decision == "last":
            found[job.row, protocol, "last"] = outcome.robust("last", row.runs)
    rows = [row for row in page.plan.page.rows if {(row, "margin", "any"), (row, "logits", "any")} <= found.keys()]
    for name in rows:
        found[name, "sound", "any"] = found[name, "margin", "any"] & found[name, "logits", "any"]
    if rows:
        found[ALL, "sound", "any"] = torch.stack([found[name, "sound", "any"] for name in rows]).all(0)
    return found


def _parts(jobs: list[Job], page: Page, place: dict[str, Any]) -> list[Cell]:
    """Beside each AutoAttack, the share of the images that each of its parts broke."""
    cells = []
    for job in jobs:
        if job.evaluation.attack.name == "autoattack" and _has_parts(job.evaluation):
            outcome = page.outcome(job)
            protocol = page.plan.page.rows[job.row].protocols.get(job.evaluation.loss, job.evaluation.loss)
            broken_by = attacks.part_of(outcome.any_run)
            for number, part in enumerate(attacks.STANDARD):
                mask = outcome.correct & (broken_by == number)
                shown: dict[str, Any] = {"row": job.row, "part": part, "protocol": protocol, "decision": "any"}
                cells.append(Cell(quantity="broken", **shown, **place, **share(mask)))
    return cells


def _has_parts(evaluation: Evaluation) -> bool:
    """Whether an AutoAttack's outcome says which of the standard parts broke an image."""
    return evaluation.engine == "reprolib" and evaluation.source is None


def _gains(page: Page, masks: dict[tuple[str, int, int | None], dict[Mask, Tensor]]) -> list[Cell]:
    """What the text subtracts: one column's accuracy from another's, under each protocol that both have."""
    at_end = {column: found for (column, seed, _), found in masks.items() if seed == 0}
    cells = []
    for answer in page.plan.page.claims:
        if answer.over is None or answer.column is None or answer.row is None:
            continue
        first, second = at_end[answer.column], at_end[answer.over]
        for row, protocol, decision in first:
            if row == answer.row and (row, protocol, decision) in second:
                measured = gain(first[row, protocol, decision], second[row, protocol, decision])
                cells.append(
                    Cell(
                        claim=answer.claim, quantity="gain", row=row, column=answer.column, over=answer.over,
                        epoch=page.plan.amounts.finetune, protocol=protocol, decision=decision,
                        judged=decision == RULES.get(protocol, "never"), seeds=[page.plan.amounts.seed], **measured,
                    )
                )  # fmt: skip
    return cells


# rung -> by how many points it may be missed: none where one run is part of the other, one where two searches differ
RUNGS = {
    "eps 0 leaves the clean accuracy": 0.0,
    "a larger eps leaves no more": 1.0,
    "more steps leave no more": 0.0,
    "an iterated attack leaves no more than one step": 1.0,
    "more restarts leave no more": 0.0,
}


def _ladder(page: Page) -> list[Cell]:
    """One cell per loss and rung: by how many points of accuracy what holds for every attack that works was missed."""
    cells = []
    for loss in LOSSES:
        left = {
            job.row: 100 * float(page.outcome(job).robust().double().mean())
            for job in page.plan.ladder
            if job.evaluation.loss == loss
        }
        size = page.plan.ladder[0].evaluation.size
        missed = (
            abs(left["eps 0"] - left["clean"]),
            _largest_rise([left[name] for name in ("a quarter of eps", "half of eps", "full")]),
            _largest_rise([left[name] for name in ("a tenth of the steps", "half of the steps", "full")]),
            max(left["full"] - left["one step"], 0.0),
            max(left["full"] - left["one restart"], 0.0),
        )
        cells += [
            Cell(
                quantity="missed",
                row=rung,
                column=loss,
                protocol="ladder",
                decision="any",
                value=round(points, 2),
                n=size,
                seeds=[page.plan.amounts.seed],
            )
            for rung, points in zip(RUNGS, missed, strict=True)
        ]
    return cells


def _largest_rise(accuracies: list[float]) -> float:
    return max(0.0, *(later - earlier for earlier, later in pairwise(accuracies)))


def measure_contingency(page: Page, row: str, columns: list[str]) -> list[Cell]:
    """Four cells per network, shares of the correctly classified images: saturated before the attack or not, survived
    or not.

    The attack takes its loss from probabilities, by the last iterate: what saturation is said to stop.
    """
    cells = []
    for column in columns:
        network = page.plan.networks[column, 0]
        (job,) = [
            job
            for job in page.plan.jobs
            if (job.row, job.column, job.seed, job.evaluation.loss) == (row, column, 0, "probabilities")
            and job.evaluation.network == network
        ]
        outcome, size = page.outcome(job), job.evaluation.size
        sure = _saturated(page, network, data.Split(page.dataset.test.images[:size], page.dataset.test.labels[:size]))
        before, after = sure[outcome.correct], outcome.robust("last")[outcome.correct]
        cells += [
            Cell(
                quantity="share",
                row=row,
                column=column,
                part=f"{'saturated' if was else 'not saturated'}, {'survives' if stands else 'falls'}",
                epoch=job.epoch,
                protocol="probabilities",
                decision="last",
                seeds=[page.plan.amounts.seed],
                **share((before == was) & (after == stands)),
            )
            for was in (True, False)
            for stands in (True, False)
        ]
    return cells


@torch.no_grad()
def _saturated(page: Page, network: Any, split: data.Split) -> Tensor:
    model = page.shelf.load(network)
    parts = zip(split.images.split(500), split.labels.split(500), strict=True)
    return torch.cat([training.is_saturated(model(images.float() / 255), labels) for images, labels in parts])
