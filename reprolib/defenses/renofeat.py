"""Renofeation, the paper's ReNoFeat (Chin, Zhang, Marculescu 2021, 2002.02998): learn a teacher's features anew."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

from reprolib import streams
from reprolib.attacks.inputs import check_count, check_number
from reprolib.defenses.base import Defence
from reprolib.networks.layers import seeded

if TYPE_CHECKING:
    from reprolib.training import Batch, Run

STAGES = 4  # whose features are compared
DROPPED = 0.1  # share of a stage's channels that are dropped
HEAD_DECAY = 1e-2  # times the squared norm of the last layer's weights
DROPOUT_STREAM = 1 << 23  # of random numbers, away from those of attacks


@dataclass(frozen=True)
class Renofeat(Defence):
    """Forget the teacher's weights, learn its features under noise, average the weights.

    The network that is given, a column's parent, is the teacher: a frozen copy of it stays beside the student, which
    begins with weights of its own. Loss: cross-entropy + feature_weight * the sum over four stages of the mean squared
    difference of teacher's features and student's, these through a 1x1 convolution, + 0.01 * ||W||^2 of the last layer.
    A stage ends at a convolution: the last of each quarter of them. Of the student's channels there a tenth is dropped.
    After `average_from` epochs the weights at each epoch's end are averaged, with statistics of batch normalisation of
    their own; the average is what answers in eval mode.

    The authors train 90 000 steps and average 30 000 more (one in 500), batch 64, SGD with rate 0.01 on a cosine and
    0.005 constant, feature_weight 5 (1 for CUB), weight decay 0.005. Here both are one training of one recipe, scaled
    down to its epochs. What it defends against is an attack made on the teacher, PGD of 40 steps, not on the student:
    `attacks.transfer(student, attacks.pgd(teacher, ..., decision="last"), ...)`, a page's `transfer_from`."""

    average_from: int
    feature_weight: float = 5.0

    def __post_init__(self) -> None:
        check_count("average_from", self.average_from, 1)
        check_number("feature_weight", self.feature_weight)

    def network(self, model: nn.Module) -> Student:
        return Student(model)

    def begin(self, run: Run) -> None:
        network = student_of(run).network

        def fresh() -> nn.Module:
            other = copy.deepcopy(network).cpu()
            for module in other.modules():
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
            return other

        network.load_state_dict(seeded(fresh, run.seed).state_dict())

    def loss(self, run: Run, images: Tensor, labels: Tensor) -> Tensor:
        student = student_of(run)
        with torch.no_grad(), features(student.teacher) as wanted:
            student.teacher(images)
        with features(student.network, run.step_seed()) as found:
            loss = run.cross_entropy(run.logits(images), labels)
        for number, adapter in enumerate(student.adapters):
            loss = loss + self.feature_weight * F.mse_loss(adapter(found[number].float()), wanted[number])
        head = [module for module in student.network.modules() if isinstance(module, nn.Linear)][-1]
        return loss + HEAD_DECAY * head.weight.square().sum()

    def step(self, run: Run, batch: Batch) -> Tensor:
        loss = super().step(run, batch)
        student, size = student_of(run), run.recipe.batch_size
        if run.epoch >= self.average_from and (run.batch + 1) * size >= len(run.images) * self.passes:
            student.averaged.update_parameters(student.network)
            update_bn((some.float() / 255 for some in run.images.split(size)), student.averaged)
        return loss


class Student(nn.Module):
    """A network that answers in eval mode with the average of its weights, as soon as there is one; and what belongs to
    its training. The teacher is no part of its state. Raises ValueError for a network without a convolution, or without
    a linear layer to end with."""

    def __init__(self, model: nn.Module):
        super().__init__()
        ends = stages(model)
        if not ends or not any(isinstance(module, nn.Linear) for module in model.modules()):
            found = "no linear layer" if ends else "no convolution"
            raise ValueError(f"{type(model).__name__} has {found}; Renofeat takes networks with both")
        self.network, self.averaged = copy.deepcopy(model), AveragedModel(model)
        self.adapters = nn.ModuleList(
            seeded(partial(nn.Conv2d, end.out_channels, end.out_channels, 1), number) for number, end in enumerate(ends)
        )
        self._teacher = (copy.deepcopy(model).eval().requires_grad_(False),)  # which a tuple hides from `modules()`

    @property
    def teacher(self) -> nn.Module:
        return self._teacher[0]

    def forward(self, images: Tensor) -> Tensor:
        is_averaged = not self.training and bool(self.averaged.n_averaged)
        return self.averaged(images) if is_averaged else self.network(images)


def student_of(run: Run) -> Student:
    assert isinstance(run.model, Student)  # `network` made it
    return run.model


def stages(network: nn.Module) -> list[nn.Conv2d]:
    """The convolutions at which stages end; fewer than four where there are fewer."""
    all_of_them = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    ends = [-(-quarter * len(all_of_them) // STAGES) for quarter in range(1, STAGES + 1)]
    return [all_of_them[end - 1] for end in dict.fromkeys(ends) if end]


@contextmanager
def features(network: nn.Module, seed: int | None = None) -> Iterator[dict[int, Tensor]]:
    """What its stages put out while it is asked inside; with a seed, channels are dropped behind them."""
    found: dict[int, Tensor] = {}

    def keep(number: int, module: nn.Module, given: tuple[Tensor], out: Tensor) -> Tensor:
        found[number] = out
        if seed is None:
            return out
        rows = torch.arange(len(out), device=out.device)
        kept = streams.uniform(seed, rows, DROPOUT_STREAM + number, (out.shape[1],)) >= DROPPED
        return out * kept[:, :, None, None] / (1 - DROPPED)

    with ExitStack() as hooks:
        for number, end in enumerate(stages(network)):
            hooks.enter_context(end.register_forward_hook(partial(keep, number)))
        yield found
