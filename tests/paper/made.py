"""Pages with outcomes made by hand, image by image: no network is trained or attacked, so every number is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reprolib import data, networks
from reprolib.paper import plan, run
from reprolib.paper.run import evaluate

TEST = 100  # images attacked
SEED = 3
COLUMNS = ("undefended", "7-P1", "no patches")
ATTACKS = ("PGD-v2", "FGSM", "IFGSM")
EPOCHS = {"undefended": 5, "7-P1": 20, "no patches": 20}  # at the end of the training
CORRECT = {"undefended": 90, "7-P1": 80, "no patches": 70}  # the first so many images are classified correctly
CORRECT_EARLY = 60  # the same for 7-P1 before its end
TRANSFERRED = 7  # of the first images, those that fall to what was made on the undefended network
BROKEN = {  # the images that an attack breaks at any iterate; at the last iterate it breaks the even ones alone
    ("fgsm", "margin"): range(0, 30), ("fgsm", "logits"): range(20, 60), ("fgsm", "probabilities"): range(0, 10),
    ("pgd", "margin"): range(50, 70), ("pgd", "logits"): range(60, 65), ("pgd", "probabilities"): range(40, 44),
    ("ifgsm", "margin"): range(0, 5), ("ifgsm", "logits"): range(5, 10), ("ifgsm", "probabilities"): range(0),
}  # fmt: skip
NAMES = {"PGD-v2": "pgd", "FGSM": "fgsm", "IFGSM": "ifgsm"}
PARTS = {  # the images that each part of AutoAttack breaks, given logits and given probabilities
    ("autoattack", "logits"): (range(40), range(40, 45), (45,), (46, 47)),
    ("autoattack", "probabilities"): (range(20), (), (), (20,)),
    ("square", "logits"): (range(30),),
}
META = {"commit": "0" * 40, "dirty": False, "torch": "2.0"}

Tensors = dict[str, Tensor]


def mask(hits: int, n: int = TEST) -> Tensor:
    return torch.arange(n) < hits


def amounts(**changes: Any) -> plan.Amounts:
    few = {"data": "full", "train": 200, "test": TEST, "pretrain": 5, "finetune": 20, "every": 10}
    return plan.Amounts(**few | {"steps": 10, "restarts": 10, "seeds": 3, "seed": SEED} | changes)


def page_of(table: str, **changes: Any) -> plan.Page:
    """Of a table's file, Fashion-MNIST's page with three columns."""
    page = plan.load_table(table)["fmnistconv"]
    return page.model_copy(update={"shown": list(COLUMNS)} | changes)


def table_6() -> plan.Plan:
    page = plan.load_table("table06_fashion_mnist")["fmnistconv"]
    rows = {name: row for name, row in page.rows.items() if name != "PGD-v1"}
    return plan.Plan(page_of("table06_fashion_mnist", rows=rows), amounts(), "cpu")


def table_9() -> plan.Plan:
    return plan.Plan(page_of("table09"), amounts(), "cpu")


def table_11() -> plan.Plan:
    rows = {"PGD-v2": plan.load_table("table11")["fmnistconv"].rows["PGD-v2"]}
    return plan.Plan(page_of("table11", shown=["7-P1"], rows=rows), amounts(finetune=30), "cpu")


def outcome_of(job: plan.Job) -> Tensors:
    """What the attack of a job did to each image."""
    evaluation, n = job.evaluation, job.evaluation.size
    attack, loss = evaluation.attack.name, evaluation.loss
    if evaluation.source:
        return survived_by(CORRECT[job.column], TRANSFERRED, n)
    if (attack, loss) in PARTS:
        broken_by = torch.full((n,), -1, dtype=torch.int16)
        for part, images in enumerate(PARTS[attack, loss]):
            broken_by[list(images)] = (0, 1, 18, 19)[part]  # a run of that part: it has 1, 9, 9 and 1
        return {"correct": mask(CORRECT[job.column], n), "any_run": broken_by, "last_run": broken_by.clone()}
    any_run, last_run = torch.full((2, n), -1, dtype=torch.int16)
    for image in range(89) if job.column == "undefended" else BROKEN[attack, loss]:
        any_run[image] = 0
        if image % 2 == 0:  # the last iterate falls to the second start; one run knows no second start
            last_run[image] = 1 if evaluation.attack.get("restarts", 0) > 1 else 0
    early = job.column == "7-P1" and job.epoch != 20
    correct = mask(CORRECT_EARLY if early else CORRECT[job.column], n)
    return {"correct": correct, "any_run": any_run, "last_run": last_run}


def survived_by(correct: int, broken: int, n: int = TEST) -> Tensors:
    """Of the first images, so many are correct and so many fall to the first run."""
    runs = torch.where(mask(broken, n), 0, -1).to(torch.int16)
    return {"correct": mask(correct, n), "any_run": runs, "last_run": runs.clone()}


def rung(job: plan.Job) -> Tensors:
    """A ladder that holds: with no room nothing breaks, with any all does."""
    return survived_by(90, 0 if job.row in ("clean", "eps 0") else 90, job.evaluation.size)


def fill(planned: plan.Plan, dataset: data.Dataset, root: Path, outcome: Callable[[plan.Job], Tensors]) -> run.Page:
    """The page with a checkpoint of each training and an outcome of each job in its store."""
    page = run.Page(planned, store=run.Store(root), dataset=dataset)
    weights = networks.build("fmnistconv").state_dict()
    for training, epochs in planned.trainings.values():
        for epoch in epochs:
            history = [{"epoch": epoch, "loss": 0.1, "clean": 90.0, "saturated": 25.0}]
            meta = {"history": history, "seconds": 7.0 * epoch, "device": "some CPU", **META}
            page.store.save(f"{page.shelf.name(training)}/epoch-{epoch:04d}", weights, meta)
    for jobs, made in ((planned.jobs, outcome), (planned.ladder, rung)):
        for job in jobs:
            meta = {"calls": 1, "seconds": 0.5, "device": "some GPU", **META}
            page.store.save(evaluate.name_of(job.evaluation, page.shelf), made(job), meta)
    return page


def only(cells: list[plan.Cell], **wanted: Any) -> plan.Cell:
    """The one accuracy, or other quantity, that fits, however many claims it answers."""
    wanted = {"quantity": "accuracy"} | wanted
    fits = [c for c in cells if all(getattr(c, field) == value for field, value in wanted.items())]
    assert fits and len({(c.value, c.low, c.high, c.n) for c in fits}) == 1, wanted
    return fits[0]


def percent(images: set[int], n: int = TEST) -> float:
    return 100 * len(images) / n


def survivors(column: str, attack: str, *losses: str, n: int = TEST) -> set[int]:
    """Images that are correct and survive an attack under each of the losses at any iterate, counted one by one."""
    broken = set(range(89)) if column == "undefended" else {i for loss in losses for i in BROKEN[NAMES[attack], loss]}
    return {i for i in range(n) if i < CORRECT[column] and i not in broken}
