"""What test files share: a tiny data set that can be learnt, one thread, a store of one's own, killable processes."""

import hashlib
import multiprocessing

import pytest
import torch
from torch import nn

from reprolib import attacks, data

torch.set_num_threads(1)  # the same sums in the same order everywhere, and no fight over the cores
# and in float32 everywhere, also on a machine with bfloat16 units: a test of bfloat16 asks for it
torch.cpu._is_amx_tile_supported = torch.cpu._is_avx512_bf16_supported = lambda: False


def tiny_dataset(train: int = 256, test: int = 128) -> data.Dataset:
    """Ten random 28x28 patterns under noise, `train` + `test` images of them, the same in every process."""
    generator = torch.Generator().manual_seed(1)
    patterns = torch.randint(0, 256, (10, 1, 28, 28), generator=generator)
    labels = torch.randint(0, 10, (train + test,), generator=generator)
    noise = torch.randint(-60, 61, (train + test, 1, 28, 28), generator=generator)
    images = (patterns[labels] + noise).clamp(0, 255).to(torch.uint8)
    tensors = images[:train], labels[:train], images[train:], labels[train:]
    return data.Dataset(
        name="tiny",
        train=data.Split(*tensors[:2]),
        test=data.Split(*tensors[2:]),
        classes=tuple("0123456789"),
        source="made by the tests",
        variant="tiny",
        checksum=hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest(),
    )


@pytest.fixture(scope="session")
def tiny() -> data.Dataset:
    return tiny_dataset()


@pytest.fixture(autouse=True)
def own_store(monkeypatch, tmp_path):
    """No test reads or writes the repository's store by accident."""
    monkeypatch.setenv("REPROLIB_STORE", str(tmp_path / "default-store"))


@pytest.fixture(scope="session")
def processes():
    """Processes that start in milliseconds: forked from one that has imported torch and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    # torch's optimisers import torch._dynamo at their first use, which takes seconds
    context.set_forkserver_preload(["pytest", "reprolib.paper.run", "torch._dynamo"])
    return context


@pytest.fixture
def steps():
    """A list that grows by one entry with every step of an optimiser."""
    from torch.optim.optimizer import register_optimizer_step_post_hook  # takes seconds to import

    taken = []
    handle = register_optimizer_step_post_hook(lambda *_: taken.append(1))
    yield taken
    handle.remove()


TOY_EPS = 0.1  # radius at which the brittle network keeps nothing and the sturdy one more than half


def toy_task(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """8x8 images of five classes with two cues: a strong one that is right in 88 of 100, and a weak one that always is.

    The weak one is smaller than TOY_EPS, so a network that leans on it is easily fooled, and one that ignores it isn't.
    """
    patterns = torch.randint(0, 2, (2, 5, 1, 8, 8), generator=torch.Generator().manual_seed(9))
    strong, weak = (2 * patterns - 1).float()
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (count,), generator=generator)
    other = torch.randint(0, 5, (count,), generator=generator)
    shown = torch.where(torch.rand(count, generator=generator) < 0.85, labels, other)
    noise = torch.randn(count, 1, 8, 8, generator=generator)
    return (0.5 + 0.14 * strong[shown] + 0.06 * weak[labels] + 0.06 * noise).clamp(0, 1), labels


def toy_network(steps: int, adversarially: bool) -> nn.Module:
    """Trained by hand: the first import of torch's optimisers takes many seconds."""
    images, labels = toy_task(1024, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 5))
    for step in range(steps):
        attack = attacks.pgd(net, TOY_EPS, TOY_EPS / 3, 5, 1, loss="logits", decision="last", seed=step, slots=1024)
        shown = attack(images, labels) if adversarially else images
        gradients = torch.autograd.grad(nn.functional.cross_entropy(net(shown), labels), list(net.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(net.parameters(), gradients, strict=True):
                parameter -= 0.3 * gradient
    return net.eval()


@pytest.fixture(scope="session")
def brittle() -> nn.Module:
    return toy_network(3000, adversarially=False)


@pytest.fixture(scope="session")
def sturdy() -> nn.Module:
    return toy_network(300, adversarially=True)


@pytest.fixture(scope="session")
def held_out() -> tuple[torch.Tensor, torch.Tensor]:
    return toy_task(200, seed=2)


class Scale(nn.Module):
    """Multiplies logits: the same decisions, other certainty."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor
