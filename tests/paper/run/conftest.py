"""What the tests of this room share: small networks, and a results folder in which nothing is published."""

import pytest
import small_networks


@pytest.fixture(scope="module")
def architectures():
    """The small networks can be built like the real ones, in this module's tests only."""
    with pytest.MonkeyPatch.context() as patched:
        small_networks.register(patched)
        yield


@pytest.fixture
def nothing_published(results):
    """A results folder of one's own, so that every network has to be trained."""
