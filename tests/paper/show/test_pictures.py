"""Pictures draw what was measured, beside what is printed."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from paper.made import ATTACKS, COLUMNS, amounts, only, page_of

from reprolib.paper import judge, plan, run, show
from reprolib.paper.plan import Cell

LEDGER = judge.ledger()


@pytest.fixture(autouse=True)
def figures_are_closed():
    yield
    plt.close("all")


def with_rows(page: run.Page, *names: str) -> plan.Plan:
    rows = {name: page.plan.page.rows[name] for name in names}
    changed = page.plan.page.model_copy(update={"rows": rows})
    return plan.Plan(changed, page.plan.amounts, page.plan.folder)


def spans(axis) -> list[list[float]]:
    return [path.vertices[:, 1].tolist() for lines in axis.collections for path in lines.get_paths()]


# --- bars -----------------------------------------------------------------------------------------------------------


def test_plot_attacks_has_a_bar_per_number_and_a_mark_per_printed_one(cells, table_6):
    figure = show.plot_attacks(cells, table_6.plan)
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert set(panels) == set(ATTACKS)
    heights = sorted(patch.get_height() for patch in panels["FGSM"].patches)
    expected = [
        only(cells, row="FGSM", column=column, protocol=protocol, decision=decision).value
        for column in COLUMNS
        for protocol, decision in (("probabilities", "last"), ("logits", "any"), ("sound", "any"))
    ]
    assert heights == sorted(expected)
    marks = [shape for shape in panels["FGSM"].lines if shape.get_label() == "printed in the paper"]
    assert sorted(marks[0].get_ydata()) == sorted(LEDGER[f"T6.FGSM.{c}"].printed for c in ("undefended", "7-P1"))
    low, high = (getattr(only(cells, row="IFGSM", column="7-P1", protocol="sound"), k) for k in ("low", "high"))
    assert [pytest.approx(low), pytest.approx(high)] in spans(panels["IFGSM"])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_plot_attacks_names_the_networks_below_the_lowest_panel_of_each_column(cells, table_6, count):
    figure = show.plot_attacks(cells, with_rows(table_6, *ATTACKS[:count]))
    assert len(figure.axes) == count and len(figure.axes[0].patches) == 9
    figure.canvas.draw()
    lowest = {}
    for axis in figure.axes:
        left, bottom = axis.get_position().x0, axis.get_position().y0
        if left not in lowest or bottom < lowest[left].get_position().y0:
            lowest[left] = axis
    for axis in figure.axes:
        named = [label.get_text() for label in axis.get_xticklabels() if label.get_visible()]
        assert named == (list(COLUMNS) if axis in lowest.values() else [])


def test_the_legend_names_the_paper_only_where_it_prints_something(cells, table_6, restarts):
    page, others = restarts
    for figure, says in (
        (show.plot_attacks(cells, table_6.plan), True),
        (show.plot_attacks(others, page.plan), False),
    ):
        (legend,) = figure.legends
        assert ("printed in the paper" in [text.get_text() for text in legend.get_texts()]) == says


def test_table_9_is_drawn_by_what_the_attacks_were_given(given_cells, table_9):
    axis = show.plot_given(given_cells, table_9.plan).axes[0]
    heights = sorted(bar.get_height() for bar in axis.patches)
    assert heights == sorted([90, 42, 69, 60, 80, 32, 59, 50, 70, 22, 49, 40])
    printed = [float(line.get_ydata()[0]) for line in axis.lines if line.get_marker() == "D"]
    assert sorted(printed) == [0.0, 86.7]
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert len(labels) == len(set(labels)) == 5 and "AutoAttack, given logits (sound)" in labels


# --- curves ---------------------------------------------------------------------------------------------------------


def test_plot_epochs_has_a_point_per_epoch(epoch_cells, table_11):
    axis = show.plot_epochs(epoch_cells, table_11.plan).axes[0]
    ours = {container.get_label(): container.lines[0] for container in axis.containers}
    assert len(ours) == 3 and all(list(drawn.get_xdata()) == [10, 20, 30] for drawn in ours.values())
    assert list(ours["7-P1: PGD-v2, sound"].get_ydata()) == [50, 60, 50]
    assert list(ours["7-P1: share of saturated images"].get_ydata()) == [25, 25, 25]
    printed = next(drawn for drawn in axis.lines if drawn.get_label() == "printed in the paper")
    row = [claim.printed for name, claim in LEDGER.items() if name.startswith("T11.FMNIST.")]
    assert list(printed.get_ydata()) == row and list(printed.get_xdata()) == [10, 20, 30, 40, 50, 60]


STUDY = plan.Plan(page_of("saturation", shown=plan.load_table("saturation")["fmnistconv"].shown), amounts(), "cpu")


def study_cells() -> list[Cell]:
    """Values that tell column, epoch and seed: saturated 10 + epoch + seed, attacks the same minus 1, 2, 3, sound 0."""
    cells = []

    def add(value: float, row: str, protocol: str, decision: str | None, **place) -> None:
        interval = {"value": value, "low": value - 1, "high": value + 1, "n": 9}
        quantity = "saturated" if protocol == "saturated" else "accuracy"
        cells.append(Cell(quantity=quantity, row=row, protocol=protocol, decision=decision, **place, **interval))

    for (column, seed), network in STUDY.networks.items():
        for looked_at in STUDY.looks(network):
            place = {"column": column, "epoch": looked_at.epochs, "seeds": [3 + seed]}
            value = 10.0 + looked_at.epochs + seed
            add(value, "Clean", "saturated", None, **place)
            for less, attack in enumerate(("FGSM", "IFGSM", "PGD-v2"), start=1):
                add(value - less, attack, "probabilities", "last", **place)
                add(5.0, attack, "logits", "any", **place)
                for protocol in ("margin", "sound"):
                    add(0.0, attack, protocol, "any", **place)
            for eps in (0.05, 0.1, 0.2, 0.3, 0.5):
                add(100 * eps, f"IFGSM, eps {eps:g}", "margin", "any", **place)
    return cells


def test_a_study_shows_means_and_spans_over_the_seeds():
    table = show.epochs_table(study_cells(), STUDY)
    rows = {(row["column"], row["epochs"]): row for row in table.to_dict("records")}
    assert len(rows) == len(table) == 2 * sum(column != "undefended" for column, seed in STUDY.networks if seed == 0)
    assert rows["7-P1", "20"]["saturated"] == "31.0 (30.0 to 32.0)" and rows["7-P1", "20"]["seeds"] == "3"
    assert rows["7-P1", "20"]["PGD-v2 probabilities"] == "28.0 (27.0 to 29.0)"
    assert rows["7-P1, label smoothing", "10"]["saturated"] == "20.00 [19.00, 21.00]"
    assert rows["7-P1", "10"]["PGD-v2 sound"] == "0.0 (0.0 to 0.0)"
    assert not [name for name in table if "eps" in name or "first start" in name]


def test_the_studys_pictures_draw_what_was_measured():
    axis = show.plot_saturation(study_cells(), STUDY).axes[0]
    assert list(next(line for line in axis.lines if line.get_label() == "7-P1 (3 seeds)").get_ydata()) == [21, 31]
    labels = [text.get_text() for text in axis.figure.legends[0].get_texts()]
    several = [f"{column} (3 seeds)" for column in ("7-P1", "no patches")]
    assert set(labels) == {*several, *(f"{column} (1 seed)" for column in list(STUDY.page.shown)[3:])}
    figure = show.plot_losses(study_cells(), STUDY, columns=("7-P1", "no patches"), beside="table11")
    panels = {axis.get_title(): axis for axis in figure.axes}
    assert list(panels) == ["FGSM", "IFGSM", "PGD-v2"]
    drawn = {line.get_label(): list(line.get_ydata()) for line in panels["IFGSM"].lines}
    drawn |= {c.get_label(): list(c.lines[0].get_ydata()) for c in panels["IFGSM"].containers}
    assert drawn["7-P1: probabilities, last iterate"] == [19, 29] and drawn["no patches: margin, any iterate"] == [0, 0]
    printed = {line.get_label(): list(line.get_ydata()) for line in panels["PGD-v2"].lines}["printed in the paper"]
    assert printed == [21.6, 35.1]  # as far as the study's epochs go
    assert "printed in the paper" not in {line.get_label() for line in panels["FGSM"].lines}
    assert "printed in the paper" in {text.get_text() for text in figure.legends[0].get_texts()}


def test_a_sweep_is_drawn_by_the_radius_of_its_attacks():
    axes = show.plot_sweep(study_cells(), STUDY).axes
    line = next(drawn for drawn in axes[1].lines if drawn.get_label() == "margin, any iterate")
    assert [axis.get_title() for axis in axes] == ["undefended", "7-P1", "no patches"]
    assert list(line.get_xdata()) == [0.05, 0.1, 0.2, 0.3, 0.5] and list(line.get_ydata()) == [5, 10, 20, 30, 50]


@pytest.mark.parametrize("seeds", [1, 2])
def test_figure_3_shows_means_and_spans_over_the_seeds_or_the_interval_over_the_images(seeds):
    planned = plan.load_plan("figure03_optimizer", "vgg16", "quick", seeds=seeds)
    rows = [(row, *asked) for row in planned.page.rows for asked in show.study.SEEN] + [("Clean", "saturated", None)]
    cells = [
        Cell(quantity="saturated" if protocol == "saturated" else "accuracy", row=row, protocol=protocol,
             decision=decision, column=column, epoch=1, value=value, low=value - 5, high=value + 6, n=9, seeds=[seed])
        for row, protocol, decision in rows
        for column, values in {"Adam": (10.0, 30.0), "RMSprop": (50.0, 50.0)}.items()
        for seed, value in enumerate(values[:seeds])
    ]  # fmt: skip
    axes = show.plot_over_seeds(cells, planned).axes
    assert [axis.get_title() for axis in axes] == list(planned.page.rows)
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["RMSprop", "Adam"]
    adam, span = ([20.0] * 4, [10.0, 30.0]) if seeds == 2 else ([10.0] * 4, [5.0, 16.0])
    assert sorted(bar.get_height() for bar in axes[0].patches) == [*adam, *[50.0] * 4]
    assert spans(axes[0]).count(span) == 4 and spans(axes[0]).count([50.0, 50.0] if seeds == 2 else [45.0, 56.0]) == 4


# --- scoreboard, galleries ------------------------------------------------------------------------------------------


def test_plot_scoreboard_has_a_point_per_measured_claim(cells):
    board = judge.scoreboard({("cpu", "table06_fashion_mnist"): run.Stored({}, cells)})
    drawn = {
        re.sub(r" \(.*", "", part.get_label()): len(part.get_offsets())
        for part in show.plot_scoreboard(board).axes[0].collections
    }
    measured = board[board["record"] != ""]["protocol"].value_counts()
    assert drawn == {protocol: measured[protocol] for protocol in ("clean", "sound", "logits", "probabilities")}
    assert show.plot_scoreboard(board[board["record"] == ""]).axes  # nothing measured is a picture too


def test_galleries(tiny):
    gallery = show.plot_operations(tiny.train.images[:9], size=11, seed=0)
    assert len([axis for axis in gallery.axes if axis.images]) == 18
    assert len({axis.get_title() for axis in gallery.axes} - {""}) == 9
    before, after = (np.asarray(gallery.axes[i].images[0].get_array()) for i in (7, 16))  # the black patch
    inside, outside = np.zeros((28, 28), bool), np.ones((28, 28), bool)
    inside[8:19, 8:19] = True
    assert (before[outside & ~inside] == after[outside & ~inside]).all() and (before[inside] != after[inside]).any()
    assert len([axis for axis in show.plot_pipeline(tiny.train.images[:4], seed=0).axes if axis.images]) == 5 * 4
