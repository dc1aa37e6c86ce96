"""A training can be killed, resumed and extended to bitwise the same weights; its control differs in patches alone."""

import os
import signal
import time
from collections import Counter
from unittest.mock import ANY

import pytest
import torch
from conftest import tiny_dataset
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from reprolib import models, patches, training
from reprolib.data import Split
from reprolib.specs import Training
from reprolib.store import Store, StoreError

PLAIN = Training(dataset="tiny", model="small", optimizer="adam", lr=3e-3, batch_size=60)
PATCHED = Training(dataset="tiny", model="small", optimizer="rmsprop", lr=1e-3, batch_size=60, copies="patched",
                   patch_size=7, patch_count=1)
CYCLE = Training(dataset="tiny", model="small", optimizer="sgd", lr=0.05, batch_size=60, weight_decay=5e-4, augment=True,
                 cycle=3)
REAL_PLAIN, REAL_PATCHED = (spec.model_copy(update={"model": "fmnistconv", "lr": 1e-3}) for spec in (PLAIN, PATCHED))
STEPS = {"none": 5, "patched": 9}  # per epoch: 256 and 2 * 256 images in batches of 60, the last one smaller
EPOCHS = 3


class Small(nn.Module):
    """F-MNISTconv's first two layers and its last, with few filters: its files take no time to write."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 8, stride=2, padding=3), nn.ReLU(), nn.Conv2d(8, 8, 6, stride=2),
                                    nn.ReLU(), nn.Flatten(), nn.Linear(8 * 5 * 5, 10))

    def forward(self, images):
        return self.layers(images)


class Spy(nn.Module):
    """A linear network that keeps what it is trained on."""

    seen: list[torch.Tensor] = []

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(28 * 28, 10)

    def forward(self, images):
        if self.training:
            Spy.seen.append((images * 255).round().to(torch.uint8))
        return self.fc(images.flatten(1))


@pytest.fixture(scope="module", autouse=True)
def networks():
    """`small` and `spy` can be built like the real networks, in this file only."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(models.BUILDERS, "small", Small)
        patched.setitem(models.BUILDERS, "spy", Spy)
        yield


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def steps():
    """A list that grows by one entry with every step of an optimiser."""
    taken = []
    handle = register_optimizer_step_post_hook(lambda *_: taken.append(1))
    yield taken
    handle.remove()


@pytest.fixture(scope="module")
def whole(networks, tiny, tmp_path_factory) -> Store:
    """All five trainings, run without interruption, with every epoch's checkpoint."""
    store = Store(tmp_path_factory.mktemp("whole"))
    for spec in (PLAIN, PATCHED, CYCLE, REAL_PLAIN, REAL_PATCHED):
        training.train(spec, [1, 2] if spec.model == "fmnistconv" else [1, 2, 3], tiny, store, progress=False)
    return store


def weights(spec: Training, epoch: int, dataset, store: Store) -> dict[str, torch.Tensor]:
    return training.checkpoint(spec, epoch, dataset, store).model.state_dict()


def identical(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def assert_same_run(spec: Training, dataset, store: Store, reference: Store, epoch: int = EPOCHS) -> None:
    ours, theirs = (training.checkpoint(spec, epoch, dataset, s) for s in (store, reference))
    assert identical(ours.model.state_dict(), theirs.model.state_dict())
    assert ours.history == theirs.history


# --- killed and resumed -------------------------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def prepare(save_every: float):
    """What a child process needs: it shares the code with this process, not what the fixtures changed."""
    models.BUILDERS["small"] = Small
    training.SAVE_EVERY = save_every


def train_and_die_at_step(root, spec, epochs, fatal):
    taken = []

    def count(*_):
        taken.append(1)
        if len(taken) == fatal:
            die()

    prepare(save_every=0)
    register_optimizer_step_post_hook(count)
    training.train(spec, [epochs], tiny_dataset(), Store(root), progress=False)


def train_and_die_after_write(root, spec, epoch, fatal):
    class Fatal(Store):
        writes = 0

        def save(self, *args):
            super().save(*args)
            self.writes += 1
            if self.writes == fatal:
                die()

    prepare(save_every=0)
    training.train(spec, [epoch], tiny_dataset(), Fatal(root), progress=False)


def train_until_killed(root, spec, started):
    prepare(save_every=0.05)
    dataset = tiny_dataset()
    started.set()
    training.train(spec, [EPOCHS], dataset, Store(root), progress=False)


def run(processes, target, *args):
    process = processes.Process(target=target, args=args)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("spec, epochs", [(PLAIN, 3), (PATCHED, 3), (CYCLE, 3), (REAL_PLAIN, 2), (REAL_PATCHED, 2)],
                         ids=["adam", "rmsprop, patched", "sgd in a cycle, augmented", "F-MNISTconv, adam", "F-MNISTconv, rmsprop, patched"])
def test_killed_in_the_middle_of_an_epoch(spec, epochs, tiny, store, whole, processes, steps):
    fatal = STEPS[spec.copies] + 3  # in epoch 2; its predecessor was the last that could be saved
    run(processes, train_and_die_at_step, store.root, spec, epochs, fatal)
    assert not store.has(f"{training.artefact(spec, tiny)}/epoch-{epochs:04d}")
    training.train(spec, [epochs], tiny, store, progress=False)
    assert len(steps) == epochs * STEPS[spec.copies] - (fatal - 1)
    assert_same_run(spec, tiny, store, whole, epochs)


@pytest.mark.parametrize("fatal, done", [
    (3, 3), (6, 5), (9, 8),
    (12, 10), (13, 10),
])
def test_killed_after_any_write_loses_no_step(fatal, done, tiny, store, whole, processes, steps):
    """An epoch writes 5 times after a step and once at its end; the second and last writes its checkpoint before that."""
    run(processes, train_and_die_after_write, store.root, PLAIN, 2, fatal)
    training.train(PLAIN, [2], tiny, store, progress=False)
    assert len(steps) == 2 * STEPS[PLAIN.copies] - done
    assert_same_run(PLAIN, tiny, store, whole, epoch=2)


def test_killed_again_and_again_at_any_moment(tiny, store, whole, processes):
    exits = []
    for seconds in (0.1, 0.2, 0.3, 0.4):
        started = processes.Event()
        process = processes.Process(target=train_until_killed, args=(store.root, PATCHED, started))
        process.start()
        assert started.wait(60)
        time.sleep(seconds)
        process.kill()
        process.join()
        exits.append(process.exitcode)
    assert exits[0] == -signal.SIGKILL
    training.train(PATCHED, [EPOCHS], tiny, store, progress=False)
    assert_same_run(PATCHED, tiny, store, whole)


# --- extended, repeated, shared -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [PLAIN, PATCHED], ids=["adam", "rmsprop, patched"])
def test_more_epochs_later_extend_the_run(spec, tiny, store, whole, steps):
    training.train(spec, [1], tiny, store, progress=False)
    training.train(spec, [EPOCHS], tiny, store, progress=False)
    assert len(steps) == EPOCHS * STEPS[spec.copies]
    assert_same_run(spec, tiny, store, whole, epoch=1)
    assert_same_run(spec, tiny, store, whole)


def test_training_in_bfloat16_keeps_float32_weights_and_goes_on_where_it_was(tiny, store, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "has_fast_bfloat16", lambda device: True)
    training.train(PLAIN, [EPOCHS], tiny, store, progress=False)
    in_parts = Store(tmp_path / "in parts")
    for epoch in (1, EPOCHS):
        training.train(PLAIN, [epoch], tiny, in_parts, progress=False)
    found = weights(PLAIN, EPOCHS, tiny, store)
    assert identical(found, weights(PLAIN, EPOCHS, tiny, in_parts))
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    exact = weights(PLAIN, EPOCHS, tiny, whole)
    assert not identical(found, exact), "it is another arithmetic"
    assert all(torch.allclose(found[name], exact[name], atol=0.05) for name in exact), "though not by much"


def test_an_epoch_before_the_last_one_can_be_asked_for_later(tiny, store, whole):
    training.train(PLAIN, [2], tiny, store, progress=False)
    training.train(PLAIN, [1], tiny, store, progress=False)
    assert_same_run(PLAIN, tiny, store, whole, epoch=1)
    assert_same_run(PLAIN, tiny, store, whole, epoch=2)


def test_epochs_that_are_there_are_not_computed_again(tiny, store, steps):
    training.train(PLAIN, [1, 2], tiny, store, progress=False)
    folder = store.root / training.artefact(PLAIN, tiny)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert len(before) == 3  # two epochs and the place to go on from
    taken = len(steps)
    training.train(PLAIN, [1, 2], tiny, store, progress=False)
    training.train(PLAIN, [2], tiny, store, progress=False)
    assert len(steps) == taken
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")} == before


def test_training_leaves_the_global_random_numbers_alone(tiny, store):
    before = torch.get_rng_state()
    training.train(PATCHED, [1], tiny, store, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_data_set_is_part_of_the_address(tiny):
    assert training.artefact(PLAIN, tiny) == training.artefact(PLAIN, tiny_dataset())
    assert training.artefact(PLAIN, tiny) != training.artefact(PLAIN, tiny_dataset(train=255, test=129))
    assert training.artefact(PLAIN, tiny) != training.artefact(PATCHED, tiny)


# --- damaged and missing checkpoints ------------------------------------------------------------------------------


def test_checkpoint_that_was_never_trained(tiny, store):
    with pytest.raises(StoreError, match="epoch-0007.*run the training"):
        training.checkpoint(PLAIN, 7, tiny, store)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_checkpoint(share, tiny, store, whole):
    name = f"{training.artefact(PLAIN, tiny)}/epoch-0001"
    content = whole.path(name).read_bytes()
    store.path(name).parent.mkdir(parents=True)
    store.path(name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(StoreError) as caught:
        training.checkpoint(PLAIN, 1, tiny, store)
    message = str(caught.value)
    assert str(store.path(name)) in message and "delete that file and run again" in message and "\n" not in message


def test_truncated_resume_file_can_be_deleted_as_the_message_says(tiny, store, whole):
    training.train(PLAIN, [1], tiny, store, progress=False)
    latest = store.path(f"{training.artefact(PLAIN, tiny)}/latest")
    latest.write_bytes(latest.read_bytes()[:-100])
    with pytest.raises(StoreError) as caught:
        training.train(PLAIN, [2], tiny, store, progress=False)
    assert str(latest) in str(caught.value) and "delete that file and run again" in str(caught.value)
    latest.unlink()
    training.train(PLAIN, [2], tiny, store, progress=False)
    assert_same_run(PLAIN, tiny, store, whole, epoch=2)


# --- what is learnt, and from what --------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [PLAIN, PATCHED], ids=["adam", "rmsprop, patched"])
def test_history_and_weights_of_every_epoch(spec, tiny, whole):
    last = training.checkpoint(spec, EPOCHS, tiny, whole)
    assert [entry["epoch"] for entry in last.history] == [1, 2, 3]
    for epoch, entry in enumerate(last.history, start=1):
        assert entry.keys() == {"epoch", "loss", "clean", "saturated"}
        there = training.checkpoint(spec, epoch, tiny, whole)
        clean, saturated = training.clean_accuracy(there.model, tiny.test)
        assert entry["clean"] == round(clean, 4) and entry["saturated"] == round(saturated, 4)
        assert there.history == last.history[:epoch]
        assert not there.model.training
    assert 0 < last.history[-1]["loss"] < last.history[0]["loss"] < 2.5  # ln 10 = 2.30 is guessing
    assert last.history[-1]["clean"] > 90  # the patterns are easy
    assert last.seconds > 0 and "CPU" in last.device


@pytest.fixture
def trained_on(tiny, store):
    """The batches, uint8, of one epoch of a training that differs from a plain one in the given fields."""
    def trained_on(**fields):
        Spy.seen = []
        spec = Training(dataset="tiny", model="spy", optimizer="adam", lr=1e-3, batch_size=60, **fields)
        training.train(spec, [1], tiny, store, progress=False)
        return Spy.seen

    return trained_on


def test_an_epoch_shows_every_image_once_in_shuffled_order(trained_on, tiny):
    seen = torch.cat(trained_on())
    assert not torch.equal(seen, tiny.train.images)
    assert Counter(map(bytes, seen.numpy())) == Counter(map(bytes, tiny.train.images.numpy()))


@pytest.mark.parametrize("size, count", [(7, 1), (11, 1), (7, 2), (11, 2)])
def test_the_control_differs_in_the_patches_alone(trained_on, tiny, size, count):
    control = trained_on(copies="unmodified", seed=5)
    patched = trained_on(copies="patched", patch_size=size, patch_count=count, seed=5)
    assert [len(batch) for batch in control] == [len(batch) for batch in patched] == [60] * 8 + [32]

    control, patched = torch.cat(control), torch.cat(patched)
    originals = tiny.train.images
    assert Counter(map(bytes, control.numpy())) == {bytes(image): 2 for image in originals.numpy()}

    outside = torch.ones(28, 28, dtype=torch.bool)
    for top, left in patches.boxes(28, 28, size, count):
        outside[top : top + size, left : left + size] = False
    assert torch.equal(control[..., outside], patched[..., outside])

    drawn = patches.make_patches(originals, torch.arange(len(originals)), size, count, 5)
    copies = patches.paste(originals, drawn, torch.ones(len(originals), dtype=torch.bool))
    union = Counter(map(bytes, originals.numpy())) + Counter(map(bytes, copies.numpy()))
    assert Counter(map(bytes, patched.numpy())) == union


def test_both_halves_of_the_union_are_mixed(trained_on, tiny):
    """The images are not all shown before the copies."""
    patched = trained_on(copies="patched", patch_size=11, patch_count=2)
    originals = set(map(bytes, tiny.train.images.numpy()))
    shares = [sum(bytes(image) in originals for image in batch.numpy()) / len(batch) for batch in patched]
    assert all(0 < share < 1 for share in shares)


def test_the_seed_changes_order_and_draws(trained_on):
    assert not torch.equal(torch.cat(trained_on(seed=0)), torch.cat(trained_on(seed=1)))


def test_epochs_are_shuffled_anew(tiny, store):
    Spy.seen = []
    spec = Training(dataset="tiny", model="spy", optimizer="adam", lr=1e-3, batch_size=256)
    training.train(spec, [2], tiny, store, progress=False)
    first, second = Spy.seen
    assert not torch.equal(first, second)
    assert Counter(map(bytes, first.numpy())) == Counter(map(bytes, second.numpy()))


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_fine_tuning_starts_from_its_parents_weights(optimizer, tiny, store, whole):
    """With steps too small for float32 to see, the fine-tuned network is its parent, not a fresh or later one."""
    training.train(PLAIN, [1, 2], tiny, store, progress=False)
    tuned = Training(dataset="tiny", model="small", optimizer=optimizer, lr=1e-30, batch_size=256, seed=9,
                     parent=PLAIN, parent_epoch=1, copies="unmodified")
    training.train(tuned, [1], tiny, store, progress=False)
    assert identical(weights(tuned, 1, tiny, store), weights(PLAIN, 1, tiny, whole))
    assert not identical(weights(tuned, 1, tiny, store), weights(PLAIN, 2, tiny, whole))


def test_fine_tuning_needs_its_parent(tiny, store):
    tuned = PATCHED.model_copy(update={"parent": PLAIN, "parent_epoch": 2})
    with pytest.raises(StoreError, match="epoch-0002.*run the training"):
        training.train(tuned, [1], tiny, store, progress=False)


def test_fine_tuning_leaves_its_parent_as_it_was(tiny, store, whole):
    training.train(PLAIN, [1], tiny, store, progress=False)
    training.train(PATCHED.model_copy(update={"parent": PLAIN, "parent_epoch": 1}), [1], tiny, store, progress=False)
    assert_same_run(PLAIN, tiny, store, whole, epoch=1)


# --- pre-training: augmentation, one cycle, a target ----------------------------------------------------------------


def test_crops_are_shifted_by_up_to_four_pixels_and_flipped_at_even_odds():
    """Each image has one bright pixel in its middle, whose place tells shift and flip."""
    count = 4000
    images = torch.zeros(count, 1, 9, 9, dtype=torch.uint8)
    images[:, :, 4, 4], images[:, :, 4, 5] = 255, 100
    changed = training.crop_and_flip(images, torch.arange(count), seed=0, epoch=0)
    assert changed.shape == images.shape and changed.dtype == torch.uint8
    bright = (changed == 255).nonzero()
    assert len(bright) == count  # never out of the picture: that would take 5 pixels
    places = Counter(map(tuple, bright[:, 2:].tolist()))
    assert set(places) == {(y, x) for y in range(9) for x in range(9)}
    assert max(places.values()) < 3 * min(places.values())  # 81 places, 49 images each
    inner = bright[(bright[:, 3] > 0) & (bright[:, 3] < 8)]
    mirrored = changed[inner[:, 0], 0, inner[:, 2], inner[:, 3] - 1] == 100
    assert 0.45 < mirrored.float().mean() < 0.55


def test_a_crop_depends_on_image_seed_and_epoch_alone():
    images = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    ids = torch.arange(20)
    whole = training.crop_and_flip(images, ids, 1, 2)
    assert torch.equal(training.crop_and_flip(images[5:9], ids[5:9], 1, 2), whole[5:9])
    for seed, epoch in ((2, 2), (1, 3)):
        assert not torch.equal(training.crop_and_flip(images, ids, seed, epoch), whole)


def test_augmentation_changes_what_is_shown(trained_on, tiny):
    seen = torch.cat(trained_on(augment=True))
    assert len(seen) == len(tiny.train)
    assert set(map(bytes, seen.numpy())) - set(map(bytes, tiny.train.images.numpy()))


def test_one_cycle_climbs_for_a_quarter_and_falls_to_zero(tiny, store):
    rates = []
    handle = register_optimizer_step_post_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    try:
        training.train(CYCLE.model_copy(update={"cycle": 4}), [5], tiny, store, progress=False)
    finally:
        handle.remove()
    assert rates[:5] == pytest.approx([0, 0.01, 0.02, 0.03, 0.04])  # five steps to the epoch
    assert max(rates) == pytest.approx(0.05) and rates.index(max(rates)) == 5
    falling = rates[5:21]
    assert falling == sorted(falling, reverse=True) and falling[-1] == 0
    assert rates[20:] == [0] * 5  # after the cycle nothing moves any more


def test_training_rests_once_the_clean_accuracy_is_near_its_target(tiny, store, steps, monkeypatch):
    """The accuracy passes 60 % somewhere within the first epochs; from then on all epochs hold the same network."""
    monkeypatch.setattr(training, "NEAR", 12.0)  # an easy data set, learnt in large steps
    spec = Training(dataset="tiny", model="small", optimizer="sgd", lr=2e-3, batch_size=8, target=60.0)
    training.train(spec, [10, 30], tiny, store, progress=False)
    taken = len(steps)
    found = training.checkpoint(spec, 30, tiny, store)
    assert found.history[-1]["rests"] and abs(found.history[-1]["clean"] - 60.0) <= training.NEAR
    assert len(found.history) < 10 and not any("rests" in entry for entry in found.history[:-1])
    assert identical(weights(spec, 10, tiny, store), weights(spec, 30, tiny, store))
    assert taken < 10 * 32  # a full epoch has 32 steps
    training.train(spec, [40], tiny, store, progress=False)
    assert len(steps) == taken and identical(weights(spec, 40, tiny, store), weights(spec, 30, tiny, store))


@pytest.mark.parametrize("clean, rests", [(59.4, False), (59.5, True), (60.5, True), (60.6, False)])
def test_near_a_target_is_within_half_a_point(tiny, store, monkeypatch, clean, rests):
    monkeypatch.setattr(training, "clean_accuracy", lambda *_: (clean, 0.0))
    spec = PLAIN.model_copy(update={"target": 60.0})
    training.train(spec, [1], tiny, store, progress=False)
    assert training.checkpoint(spec, 1, tiny, store).history == [
        {"epoch": 1, "loss": ANY, "clean": clean, "saturated": 0.0} | ({"rests": True} if rests else {})]


def test_a_target_out_of_reach_costs_nothing_but_looks(tiny, store):
    spec = PLAIN.model_copy(update={"target": 0.6})  # no share of so few is so near to 0, and the network learns
    training.train(spec, [2], tiny, store, progress=False)
    training.train(PLAIN, [2], tiny, store, progress=False)
    assert identical(weights(spec, 2, tiny, store), weights(PLAIN, 2, tiny, store))


# --- clean accuracy -----------------------------------------------------------------------------------------------


class Chosen(nn.Module):
    """Gives image i, whose pixels are all i, the i-th row of the chosen logits."""

    def __init__(self, logits):
        super().__init__()
        self.register_buffer("logits", torch.as_tensor(logits, dtype=torch.float32))

    def forward(self, images):
        return self.logits[(images[:, 0, 0, 0] * 255).round().long()]


def numbered(labels: list[int]) -> Split:
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    return Split(images, torch.tensor(labels))


def row(winner: int, margin: float, level: float = 0.0) -> list[float]:
    """Ten logits: the winner's stands `margin` above the nine others'."""
    return [level + margin * (label == winner) for label in range(10)]


@pytest.mark.parametrize("margin, saturated", [
    (10.0, 0.0),  # 1 - p = 9 exp(-10) = 4e-4
    (18.2, 0.0),  # 1.12e-7
    (18.4, 100.0),  # 0.92e-7
    (20.0, 100.0),
    (200.0, 100.0),
    (1000.0, 100.0),
])
@pytest.mark.parametrize("level", [0.0, -3.0])
def test_saturated_means_above_one_minus_1e_7(margin, saturated, level):
    model = Chosen([row(4, margin, level)] * 3)
    assert training.clean_accuracy(model, numbered([4, 4, 4])) == (100.0, saturated)


def test_a_network_sure_of_the_wrong_class_is_wrong_and_not_saturated():
    assert training.clean_accuracy(Chosen([row(4, 30.0)] * 2), numbered([5, 5])) == (0.0, 0.0)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 500])
def test_shares_are_counted_over_all_images(batch_size):
    logits = [row(0, 20.0)] * 2 + [row(1, 10.0)] * 3 + [row(2, 20.0)] + [row(3, 5.0)] * 2
    labels = [0, 0, 1, 1, 1, 7, 3, 8]  # 2 saturated, 3 + 1 merely right, 1 + 1 wrong
    assert training.clean_accuracy(Chosen(logits), numbered(labels), batch_size) == (75.0, 25.0)


@pytest.mark.parametrize("mode", [True, False])
def test_clean_accuracy_evaluates_without_dropout_and_leaves_the_mode(mode):
    model = nn.Sequential(Chosen([row(4, 10.0)] * 200), nn.Dropout(0.9)).train(mode)
    assert training.clean_accuracy(model, numbered([4] * 200)) == (100.0, 0.0)
    assert [module.training for module in model.modules()] == [mode] * 3


def test_denormal_numbers_are_back_after_training(tiny, store):
    """Training flushes them to zero for speed; an attack counts exactly zero gradients and must see them."""
    training.train(PLAIN, [1], tiny, store, progress=False)
    assert float(torch.tensor(1e-40) * 1) > 0
