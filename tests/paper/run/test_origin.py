"""Provenance is this checkout's: not another repository's, and unknown where git cannot tell."""

import os
import subprocess

import pytest
import torch

from reprolib.paper import files
from reprolib.paper.run import origin

UNKNOWN = {"commit": "unknown", "dirty": "unknown"}


@pytest.fixture(autouse=True)
def asked_anew():
    origin.code.cache_clear()
    yield
    origin.code.cache_clear()


def git(folder, *arguments: str) -> str:
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True, env=clean)
    return done.stdout.strip()


@pytest.fixture
def checkout(monkeypatch, tmp_path):
    """A repository with one commit that stands in for this one."""
    folder = tmp_path / "checkout"
    for name in ("reprolib", "params", "results/cpu"):
        (folder / name).mkdir(parents=True)
    (folder / "reprolib" / "code.py").write_text("x = 1\n")
    (folder / "params" / "some.yaml").write_text("x: 1\n")
    (folder / "results" / "cpu" / "table.json").write_text("{}\n")
    (folder / ".gitignore").write_text("*.tmp\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    monkeypatch.setattr(files, "ROOT", folder)
    return folder


def test_a_clean_checkout_says_its_commit(checkout):
    assert origin.code() == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize("path", ["reprolib/code.py", "params/some.yaml", ".gitignore"])
def test_changed_files_are_told(checkout, path):
    (checkout / path).write_text("x = 2\n")
    assert origin.code()["dirty"] is True


@pytest.mark.parametrize("path", ["reprolib/defence.py", "params/tables.yaml", "reprolib/new/code.py"])
def test_new_code_and_declarations_are_told(checkout, path):
    """A new defence is a new file: the commit does not have it."""
    (checkout / path).parent.mkdir(exist_ok=True)
    (checkout / path).write_text("x = 2\n")
    assert origin.code()["dirty"] is True


@pytest.mark.parametrize("path", ["results/cpu/table.json", "results/cpu/new.json", "notes.txt", "reprolib/code.tmp"])
def test_results_notes_and_what_git_ignores_change_no_number(checkout, path):
    (checkout / path).write_text("something else\n")
    assert origin.code()["dirty"] is False


def test_another_repository_in_the_environment_is_not_this_one(checkout, tmp_path, monkeypatch):
    """As in a git hook of another repository, which sets these for all that it starts."""
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "other")
    for name, value in (
        ("GIT_DIR", other / ".git"),
        ("GIT_WORK_TREE", other),
        ("GIT_INDEX_FILE", other / ".git/index"),
    ):
        monkeypatch.setenv(name, str(value))
    assert origin.code() == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}


def test_a_copy_inside_another_repository_is_unknown(checkout, monkeypatch):
    """A zip unpacked there: git would tell that one's commit, and call the code clean."""
    copy = checkout / "unpacked"
    (copy / "reprolib").mkdir(parents=True)
    monkeypatch.setattr(files, "ROOT", copy)
    assert origin.code() == UNKNOWN


def test_a_copy_at_the_top_of_another_repository_is_unknown(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "other")
    (tmp_path / "reprolib").mkdir()
    (tmp_path / "reprolib" / "code.py").write_text("x = 1\n")
    monkeypatch.setattr(files, "ROOT", tmp_path)
    assert origin.code() == UNKNOWN


def test_without_a_repository_it_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert origin.code() == UNKNOWN


def test_without_git_it_is_unknown(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert origin.code() == UNKNOWN


def test_without_a_commit_it_is_unknown(checkout, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    monkeypatch.setattr(files, "ROOT", empty)
    assert origin.code()["commit"] == "unknown"


def test_what_git_refuses_to_answer_is_not_clean(checkout):
    """A damaged index: git knows the commit, but cannot compare."""
    (checkout / ".git" / "index").write_bytes(b"no index")
    assert origin.code() == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": "unknown"}


def test_a_checkout_reached_by_a_link_is_itself(checkout, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(checkout)
    monkeypatch.setattr(files, "ROOT", tmp_path / "link")
    assert origin.code()["dirty"] is False


def test_a_process_goes_on_with_the_code_that_it_began_with(checkout):
    before = origin.code()
    (checkout / "reprolib" / "code.py").write_text("x = 2\n")
    assert origin.code() == before


def test_a_stamp_says_commit_torch_and_device(checkout):
    made = origin.stamp(torch.device("cpu"))
    assert made == {**origin.code(), "torch": torch.__version__, "device": made["device"]}
    assert made["device"].startswith("CPU") and made["device"].endswith(("float32", "bfloat16"))
