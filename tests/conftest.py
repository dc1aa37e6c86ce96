"""What test files share: a tiny data set that can be learnt, one thread, a store of one's own, killable processes."""

import hashlib
import multiprocessing

import pytest
import torch

from reprolib import data

torch.set_num_threads(1)  # the same sums in the same order everywhere, and no fight over the cores


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
    context.set_forkserver_preload(["pytest", "reprolib.training", "torch._dynamo"])
    return context
