"""What a lesson looks at: accuracies, gradients, rounding, and pictures of them."""

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from reprolib.paper import teach


class Linear(nn.Module):
    """Two classes on images of 4 pixels: logits (scale * sum of the pixels, 0)."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.layer = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[scale] * 4, [0.0] * 4]))

    def forward(self, images):
        return self.layer(images.flatten(1))


IMAGES = torch.tensor([0.0, 0.2, 0.8]).view(3, 1, 1, 1).expand(3, 1, 2, 2).clone()
LABELS = torch.tensor([1, 0, 1])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_accuracy_is_in_percent():
    assert teach.accuracy(Linear(), IMAGES[1:], LABELS[1:]) == 50.0


def test_the_gradient_is_the_losss():
    network = Linear(2.0)
    assert torch.equal(teach.gradient(network, IMAGES, LABELS, "margin")[:, 0, 0, 0], torch.tensor([2.0, -2.0, 2.0]))
    x = IMAGES.clone().requires_grad_()
    nn.functional.cross_entropy(network(x), LABELS, reduction="sum").backward()
    torch.testing.assert_close(teach.gradient(network, IMAGES, LABELS), x.grad)
    assert not teach.gradient(Linear(50.0), IMAGES[1:2], LABELS[1:2], "probabilities").any(), "p(true) rounds to 1"


def test_a_sharpened_network_decides_the_same_with_larger_logits():
    network = Linear()
    surer = teach.sharpened(network, 100.0)
    torch.testing.assert_close(surer(IMAGES), 100 * network(IMAGES))
    assert network.layer.weight[0, 0].item() == 1.0, "the network itself is as it was"


def test_the_rounding_table_says_where_each_loss_loses_its_gradient():
    table = teach.rounding_table([5, 50, 110])
    assert list(table["gradient, probabilities"] == "0 exactly") == [False, True, True]
    assert list(table["gradient, logits"] == "0 exactly") == [False, False, True]
    assert list(table["gradient, margin"] == "0 exactly") == [False, False, False]
    assert table["1 - p, exactly"][0] == "6.7e-03" and table["1 - p in float32"][1] == "0.0e+00"


def test_printed_numbers_come_from_the_ledger():
    assert teach.printed("T6.PGD-v1.7-P1") == 88.09


def test_a_curve_table_has_a_row_for_each_place():
    table = teach.curve_table([0.0, 0.05], {"FGSM": [93.5, 41.52]}, "eps")
    assert table.to_dict("list") == {"eps": ["0", "0.05"], "FGSM": ["93.5", "41.5"]}


def test_an_attack_is_shown_with_the_answers_wrong_ones_in_red():
    figure = teach.plot_attack(Linear(), IMAGES[:2], IMAGES[:2] + 0.1, torch.tensor([0, 1]), ["a", "b"])
    original, attacked = figure.axes[1].xaxis.label, figure.axes[5].xaxis.label
    assert original.get_text() == "a\n69.0%" and original.get_color() == "#B30000"
    assert attacked.get_text().startswith("a\n7")
    assert figure.axes[0].xaxis.label.get_color() == "black" and figure.axes[2].get_ylabel() == "added, x10"


def test_an_attack_that_changed_nothing_can_be_shown():
    assert teach.plot_attack(Linear(), IMAGES, IMAGES, LABELS, ["a", "b"]).axes[3].get_ylabel() == "added, x1"


def test_a_loss_surface_is_steep_along_the_gradient_and_holds_the_boundary():
    network, image = Linear(10.0), torch.full((1, 1, 2, 2), 0.5)
    figure = teach.plot_surfaces(network, image, torch.tensor([0]), ["margin", "probabilities"], reach=0.2)
    values = torch.as_tensor(figure.axes[0].collections[0].get_array().data).view(25, 25)
    middle = values[12]
    torch.testing.assert_close(middle[[0, 12, 24]].float(), torch.tensor([-28.0, -20.0, -12.0]))  # minus 10 * 4 pixels
    flat = torch.as_tensor(figure.axes[1].collections[0].get_array().data).view(25, 25)[12]
    assert float(flat[:13].max() - flat[:13].min()) == 0, "by probabilities, a sure network's ground is level"
    assert [axis.get_title() for axis in figure.axes[:2]] == ["loss: margin", "loss: probabilities"]


def test_curves_are_drawn_as_given():
    axis = teach.plot_curves([1, 2], {"one": [90, 80], "two": [70, 60]}, "steps").axes[0]
    assert [list(line.get_ydata()) for line in axis.lines] == [[90, 80], [70, 60]]


def test_margins_are_counted():
    figure = teach.plot_margins({"sure": torch.tensor([50.0, 60.0]), "not": torch.tensor([1.0])})
    assert [sum(bar.get_height() for bar in axis.patches) for axis in figure.axes] == [2, 1]
