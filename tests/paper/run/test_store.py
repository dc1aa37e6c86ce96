"""The store gives back what was saved, or one sentence; never something stale, half-written or altered."""

import errno
import os
import random
import resource
import signal
import time

import pytest
import safetensors.torch
import torch

from reprolib.paper import files as paper_files
from reprolib.paper.files import ROOT, StoreError
from reprolib.paper.run.store import Store, store_root

META = {"history": [{"epoch": 1, "loss": 0.1}], "text": "é", "nothing": None, "list": [1, 2.5, True]}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def sentence(caught) -> str:
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def files(store: Store) -> list[str]:
    return sorted(path.name for path in store.root.rglob("*") if path.is_file())


# --- round trip ---------------------------------------------------------------------------------------------------


def test_round_trip(store):
    tensors = {
        "float32": torch.tensor([0.0, -0.0, float("inf"), float("nan"), 1e-45]),
        "float64": torch.tensor(1 / 3, dtype=torch.float64),  # no dimensions
        "bfloat16": torch.arange(6, dtype=torch.bfloat16).view(2, 3),
        "uint8": torch.arange(256, dtype=torch.uint8).view(4, 64),
        "int64": torch.tensor([-(2**63), 2**63 - 1]),
        "bool": torch.tensor([[True, False], [False, False]]),
        "empty": torch.empty(0, 3),
        "strided": torch.arange(24.0).view(2, 3, 4).transpose(0, 2),
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "with gradient": torch.ones(2, requires_grad=True),
    }
    store.save("kind/some-name", tensors, META)
    loaded, meta = store.load("kind/some-name")
    assert meta == META
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape, name
        assert torch.equal(loaded[name].nan_to_num(7), tensor.nan_to_num(7)), name
        assert not loaded[name].requires_grad


def test_no_tensors_and_no_meta(store):
    store.save("a", {}, {})
    assert store.load("a") == ({}, {})


def test_saving_again_replaces_and_leaves_one_file(store):
    for version in range(3):
        store.save("a", {"x": torch.full((4,), version)}, {"version": version})
    tensors, meta = store.load("a")
    assert tensors["x"].tolist() == [2] * 4 and meta == {"version": 2}
    assert files(store) == ["a.safetensors"]


def test_has(store):
    assert not store.has("a")
    store.save("a", {}, {})
    assert store.has("a") and not store.has("b")


def test_place_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("REPROLIB_STORE", str(tmp_path / "elsewhere"))
    Store().save("a", {}, {})
    assert files(Store(tmp_path / "elsewhere")) == ["a.safetensors"]


def test_the_place_is_the_same_for_every_process_wherever_it_runs(monkeypatch, tmp_path):
    """The batch, a notebook's kernel and a shell have folders of their own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = set()
    for folder in (tmp_path, ROOT):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("REPROLIB_STORE", "some/store")
        relative = store_root()
        monkeypatch.setenv("REPROLIB_STORE", "~/store")
        home = store_root()
        monkeypatch.setenv("REPROLIB_STORE", "")
        found.add((relative, home, store_root()))
    assert found == {(ROOT / "some" / "store", tmp_path / "home" / "store", ROOT / ".store")}


def test_a_home_folder_that_nobody_knows_gets_one_sentence(monkeypatch):
    monkeypatch.setenv("REPROLIB_STORE", "~nobody-of-this-name/store")
    with pytest.raises(StoreError) as caught:
        Store()
    assert "REPROLIB_STORE is '~nobody-of-this-name/store'" in sentence(caught)


def test_other_users_can_read_what_is_saved(store):
    store.save("a", {}, {})
    assert store.path("a").stat().st_mode & 0o777 == 0o644


# --- damaged, foreign and missing files ---------------------------------------------------------------------------


@pytest.fixture
def saved(store):
    store.save("kind/a", {"x": torch.arange(8, dtype=torch.uint8), "empty": torch.empty(0)}, {"version": 1})
    return store.path("kind/a")


def test_missing_artefact(store):
    with pytest.raises(StoreError) as caught:
        store.load("kind/a")
    message = sentence(caught)
    assert "kind/a" in message and str(store.root) in message and "run" in message


def refuses(store: Store, path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        store.load("kind/a")
    message = sentence(caught)
    assert str(path) in message and "damaged" in message and "delete" in message


def test_truncated_at_any_length(store, saved):
    content = saved.read_bytes()
    for length in range(len(content)):
        refuses(store, saved, content[:length])


@pytest.mark.parametrize("bits", [0x01, 0x20, 0xFF])
def test_any_byte_altered(store, saved, bits):
    content = saved.read_bytes()
    for position in range(len(content)):
        refuses(store, saved, content[:position] + bytes([content[position] ^ bits]) + content[position + 1 :])


@pytest.mark.parametrize(
    "foreign",
    [
        b"PK\x03\x04 a zip file of some other program" * 10,
        b"{}",
        safetensors.torch.save({"x": torch.ones(3)}),
        safetensors.torch.save({"x": torch.ones(3)}, {"meta": "{}"}),
        safetensors.torch.save({"x": torch.ones(3)}, {"meta": "no json", "sha256": "0" * 64}),
        safetensors.torch.save({"x": torch.ones(3)}, {"meta": "{}", "sha256": "0" * 64}),
    ],
)
def test_foreign_file(store, saved, foreign):
    refuses(store, saved, foreign)


def test_folder_in_the_place_of_a_file(store):
    store.path("a").mkdir(parents=True)
    with pytest.raises(StoreError) as caught:
        store.load("a")
    assert str(store.path("a")) in sentence(caught)


def test_a_damaged_file_can_be_written_anew(store, saved):
    saved.write_bytes(saved.read_bytes()[:-1])
    store.save("kind/a", {}, {"version": 2})
    assert store.load("kind/a") == ({}, {"version": 2})


# --- kill -9, full disk, read-only --------------------------------------------------------------------------------


def save_until_killed(root, started):
    """Save version after version; every number in a version's tensor is the version."""
    store, version = Store(root), 0
    while True:
        version += 1
        store.save("a", {"x": torch.full((200_000,), version)}, {"version": version})
        started.set()


def test_killed_at_any_moment_leaves_an_old_or_a_new_file(store, processes):
    store.save("a", {"x": torch.zeros(200_000, dtype=torch.int64)}, {"version": 0})
    moments = random.Random(0)
    for _ in range(6):
        started = processes.Event()
        process = processes.Process(target=save_until_killed, args=(store.root, started))
        process.start()
        assert started.wait(60)
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        tensors, meta = store.load("a")
        assert meta["version"] >= 1  # saved before the signal; 0 would be a file older than that
        assert (tensors["x"] == meta["version"]).all()


def save_and_die(root, last_act):
    """Die in the middle of saving version 2, at the named call."""

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(paper_files.os, last_act, die)
    Store(root).save("a", {"x": torch.full((1000,), 2)}, {"version": 2})


@pytest.mark.parametrize("last_act", ["fsync", "replace"])
def test_killed_before_the_file_is_complete_keeps_the_old_one(store, processes, last_act):
    store.save("a", {"x": torch.full((1000,), 1)}, {"version": 1})
    process = processes.Process(target=save_and_die, args=(store.root, last_act))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert store.load("a")[1] == {"version": 1}
    store.save("a", {}, {"version": 3})  # what the dead process left behind is in nobody's way
    assert store.load("a")[1] == {"version": 3}


def unwritable(caught, path) -> None:
    message = sentence(caught)
    assert str(path) in message and "REPROLIB_STORE" in message


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_full_disk_keeps_the_old_file_and_no_remains(store, monkeypatch, call):
    store.save("a", {}, {"version": 1})

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(paper_files.os, call, full)
        with pytest.raises(StoreError) as caught:
            store.save("a", {}, {"version": 2})
    unwritable(caught, store.path("a"))
    assert os.strerror(errno.ENOSPC) in str(caught.value)
    assert store.load("a") == ({}, {"version": 1})
    assert files(store) == ["a.safetensors"]


def save_beyond_the_limit(root, answer):
    """Write 1 MB where the system admits 64 KiB: the write itself breaks off in the middle, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    try:
        Store(root).save("a", {"x": torch.zeros(250_000)}, {"version": 2})
    except StoreError as error:
        answer.put(str(error))
    else:
        answer.put("saved")


def test_a_write_that_breaks_off_keeps_the_old_file_and_no_remains(store, processes):
    store.save("a", {}, {"version": 1})
    answer = processes.SimpleQueue()
    process = processes.Process(target=save_beyond_the_limit, args=(store.root, answer))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    message = answer.get()
    assert str(store.path("a")) in message and "free some space" in message
    assert store.load("a") == ({}, {"version": 1})
    assert files(store) == ["a.safetensors"]


def test_store_that_cannot_be_written(tmp_path):
    """A path below a regular file: nobody can write there, root neither."""
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "store")
    with pytest.raises(StoreError) as caught:
        store.save("a", {}, {})
    unwritable(caught, store.root)
    with pytest.raises(StoreError) as caught, store.lock("a"):
        pass
    unwritable(caught, store.root)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_read_only_folder(store, monkeypatch, number):
    """The folder is there, but no file can be made in it."""
    store.save("a", {}, {"version": 1})
    really_open = os.open

    def read_only(path, flags, *args, **kwargs):
        if flags & os.O_CREAT:
            raise OSError(number, os.strerror(number))
        return really_open(path, flags, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", read_only)
        with pytest.raises(StoreError) as caught:
            store.save("a", {}, {"version": 2})
        unwritable(caught, store.path("a"))
        with pytest.raises(StoreError) as caught, store.lock("a"):
            pass
        unwritable(caught, store.root)
    assert store.load("a") == ({}, {"version": 1})


# --- lock ---------------------------------------------------------------------------------------------------------


def compute_if_missing(root, together, log):
    store = Store(root)
    together.wait(60)
    with store.lock("kind/a"):
        if not store.has("kind/a"):
            with open(log, "a") as file:
                file.write("computed\n")
            time.sleep(0.3)
            store.save("kind/a", {}, {})


def test_processes_that_want_the_same_compute_it_once(store, processes, tmp_path):
    together = processes.Barrier(3)
    workers = [
        processes.Process(target=compute_if_missing, args=(store.root, together, tmp_path / "log")) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "computed\n"


def hold(root, held):
    with Store(root).lock("a"):
        held.set()
        time.sleep(600)


def test_a_killed_process_holds_no_lock(store, processes):
    held = processes.Event()
    process = processes.Process(target=hold, args=(store.root, held))
    process.start()
    assert held.wait(60)
    process.kill()
    process.join()
    with store.lock("a"):
        store.save("a", {}, {})


def test_who_does_not_wait_is_told_that_another_process_holds_it(store, processes):
    held = processes.Event()
    process = processes.Process(target=hold, args=(store.root, held))
    process.start()
    assert held.wait(60)
    with store.lock("a", wait=False) as mine:
        assert not mine
    process.kill()
    process.join()
    with store.lock("a", wait=False) as mine:
        assert mine


def test_other_artefacts_are_not_locked(store):
    with store.lock("kind/a"), store.lock("kind/b"):
        pass


def test_an_error_while_the_lock_is_held_passes_unchanged_and_frees_it(store):
    with pytest.raises(PermissionError, match="something else"), store.lock("a"):
        raise PermissionError("something else")
    with store.lock("a"):
        pass
