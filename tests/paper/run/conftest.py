"""What the tests of this room share: small networks, and processes that start with this room imported."""

import multiprocessing

import pytest
import small_networks


@pytest.fixture(scope="session")
def processes():
    """As the tests' own, which it is where another test has used that one before: then each process takes a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "reprolib.paper.run", "torch._dynamo"])
    return context


@pytest.fixture(scope="module")
def architectures():
    """The small networks can be built like the real ones, in this module's tests only."""
    with pytest.MonkeyPatch.context() as patched:
        small_networks.register(patched)
        yield


@pytest.fixture
def nothing_published(results):
    """A results folder of one's own, so that every network has to be trained."""
