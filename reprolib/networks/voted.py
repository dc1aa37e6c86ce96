"""Networks that vote, as EMPIR has it (Sen, Ravindran, Raghunathan 2020)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reprolib.attacks import guards


class Vote(nn.Module):
    """The class that most members choose; of two that equally many choose, the one that the last member prefers, so its
    own where all differ: images -> [B, K], decided by argmax.

    1 for the class that is chosen, and 1/4 of a / (1 + |a|) for two numbers a of each class, in logits: how far it is
    ahead of the rival that it beats least (`beaten_least`), and its lead over the largest other logit, a mean over the
    members. The first has its gradient through the members that would have to change for another vote, the second
    through all. Neither vanishes because a member is sure, as probabilities do, through which attacks find less.
    Raises ValueError for fewer than two members."""

    def __init__(self, members: Iterable[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)
        if len(self.members) < 2:
            raise ValueError(f"{len(self.members)} member(s) cannot vote; give two or more networks")

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.stack([member(images) for member in self.members])
        first, second = logits.topk(2, 2).values.split(1, 2)
        leads = logits - torch.where(logits == first, second, first)
        ahead = beaten_least(leads, logits[-1])
        return F.one_hot(ahead.argmax(1), ahead.shape[1]) + (_bounded(ahead) + _bounded(leads).mean(0)) / 4


def beaten_least(leads: Tensor, last: Tensor) -> Tensor:
    """By how much a class beats the rival that it beats least, above 0 for the vote alone: leads [n, B, K] and the last
    member's logits [B, K] -> [B, K], continuous.

    It beats a rival by more votes, or by as many where the last member prefers it. It has k votes if the k-th largest
    of its leads is above 0, a lead being its logit minus the largest other one of a member."""
    leads = leads.sort(0, descending=True).values
    has, lacks = leads[..., :, None], -leads[..., None, :]  # k votes or more, and fewer than k
    always = torch.full_like(leads[:1], torch.inf)
    more = torch.minimum(has, lacks).amax(0)
    as_many = torch.minimum(torch.cat([always[..., None], has]), torch.cat([lacks, always[..., None, :]])).amax(0)
    beats = torch.maximum(more, torch.minimum(as_many, last[:, :, None] - last[:, None, :]))
    return (beats + always[0].diag_embed()).amin(2)  # nobody has to beat itself


def _bounded(values: Tensor) -> Tensor:
    return values / (1 + values.abs())


@guards.means_probabilities
class SoftVote(Vote):
    """The members' mean softmax probability: images -> [B, K], decided by argmax. EMPIR's code attacks this one, with
    a loss as if they were logits: no attack on the vote."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([member(images).softmax(1) for member in self.members]).mean(0)
