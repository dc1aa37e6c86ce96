"""The three losses by hand, and where each one's gradient vanishes."""

import math

import pytest
import torch

from reprolib.attacks import loss_per_image


def loss_and_gradient(logits: list[float], label: int, loss: str) -> tuple[float, list[float]]:
    leaf = torch.tensor([logits], requires_grad=True)
    value = loss_per_image(leaf, torch.tensor([label]), loss)
    value.sum().backward()
    return value.item(), leaf.grad[0].tolist()


def test_losses_by_hand():
    logits, labels = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, -1.0]]), torch.tensor([1, 2])
    total = [sum(map(math.exp, row)) for row in logits.tolist()]
    expected = [-math.log(math.exp(3) / total[0]), -math.log(math.exp(-1) / total[1])]
    assert loss_per_image(logits, labels, "margin").tolist() == [-1.0, 1.0]
    assert loss_per_image(logits, labels, "logits").tolist() == pytest.approx(expected, rel=1e-6)
    assert loss_per_image(logits, labels, "probabilities").tolist() == pytest.approx(expected, rel=1e-6)


def test_probabilities_are_clipped_as_in_keras():
    assert loss_and_gradient([40.0, 0.0], 0, "probabilities")[0] == pytest.approx(1e-7, rel=0.3)  # 1 - 2**-23
    assert loss_and_gradient([40.0, 0.0], 1, "probabilities")[0] == pytest.approx(-math.log(1e-7), rel=1e-6)


@pytest.mark.parametrize(
    "loss, margin, vanishes",
    [
        ("probabilities", 10.0, False),
        ("probabilities", 15.0, False),
        ("probabilities", 20.0, True),
        ("probabilities", 1e4, True),
        ("logits", 20.0, False),
        ("logits", 50.0, False),
        ("logits", 200.0, True),
        ("margin", 20.0, False),
        ("margin", 200.0, False),
        ("margin", 1e6, False),
    ],
)
def test_where_the_gradient_is_exactly_zero(loss, margin, vanishes):
    gradient = loss_and_gradient([margin, 0.0, -1.0], 0, loss)[1]
    assert all(value == 0 for value in gradient) == vanishes
    if not vanishes:
        assert gradient[1] > 0, "up the nearest wrong class"


def test_probabilities_of_a_hopeless_image_have_no_gradient_either():
    assert loss_and_gradient([-20.0, 0.0], 0, "probabilities")[1] == [0.0, 0.0]


def test_an_unknown_loss():
    with pytest.raises(ValueError, match=r"^loss is 'hinge'; expected one of margin, logits, probabilities"):
        loss_per_image(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), "hinge")
