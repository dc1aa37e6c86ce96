"""The small network that most tests of attacks use."""

import copy

import pytest
from attacks.small import Scaled, make_task, small_net
from torch import Tensor, nn


@pytest.fixture(scope="session")
def trained() -> nn.Module:
    return small_net()


@pytest.fixture
def net(trained) -> nn.Module:
    return Scaled(copy.deepcopy(trained)).eval()


@pytest.fixture(scope="module")
def task() -> tuple[Tensor, Tensor]:
    return make_task(64)
