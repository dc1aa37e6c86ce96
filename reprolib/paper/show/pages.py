"""Pages in Markdown that say where their numbers come from: results/<folder>/<record>.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reprolib import data, training
from reprolib.paper import files
from reprolib.paper.plan import JUDGED, OWN, PUBLISHED, Cell, Plan, Trained, trainings
from reprolib.paper.show.selection import given_rows, page_network
from reprolib.paper.show.tables import epochs_table, given_table, markdown, parts_table, table

BANNERS = {
    "quick": "**Quick run: a sketch on few images, with weak attacks.** No verdict is drawn from it.",
    "custom": "**Settings differ from every profile: an experiment of your own.** No verdict is drawn from it.",
}
PURPOSE = {  # of a quick run, by what it trains
    "trained": "Its networks learn for some seconds from some hundred images at most, so what an attack leaves of "
    "them says little: the run is there to show how the numbers are made and to turn the knobs.",
    "finetuned": f"It fine-tunes the undefended network that the `{PUBLISHED}` profile published, on a small sample.",
    "published": f"It trains nothing: it attacks the networks that the `{PUBLISHED}` profile published, so one sees "
    "what stands and what falls.",
}


def banner(folder: str) -> str:
    """Markdown that every page of a run without verdicts carries; empty for the other profiles."""
    return BANNERS.get(folder.split("/")[0], "")


def scale(plan: Plan) -> str:
    """What a run is made of, in Markdown: the banner where one is due, then sizes, epochs and what was reduced."""
    reads = plan.amounts.networks
    images = f"{plan.size:,} test images"
    if reads != "published":
        images = f"{min(plan.amounts.train, plan.info.train):,} training and {images}"
    of = {"trained": "", "finetuned": ", which was published", "published": ", as published"}[reads]
    folder, _, name = plan.folder.partition("/")
    which = f"Run **{name}**" if name else f"Profile **{folder}**"
    run = f"{which}: {page_network(plan)} on {plan.data}, {images}, {trained(plan)}{of}."
    purpose = f"{PURPOSE[reads]} {_full(plan)}".strip() if folder == "quick" else ""
    return "\n\n".join(filter(None, [banner(plan.folder), _own(plan), f"{purpose} {run}".strip()]))


def _full(plan: Plan) -> str:
    """Where a quick page's finding is."""
    if not any((files.RESULTS / profile / f"{plan.page.record}.json").exists() for profile in JUDGED):
        return "No full run of this page is recorded yet, so its predictions cannot be answered from it."
    return "What a full run found stands beside it."


def _own(plan: Plan) -> str:
    """What a reader must know of attacks that are not the paper's, though they stand under its names."""
    turned = [f"{name} {value}" for name in OWN if (value := getattr(plan.amounts, name)) is not None]
    if plan.folder.startswith("custom"):
        attacks = [row.attack for row in plan.page.rows.values()]
        for name, most in (("steps", plan.amounts.steps), ("restarts", plan.amounts.restarts)):
            if any((attack.get(name) or 0) > most for attack in attacks):
                turned.append(f"{name} at most {most}")
    return f"**Attacks other than printed: {', '.join(turned)}.**" if turned else ""


def page_text(cells: list[Cell], plan: Plan, made: dict[str, Any]) -> str:
    """A page's text: every number, in the form that fits what it measures, and where the numbers come from."""
    parts = [f"# {plan.page.title}", *filter(None, [_own(plan)]), f"{_about(plan)} {source_line(plan, made)}"]
    if plan.page.follows_epochs:
        parts.append(markdown(epochs_table(cells, plan)))
        parts += [markdown(table(cells, plan))] if given_rows(plan) else []
    elif given_rows(plan):
        parts += [markdown(given_table(cells, plan)), markdown(parts_table(cells, plan))]
    else:
        parts.append(markdown(table(cells, plan)))
    return "\n\n".join(parts)


def _about(plan: Plan) -> str:
    shown = f"{page_network(plan)} on {plan.page.dataset}. Accuracy in %, with 95 % Wilson intervals; "
    cut = [name for name in given_rows(plan) if _is_cut(plan, name)]
    short = f" {' and '.join(cut)} cut short, to {plan.amounts.steps} steps." if cut else ""
    if plan.page.follows_epochs or given_rows(plan):
        return f"{shown}{plan.size:,} test images.{short}"
    return f"{shown}`images` is the number of test images behind a row."


def _is_cut(plan: Plan, row: str) -> bool:
    attack = plan.page.rows[row].attack
    return attack.limited(plan.amounts.steps, plan.amounts.restarts) != attack


def save_page(record: str, folder: str, text: str) -> Path:
    """Write results/<folder>/<record>.md, with the banner where one is due."""
    path = files.RESULTS / folder / f"{record}.md"
    files.write_atomically(path, ("\n\n".join(filter(None, [banner(folder), text])).rstrip() + "\n").encode())
    return path


def source_line(plan: Plan, made: dict[str, Any]) -> str:
    """Where the numbers of a page come from: data, amounts, seeds, device, time, and the code that made them."""
    seconds = ", ".join(f"{name} {value:,.0f} s" for name, value in made["seconds"].items())
    read = f" {len(made['published'])} of its networks were read as published." if made["published"] else ""
    return (
        f"{made['data']['name']} ({made['data']['source']}, {made['data']['variant']}), "
        f"{_reduced(plan)}{trained(plan)}{_missed(made)}, {_seeds(plan)}. "
        f"Device: {'; '.join(made['device'])}. Computing time: {seconds}. "
        f"torch {', '.join(made['torch'])}, commit {', '.join(commit[:10] for commit in made['commit'])}.{read}"
    )


def trained(plan: Plan) -> str:
    """How long the page's networks were trained, as far as they were."""
    first = next((n for network in plan.networks.values() for n in trainings(network)), None)
    before = "published weights" if first is None or first.parent else _pretraining(first)
    return " after ".join(filter(None, [tuned(plan), before if first else ""])) or "nothing trained"


def tuned(plan: Plan) -> str:
    """How long the page's networks were fine-tuned; empty where none was."""
    epochs = [network.epochs for network in plan.networks.values() if isinstance(network, Trained) and network.parent]
    return f"{_epochs(max(epochs))} of fine-tuning" if epochs else ""


def _pretraining(network: Trained) -> str:
    target = network.recipe.target
    if target is None:
        return f"{_epochs(network.epochs)} of pre-training"
    near = f"within {training.NEAR:g} points ({_epochs(network.epochs)} at most)"
    return f"pre-training to {target:g} % of clean test accuracy {near}"


def _missed(made: dict[str, Any]) -> str:
    """What a reader must know of a parent that is not as accurate as it was meant to be."""
    missed = [f"{last['clean']:.2f} %" for last in made["pretraining"] if not last.get("rests")]
    return f", **which was missed: it came to {', '.join(missed)}**" if missed else ""


def _reduced(plan: Plan) -> str:
    """What a reader must know before anything else: a network that is not as wide as the paper's, and smaller or fewer
    pictures.
    """
    widths = {n.width for network in plan.networks.values() for n in trainings(network)} - {1.0}
    found = [f"**{width:g} of the network's channels**" for width in sorted(widths)]
    if plan.amounts.data == "small":
        found.append(f"**{plan.info.shape[1]} pixels a side instead of {data.describe(plan.page.dataset).shape[1]}**")
    if plan.amounts.data != "sample" and plan.amounts.train < plan.info.train:
        found.append(f"**{plan.amounts.train:,} of {plan.info.train:,} training images**")
    return "".join(f"{one}, " for one in found)


def _seeds(plan: Plan) -> str:
    seeds = sorted({plan.amounts.seed + seed for _, seed in plan.networks})
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"
