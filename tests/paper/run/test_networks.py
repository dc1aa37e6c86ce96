"""Networks through the store: trained once, killed and resumed to bitwise the same, and made of each other."""

import errno
import os
import signal
import time

import pytest
import safetensors.torch
import small_networks
import torch
import torchvision
from conftest import tiny_dataset
from small_networks import Normalised, Small, new, same
from torch.optim.optimizer import register_optimizer_step_post_hook

from reprolib import data, defenses, networks, training
from reprolib.networks.imagenet import ROWS
from reprolib.networks.quantized import quantized
from reprolib.networks.voted import SoftVote, Vote
from reprolib.paper import files
from reprolib.paper.files import StoreError
from reprolib.paper.plan import Changed, Pretrained, SpecError, Trained, Voted
from reprolib.paper.run import keys, origin
from reprolib.paper.run import networks as shelves
from reprolib.paper.run.networks import Shelf
from reprolib.paper.run.store import Store

ADAM = {"optimizer": "adam", "lr": 3e-3, "batch_size": 60}
RMSPROP = {"optimizer": "rmsprop", "lr": 1e-3, "batch_size": 60}
PLAIN = Trained(architecture="small", data="tiny", recipe=ADAM, epochs=2)
PATCHES = {"name": "patched", "size": 7, "count": 1}
PATCHED = Trained(architecture="small", data="tiny", recipe=RMSPROP, defence=PATCHES, epochs=2)
REAL = Trained(architecture="fmnistconv", data="tiny", recipe=RMSPROP, defence=PATCHES, epochs=2)
STEPS = {"plain": 5, "patched": 9}  # per epoch: 256 and 2 * 256 images in batches of 60

pytestmark = pytest.mark.usefixtures("architectures", "nothing_published")


@pytest.fixture
def shelf(tiny, tmp_path) -> Shelf:
    return Shelf(tiny, Store(tmp_path / "store"))


@pytest.fixture(scope="module")
def whole(architectures, tiny, tmp_path_factory) -> Shelf:
    """Trained without interruption, with every epoch's checkpoint."""
    shelf = Shelf(tiny, Store(tmp_path_factory.mktemp("whole")))
    for network in (PLAIN, PATCHED, REAL):
        shelf.train(network, [1, 2], progress=False)
    return shelf


def at(network: Trained, epoch: int) -> Trained:
    return network.model_copy(update={"epochs": epoch})


def assert_same(network: Trained, ours: Shelf, theirs: Shelf) -> None:
    (a, made), (b, reference) = ours.checkpoint(network), theirs.checkpoint(network)
    assert same(a, b) and made["history"] == reference["history"]


# --- killed and resumed -----------------------------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def begin(save_every: float) -> None:
    """What a child process needs: it shares the code with this process, not what the fixtures changed."""
    small_networks.register()
    training.SAVE_EVERY, shelves.PAUSE = save_every, 0.0


def train_and_die_at_step(root, network, fatal):
    taken = []

    def count(*_):
        taken.append(1)
        if len(taken) == fatal:
            die()

    begin(save_every=-1.0)
    register_optimizer_step_post_hook(count)
    Shelf(tiny_dataset(), Store(root), fresh=True).train(network, [2], progress=False)


def train_and_die_after_write(root, network, fatal):
    class Fatal(Store):
        writes = 0

        def save(self, *args):
            super().save(*args)
            self.writes += 1
            if self.writes == fatal:
                die()

    begin(save_every=-1.0)
    Shelf(tiny_dataset(), Fatal(root), fresh=True).train(network, [2], progress=False)


def train_until_killed(root, network, started):
    begin(save_every=0.05)
    dataset = tiny_dataset()
    started.set()
    Shelf(dataset, Store(root), fresh=True).train(network, [2], progress=False)


def run(processes, target, *args):
    process = processes.Process(target=target, args=args)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("network, per_epoch", [(PLAIN, 5), (REAL, 9)], ids=["small", "F-MNISTconv, patched"])
@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch(network, per_epoch, shelf, whole, processes, steps):
    fatal = per_epoch + 3  # in epoch 2; its predecessor was the last that could be saved
    run(processes, train_and_die_at_step, shelf.store.root, network, fatal)
    assert not shelf.has(network, 2)
    shelf.train(network, [2], progress=False)
    assert len(steps) == 2 * per_epoch - (fatal - 1)
    assert_same(network, shelf, whole)


@pytest.mark.parametrize("fatal, done", [(3, 3), (5, 5), (9, 9), (10, 10)])
def test_killed_after_any_write_loses_no_step(fatal, done, shelf, whole, processes, steps):
    """Four writes on the way through an epoch and one at its end; the second's end has the checkpoint before that."""
    run(processes, train_and_die_after_write, shelf.store.root, PLAIN, fatal)
    shelf.train(PLAIN, [2], progress=False)
    assert len(steps) == 10 - done
    assert_same(PLAIN, shelf, whole)


def test_killed_again_and_again_at_any_moment(shelf, whole, processes):
    for seconds in (0.05, 0.15, 0.25):
        started = processes.Event()
        process = processes.Process(target=train_until_killed, args=(shelf.store.root, PATCHED, started))
        process.start()
        assert started.wait(60)
        time.sleep(seconds)
        process.kill()
        process.join()
    shelf.train(PATCHED, [2], progress=False)
    assert_same(PATCHED, shelf, whole)


def test_slow_saves_are_made_less_often(shelf, whole, monkeypatch):
    """What a training remembers can be large; yet each epoch's end is saved."""
    monkeypatch.setattr(training, "SAVE_EVERY", -1.0)
    written = []

    def slow(name, tensors, meta):
        time.sleep(0.2)
        written.append((name.rsplit("/")[-1], meta.get("batch")))

    monkeypatch.setattr(shelf.store, "save", slow)
    monkeypatch.setattr(shelves, "PAUSE", 1000.0)
    shelf.train(PLAIN, [1, 2], progress=False)
    assert written == [("latest", 1), ("epoch-0001", None), ("latest", 0), ("epoch-0002", None), ("latest", 0)]


def train_together(root, together, counts):
    begin(save_every=5.0)
    taken = []
    register_optimizer_step_post_hook(lambda *_: taken.append(1))
    together.wait(60)
    Shelf(tiny_dataset(), Store(root), fresh=True).train(PLAIN, [2], progress=False)
    counts.put(len(taken))


def test_processes_that_want_the_same_network_train_it_once(shelf, whole, processes):
    together, counts = processes.Barrier(2), processes.SimpleQueue()
    workers = [processes.Process(target=train_together, args=(shelf.store.root, together, counts)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert sorted(counts.get() for _ in workers) == [0, 2 * STEPS["plain"]]
    assert_same(PLAIN, shelf, whole)


# --- extended, repeated -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network, per_epoch", [(PLAIN, 5), (PATCHED, 9)], ids=["plain", "patched"])
def test_more_epochs_later_extend_the_run(network, per_epoch, shelf, whole, steps):
    shelf.train(network, [1], progress=False)
    shelf.train(network, [2], progress=False)
    assert len(steps) == 2 * per_epoch
    for epoch in (1, 2):
        assert_same(at(network, epoch), shelf, whole)


def test_an_epoch_before_the_last_one_can_be_asked_for_later(shelf, whole):
    shelf.train(PLAIN, [2], progress=False)
    shelf.train(PLAIN, [1], progress=False)
    for epoch in (1, 2):
        assert_same(at(PLAIN, epoch), shelf, whole)


def test_epochs_that_are_there_are_not_computed_again(shelf, steps):
    shelf.train(PLAIN, [1, 2], progress=False)
    before = {path: path.stat().st_mtime_ns for path in shelf.store.root.rglob("*.safetensors")}
    assert len(before) == 3  # two epochs and the place to go on from
    taken = len(steps)
    shelf.train(PLAIN, [1, 2], progress=False)
    shelf.train(PLAIN, [2], progress=False)
    assert len(steps) == taken
    assert {path: path.stat().st_mtime_ns for path in shelf.store.root.rglob("*.safetensors")} == before


def test_a_checkpoint_says_who_made_it_where_and_what_it_was(whole, tiny):
    _, made = whole.checkpoint(PLAIN)
    assert {name: made[name] for name in ("commit", "dirty", "torch", "device")} == origin.stamp(torch.device("cpu"))
    assert made["seconds"] > 0 and [entry["epoch"] for entry in made["history"]] == [1, 2]
    network = whole.load(PLAIN)
    clean, saturated = training.clean_accuracy(network, tiny.test.images, tiny.test.labels)
    assert made["history"][-1]["clean"] == round(clean, 4) and made["history"][-1]["saturated"] == round(saturated, 4)
    assert not network.training


def test_progress_can_be_seen_and_silenced(shelf, capfd):
    shelf.train(PLAIN, [1])
    assert "1/1" in capfd.readouterr().err
    shelf.train(PLAIN, [2], progress=False)
    assert capfd.readouterr() == ("", "")


# --- names ------------------------------------------------------------------------------------------------------------


def test_names_tell_trainings_apart_and_do_not_say_how_long_they_were(shelf):
    others = [
        PLAIN, PATCHED, at(PLAIN, 2).model_copy(update={"seed": 1}), Trained(**PLAIN.content() | {"parent": PATCHED}),
        Trained(**PLAIN.content() | {"parent": at(PATCHED, 1)}), Trained(**PLAIN.content() | {"train": 100}),
    ]  # fmt: skip
    found = [shelf.name(network) for network in others]
    assert len(set(found)) == len(found)
    assert shelf.name(at(PLAIN, 7)) == shelf.name(PLAIN) and shelf.identity(at(PLAIN, 7)) != shelf.identity(PLAIN)


def test_the_data_is_part_of_a_name(shelf, tmp_path):
    other = Shelf(tiny_dataset(train=255, test=129), shelf.store)
    assert shelf.name(PLAIN) == Shelf(tiny_dataset(), Store(tmp_path / "other")).name(PLAIN) != other.name(PLAIN)


@pytest.mark.parametrize("place", [
    "reprolib.training:Run", "reprolib.training:crop_and_flip", "reprolib.networks.layers:seeded",
    "reprolib.patches:mask", "reprolib.defenses.base:Defence", "small_networks:Small",
])  # fmt: skip
def test_the_code_that_trains_is_part_of_a_name(place, shelf, monkeypatch):
    before = shelf.name(PATCHED)
    usual = keys.definitions
    monkeypatch.setattr(
        keys, "definitions", lambda *entries: {k: v + " " * (k == place) for k, v in usual(*entries).items()}
    )
    keys.code_digest.cache_clear()
    assert shelf.name(PATCHED) != before
    keys.code_digest.cache_clear()


def test_a_parents_code_is_part_of_a_name(shelf, monkeypatch):
    """A child starts from what that code made."""
    child = Trained(**PLAIN.content() | {"parent": PATCHED})
    before = shelf.name(child), shelf.name(PLAIN)
    usual = keys.definitions
    changed = {"reprolib.patches:mask"}
    monkeypatch.setattr(
        keys, "definitions", lambda *entries: {k: v + " " * (k in changed) for k, v in usual(*entries).items()}
    )
    keys.code_digest.cache_clear()
    assert shelf.name(child) != before[0] and shelf.name(PLAIN) == before[1]
    keys.code_digest.cache_clear()


# --- parents ----------------------------------------------------------------------------------------------------------


def child_of(parent, **fields) -> Trained:
    """With steps too small for float32 to see, the fine-tuned network is its parent."""
    usual = {
        "architecture": "small",
        "data": "tiny",
        "recipe": {"lr": 1e-30, "batch_size": 256},
        "epochs": 1,
        "seed": 9,
    }
    return Trained(**usual | {"parent": parent} | fields)


def test_fine_tuning_starts_from_its_parent_at_that_epoch(shelf, whole):
    shelf.train(PLAIN, [1, 2], progress=False)
    child = child_of(at(PLAIN, 1), defence={"name": "unmodified"})
    shelf.train(child, [1], progress=False)
    tensors = shelf.load(child).state_dict()
    assert same(tensors, whole.load(at(PLAIN, 1)).state_dict()) and not same(tensors, whole.load(PLAIN).state_dict())
    assert_same(PLAIN, shelf, whole)  # which is as it was


def test_fine_tuning_needs_its_parent(shelf):
    with pytest.raises(StoreError, match="epoch-0002.*run the training"):
        shelf.train(child_of(PLAIN), [1], progress=False)


def test_any_network_can_be_fine_tuned(shelf, tmp_path):
    """The paper's point: one whose weights somebody else published, or one that was changed after training."""
    weights = {name: tensor + 0.01 for name, tensor in new(Small, 5).state_dict().items()}
    safetensors.torch.save_file(weights, tmp_path / "theirs.safetensors")
    theirs = Pretrained(architecture="small", weights=str(tmp_path / "theirs.safetensors"))
    smoothed = Changed(network=theirs, change={"name": "high_frequency", "rho": 0.5})
    for parent in (theirs, smoothed):
        child = child_of(parent)
        shelf.train(child, [1], progress=False)
        assert same(shelf.load(child).state_dict(), shelf.load(parent).state_dict())


def test_a_quantised_network_has_a_parent_like_any_other(shelf):
    shelf.train(PLAIN, [2], progress=False)
    child = child_of(PLAIN, defence={"name": "quantised", "weight_bits": 4, "activation_bits": 2})
    shelf.train(child, [1], progress=False)
    loaded = shelf.load(child)
    assert same(loaded.state_dict(), shelf.load(PLAIN).state_dict())
    images = shelf.dataset.test.images[:20].float() / 255
    with torch.no_grad():
        assert torch.equal(loaded(images), quantized(shelf.load(PLAIN), 4, 2)(images)), "and calculates with few bits"


# --- networks that are not trained here -------------------------------------------------------------------------------


@pytest.fixture
def theirs(tmp_path):
    """A network of somebody else, and its file in each format."""
    network = new(Normalised, 5)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "theirs.safetensors")
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    return network


def pretrained(path, **fields) -> Pretrained:
    return Pretrained(**{"architecture": "normalised", "weights": str(path)} | fields)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_that_somebody_else_published(shelf, theirs, tmp_path, suffix):
    found = shelf.load(pretrained(tmp_path / f"theirs.{suffix}"))
    assert same(found.state_dict(), theirs.state_dict()) and not found.training


def test_the_same_file_by_another_content_is_another_network(shelf, theirs, tmp_path):
    network = pretrained(tmp_path / "theirs.safetensors")
    before = shelf.identity(network)
    tensors = safetensors.torch.load_file(tmp_path / "theirs.safetensors")
    time.sleep(0.01)
    safetensors.torch.save_file({k: v + 1 for k, v in tensors.items()}, tmp_path / "theirs.safetensors")
    assert shelf.identity(network) != before


@pytest.mark.parametrize("name, fields, words", [
    ("nowhere.pth", {}, ["nowhere.pth", "put it into one of the folders $REPROLIB_DATA/weights, "]),
    ("theirs.pth", {"architecture": "small"}, ["theirs.pth", "no weights for small"]),
    ("theirs.safetensors", {"width": 0.5}, ["theirs.safetensors", "size mismatch"]),
    ("some.pth", {}, ["some.pth", "choose another file"]),
    ("some.safetensors", {}, ["some.safetensors", "choose another file"]),
    (".", {}, ["put it into"]),
])  # fmt: skip
def test_weights_that_do_not_fit(shelf, theirs, tmp_path, name, fields, words):
    for suffix in ("pth", "safetensors"):
        (tmp_path / f"some.{suffix}").write_bytes(b"something else")
    with pytest.raises((StoreError, SpecError)) as caught:
        shelf.load(pretrained(tmp_path / name, **fields))
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_weights_are_looked_for_from_the_top_of_the_repository(shelf, theirs, tmp_path, monkeypatch):
    path = os.path.relpath(tmp_path / "theirs.pth", files.ROOT)
    monkeypatch.chdir(tmp_path)
    assert same(shelf.load(pretrained(path)).state_dict(), theirs.state_dict())


def test_imagenet_weights_are_found_by_name_and_cut_to_ten_classes(shelf, tmp_path, monkeypatch):
    monkeypatch.setenv("REPROLIB_DATA", str(tmp_path))
    network = Pretrained(architecture="squeezenet", weights="full.pth")
    planned = shelf.identity(network)  # a plan can be made without the file
    full = torchvision.models.squeezenet1_1(weights=None).state_dict()
    (tmp_path / "weights").mkdir()
    torch.save(full, tmp_path / "weights" / "full.pth")
    assert shelf.identity(network) not in (planned, shelf.identity(network.model_copy(update={"head": "fresh"})))
    found = shelf.load(network).state_dict()
    assert torch.equal(found["1.classifier.1.bias"], full["classifier.1.bias"][ROWS])
    with pytest.raises(SpecError, match="full.pth holds no weights for vgg16-imagenet"):  # when it is planned
        shelf.identity(Pretrained(architecture="vgg16-imagenet", width=0.05, weights="full.pth"))


def test_imagenet_weights_from_before_batches_were_counted(shelf, tmp_path, monkeypatch):
    monkeypatch.setenv("REPROLIB_DATA", str(tmp_path))
    full = torchvision.models.mobilenet_v2(weights=None).state_dict()
    old = {name: tensor for name, tensor in full.items() if not name.endswith("num_batches_tracked")}
    (tmp_path / "weights").mkdir()
    torch.save(old, tmp_path / "weights" / "old.pth")
    found = shelf.load(Pretrained(architecture="mobilenet-v2", weights="old.pth")).state_dict()
    assert len(old) < len(full) and torch.equal(found["1.features.0.0.weight"], full["features.0.0.weight"])


def test_a_vote_is_made_of_its_members(shelf, theirs, tmp_path):
    shelf.train(PLAIN, [2], progress=False)
    members = [PLAIN, pretrained(tmp_path / "theirs.pth"), PLAIN]
    vote = shelf.load(Voted(members=members))
    assert isinstance(vote, Vote) and not vote.training
    images = shelf.dataset.test.images[:50].float() / 255
    with torch.no_grad():
        assert torch.equal(vote(images), Vote([shelf.load(member) for member in members])(images))
    assert shelf.identity(Voted(members=members)) != shelf.identity(Voted(members=members[::-1][:2]))
    soft = Voted(members=members, voting="soft")
    assert isinstance(shelf.load(soft), SoftVote) and shelf.identity(soft) != shelf.identity(Voted(members=members))


def test_a_changed_network_is_made_of_it_and_leaves_it(shelf):
    shelf.train(PLAIN, [2], progress=False)
    change = defenses.HighFrequency(0.5)
    changed = shelf.load(Changed(network=PLAIN, change=change))
    assert same(changed.state_dict(), change(shelf.load(PLAIN)).state_dict())
    assert not same(changed.state_dict(), shelf.load(PLAIN).state_dict())
    names = {
        shelf.identity(Changed(network=PLAIN, change={"name": "high_frequency", "rho": rho})) for rho in (0.1, 0.5)
    }
    assert len(names | {shelf.identity(PLAIN)}) == 3


# --- missing, damaged, unwritable -------------------------------------------------------------------------------------


def test_a_network_that_was_never_trained(shelf):
    with pytest.raises(StoreError, match="epoch-0007.*run the training"):
        shelf.load(at(PLAIN, 7))


def test_a_data_set_without_training_images(tmp_path, tiny):
    nothing = data.Split(tiny.train.images[:0], tiny.train.labels[:0])
    dataset = data.Dataset("imagenet", nothing, tiny.test, tiny.classes, "", "validation images only", "")
    with pytest.raises(data.DataError, match="imagenet has no training images here"):
        Shelf(dataset, Store(tmp_path)).train(PLAIN, [1], progress=False)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_checkpoint(share, shelf, whole):
    content = whole.store.path(whole.artefact(PLAIN)).read_bytes()
    path = shelf.store.path(shelf.artefact(PLAIN))
    path.parent.mkdir(parents=True)
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(StoreError) as caught:
        shelf.load(PLAIN)
    message = str(caught.value)
    assert str(path) in message and "delete that file and run again" in message and "\n" not in message
    path.unlink()
    shelf.train(PLAIN, [2], progress=False)
    assert_same(PLAIN, shelf, whole)


def test_truncated_resume_file_can_be_deleted_as_the_message_says(shelf, whole):
    shelf.train(PLAIN, [1], progress=False)
    latest = shelf.store.path(f"{shelf.name(PLAIN)}/latest")
    latest.write_bytes(latest.read_bytes()[:-100])
    with pytest.raises(StoreError) as caught:
        shelf.train(PLAIN, [2], progress=False)
    assert str(latest) in str(caught.value) and "delete that file and run again" in str(caught.value)
    latest.unlink()
    shelf.train(PLAIN, [2], progress=False)
    assert_same(PLAIN, shelf, whole)


def test_a_full_disk_loses_nothing(shelf, whole, monkeypatch):
    shelf.train(PLAIN, [1], progress=False)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left on device"):
            shelf.train(PLAIN, [2], progress=False)
    assert shelf.has(PLAIN, 1) and not shelf.has(PLAIN, 2)
    shelf.train(PLAIN, [2], progress=False)
    assert_same(PLAIN, shelf, whole)


def test_an_architecture_keeps_its_initial_weights(shelf):
    """Seed and name give the weights that training starts from, in every process."""
    assert same(networks.build("small", 3).state_dict(), new(Small, 3).state_dict())
