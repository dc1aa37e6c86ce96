"""From stored outcomes to records, tables and pictures.

A record is a notebook's result: `results/<folder>/<notebook>.json` with `provenance` and `cells`, one cell per
measured number. Tables, the scoreboard and the README read records and nothing else, and a record carries its own
checksum, so that a number edited by hand is refused.
"""

from __future__ import annotations

import io
import json
import subprocess
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import safetensors
import safetensors.torch
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import Tensor

from reprolib import claims, contradictions, costs, data, evaluation, ladder, models, patches, specs, store, training
from reprolib.attacks import LinfAttack
from reprolib.autoattack import STANDARD, part_of
from reprolib.files import RESULTS, ROOT, shown, write_atomically
from reprolib.specs import Plan, Settings

PALETTE = {"paper": "#000000", "probabilities": "#E69F00", "logits": "#56B4E9", "sound": "#0072B2"}  # Okabe-Ito
BANNER = (
    "**Quick run on a small sample with weak attacks: shows that everything works, says nothing about the paper.** "
    "No verdict is drawn from it."
)
CUSTOM = "**Settings differ from every profile: an experiment of your own.** No verdict is drawn from it."


class RecordError(RuntimeError):
    """A results file is missing, damaged or was edited by hand; the message says which and what to do."""


# --- measured numbers ------------------------------------------------------------------------------------------------


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
        found += _names(grid.table, row, column)
    if [column, row] == grid.ablation_claimed:
        found.append(f"{grid.ablation_claims}.{epoch}")
    return [claim for claim in found if claim in ledger]


def _names(table: str, row: str, column: str) -> list[str]:
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


# --- records ---------------------------------------------------------------------------------------------------------


def provenance(
    settings: Settings,
    plan: Plan | None = None,
    dataset: data.Dataset | None = None,
    artefacts: store.Store | None = None,
    jobs: list[specs.Job] | None = None,
) -> dict:
    """Where a record's numbers come from; no machine paths and no dates, so that equal runs give equal records.

    jobs: those of the plan that the record shows, when not all of `plan.jobs`.
    """
    jobs = plan.jobs if plan and jobs is None else jobs
    origin = {
        "commit": commit(),
        "dirty": bool(_git("status", "--porcelain", "-uno", "--", ".", ":!results")),
        "profile": settings.folder,
        "settings": settings.content(),
        "seeds": sorted({job.evaluation.training.seed for job in jobs or []} | {settings.seed}),
        "torch": torch.__version__,
        "torchattacks": version("torchattacks"),
        "devices": [],
        "data": {},
        "seconds": {},
    }
    if dataset is not None:
        origin["data"] = {
            "name": dataset.name,
            "source": dataset.source,
            "variant": dataset.variant,
            "sha256": dataset.checksum,
        }
    if plan is not None:
        last = {job.column: job.evaluation for job in sorted(jobs, key=lambda job: job.evaluation.epoch)}
        checkpoints = [training.checkpoint(e.training, e.epoch, dataset, artefacts) for e in last.values()]
        evaluations = {evaluation.artefact(job.evaluation, dataset): job.evaluation for job in jobs}
        outcomes = [evaluation.outcome(spec, dataset, artefacts) for spec in evaluations.values()]
        origin["devices"] = sorted({found.device for found in [*checkpoints, *outcomes]})
        origin["seconds"] = {
            "training": round(sum(c.seconds for c in checkpoints), 1),
            "attacks": round(sum(o.seconds for o in outcomes), 1),
        }
    return origin


def commit() -> str:
    """The commit that is checked out, 40 hex digits; "unknown" outside a git checkout."""
    return _git("rev-parse", "HEAD") or "unknown"


def _git(*arguments: str) -> str:
    """Output of a git command in the repository; empty where there is no git or no repository."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def write_record(notebook: str, origin: dict, cells: list[dict]) -> Path:
    """Write results/<folder>/<notebook>.json, and the cells beside it as CSV. Returns the JSON's path."""
    path = RESULTS / origin["profile"] / f"{notebook}.json"
    record = {"provenance": origin, "cells": cells}
    record["checksum"] = store.digest(record)
    write_atomically(path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    if cells:
        table = pd.DataFrame(cells).assign(seeds=[" ".join(map(str, c["seeds"])) for c in cells])
        write_atomically(path.with_suffix(".csv"), table.to_csv(index=False).encode())
    return path


def read_record(path: str | Path) -> dict:
    """A record, verified. Raises RecordError when it is missing, not JSON, incomplete, or not as it was written."""
    path = Path(path)
    again = f"regenerate it with: make tables PROFILE={path.parent.name} ONLY={path.stem}"
    if path.parent.name == "custom":
        again = "run its notebook again"
    if not path.exists():
        raise RecordError(f"there is no results file {shown(path)}; {again}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        checksum = record.pop("checksum")
        intact = checksum == store.digest(record) and {"provenance", "cells"} <= set(record)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RecordError(f"{shown(path)} is not a results file (cut off, or no JSON); {again}") from None
    if not intact:
        raise RecordError(
            f"{shown(path)} was changed after it was written: its content does not match its checksum; {again}"
        )
    return record


def banner(settings: Settings) -> str:
    """Markdown that every table of a run without verdicts carries; empty for the other profiles."""
    return {"quick": BANNER, "custom": CUSTOM}.get(settings.folder, "")


# --- tables ----------------------------------------------------------------------------------------------------------


def frame(cells: list[dict]) -> pd.DataFrame:
    return pd.DataFrame(cells)


def number(found: dict) -> str:
    """A measured number with its interval, for people: 12.34 [11.71, 12.99]."""
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def table(
    cells: list[dict], columns: list[str], epochs: dict[str, int], attacks: list[str], prefix: str
) -> pd.DataFrame:
    """The paper's table and ours in one: for each attack the printed row, then a row per protocol and decision rule.

    An attack's first start alone, and all attacks together, follow where they were measured; the paper prints neither.
    """
    ledger, rows = claims.load_claims(), []
    with_starts = [row for attack in attacks for row in (attack, f"{attack}, first start only")]
    for attack in ["Clean", *with_starts, "All attacks"]:
        if attack in ("Clean", *attacks):
            names = {c: [name for name in _names(prefix, attack, c) if name in ledger] for c in columns}
            printed = {c: ledger[found[0]] if found else None for c, found in names.items()}
            rows.append(
                {
                    "attack": attack,
                    "protocol": "paper",
                    "decision": "",
                    "images": "",
                    **{c: f"{p.printed:.2f}" if p else "" for c, p in printed.items()},
                }
            )
        here = [c for c in cells if c["row"] == attack and epochs.get(c["column"]) == c["epoch"]]
        for protocol, decision in dict.fromkeys((c["protocol"], c["decision"]) for c in here):
            found = {c["column"]: c for c in here if (c["protocol"], c["decision"]) == (protocol, decision)}
            rows.append(
                {
                    "attack": attack,
                    "protocol": protocol,
                    "decision": decision or "",
                    "images": str(max(c["n"] for c in found.values())),
                    **{c: number(found[c]) if c in found else "" for c in columns},
                }
            )
    return pd.DataFrame(rows)


def summary(
    cells: list[dict], columns: list[str], epochs: dict[str, int], attacks: list[str], prefix: str
) -> pd.DataFrame:
    """The table in three rows per attack: printed, under `probabilities` by the last iterate, and sound."""
    full = table(cells, columns, epochs, attacks, prefix)
    keep = [["paper", ""], ["clean", ""], ["probabilities", "last"], ["sound", "any"]]
    chosen = full[
        [
            attack in ("Clean", *attacks) and pair in keep
            for attack, *pair in zip(full["attack"], full["protocol"], full["decision"], strict=True)
        ]
    ].copy()
    for column in columns:
        chosen[column] = chosen[column].str.split(" ").str[0]
    return chosen.drop(columns="decision").reset_index(drop=True)


def markdown(data_frame: pd.DataFrame, heading: str = "") -> str:
    """A data frame as a Markdown table, under an optional line such as a banner."""
    body = data_frame.to_markdown(index=False, disable_numparse=True)
    return f"{heading}\n\n{body}\n" if heading else f"{body}\n"


def save_markdown(notebook: str, settings: Settings, text: str) -> Path:
    """Write results/<folder>/<notebook>.md, with the banner where one is due."""
    path = RESULTS / settings.folder / f"{notebook}.md"
    write_atomically(path, ("\n\n".join(filter(None, [banner(settings), text])).rstrip() + "\n").encode())
    return path


def layer_table(networks: dict[str, torch.nn.Module]) -> pd.DataFrame:
    """The layers with weights of some networks: kernel, stride, output channels, number of parameters."""
    rows = []
    for name, network in networks.items():
        for layer, module in network.named_children():
            count = sum(p.numel() for p in module.parameters())
            if count:
                conv = isinstance(module, torch.nn.Conv2d)
                rows.append(
                    {
                        "network": name,
                        "layer": layer,
                        "kernel": "x".join(map(str, module.kernel_size)) if conv else "",
                        "stride": str(module.stride[0]) if conv else "",
                        "outputs": str(module.out_channels if conv else module.out_features),
                        "parameters": f"{count:,}",
                    }
                )
    return pd.DataFrame(rows)


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


def attack_table() -> pd.DataFrame:
    """Table 2: every attack with its numbers, and the model calls that one unbreakable image costs."""
    rows = []
    for dataset in ("cifar-10", "fashion-mnist", "imagenet-subset"):
        for name, attack in specs.attacks_of(dataset).items():
            loop = attack.loop()
            calls = max(loop["restarts"], 1) * (loop["steps"] + 1)
            rows.append(
                {
                    "data set": dataset,
                    "attack": name,
                    "eps": f"{attack.eps:g}",
                    "alpha": f"{loop['alpha']:g}",
                    "iterations": str(loop["steps"]),
                    "restarts": str(loop["restarts"]),
                    "calls": str(calls),
                }
            )
    return pd.DataFrame(rows)


def epochs_table(cells: list[dict], plan: Plan) -> pd.DataFrame:
    """The study along the epochs: per column and epoch, the printed number and ours under each protocol."""
    ledger, rows, cells = claims.load_claims(), [], of(plan, cells)
    for column in plan.grid.ablation_columns:
        for epoch in plan.ablation_epochs():
            here = {
                (c["row"], c["protocol"], c["decision"]): c
                for c in cells
                if (c["column"], c["epoch"]) == (column, epoch)
            }
            printed = (
                ledger.get(f"{plan.grid.ablation_claims}.{epoch}") if column == plan.grid.ablation_claimed[0] else None
            )
            row = {
                "column": column,
                "epochs": str(epoch),
                "paper": f"{printed.printed:.1f}" if printed else "",
                "saturated": number(here["p(true) > 1-1e-7", "saturated", None]),
            }
            for attack in plan.grid.ablation_attacks:
                for protocol, decision in (("probabilities", "last"), ("sound", "any")):
                    if (attack, protocol, decision) in here:  # another engine has other protocols
                        row[f"{attack} {protocol}"] = number(here[attack, protocol, decision])
            rows.append(row)
    return pd.DataFrame(rows)


def claims_table(cells: list[dict], plan: Plan) -> pd.DataFrame:
    """What the text claims about a plan's networks, and what was measured: a row per claim, a column per protocol."""
    ledger, rows = claims.load_claims(), []
    for name, places in plan.grid.text_claims.items():
        found = {c["protocol"]: c for c in cells if c["claim"] == name and JUDGED.get(c["protocol"]) == c["decision"]}
        rows.append(
            {
                "claim": ledger[name].claim,
                "cell": " minus ".join(places),
                "printed": f"{ledger[name].printed:g}",
                **{protocol: number(c) for protocol, c in found.items()},
            }
        )
    return pd.DataFrame(rows).fillna("")


def source_line(plan: Plan, origin: dict, epochs: int) -> str:
    """Where the numbers of one plan come from, after so many epochs of fine-tuning."""
    seconds = ", ".join(f"{name} {value:,.0f} s" for name, value in origin["seconds"].items())
    return (
        f"{origin['data']['name']} ({origin['data']['source']}, {origin['data']['variant']}), "
        f"{_reduced(plan)}{epochs} epochs of fine-tuning after {_pretraining(plan)}, "
        f"seed {plan.settings.seed}. Device: {'; '.join(origin['devices'])}. Computing time: {seconds}. "
        f"torch {origin['torch']}, commit {origin['commit'][:10]}."
    )


def _reduced(plan: Plan) -> str:
    """What a reader must know before anything else: a network that is not as wide as the paper's."""
    width = plan.pretraining.width
    return "" if width == 1 else f"**{width:g} of the network's channels**, "


def _pretraining(plan: Plan) -> str:
    epochs, target = plan.settings.pretrain_epochs, plan.pretraining.target
    if target is None:
        return f"{epochs} of pre-training"
    return (
        f"pre-training to {target:g} % of clean test accuracy within {training.NEAR:g} points ({epochs} epochs at most)"
    )


def title(plan: Plan) -> str:
    """The paper's table, or what else the grid says it is: T3.VGG16 -> Table 3."""
    name = plan.grid.table.split(".")[0]
    return f"Table {name[1:]}" if name[1:].isdigit() else name


def table_page(cells: list[dict], plan: Plan, origin: dict) -> str:
    """A table's Markdown page: every cell, and where the numbers come from."""
    columns = list(plan.networks)
    epochs = {column: epoch for column, (_, epoch) in plan.networks.items()}
    return "\n\n".join(
        [
            f"# {title(plan)}: {plan.grid.model} on {plan.grid.dataset}",
            "Accuracy in %, with 95 % Wilson intervals; `images` is the number of test images behind a row. "
            + source_line(plan, origin, plan.settings.finetune_epochs),
            markdown(table(cells, columns, epochs, plan.grid.rows(), plan.grid.table)),
        ]
    )


def epochs_page(cells: list[dict], plans: dict[str, Plan], origins: list[dict]) -> str:
    """Table 11's Markdown page: for each of its rows every point of the curves."""
    parts = ["# Table 11: along the epochs of fine-tuning", "Accuracy in %, with 95 % Wilson intervals."]
    for plan, origin in zip(plans.values(), origins, strict=True):
        parts += [
            f"## {plan.grid.model} on {plan.grid.dataset}",
            f"{plan.test_size:,} test images. " + source_line(plan, origin, plan.settings.ablation_epochs),
            markdown(epochs_table(cells, plan)),
        ]
    return "\n\n".join(parts)


def ensemble_table(cells: list[dict], plans: dict[str, Plan]) -> pd.DataFrame:
    """Table 9 and ours in one: per network the printed number, clean, AutoAttack given logits and given probabilities,
    and Square alone."""
    ledger, rows = claims.load_claims(), []
    for plan in plans.values():
        for column, rest in plan.grid.ensemble.columns.items():
            found = {(c["row"], c["protocol"]): c for c in of(plan, cells) if c["column"] == column}
            printed = ledger.get(f"{plan.grid.ensemble.claims}.{rest}")
            rows.append(
                {
                    "network": f"{plan.grid.model}, {column}",
                    "images": str(found["Clean", "clean"]["n"]),
                    "clean": number(found["Clean", "clean"]),
                    "paper: AutoAttack": f"{printed.printed:.2f}" if printed else "",
                    "AutoAttack, given logits (sound)": number(found["AutoAttack", "sound"]),
                    "AutoAttack, given probabilities": number(found["AutoAttack", "probabilities"]),
                    "Square alone": number(found["Square", "sound"]),
                }
            )
    return pd.DataFrame(rows)


def parts_table(cells: list[dict], plans: dict[str, Plan]) -> pd.DataFrame:
    """Which part of AutoAttack broke which share of the images, in %."""
    rows = []
    for plan in plans.values():
        for column in plan.grid.ensemble.columns:
            for protocol, given in (("sound", "logits"), ("probabilities", "probabilities")):
                found = {c["row"]: c for c in of(plan, cells) if (c["column"], c["protocol"]) == (column, protocol)}
                shares = {f"broken by {part}": f"{found[f'broken by {part}']['value']:.2f}" for part in STANDARD}
                rows.append({"network": f"{plan.grid.model}, {column}", "given": given, **shares})
    return pd.DataFrame(rows)


def ensemble_page(cells: list[dict], plans: dict[str, Plan], origins: list[dict]) -> str:
    """Table 9's Markdown page."""
    sources = [
        source_line(plan, origin, plan.settings.finetune_epochs)
        for plan, origin in zip(plans.values(), origins, strict=True)
    ]
    steps = min(plan.settings.steps for plan in plans.values())
    version = f"AutoAttack cut short, to {steps} steps" if steps < specs.STANDARD_STEPS else "The standard AutoAttack"
    parts = ["# Table 9: AutoAttack", f"{version}. Accuracy in %, with 95 % Wilson intervals.", *sources]
    return "\n\n".join([*parts, markdown(ensemble_table(cells, plans)), markdown(parts_table(cells, plans))])


def ladder_table(rungs: list[dict]) -> pd.DataFrame:
    """The sanity ladder: per rung the points by which each loss missed it, and how many are allowed."""
    missed = {(rung["row"], rung["column"]): rung["value"] for rung in rungs}
    return pd.DataFrame(
        [
            {"rung": row, "allowed": f"{allowed:g}", **{loss: f"{missed[row, loss]:g}" for loss in specs.LOSSES}}
            for row, allowed in ladder.RUNGS.items()
        ]
    )


def merged(origins: list[dict]) -> dict:
    """One provenance for a record about several data sets."""
    together = dict(origins[0])
    together["devices"] = sorted({device for origin in origins for device in origin["devices"]})
    together["data"] = {k: "; ".join(origin["data"][k] for origin in origins) for k in origins[0]["data"]}
    together["seconds"] = {k: round(sum(o["seconds"][k] for o in origins), 1) for k in origins[0]["seconds"]}
    return together


def board_table(board: pd.DataFrame) -> pd.DataFrame:
    """The scoreboard for people: one row per claim and protocol, linked to the notebook that measured it."""
    return pd.DataFrame(
        {
            "where": board["where"],
            "claim": board["claim"],
            "printed": board["printed"].astype(str),
            "protocol": board["protocol"],
            "measured": [number(row | {"value": row["measured"]}) for row in board.to_dict("records")],
            "images": board["n"].astype(int).astype(str),
            "verdict": board["verdict"],
            "notebook": [
                f"[{n}](../results/{p}/{n}.ipynb)" for p, n in zip(board["profile"], board["notebook"], strict=True)
            ],
        }
    )


def contradictions_table() -> pd.DataFrame:
    """Where the paper disagrees with itself, as a table."""
    return pd.DataFrame(
        [
            {
                "where": ", ".join(entry.places),
                "what is printed": entry.says,
                "why it matters": entry.why,
                "weight": entry.matters,
            }
            for entry in contradictions.load()
        ]
    )


def missing_table(board: pd.DataFrame) -> pd.DataFrame:
    """Claims that nothing has measured yet, counted per place in the paper."""
    missing = board[board["notebook"] == ""]
    return missing.groupby("where", sort=False).size().rename("not yet run").reset_index()


def display_markdown(content: pd.DataFrame | str) -> None:
    """Show a table or a text as Markdown, which JupyterLab, GitHub and a page all render, and nbval can compare."""
    from IPython.display import Markdown, display

    display(Markdown(content if isinstance(content, str) else markdown(content)))


# --- pictures --------------------------------------------------------------------------------------------------------


def style() -> None:
    """One look for all figures: white ground, readable sizes, colours that colour-blind readers can tell apart."""
    sns.set_theme(style="whitegrid", context="notebook")
    plt.rcParams.update(
        {"figure.facecolor": "white", "savefig.facecolor": "white", "figure.dpi": 100, "savefig.dpi": 110}
    )


def show(figure: Figure, alt: str, name: str | None = None, settings: Settings | None = None) -> None:
    """Display a figure with its text alternative; with a name, also write results/<folder>/<name>.png. Closes it."""
    from IPython.display import display

    if name is not None:
        picture = io.BytesIO()
        figure.savefig(picture, format="png", bbox_inches="tight", metadata={"Description": alt, "Software": None})
        write_atomically(RESULTS / settings.folder / f"{name}.png", picture.getvalue())
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def plot_attacks(
    cells: list[dict], columns: list[str], epochs: dict[str, int], attacks: list[str], prefix: str
) -> Figure:
    """One panel per attack: the paper's number, ours under `probabilities`, and the sound robust accuracy."""
    ledger = claims.load_claims()
    figure, axes = plt.subplots(
        2, (len(attacks) + 1) // 2, figsize=(12, 7), sharey=True, squeeze=False, layout="constrained"
    )
    bars = [
        ("probabilities", "last", "measured, loss from clipped probabilities, last iterate"),
        ("logits", "any", "measured, loss from logits, any iterate"),
        ("sound", "any", "measured, sound: survives margin and logits"),
    ]
    for axis, attack in zip(axes.flat, attacks, strict=False):
        for index, (protocol, decision, label) in enumerate(bars):
            found = {
                c["column"]: c
                for c in cells
                if c["row"] == attack
                and epochs.get(c["column"]) == c["epoch"]
                and (c["protocol"], c["decision"]) == (protocol, decision)
            }
            for place, column in enumerate(columns):
                if column in found:
                    value, low, high = (found[column][k] for k in ("value", "low", "high"))
                    axis.bar(
                        place + 0.26 * (index - 1),
                        value,
                        0.25,
                        color=PALETTE[protocol],
                        edgecolor="black",
                        linewidth=0.4,
                        label=label if place == 0 else None,
                        yerr=[[max(value - low, 0)], [max(high - value, 0)]],
                        error_kw={"linewidth": 0.8},
                    )
                    if protocol == "sound":  # a bar of height 0 would look like a missing one
                        axis.text(place + 0.26, high + 1, f"{value:.1f}", ha="center", size=8, color=PALETTE[protocol])
        printed = [ledger.get(f"{prefix}.{attack}.{column}") for column in columns]
        axis.plot(
            [i for i, p in enumerate(printed) if p],
            [p.printed for p in printed if p],
            "D",
            color=PALETTE["paper"],
            markersize=6,
            label="printed in the paper",
            zorder=5,
        )
        axis.set(title=attack, xticks=range(len(columns)), xticklabels=columns, ylim=(0, 100))
        if len(columns) * axes.shape[1] > 12:  # names side by side would run into each other
            axis.tick_params(axis="x", rotation=60)
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy under attack (%)")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def plot_ensemble(cells: list[dict], plans: dict[str, Plan]) -> Figure:
    """Per network: clean accuracy, AutoAttack given logits and given probabilities, Square alone, the printed number."""
    ledger = claims.load_claims()
    networks = [(plan, column) for plan in plans.values() for column in plan.grid.ensemble.columns]
    figure, axis = plt.subplots(figsize=(max(8, 2 * len(networks)), 4.5), layout="constrained")
    bars = [
        ("Clean", "clean", "clean", "#009E73"),
        ("Square", "sound", "Square alone", "#999999"),
        ("AutoAttack", "probabilities", "AutoAttack, given probabilities", PALETTE["probabilities"]),
        ("AutoAttack", "sound", "AutoAttack, given logits (sound)", PALETTE["sound"]),
    ]
    for place, (plan, column) in enumerate(networks):
        for index, (row, protocol, label, colour) in enumerate(bars):
            (found,) = [c for c in of(plan, cells) if (c["row"], c["column"], c["protocol"]) == (row, column, protocol)]
            x = place + 0.2 * (index - 1.5)
            error = [[max(found["value"] - found["low"], 0)], [max(found["high"] - found["value"], 0)]]
            axis.bar(
                x,
                found["value"],
                0.19,
                color=colour,
                edgecolor="black",
                linewidth=0.4,
                yerr=error,
                error_kw={"linewidth": 0.8},
                label=label if place == 0 else None,
            )
            axis.text(x, found["high"] + 1, f"{found['value']:.1f}", ha="center", size=8)
        printed = ledger.get(f"{plan.grid.ensemble.claims}.{plan.grid.ensemble.columns[column]}")
        if printed:
            label = "printed in the paper" if place == 0 else None
            axis.plot(place + 0.3, printed.printed, "D", color=PALETTE["paper"], label=label, zorder=5)
    axis.set(
        xticks=range(len(networks)),
        xticklabels=[f"{plan.grid.model}\n{column}" for plan, column in networks],
        ylabel="test images (%)",
        ylim=(0, 112),
    )
    axis.legend(ncols=2, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), frameon=False)
    return figure


def plot_epochs(cells: list[dict], plan: Plan) -> Figure:
    """Accuracy under the claimed attack along the epochs, beside the share of saturated images and the printed row."""
    ledger, cells = claims.load_claims(), of(plan, cells)
    columns, attack, prefix = plan.grid.ablation_columns, plan.grid.ablation_claimed[1], plan.grid.ablation_claims
    figure, axis = plt.subplots(figsize=(8, 6), layout="constrained")
    printed = {int(c.rsplit(".", 1)[1]): claim.printed for c, claim in ledger.items() if c.startswith(f"{prefix}.")}
    axis.plot(list(printed), list(printed.values()), "D--", color=PALETTE["paper"], label="printed in the paper")
    for column, dashes, marker in zip(columns, ("-", ":"), ("o", "s"), strict=False):
        for protocol, decision, name, colour in (
            ("probabilities", "last", f"{attack}, probabilities", PALETTE["probabilities"]),
            ("sound", "any", f"{attack}, sound", PALETTE["sound"]),
            ("saturated", None, "share of saturated images", "#999999"),
        ):
            by_epoch = {
                c["epoch"]: c
                for c in cells  # a number that answers two claims is one point
                if c["column"] == column
                and (c["protocol"], c["decision"]) == (protocol, decision)
                and c["row"] in (attack, "p(true) > 1-1e-7")
            }
            found = [by_epoch[epoch] for epoch in sorted(by_epoch)]
            axis.errorbar(
                [c["epoch"] for c in found],
                [c["value"] for c in found],
                linestyle=dashes,
                marker=marker,
                color=colour,
                label=f"{column}: {name}",
                yerr=[[max(c["value"] - c["low"], 0) for c in found], [max(c["high"] - c["value"], 0) for c in found]],
            )
    axis.set(xlabel="fine-tuning epochs", ylabel="test images (%)", ylim=(-2, 100))
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    return figure


def plot_operations(images: Tensor, size: int, seed: int) -> Figure:
    """The nine operations on nine images (uint8 [9, C, H, W]): original above, one patch of size x size changed below."""
    figure, axes = plt.subplots(2, len(patches.OPERATIONS), figsize=(14, 3.6), layout="constrained")
    box = patches.boxes(*images.shape[2:], size, 1)
    for index, operation in enumerate(patches.OPERATIONS):
        changed = patches.paste(
            images[index : index + 1],
            _changed(images[index : index + 1], index, size, seed)[:, None],
            torch.tensor([True]),
        )
        axes[0, index].set_title(operation.__name__.replace("_", " "), fontsize=10)
        _picture(axes[0, index], images[index], [])
        _picture(axes[1, index], changed[0], box, size)
    return figure


def _changed(images: Tensor, operation: int, size: int, seed: int) -> Tensor:
    """The centred patch of uint8 images after one operation, uint8."""
    ((top, left),) = patches.boxes(*images.shape[2:], size, 1)
    patch = images[:, :, top : top + size, left : left + size].float() / 255
    drawn = patches.sample(torch.arange(len(images)), 1, seed)[0]
    forced = replace(drawn, operation=torch.full((len(images),), operation))
    return (patches.apply(patch, forced) * 255).round().to(torch.uint8)


def plot_pipeline(images: Tensor, seed: int) -> Figure:
    """Originals and their copies under n-Pk, as fine-tuning sees them; frames mark the patches."""
    kinds = [(7, 1), (11, 1), (7, 2), (11, 2)]
    figure, axes = plt.subplots(1 + len(kinds), len(images), figsize=(1.3 * len(images), 7.2), layout="constrained")
    ids = torch.arange(len(images))
    for place, image in enumerate(images):
        _picture(axes[0, place], image, [])
    for row, (size, count) in enumerate(kinds, start=1):
        copies = patches.paste(images, patches.make_patches(images, ids, size, count, seed), ids >= 0)
        for place, copy in enumerate(copies):
            _picture(axes[row, place], copy, patches.boxes(*images.shape[2:], size, count), size)
    for row, label in enumerate(["original", *(f"{size}-P{count}" for size, count in kinds)]):
        axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center")
    return figure


def _picture(axis: plt.Axes, image: Tensor, boxes: list[tuple[int, int]], size: int = 0) -> None:
    axis.imshow(image.permute(1, 2, 0).expand(-1, -1, 3), interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    for top, left in boxes:
        axis.add_patch(
            plt.Rectangle((left - 0.5, top - 0.5), size, size, fill=False, edgecolor="#D55E00", linewidth=1.2)
        )


def measure_operations(images: Tensor, size: int, seed: int) -> list[dict]:
    """Mean absolute change of a pixel of the patch under each operation, on the scale [0, 1], with a 95 % interval."""
    ((top, left),) = patches.boxes(*images.shape[2:], size, 1)
    before, cells = images[:, :, top : top + size, left : left + size].float() / 255, []
    for index, operation in enumerate(patches.OPERATIONS):
        change = (_changed(images, index, size, seed).float() / 255 - before).abs().flatten(1).mean(1)
        mean, error = float(change.mean()), 1.96 * float(change.std()) / len(change) ** 0.5
        measured = {
            "value": round(mean, 4),
            "low": round(mean - error, 4),
            "high": round(mean + error, 4),
            "n": len(images),
        }
        cells.append(cell(operation.__name__, f"patch {size}x{size}", None, "change", None, measured, seed))
    return cells


# --- scoreboard ------------------------------------------------------------------------------------------------------

PROTOCOLS = ("clean", "sound", "logits", "probabilities", "transfer", "time")
JUDGED = {"clean": None, "sound": "any", "logits": "last", "probabilities": "last", "transfer": "last", "time": None}


def records() -> dict[tuple[str, str], dict]:
    """Every record that can earn a verdict: (profile, notebook) -> record, the paper profile before the cpu profile."""
    found = {}
    for profile in ("paper", "cpu"):
        for path in sorted((RESULTS / profile).glob("*.json")):
            found[profile, path.stem] = record = read_record(path)
            if record["provenance"]["profile"] != profile:
                raise RecordError(
                    f"{shown(path)} is a record of the {record['provenance']['profile']} profile; "
                    f"only {profile} runs belong into that folder: move it back"
                )
    return found


def scoreboard(found: dict[tuple[str, str], dict] | None = None) -> pd.DataFrame:
    """One row per claim and protocol that was measured, and one per claim that was not: printed, measured, verdict.

    A protocol whose attack fails its sanity ladder in a record earns no verdict there (ladder.py).
    """
    ledger, found = claims.load_claims(), records() if found is None else found
    measured: dict[tuple[str, str], tuple[str, str, dict]] = {}
    for (profile, notebook), record in found.items():
        for entry in record["cells"]:
            judged = JUDGED.get(entry["protocol"], "never") == entry["decision"] or entry["row"] == "AutoAttack"
            if entry["claim"] and judged:
                measured.setdefault((entry["claim"], entry["protocol"]), (profile, notebook, entry))
    rows = []
    for name, claim in ledger.items():
        protocols = [p for p in PROTOCOLS if (name, p) in measured]
        for protocol in protocols or [""]:
            profile, notebook, entry = measured.get((name, protocol), ("cpu", "", None))
            base_profile, _, base = measured.get((claim.baseline, protocol), (None, None, None))
            base = base if base_profile == profile else None  # a gain is judged within one run
            verdict = claims.judge(claim, _measured(entry), profile=profile, baseline=_measured(base))
            if entry and (fault := ladder.fault(found[profile, notebook]["cells"], protocol)):
                verdict = claims.Verdict(verdict="not run", difference=None, reason=fault)
            rows.append(
                {
                    "claim": name,
                    "where": claim.where,
                    "printed": claim.printed,
                    "protocol": protocol,
                    "measured": entry["value"] if entry else None,
                    "low": entry["low"] if entry else None,
                    "high": entry["high"] if entry else None,
                    "n": entry["n"] if entry else None,
                    "verdict": verdict.verdict,
                    "reason": verdict.reason,
                    "profile": profile if entry else "",
                    "notebook": notebook,
                }
            )
    return pd.DataFrame(rows)


def _measured(entry: dict | None) -> claims.Measured | None:
    return None if entry is None else claims.Measured(**{k: entry[k] for k in ("value", "low", "high", "n")})


def verdict_counts(board: pd.DataFrame) -> pd.DataFrame:
    """Number of claims per verdict (rows) and protocol (columns); claims that nothing measured stand under "all"."""
    board = board.assign(protocol=board["protocol"].replace("", "all"))
    counts = board.groupby(["verdict", "protocol"]).size().unstack(fill_value=0)
    columns = [p for p in [*PROTOCOLS, "all"] if p in counts.columns]
    return counts.reindex(index=[v for v in claims.VERDICTS if v in counts.index], columns=columns, fill_value=0)


def plot_scoreboard(board: pd.DataFrame) -> Figure:
    """Every measured claim in percent: what the paper prints against what was measured, coloured by protocol."""
    figure, axis = plt.subplots(figsize=(7, 6.5), layout="constrained")
    shown = board[board["measured"].notna() & board["protocol"].isin(["clean", "sound", "logits", "probabilities"])]
    shown = shown.loc[[isinstance(p, (int, float)) for p in shown["printed"]]]
    markers = {"clean": "s", "sound": "o", "logits": "^", "probabilities": "D"}
    colours = PALETTE | {"clean": "#009E73"}
    axis.plot([0, 100], [0, 100], color="grey", linewidth=1, linestyle="--", label="measured = printed")
    for protocol, marker in markers.items():
        part = shown[shown["protocol"] == protocol]
        axis.scatter(
            part["printed"].astype(float),
            part["measured"].astype(float),
            marker=marker,
            color=colours[protocol],
            edgecolor="black",
            linewidth=0.5,
            s=45,
            label=f"{protocol} ({len(part)})",
            alpha=0.85,
        )
    axis.set(
        xlabel="printed in the paper (%)", ylabel="measured here (%)", xlim=(-2, 102), ylim=(-2, 102), aspect="equal"
    )
    axis.legend(loc="upper left", fontsize="small")
    return figure


# --- networks to take away -------------------------------------------------------------------------------------------


def save_networks(plan: Plan, dataset: data.Dataset, artefacts: store.Store) -> list[Path]:
    """Write the table's networks to results/<folder>/checkpoints/<column>.safetensors, each with its record."""
    written = []
    for column, (spec, epoch) in plan.networks.items():
        model = training.checkpoint(spec, epoch, dataset, artefacts).model
        meta = {
            "model": spec.model,
            "width": f"{spec.width:g}",
            "epoch": str(epoch),
            "training": json.dumps(spec.content(), sort_keys=True),
        }
        tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
        path = RESULTS / plan.settings.folder / "checkpoints" / f"{column.replace(' ', '_')}.safetensors"
        if not _holds(path, tensors):  # safetensors orders its header at random: don't rewrite what is the same
            write_atomically(path, safetensors.torch.save(tensors, meta))
        written.append(path)
    return written


def _holds(path: Path, tensors: dict[str, Tensor]) -> bool:
    try:
        found = load_network(path).state_dict()
    except RecordError:
        return False
    return found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in found)


def load_network(path: str | Path) -> torch.nn.Module:
    """A network that `save_networks` wrote, in eval mode; RecordError when the file is missing or damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            meta = file.metadata()
            model = models.build(meta["model"], width=float(meta.get("width", 1)))
            model.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, RuntimeError) as error:
        raise RecordError(f"{path} is no network of this project ({error}); take it from results/ again") from None
    return model


# --- README ----------------------------------------------------------------------------------------------------------

README = ROOT / "README.md"
START, END = "<!-- status: generated by `make readme` from results/ -->", "<!-- end of status -->"


def readme_status() -> str:
    """The README's status block in Markdown: verdicts so far, and every table's summary. Generated from the records."""
    board = scoreboard()
    measured = board[board["notebook"] != ""]
    parts = [
        f"{measured['claim'].nunique()} of {board['claim'].nunique()} printed numbers have been measured. "
        "Number of claims per verdict, by protocol:",
        verdict_counts(measured).reset_index().to_markdown(index=False)
        if len(measured)
        else "Nothing is measured yet.",
    ]
    for (profile, notebook), record in records().items():
        if notebook in specs.grid_names() and record["cells"]:
            plan = specs.Plan(specs.load_grid(notebook), specs.load_profile(profile))
            if not plan.grid.study:
                parts += _table_status(profile, notebook, plan, record["cells"])
        elif notebook in specs.view_names() and specs.load_view(notebook).shows == "ensemble":
            plans = specs.load_view(notebook).plans(specs.load_profile(profile))
            plans = {name: plan for name, plan in plans.items() if of(plan, record["cells"])}  # what has been run
            parts += [
                f"**Table 9** ([{profile} profile](results/{profile}/{notebook}.md), accuracy in %, standard AutoAttack):",
                ensemble_table(record["cells"], plans).to_markdown(index=False, disable_numparse=True),
            ]
    parts += ["**What the `paper` profile would take.** " + costs.page("paper")]
    return "\n\n".join(parts)


def _table_status(profile: str, notebook: str, plan: Plan, cells: list[dict]) -> list[str]:
    epochs = {column: epoch for column, (_, epoch) in plan.networks.items()}
    short = summary(cells, list(plan.networks), epochs, plan.grid.rows(), plan.grid.table)
    return [
        f"**{title(plan)}, {plan.grid.model}** ([{profile} profile](results/{profile}/{notebook}.md), "
        f"accuracy in %, {plan.test_size:,} test images, {plan.settings.finetune_epochs} epochs of fine-tuning):",
        short.to_markdown(index=False, disable_numparse=True),
    ]


def readme_text() -> str:
    """The whole README with a fresh status block."""
    text = README.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not end:
        lacks, place = (END, "ends") if start else (START, "begins")
        raise RecordError(f"{shown(README)} lacks the line '{lacks}'; put it back where the status {place}")
    return f"{before}{START}\n\n{readme_status()}\n\n{END}{after}"


def write_readme() -> None:
    write_atomically(README, readme_text().encode())
