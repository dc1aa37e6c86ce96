"""Gradients in bfloat16: quicker where the device has it, never the judge."""

import pytest
import torch
from torch import Tensor, nn

from reprolib import slots
from reprolib.attacks import pgd


class TwoFaced(nn.Module):
    """One pixel, two classes split at 0.5; under autocast it answers as if the border were elsewhere."""

    def __init__(self, border_under_autocast: float):
        super().__init__()
        self.border, self.seen = border_under_autocast, []

    def forward(self, images: Tensor) -> Tensor:
        fast = torch.is_autocast_enabled("cpu")
        self.seen.append(fast)
        x = images.flatten(1)[:, 0] - (self.border if fast else 0.5)
        return torch.stack([-x, x], 1)


IMAGES, LABELS = torch.tensor([0.30, 0.38, 0.42, 0.46]).view(-1, 1, 1, 1), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize("decision", ["any", "last"])
def test_what_bfloat16_calls_broken_float32_has_to_confirm(decision):
    """Under autocast everything above 0.2 is class 1: all images look broken from the start."""
    result = pgd(TwoFaced(0.2), 0.1, 0.02, 10, decision=decision, bfloat16=True).run(IMAGES, LABELS)
    assert result.robust(decision).tolist() == [True, True, False, False]  # what float32's border at 0.5 allows
    assert (result.adversarial[2:] > 0.5).all()


@pytest.mark.parametrize("decision", ["any", "last"])
def test_the_last_iterate_is_never_left_to_bfloat16(decision):
    """Under autocast the border is at 0.9: nothing ever looks broken."""
    result = pgd(TwoFaced(0.9), 0.1, 0.02, 10, decision=decision, bfloat16=True).run(IMAGES, LABELS)
    assert result.robust(decision).tolist() == [True, True, False, False]


@pytest.mark.parametrize("options, used", [({}, False), ({"bfloat16": True}, True)])
def test_bfloat16_is_used_on_request_alone(options, used):
    net = TwoFaced(0.5)
    pgd(net, 0.1, 0.02, 3, **options).run(IMAGES, LABELS)
    assert any(net.seen) == used and not net.seen[0], "the clean images are judged in float32"


def test_bfloat16_finds_what_float32_finds(sturdy, held_out):
    quick, exact = (pgd(sturdy, 0.1, 0.02, 20, 2, bfloat16=chosen).run(*held_out) for chosen in (True, False))
    assert quick.adversarial.dtype == torch.float32
    assert abs(int(quick.robust().sum()) - int(exact.robust().sum())) <= 2  # of 200
    broken = quick.correct & ~quick.robust()
    assert (sturdy(quick.adversarial).argmax(1) != held_out[1])[broken].all()


class Counted:
    """A method whose run takes as many evaluations as the image's id says, and breaks images with an odd id."""

    def begin(self, rows):
        rows["left"] = rows["id"].clone()

    def advance(self, rows):
        self.most = max(getattr(self, "most", 0), len(rows["id"]))
        over = rows["left"] == 0
        rows["left"] = rows["left"] - 1
        return rows["clean"], over & (rows["id"] % 2 == 1), over


@pytest.mark.parametrize("count", [1, 3, 64])
def test_slots_are_filled_again_and_waste_no_evaluation(count):
    images, labels = torch.rand(10, 1, 2, 2), torch.zeros(10, dtype=torch.int64)
    result = slots.clean_result(lambda x: torch.tensor([[1.0, 0.0]]).expand(len(x), 2), images, labels, 2, 5)
    method = Counted()
    slots.Slots(method, images, labels, torch.arange(10), result, count=2, slots=count).run()
    odd = torch.arange(10) % 2 == 1
    assert result.any_run.tolist() == torch.where(odd, 0, -1).tolist() and (result.next_run == 2).all()
    # one evaluation of each clean image; id + 1 for a run; images with an even id have two runs
    assert result.calls == 10 + sum((i + 1) * (1 if i % 2 else 2) for i in range(10))
    assert method.most == min(count, 10)
