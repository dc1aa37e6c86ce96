"""Networks that vote, as EMPIR has it (Sen, Ravindran, Raghunathan 2020)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Voted(nn.Module):
    """The class that most members choose, and the last member's where all differ: images -> [B, K], decided by argmax.

    What comes out, no logit, is for each class its votes + 1/2 if the last member chose it + 1/4 of the members' mean
    softmax probability. The half decides only between classes of equally many votes, the quarter only where none of
    these is the last member's: the argmax is the vote, for any number of members. Votes have no gradient; through the
    probabilities an attack has one, where not all members are sure. Raises ValueError for fewer than two members."""

    def __init__(self, members: Iterable[nn.Module]):
        super().__init__()
        self.members = nn.ModuleList(members)
        if len(self.members) < 2:
            raise ValueError(f"{len(self.members)} member(s) cannot vote; give two or more networks")

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.stack([member(images) for member in self.members])
        votes = F.one_hot(logits.argmax(2), logits.shape[2])
        return votes.sum(0) + 0.5 * votes[-1] + 0.25 * logits.softmax(2).mean(0)
