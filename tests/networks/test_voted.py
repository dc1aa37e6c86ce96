"""A vote of networks, by hand over all cases, and what an attack can do with it."""

from itertools import product

import pytest
import torch
from torch import nn

from reprolib import networks
from reprolib.networks.voted import Voted


class Says(nn.Module):
    """Answers the same logits for every image."""

    def __init__(self, *logits: float):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images):
        return self.logits.expand(len(images), -1)


def member_for(choice, classes=3, sure=2.0):
    return Says(*(sure if index == choice else 0.1 * index for index in range(classes)))


IMAGES = torch.rand(2, 1, 4, 4)


@pytest.mark.parametrize("choices", product(range(3), repeat=3))
@pytest.mark.parametrize("sure", [0.3, 3.0, 300.0])
def test_three_members_as_in_empir(choices, sure):
    first, second, third = choices
    expected = first if first == second else third  # the third has the majority, or decides where all differ
    for certainty in ((sure, 3.0, 0.3), (3.0, 3.0, sure), (sure, sure, sure)):
        members = [member_for(choice, sure=one) for choice, one in zip(choices, certainty, strict=True)]
        assert Voted(members)(IMAGES).argmax(1).tolist() == [expected, expected]


@pytest.mark.parametrize("choices", product(range(3), repeat=2))
def test_of_two_members_the_last_decides(choices):
    members = [member_for(choice, sure=sure) for choice, sure in zip(choices, (300.0, 0.3), strict=True)]
    assert Voted(members)(IMAGES).argmax(1).tolist() == [choices[1]] * 2


@pytest.mark.parametrize("number", [4, 5])
def test_more_members(number):
    """Most votes; among equally many the last member's class, and else the class that they find more probable."""
    for choices in product(range(3), repeat=number):
        members = [member_for(choice, sure=1.0 + choice) for choice in choices]
        votes = [choices.count(index) for index in range(3)]
        leaders = [index for index in range(3) if votes[index] == max(votes)]
        probable = torch.stack([member(IMAGES)[0].softmax(0) for member in members]).mean(0)
        expected = choices[-1] if choices[-1] in leaders else max(leaders, key=lambda index: float(probable[index]))
        assert Voted(members)(IMAGES).argmax(1).tolist() == [expected] * 2, choices


def test_what_comes_out_by_hand():
    out = Voted([Says(0.0, 0.0, 1.0), Says(2.0, 0.0, 0.0), Says(0.0, 0.0, 3.0)])(IMAGES)
    probabilities = torch.tensor([[0.0, 0.0, 1.0], [2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]).softmax(1).mean(0)
    torch.testing.assert_close(out, (torch.tensor([1.0, 0.0, 2.5]) + probabilities / 4).expand(2, 3))


def test_the_vote_of_three_networks_and_its_gradient():
    members = [networks.build("cifarconv-empir", seed=seed) for seed in (1, 2, 3)]
    voted = Voted(members).eval()
    images = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = voted(images)
    choices = torch.stack([member(images).argmax(1) for member in members])
    expected = torch.where(choices[0] == choices[1], choices[0], choices[2])
    assert torch.equal(out.argmax(1), expected) and out.shape == (40, 10)
    (gradient,) = torch.autograd.grad(out.gather(1, expected[:, None]).sum(), images, retain_graph=True)
    assert gradient.flatten(1).any(1).all()
    mean = torch.stack([member(images).softmax(1) for member in members]).mean(0)
    (quarter,) = torch.autograd.grad(0.25 * mean.gather(1, expected[:, None]).sum(), images)
    torch.testing.assert_close(gradient, quarter)
    assert len(list(voted.parameters())) == sum(len(list(member.parameters())) for member in members)


def test_a_member_that_has_failed_does_not_pass_for_a_vote():
    out = Voted([member_for(0), Says(torch.nan, 0.0, 0.0), member_for(0)])(IMAGES)
    assert not out.isfinite().all(1).any()


def test_no_images():
    assert Voted([member_for(0), member_for(1)])(IMAGES[:0]).shape == (0, 3)


@pytest.mark.parametrize("members", [[], [member_for(0)]])
def test_one_cannot_vote(members):
    with pytest.raises(ValueError, match=f"{len(members)} member.* two or more"):
        Voted(members)


def test_members_with_other_classes():
    with pytest.raises(RuntimeError, match="equal size"):  # torch's own sentence
        Voted([member_for(0), member_for(0, classes=4)])(IMAGES)
