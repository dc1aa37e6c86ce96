"""The start page, on a network whose margins are known: its logits are its four pixels, times a scale."""

import base64
import functools
import io
import re

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from torch import nn

from reprolib import attacks
from reprolib.paper import judge, notebooks, show
from reprolib.paper.show import gallery, sliders

CLASSES = ("coat", "dress", "shirt", "bag")
LABELS = torch.arange(4)
IMAGES = 0.4 + 0.2 * torch.eye(4).view(4, 1, 1, 4)  # the true pixel leads by 0.2, so 0.2 is more than enough to fool
ATTACK = functools.partial(attacks.ifgsm, eps=0.2, alpha=0.05, steps=5)
LOSSES = ("probabilities", "logits", "margin")
EXPECTED = {  # margin -> which losses leave the image; in float32, e^-30 is lost beside 1, and e^-200 altogether
    5: {"probabilities": 0, "logits": 0, "margin": 0},
    30: {"probabilities": 100, "logits": 0, "margin": 0},
    200: {"probabilities": 100, "logits": 100, "margin": 0},
}


class Pixels(nn.Module):
    def __init__(self, margin: float):
        super().__init__()
        self.scale = margin / 0.2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * images.flatten(1)


@pytest.fixture(autouse=True)
def figures_are_closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def cells():
    networks = {"undefended": Pixels(5), "7-P1": Pixels(30), "no patches": Pixels(200)}
    return show.measure_losses("IFGSM", networks, ATTACK, IMAGES, LABELS)


def test_the_surer_a_network_the_more_it_keeps_by_losses_that_saturate(cells):
    found = {(cell.column, cell.protocol): (cell.value, cell.n) for cell in cells}
    for column, (margin, left) in zip(("undefended", "7-P1", "no patches"), EXPECTED.items(), strict=True):
        assert {loss: found[column, loss] for loss in LOSSES} == {loss: (value, 4) for loss, value in left.items()}
        assert found[column, "clean"] == (100, 4) and found[column, "saturated"] == (100 * (margin > 16), 4)
    assert not any(cell.judged or cell.claim for cell in cells), "a first look earns no verdict"


def test_the_table_has_every_number_below_the_printed_ones(cells):
    table = show.losses_table(cells).set_index("images (%)")
    assert list(table.columns) == ["undefended", "7-P1", "no patches"] and len(table) == 6
    printed = [f"{judge.ledger()[f'T6.IFGSM.{column}'].number:.2f}" for column in ("undefended", "7-P1")]
    assert table.loc["IFGSM, printed in the paper"].tolist() == [*printed, ""]
    assert [text.split()[0] for text in table.loc["IFGSM, logits"]] == ["0.00", "0.00", "100.00"]


def test_the_chart_has_a_bar_per_number_and_a_mark_per_printed_one(cells):
    axis = show.plot_by_loss(cells).axes[0]
    assert sorted(bar.get_height() for bar in axis.patches) == sorted(cell.value for cell in cells)
    (marks,) = [line for line in axis.lines if line.get_label() == "printed in the paper"]
    printed = [judge.ledger()[f"T6.IFGSM.{column}"].number for column in ("undefended", "7-P1")]
    assert list(marks.get_xdata()) == [0, 1] and list(marks.get_ydata()) == printed


@pytest.mark.parametrize("margin", EXPECTED)
def test_an_image_stands_where_its_gradient_is_exactly_zero(margin):
    table = show.gradients_table(Pixels(margin), IMAGES, LABELS, CLASSES)
    assert list(table["image"]) == list(CLASSES)
    for loss in LOSSES:
        is_zero = [text == "exactly 0" for text in table[f"largest gradient, {loss}"]]
        assert is_zero == [EXPECTED[margin][loss] == 100] * 4
    assert [float(text) for text in table["largest gradient, margin"]] == pytest.approx([margin / 0.2] * 4, rel=0.01)


def test_steps_are_drawn_as_the_attack_makes_them():
    axes = show.plot_steps(Pixels(30), IMAGES[:2], LABELS[:2]).axes
    steps = [axis.images[0].get_array().data.tolist() for axis in axes[:8]]
    assert np.allclose(steps[0], IMAGES[0].permute(1, 2, 0).expand(-1, -1, 3)) and steps[1] == [[0, 0, 0, 0]]
    assert steps[2] == [[0, 1, 1, 1]] and steps[6] == [[1, 0, 1, 1]]  # the others up; of the true one, p - 1 is 0
    assert steps[3] == [[-1, 1, 1, 1]] and steps[7] == [[1, -1, 1, 1]]


# --- adversarial images ---------------------------------------------------------------------------------------------


def test_changes_are_magnified_around_grey():
    for change, factor in ((0.1, 5), (-0.25, 2)):
        moved = IMAGES.clone()
        moved[0, 0, 0, 1] += change
        shown, stretched = gallery.magnified(IMAGES, moved)
        assert stretched == pytest.approx(factor) and float(shown[0, 0, 0, 1]) == pytest.approx(
            0.5 + 0.5 * np.sign(change)
        )
        assert (shown[1:] == 0.5).all()
    shown, factor = gallery.magnified(IMAGES, IMAGES)
    assert (shown == 0.5).all() and factor == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gallery_shows_images_changes_and_answers(channels):
    class Grey(Pixels):
        def forward(self, images):
            return super().forward(images.mean(1, keepdim=True))

    images = IMAGES.expand(-1, channels, -1, -1)
    adversarial = images.roll(1, 3).where(LABELS.view(-1, 1, 1, 1) == 1, images)  # the second image, to the third class
    figure = show.plot_adversarial(Grey(5), images, adversarial, LABELS, CLASSES)
    axes = np.reshape(figure.axes, (3, 4))
    assert np.allclose(axes[2, 1].images[0].get_array(), adversarial[1].permute(1, 2, 0).expand(-1, -1, 3))
    right, wrong = (np.exp(lead) / (np.exp(5) + 3) for lead in (5, 0))
    assert [axis.get_title() for axis in axes[0]] == [f"{name}\np(true) {right:.3f}" for name in CLASSES]
    assert axes[2, 1].get_title() == f"shirt\np(true) {wrong:.3f}" and axes[2, 1].get_xlabel() == "dress"
    colours = [to_hex(axis.title.get_color()).upper() for axis in axes[2]]
    assert [colour == gallery.WRONG for colour in colours] == [False, True, False, False]


# --- sliders --------------------------------------------------------------------------------------------------------


def test_the_answer_to_sliders_counts_and_shows_images():
    ask = functools.partial(sliders.explored, Pixels(30), IMAGES, LABELS, CLASSES)
    for eps, loss, left in ((0.2, "probabilities", 4), (0.2, "margin", 0), (0.05, "margin", 4), (0.0, "margin", 4)):
        html = ask(eps, loss)
        assert f"eps {eps:.2f}, loss {loss}: {left} of 4 images stand." in html
        assert html.count(gallery.WRONG) == 4 - left and html == ask(eps, loss)
        png = base64.b64decode(re.search(r'src="data:image/png;base64,([^"]+)"', html)[1])
        assert len(re.search(r'alt="([^"]+)"', html)[1]) >= 20
        drawn = plt.imread(io.BytesIO(png))
        assert drawn.shape[:2] == (3, 16) and drawn[0, 0, 0] == pytest.approx(0.6, abs=0.01)
        assert (abs(drawn[1, :, :3] - 0.5).max() < 0.01) == (loss == "probabilities" or eps == 0)


def test_moving_a_slider_asks_again(monkeypatch):
    from ipywidgets.widgets.widget import _instances

    displayed = []
    monkeypatch.setattr(sliders, "show_in_notebook", lambda data, **options: displayed.append((data, options)))
    show.explore(Pixels(30), IMAGES, LABELS, CLASSES)
    ((data, options),) = displayed
    eps, loss, shown = _instances[data[notebooks.WIDGET]["model_id"]].children
    assert options == {"raw": True} and data["text/html"] == shown.value  # for a page, where no widget can be
    eps.value, loss.value = 0.25, "margin"
    assert shown.value == sliders.explored(Pixels(30), IMAGES, LABELS, CLASSES, 0.25, "margin") != data["text/html"]


def test_percentages_in_the_prose_are_printed_in_the_paper():
    page = nbformat.read(notebooks.NOTEBOOKS / f"{notebooks.FIRST}.ipynb", as_version=4)
    prose = "\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")
    found = re.findall(r"\d+\.\d\d(?= ?%)|\d+\.\d\d(?=\*\* %)", prose)
    assert {f"{judge.ledger()[f'T6.IFGSM.{column}'].number:.2f}" for column in ("undefended", "7-P1")} == set(found)
