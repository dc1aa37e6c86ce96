"""Where data are looked for, and what is said when they are nowhere."""

import re
from pathlib import Path

import pytest

from reprolib import data
from reprolib.data import places


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("fashion-mnist", ["apt-get install dataset-fashion-mnist", "import FashionMNIST"]),
        ("cifar-10", ["import CIFAR10"]),
        ("imagenet-subset", ["Imagenette"]),
    ],
)
def test_nothing_found_lists_places_and_command(name, commands, place, tmp_path, one_sentence):
    with pytest.raises(data.DataError) as error:
        data.load(name)
    text = one_sentence(error)
    assert str(place) in text and all(command in text for command in commands)
    if name != "imagenet-subset":
        assert str(tmp_path / "cache") in text and "no route to host" in text
    if name == "fashion-mnist":
        assert str(tmp_path / "debian") in text


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar-10", "imagenet-subset"])
def test_the_command_in_the_message_is_python(name):
    with pytest.raises(data.DataError) as error:
        data.load(name)
    compile(re.search(r'python -c "([^"]*)"', str(error.value))[1], name, "exec")


def test_unset_variable_is_named(monkeypatch):
    monkeypatch.delenv("REPROLIB_DATA")
    with pytest.raises(data.DataError, match=r"\$REPROLIB_DATA \(not set\)"):
        data.load("cifar-10")


def test_variable_that_names_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("REPROLIB_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(data.DataError, match="nowhere'; expected the whole path of a folder"):
        data.load("fashion-mnist")


def test_a_relative_folder_is_refused_wherever_the_process_works(monkeypatch, place, one_sentence):
    """A shell, the batch and a notebook's kernel would each take it against a folder of their own (fault 28)."""
    monkeypatch.setenv("REPROLIB_DATA", place.name)
    monkeypatch.chdir(place.parent)
    with pytest.raises(data.DataError, match="expected the whole path of a folder") as error:
        data.load("cifar-10")
    assert repr(place.name) in one_sentence(error)


def test_a_tilde_is_the_home_folder(monkeypatch, place, tmp_path, one_sentence):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("REPROLIB_DATA", f"~/{place.name}")
    with pytest.raises(data.DataError) as error:
        data.load("imagenet-subset")
    assert str(place / "imagenette2") in one_sentence(error)


@pytest.fixture
def homeless(monkeypatch):
    """As for a user id without a name in a container, with HOME not set (fault 31)."""
    import pwd

    def unknown(_uid):
        raise KeyError("no such user")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(places, "TORCHVISION_ROOT", Path("~/.cache/reprolib/torchvision"))


def test_without_a_home_folder_the_other_places_serve(homeless, full_fashion):
    assert data.load("fashion-mnist", test_size=1).source == "Debian package dataset-fashion-mnist"


def test_without_a_home_folder_nothing_is_downloaded(homeless, one_sentence):
    with pytest.raises(data.DataError, match=r"no home folder to download it to .* \(set HOME\)") as error:
        data.load("cifar-10")
    one_sentence(error)


def test_without_a_home_folder_a_tilde_means_nothing(homeless, monkeypatch, one_sentence):
    monkeypatch.setenv("REPROLIB_DATA", "~/data")
    with pytest.raises(data.DataError, match="'~/data'; expected the whole path") as error:
        data.load("cifar-10")
    one_sentence(error)
