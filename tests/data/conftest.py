"""Where data are looked for in these tests: nowhere but in folders of their own. No network."""

from dataclasses import replace
from pathlib import Path

import pytest

from reprolib import data
from reprolib.data import fashion_mnist, imagenet_subset, places


@pytest.fixture(autouse=True)
def only_fake_places(monkeypatch, tmp_path):
    """An empty $REPROLIB_DATA, no Debian package, an empty cache, and a download that always fails."""
    import torchvision.datasets

    def no_network(*_args, **_kwargs):
        raise OSError("no route to host")

    place = tmp_path / "data"
    place.mkdir()
    monkeypatch.setenv("REPROLIB_DATA", str(place))
    _debian_folder(monkeypatch, tmp_path / "debian")
    monkeypatch.setattr(places, "TORCHVISION_ROOT", tmp_path / "cache")
    monkeypatch.setattr(imagenet_subset, "STORE", tmp_path / "pictures")
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", no_network)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", no_network)
    data._read_once.cache_clear()
    yield place
    data._read_once.cache_clear()


def _debian_folder(monkeypatch, folder: Path) -> None:
    packaged = [("Debian package dataset-fashion-mnist", folder)]
    monkeypatch.setattr(fashion_mnist, "PLACES", replace(fashion_mnist.PLACES, packaged=packaged))


@pytest.fixture
def place(only_fake_places) -> Path:
    return only_fake_places


@pytest.fixture
def full_fashion(monkeypatch):
    """The real files of the Debian package."""
    folder = Path("/usr/share/datasets/fashion-mnist")
    if not folder.is_dir():
        pytest.skip("full Fashion-MNIST is not on this machine (apt-get install dataset-fashion-mnist)")
    _debian_folder(monkeypatch, folder)
    return folder


@pytest.fixture
def one_sentence():
    """The message of an error, after a look at its form."""

    def text(error: pytest.ExceptionInfo) -> str:
        assert "\n" not in str(error.value)
        return str(error.value)

    return text
