"""What a notebook calls: its heading, its pictures with their text alternatives, its tables, its last cell."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from IPython.display import display as show_in_notebook
from matplotlib.figure import Figure

from reprolib.paper import files, run
from reprolib.paper.parameters import suggest
from reprolib.paper.plan import LOSSES, Cell, Plan, SpecError, load_table
from reprolib.paper.show.gallery import answers, attacked_images, plot_adversarial
from reprolib.paper.show.methods import verdicts_table
from reprolib.paper.show.pages import page_text, save_page, scale
from reprolib.paper.show.pictures import png, style, svg
from reprolib.paper.show.recorded import recorded
from reprolib.paper.show.selection import main_rows
from reprolib.paper.show.tables import markdown


def heading(page: run.Page) -> None:
    """What the page is about, where a table has several, and what this run is made of."""
    style()
    declared = page.plan.page
    title = f"## {declared.title}" if len(load_table(declared.table)) > 1 else ""
    display("\n\n".join(filter(None, [title, declared.prose.strip(), scale(page.plan)])))


def outline(page: run.Page) -> str:
    """What is measured, in lines that are the same on every machine, and with a column more or less."""
    plan, answered = page.plan, run.answered(page.plan)
    losses = dict.fromkeys(job.evaluation.loss for job in plan.jobs)
    epochs = f" | epochs: {', '.join(map(str, plan.epochs()))}" if plan.page.follows_epochs else ""
    ends = (min(answered), max(answered)) if answered else ()
    return "\n".join(
        [
            f"attacks: {'; '.join(main_rows(plan) or plan.page.rows)} | losses: {', '.join(losses)}{epochs}",
            f"answers {len(answered) or 'none'} of the paper's numbers"
            + (f", {' to '.join(dict.fromkeys(ends))}" if answered else ""),
        ]
    )


def display(content: pd.DataFrame | str) -> None:
    """Show a table or a text as Markdown, which JupyterLab, GitHub and a page all render, and nbval can compare."""
    show_in_notebook(Markdown(content if isinstance(content, str) else markdown(content)))


def show(figure: Figure, alt: str, plan: Plan, part: str = "") -> None:
    """Display a page's picture with its text alternative and write it beside the page's record. Closes it.

    part: what distinguishes the picture from the page's others.
    """
    picture(figure, alt, plan.folder, f"{plan.page.record}_{part}" if part else plan.page.record)


def picture(figure: Figure, alt: str, folder: str, name: str) -> None:
    """Display a figure with its text alternative and write results/<folder>/<name>.png, and .svg. Closes it.

    The picture is displayed as the PNG file that is written, so that it is there whatever matplotlib's backend is.
    """
    files.write_atomically(files.RESULTS / folder / f"{name}.svg", svg(figure, alt))
    files.write_atomically(files.RESULTS / folder / f"{name}.png", _displayed(figure, alt))


def display_figure(figure: Figure, alt: str) -> None:
    """Display a figure with its text alternative, and close it."""
    _displayed(figure, alt)


def _displayed(figure: Figure, alt: str) -> bytes:
    """The PNG file that is displayed."""
    content = png(figure, alt)
    plt.close(figure)
    data = {"image/png": base64.b64encode(content).decode(), "text/plain": alt}
    show_in_notebook(data, raw=True, metadata={"image/png": {"alt": alt}})
    return content


def _check_names(page: run.Page, row: str, column: str, losses: tuple[str, ...]) -> None:
    columns = dict.fromkeys(name for name, _ in page.plan.networks)
    given: list[tuple[str, str, Iterable[str]]] = [("column", column, columns), ("attack", row, page.plan.page.rows)]
    for what, name, known in [*given, *(("loss", loss, LOSSES) for loss in losses)]:
        if name not in known:
            raise SpecError(suggest(name, known, what))


def under_attack(page: run.Page, row: str, column: str, *losses: str) -> None:
    """Show what one of the page's attacks makes of some images, a picture for each of these losses that it measures.

    Another engine than reprolib measures `logits` alone. A profile's page, which is published, shows no pictures of a
    data set that nobody may pass on. Raises SpecError for a row, column or loss that there is not.
    """
    if not page.plan.info.free and not page.plan.folder.startswith("custom"):
        whose = f"Pictures of {page.plan.data} may not be passed on, so that this page shows none under attack"
        display(f"*{whose}; a run of your own does: set `run_name`.*")
        return
    _check_names(page, row, column, losses)
    network = page.plan.networks[column, 0]
    asked = [job.evaluation for job in page.plan.jobs if job.row == row and job.evaluation.source is None]
    by_loss = {one.loss: one for one in asked if one.network == network}
    for loss in [loss for loss in losses if loss in by_loss]:
        model, images, adversarial, labels = attacked_images(page, by_loss[loss])
        classes = page.dataset.classes
        still = int((adversarial == images).flatten(1).all(1).sum())
        known, right = (
            sum(is_right for _, is_right in answers(model, some, labels, classes)) for some in (images, adversarial)
        )
        alt = (
            f"{len(images)} test images in three rows: as they are, the change magnified, and after {row} by {loss} on "
            f"{column}, with the network's answers. {known} are classified correctly before the attack and {right} "
            f"after it; {still} came back unchanged, a plain grey."
        )
        show(plot_adversarial(model, images, adversarial, labels, classes), alt, page.plan, f"under_attack_{loss}")


def full_run(page: run.Page) -> None:
    """On a quick page, what a full run found, beside its own sketch of it; on others nothing."""
    if full := recorded(page.plan, Path.cwd()):
        display(full)


def ask_doctor(page: run.Page, attack: str) -> None:
    """Show what the doctor says of each method; it is not asked of networks that hardly learnt, those of the sample."""
    if page.plan.amounts.data == "sample":
        display("*Not asked on the embedded sample: what stands there by chance keeps AutoAttack busy for minutes.*")
    else:
        display(verdicts_table(page, attack))


def publish(page: run.Page, cells: list[Cell]) -> str:
    """Write the page's record and its Markdown page into results/<folder>; gives the record's name.

    A quick page ends with what a full run found.
    """
    plan, made = page.plan, run.provenance(page)
    text = [page_text(cells, plan, made), recorded(plan, files.RESULTS / plan.folder)]
    save_page(plan.page.record, plan.folder, "\n\n".join(filter(None, text)))
    return run.write_record(plan.page.record, made, cells).name
