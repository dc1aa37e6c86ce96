"""Which checks decide, how many images make a failure, and what is left when none fails."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from reprolib.diagnostics.checks import Row, at_most
from reprolib.diagnostics.verdict import judge


@pytest.mark.parametrize(
    "limit, set_, n, passed",
    [
        (1.0, 10, 1000, True),
        (1.0, 11, 1000, False),
        (1.0, 1, 20, True),
        (1.0, 2, 20, False),
        (0.2, 1, 100, True),
        (0.2, 2, 100, False),
        (0.0, 0, 100, True),
        (0.0, 1, 100, False),
        (0.0, 0, 0, None),
    ],
)
def test_a_single_image_is_no_failure_unless_none_is_allowed(limit, set_, n, passed):
    measured, _, found = at_most(limit, torch.arange(n) < set_)
    assert found is passed and (n == 0 or measured == pytest.approx(100 * set_ / n))


def first(share: float, n: int = 1000) -> Tensor:
    return torch.arange(n) < round(share * n)


@pytest.mark.parametrize("failing, left, parent, moved, verdict", [
    ("D0", 0.0, 0.5, 0.5, "attack too weak"),
    ("D0 D2 D3", 0.0, 0.02, 0.5, "masked gradients"),
    ("D0 D3 D9", 0.0, 0.5, 0.5, "attack too weak"),
    ("D1", 0.6, 0.0, 0.6, "masked gradients"),
    ("D3 D5 D14", 0.1, 0.0, 0.5, "masked gradients"),
    ("D3 D14", 0.5, 0.0, 0.5, "attack too weak"),
    ("D5", 0.6, 0.0, 0.6, "attack too weak"),
    ("D4 D7 D9", 0.0, 0.0, 0.6, "attack too weak"),
    ("D4", 0.1, 0.0, 0.6, "masked gradients"),
    ("D9", 0.1, 0.0, 0.6, "masked gradients"),
    ("D10", 0.1, 0.0, 0.1, "masked gradients"),
    ("D11", 0.1, 0.0, 0.6, "masked gradients"),
    ("D14", 0.1, 0.0, 0.6, "masked gradients"),
    ("D6 D8 D12 D13 D15 D18", 0.6, 0.0, 0.6, "robust"),
    ("", 0.008, 0.0, 0.05, "not robust"),  # 0.8 points against a standard error of 0.3
    ("", 0.011, 0.0, 0.05, "robust"),
    ("", 0.04, 0.01, 0.1, "robust"),
    ("", 0.02, 0.01, 0.1, "not robust"),
    ("", 0.0, 0.0, 0.10, "not robust"),
    ("", 0.0, 0.0, 0.11, "robust only to transfer"),
    ("", 0.0, None, 0.9, "not robust"),
    ("", 0.1, None, 0.9, "robust"),
])  # fmt: skip
def test_which_checks_decide(failing, left, parent, moved, verdict):
    rows = [Row(f"D{i} name", 0.0, "", f"D{i}" not in failing.split(), "") for i in range(19)]
    rows.append(Row("D0 not applicable", 0.0, "", None, ""))
    stub = SimpleNamespace(
        labels=first(1),
        claimed=first(0.7),
        sound=first(left),
        parent=parent,
        parent_keeps=None if parent is None else first(parent),
        survives_transfer=None if parent is None else first(moved),
    )
    assert judge(rows, stub)[0] == verdict
