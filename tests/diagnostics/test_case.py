"""Logits rescaled so that cross-entropy cannot saturate."""

import pytest
import torch
from conftest import Scale
from torch import nn

from reprolib.diagnostics.case import Rescaled


def test_rescaled_logits_know_no_scale(brittle, held_out):
    plain, large = (Rescaled(net)(held_out[0]) for net in (brittle, nn.Sequential(brittle, Scale(1e4))))
    assert torch.allclose(plain, large, atol=1e-4)
    assert torch.equal(plain.argmax(1), brittle(held_out[0]).argmax(1))
    top = plain.topk(2, 1).values
    assert torch.allclose(top[:, 0] - top[:, 1], torch.ones(200))


@pytest.mark.parametrize("logits", [[0.0, 0.0, 0.0, 0.0], [5.0, 5.0, 1.0, -1.0], [1e30, 0.0, 0.0, 0.0]])
def test_rescaled_logits_stay_finite(logits):
    class Fixed(nn.Module):
        def forward(self, images):
            return images.flatten(1) + torch.tensor([logits])

    images = torch.full((1, 1, 2, 2), 0.5, requires_grad=True)
    rescaled = Rescaled(Fixed())(images)
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(rescaled, torch.tensor([0])), images)
    assert rescaled.isfinite().all() and gradient.isfinite().all()
