"""A vote of networks, by hand over all cases, and what an attack can do with it."""

from itertools import product

import pytest
import torch
from torch import nn

from reprolib import attacks, networks
from reprolib.networks.voted import SoftVote, Vote, beaten_least


class Says(nn.Module):
    """Answers the same logits for every image."""

    def __init__(self, *logits: float):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images):
        return self.logits.expand(len(images), -1)


def member_for(choice, classes=3, sure=2.0):
    return Says(*(sure if index == choice else 0.1 * index for index in range(classes)))


class Counted(nn.Module):
    """The vote as it may be counted first, to compare with: votes + 1/2 for the last member's class + 1/4 of the mean
    probability. It has a gradient through that quarter alone, and none where all are sure."""

    def __init__(self, members):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images):
        logits = torch.stack([member(images) for member in self.members])
        votes = nn.functional.one_hot(logits.argmax(2), logits.shape[2])
        return votes.sum(0) + 0.5 * votes[-1] + 0.25 * logits.softmax(2).mean(0)


IMAGES = torch.rand(2, 1, 4, 4)


@pytest.mark.parametrize("choices", product(range(3), repeat=3))
@pytest.mark.parametrize("sure", [0.3, 3.0, 300.0])
def test_three_members_as_in_empir(choices, sure):
    first, second, third = choices
    expected = first if first == second else third  # the third has the majority, or decides where all differ
    for certainty in ((sure, 3.0, 0.3), (3.0, 3.0, sure), (sure, sure, sure)):
        members = [member_for(choice, sure=one) for choice, one in zip(choices, certainty, strict=True)]
        assert Vote(members)(IMAGES).argmax(1).tolist() == [expected, expected]


@pytest.mark.parametrize("choices", product(range(3), repeat=2))
def test_of_two_members_the_last_decides(choices):
    members = [member_for(choice, sure=sure) for choice, sure in zip(choices, (300.0, 0.3), strict=True)]
    assert Vote(members)(IMAGES).argmax(1).tolist() == [choices[1]] * 2


def test_the_vote_of_three_networks_and_its_gradient():
    members = [networks.build("cifarconv-empir", seed=seed) for seed in (1, 2, 3)]
    voted = Vote(members).eval()
    images = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = voted(images)
    choices = torch.stack([member(images).argmax(1) for member in members])
    expected = torch.where(choices[0] == choices[1], choices[0], choices[2])
    assert torch.equal(out.argmax(1), expected) and out.shape == (40, 10)
    (gradient,) = torch.autograd.grad(out.gather(1, expected[:, None]).sum(), images)
    assert gradient.flatten(1).any(1).all()
    assert len(list(voted.parameters())) == sum(len(list(member.parameters())) for member in members)


def test_a_member_that_has_failed_does_not_pass_for_a_vote():
    out = Vote([member_for(0), Says(torch.nan, 0.0, 0.0), member_for(0)])(IMAGES)
    assert not out.isfinite().all(1).any()


def test_no_images():
    assert Vote([member_for(0), member_for(1)])(IMAGES[:0]).shape == (0, 3)


@pytest.mark.parametrize("members", [[], [member_for(0)]])
def test_one_cannot_vote(members):
    with pytest.raises(ValueError, match=f"{len(members)} member.* two or more"):
        Vote(members)


def test_members_with_other_classes():
    with pytest.raises(RuntimeError, match="equal size"):  # torch's own sentence
        Vote([member_for(0), member_for(0, classes=4)])(IMAGES)


# --- as it is attacked ------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """Of 2x4 images; the larger the factor, the surer."""

    def __init__(self, seed: int, factor: float):
        super().__init__()
        self.weight = factor * torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))

    def forward(self, images):
        return (images.flatten(1) - 0.5) @ self.weight


SMALL = torch.rand(300, 1, 2, 4, generator=torch.Generator().manual_seed(0))
EPS = 0.07


def broken_by_corners(voted: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """bool [B]: whether any of the 2**8 corners of the ball within [0, 1] changes the vote."""
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=8))).view(-1, 1, 2, 4)
    labels = voted(images).argmax(1)
    shown = (images[:, None] + EPS * signs).clamp(0, 1)
    return (voted(shown.flatten(0, 1)).argmax(1).view(len(images), -1) != labels[:, None]).any(1)


@pytest.mark.parametrize("factor", [1.0, 1e4])  # 1e4: as sure as float32 can be
def test_an_attack_by_margin_breaks_a_vote_where_a_search_through_all_corners_does(factor):
    """Nearly everywhere, and more often than through the members' probabilities."""
    members = [Linear(seed, factor) for seed in (11, 12, 13)]
    labels = Counted(members)(SMALL).argmax(1)
    breakable = broken_by_corners(Counted(members), SMALL)
    found = {}
    for kind in (Counted, Vote):
        broken = ~attacks.pgd(kind(members), EPS, EPS / 10, 40, 1).run(SMALL, labels).robust()
        found[kind] = int((broken & breakable).sum()) / int(breakable.sum())
    assert 0 < int(breakable.sum()) < 300
    assert found[Vote] >= 0.9 > 0.8 >= found[Counted], found


def test_what_comes_out_and_its_gradient_by_hand_however_sure_the_members_are():
    """Two of three choose class 0: of these the less sure one has to change, and to what the third says already."""
    leads = torch.tensor([[4.0, -4, -5], [1.0, -1, -3], [-4.0, 3, -3]])
    ahead = torch.tensor([1.0, -1, -3])
    for factor in (1.0, 1e6):
        members = [nn.Linear(1, 3, bias=False) for _ in range(3)]
        for member, logits in zip(members, ([5.0, 1, 0], [3.0, 2, 0], [0.0, 4, 1]), strict=True):
            member.weight.data[:, 0] = factor * torch.tensor(logits)
        out = Vote(members)(torch.ones(1, 1))
        parts = [value * factor / (1 + (value * factor).abs()) for value in (ahead, leads)]
        torch.testing.assert_close(out[0], torch.tensor([1.0, 0, 0]) + (parts[0] + parts[1].mean(0)) / 4)
        gradients = torch.autograd.grad(out[0, 0], [member.weight for member in members])
        own = [1 / 12 / (1 + factor * lead) ** 2 for lead in (4, 1, 4)]
        own[1] += 1 / 4 / (1 + factor) ** 2
        away = ([1, -1, 0], [1, -1, 0], [1, -1, 0])
        for gradient, weight, direction in zip(gradients, own, away, strict=True):
            torch.testing.assert_close(gradient[:, 0], weight * torch.tensor(direction, dtype=torch.float32))


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_the_vote_that_is_attacked_is_of_the_class_of_most_votes(number):
    """Among those of most votes, for the one that the last member prefers; which takes four members to be another rule
    than that its own class wins."""
    logits = torch.randn(number, 3000, 4, generator=torch.Generator().manual_seed(number))
    out = Vote([_Fixed(some) for some in logits])(IMAGES)
    first, second = logits.topk(2, 2).values.split(1, 2)
    ahead = beaten_least(logits - torch.where(logits == first, second, first), logits[-1])
    choices = logits.argmax(2)
    votes = nn.functional.one_hot(choices, 4).sum(0)
    leaders = votes == votes.amax(1, keepdim=True)
    expected = logits[-1].masked_fill(~leaders, -torch.inf).argmax(1)
    assert torch.equal(out.argmax(1), expected) and torch.equal(ahead > 0, nn.functional.one_hot(expected, 4).bool())
    if number < 4:
        assert torch.equal(expected, Counted([_Fixed(some) for some in logits])(IMAGES).argmax(1))


class _Fixed(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return self.logits


def test_what_leads_to_another_vote_is_continuous():
    """Along a line from one image to another it nowhere jumps, as votes do."""
    members = [Linear(seed, 1.0) for seed in (1, 2, 3)]
    share = torch.linspace(0, 1, 20_001).view(-1, 1, 1, 1)
    along = (1 - share) * SMALL[:1] + share * SMALL[1:2]
    logits = torch.stack([member(along) for member in members])
    first, second = logits.topk(2, 2).values.split(1, 2)
    ahead = beaten_least(logits - torch.where(logits == first, second, first), logits[-1])
    jump, slope = (float(values.diff(dim=-2).abs().amax()) for values in (ahead, logits))
    choices = logits.argmax(2)
    assert (choices != choices[:, :1]).any(), "some member changes its choice on the way"
    assert jump <= 2 * slope + 1e-6 and 2 * slope < 0.01, "a lead moves at most twice as fast as a logit"


def test_a_soft_vote_by_hand():
    members = [Says(0.0, 0.0, 1.0), Says(9.0, 0.0, 0.0), Says(0.0, 0.0, 3.0)]
    probabilities = torch.tensor([[0.0, 0.0, 1.0], [9.0, 0.0, 0.0], [0.0, 0.0, 3.0]]).softmax(1).mean(0)
    torch.testing.assert_close(SoftVote(members)(IMAGES), probabilities.expand(2, 3))
    less_sure = [Says(0.0, 0.0, 0.1), Says(9.0, 0.0, 0.0), Says(0.0, 0.0, 0.1)]
    assert SoftVote(less_sure)(IMAGES).argmax(1).tolist() == [0, 0] != Vote(less_sure)(IMAGES).argmax(1).tolist()


@pytest.mark.parametrize("kind", [Vote, SoftVote])
def test_what_is_attacked_has_two_members_or_more_too_and_fails_as_they_do(kind):
    with pytest.raises(ValueError, match="1 member.* two or more"):
        kind([member_for(0)])
    assert not kind([member_for(0), Says(torch.nan, 0.0, 0.0), member_for(0)])(IMAGES).isfinite().all(1).any()
