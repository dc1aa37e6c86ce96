"""Training alone: any network and tensors go in, and a state taken at any save goes on to bitwise the same weights."""

import os
import signal
from collections import Counter

import pytest
import torch
from conftest import tiny_dataset
from small_networks import Small, Spy, bytes_of, new, same
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from reprolib import data, defenses, training
from reprolib.training import Recipe

ADAM = Recipe(optimizer="adam", lr=3e-3, batch_size=60)
RMSPROP = Recipe(optimizer="rmsprop", lr=1e-3, batch_size=60, label_smoothing=0.1)
CYCLE = Recipe(optimizer="sgd", lr=0.05, batch_size=60, weight_decay=5e-4, augment=True, cycle=3)
PATCHED = defenses.Patched(size=7, count=1)
STEPS = {None: 5, PATCHED: 9}  # per epoch: 256 and 2 * 256 images in batches of 60, the last one smaller
KINDS = [(ADAM, None), (RMSPROP, PATCHED), (CYCLE, None)]
IDS = ["adam", "rmsprop, patched", "sgd in a cycle, augmented"]


def fit(model=None, defence=None, recipe=ADAM, dataset=None, **options) -> training.Run:
    split, test = (dataset or tiny_dataset()).train, (dataset or tiny_dataset()).test
    options = {"epochs": 1, "test": (test.images, test.labels), "progress": False} | options
    return training.fit(model or new(), split.images, split.labels, defence, recipe, **options)


@pytest.fixture
def save_always(monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", -1.0)


def assert_same(ours: training.Run, theirs: training.Run) -> None:
    assert same(ours.model.state_dict(), theirs.model.state_dict())
    assert ours.history == theirs.history


# --- killed and resumed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe, defence", KINDS, ids=IDS)
def test_a_state_taken_at_any_save_resumes_bitwise(recipe, defence, save_always, steps):
    states = []
    whole = fit(recipe=recipe, defence=defence, epochs=3, save=lambda run: states.append(run.state()))
    assert len(steps) == len(states) == 3 * STEPS[defence]  # one after each step
    for done, state in list(enumerate(states, start=1))[::2]:
        del steps[:]
        assert_same(fit(recipe=recipe, defence=defence, epochs=3, resume=state), whole)
        assert len(steps) == 3 * STEPS[defence] - done, "no step is made twice"


def test_a_state_is_a_copy_that_neither_run_writes_into(save_always):
    """So a caller may keep it, and begin from it as often as she likes."""
    states = []
    whole = fit(epochs=2, save=lambda run: states.append(run.state()))
    middle = states[3]
    for _ in range(2):
        assert_same(fit(epochs=2, resume=middle), whole)
    assert middle[1]["epoch"] == 0 and middle[1]["batch"] == 4 and middle[1]["history"] == []


def test_a_state_is_tensors_and_plain_data(save_always):
    kept = []
    fit(recipe=CYCLE, save=lambda run: kept.append((run.state(), run.batch)))
    (tensors, meta), _ = kept[2]
    assert all(isinstance(tensor, torch.Tensor) and not tensor.requires_grad for tensor in tensors.values())
    assert all(isinstance(value, int | float | list) for value in meta.values())
    assert [batch for _, batch in kept] == [1, 2, 3, 4, 0], "0 says that an epoch has just ended"


def train_and_die(path, recipe, defence, epochs, fatal):
    """Die after so many steps; the file holds the state of the last save."""
    taken = []

    def count(*_):
        taken.append(1)
        if len(taken) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def save(run):
        torch.save(run.state(), path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)

    training.SAVE_EVERY = -1.0
    register_optimizer_step_post_hook(count)
    fit(recipe=recipe, defence=defence, epochs=epochs, save=save)


@pytest.mark.parametrize("recipe, defence", KINDS, ids=IDS)
@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch(recipe, defence, processes, tmp_path, steps):
    fatal = STEPS[defence] + 3  # in epoch 2; its predecessor was the last that could be saved
    process = processes.Process(target=train_and_die, args=(tmp_path / "state", recipe, defence, 3, fatal))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    resumed = fit(recipe=recipe, defence=defence, epochs=3, resume=torch.load(tmp_path / "state"))
    assert len(steps) == 3 * STEPS[defence] - (fatal - 1)
    assert_same(resumed, fit(recipe=recipe, defence=defence, epochs=3))


def test_without_a_cycle_more_epochs_extend_a_run():
    kept = {}
    whole = fit(epochs=3, save=lambda run: kept.setdefault(run.epoch, run.state()))
    short = fit(epochs=1)
    assert same(short.model.state_dict(), {k.removeprefix("model."): v for k, v in kept[1][0].items() if "model." in k})
    assert whole.history[:1] == short.history
    assert_same(fit(epochs=3, resume=short.state()), whole)


def test_training_in_bfloat16_keeps_float32_weights_and_goes_on_where_it_was(monkeypatch):
    exact = fit(epochs=3).model.state_dict()
    monkeypatch.setattr(training, "has_fast_bfloat16", lambda device: True)
    found = fit(epochs=3)
    assert_same(fit(epochs=3, resume=fit(epochs=1).state()), found)
    weights = found.model.state_dict()
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert not same(weights, exact), "it is another arithmetic"
    assert all(torch.allclose(weights[name], exact[name], atol=0.05) for name in exact), "though not by much"


# --- what a run leaves alone, and what it says ------------------------------------------------------------------------


def test_training_leaves_the_global_random_numbers_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for recipe, defence in KINDS:
        fit(recipe=recipe, defence=defence)
    assert torch.equal(torch.get_rng_state(), before)


def test_denormal_numbers_are_back_after_training():
    """Training flushes them to zero for speed; an attack counts exactly zero gradients and must see them."""
    fit()
    assert float(torch.tensor(1e-40) * 1) > 0


def test_denormal_numbers_are_back_after_training_that_broke_off():
    def broken(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(save=broken)
    assert float(torch.tensor(1e-40) * 1) > 0


@pytest.mark.parametrize("recipe, defence", KINDS[:2], ids=IDS[:2])
def test_history_says_what_the_network_was_after_each_epoch(recipe, defence):
    dataset, seen = tiny_dataset(), []

    def look(run):
        if run.batch == 0:
            seen.append(training.clean_accuracy(run.model, dataset.test.images, dataset.test.labels))

    run = fit(recipe=recipe, defence=defence, epochs=3, save=look)
    assert [entry["epoch"] for entry in run.history] == [1, 2, 3]
    for entry, (clean, saturated) in zip(run.history, seen, strict=True):
        assert entry.keys() == {"epoch", "loss", "clean", "saturated"}
        assert (entry["clean"], entry["saturated"]) == (round(clean, 4), round(saturated, 4))
    assert 0 < run.history[-1]["loss"] < run.history[0]["loss"] < 2.5  # ln 10 = 2.30 is guessing
    assert run.history[-1]["clean"] > 90  # the patterns are easy
    assert run.seconds > 0 and not run.model.training


def test_without_test_images_history_has_the_loss_alone():
    run = fit(test=None)
    assert [entry.keys() for entry in run.history] == [{"epoch", "loss"}]
    assert same(run.model.state_dict(), fit().model.state_dict()), "they are looked at, no more"


def test_the_network_is_trained_in_place():
    model = new()
    run = fit(model)
    assert run.model is model and not same(model.state_dict(), new().state_dict())


def test_progress_is_a_bar_and_silence_is_silence(capfd):
    fit(progress=True)
    assert "1/1" in capfd.readouterr().err
    fit(progress=False)
    assert capfd.readouterr() == ("", "")


# --- from what it learns ----------------------------------------------------------------------------------------------


def shown(defence=None, recipe=Recipe(batch_size=60), **options) -> list[torch.Tensor]:  # noqa: B008
    """The batches of a training."""
    Spy.seen = []
    fit(new(Spy), defence, recipe, **options)
    return Spy.seen


def test_an_epoch_shows_every_image_once_in_shuffled_order(tiny):
    seen = bytes_of(torch.cat(shown()))
    assert seen != list(map(bytes, tiny.train.images.numpy()))
    assert Counter(seen) == Counter(map(bytes, tiny.train.images.numpy()))


def test_the_seed_changes_the_order():
    assert not torch.equal(torch.cat(shown(seed=0)), torch.cat(shown(seed=1)))


def test_epochs_are_shuffled_anew():
    first, second = shown(recipe=Recipe(batch_size=256), epochs=2)
    assert not torch.equal(first, second) and Counter(bytes_of(first)) == Counter(bytes_of(second))


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_it_starts_from_the_weights_that_it_is_given(optimizer):
    """With steps too small for float32 to see, the fine-tuned network is the given one."""
    parent = fit(epochs=2).model
    before = {name: tensor.clone() for name, tensor in parent.state_dict().items()}
    tuned = fit(parent, defenses.Unmodified(), Recipe(optimizer=optimizer, lr=1e-30), seed=9).model
    assert same(tuned.state_dict(), before)


def test_label_smoothing_and_weight_decay_change_what_is_learnt():
    plain = fit().model.state_dict()
    for fields in ({"label_smoothing": 0.1}, {"weight_decay": 0.1}):
        assert not same(fit(recipe=Recipe(**vars(ADAM) | fields)).model.state_dict(), plain)


# --- augmentation, one cycle, a target --------------------------------------------------------------------------------


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


def test_augmentation_changes_what_is_shown(tiny):
    seen = bytes_of(torch.cat(shown(recipe=Recipe(batch_size=60, augment=True))))
    assert len(seen) == len(tiny.train) and set(seen) - set(map(bytes, tiny.train.images.numpy()))


def test_one_cycle_climbs_for_a_quarter_and_falls_to_zero():
    rates = []
    handle = register_optimizer_step_post_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
    try:
        fit(recipe=Recipe(optimizer="sgd", lr=0.05, batch_size=60, cycle=4), epochs=5)
    finally:
        handle.remove()
    assert rates[:5] == pytest.approx([0, 0.01, 0.02, 0.03, 0.04])  # five steps to the epoch
    assert max(rates) == pytest.approx(0.05) and rates.index(max(rates)) == 5
    falling = rates[5:21]
    assert falling == sorted(falling, reverse=True) and falling[-1] == 0
    assert rates[20:] == [0] * 5  # after the cycle nothing moves any more


def test_training_rests_once_the_clean_accuracy_is_near_its_target(steps, monkeypatch):
    """The accuracy passes 60 % somewhere within the first epochs; from then on all epochs hold the same network."""
    monkeypatch.setattr(training, "NEAR", 12.0)  # an easy data set, learnt in large steps
    recipe = Recipe(optimizer="sgd", lr=2e-3, batch_size=8, target=60.0)
    states = {}
    found = fit(recipe=recipe, epochs=30, save=lambda run: states.setdefault(run.epoch, run.state()))
    taken = len(steps)
    assert found.history[-1]["rests"] and abs(found.history[-1]["clean"] - 60.0) <= training.NEAR
    assert len(found.history) < 10 and not any("rests" in entry for entry in found.history[:-1])
    assert taken < 10 * 32  # a full epoch has 32 steps
    resumed = fit(recipe=recipe, epochs=40, resume=states[10])
    assert len(steps) == taken and same(resumed.model.state_dict(), found.model.state_dict())


@pytest.mark.parametrize("clean, rests", [(59.4, False), (59.5, True), (60.5, True), (60.6, False)])
def test_near_a_target_is_within_half_a_point(monkeypatch, clean, rests):
    monkeypatch.setattr(training, "clean_accuracy", lambda *_: (clean, 0.0))
    (entry,) = fit(recipe=Recipe(batch_size=60, target=60.0)).history
    assert (entry["clean"], entry.get("rests", False)) == (clean, rests)


def test_a_target_out_of_reach_costs_nothing_but_looks():
    with_target = Recipe(**vars(ADAM) | {"target": 0.6})  # no share of so few is so near to 0, and the network learns
    assert same(fit(recipe=with_target, epochs=2).model.state_dict(), fit(epochs=2).model.state_dict())


# --- clean accuracy ---------------------------------------------------------------------------------------------------


class Chosen(nn.Module):
    """Gives image i, whose pixels are all i, the i-th row of the chosen logits."""

    def __init__(self, logits):
        super().__init__()
        self.register_buffer("logits", torch.as_tensor(logits, dtype=torch.float32))

    def forward(self, images):
        return self.logits[(images[:, 0, 0, 0] * 255).round().long()]


def numbered(labels: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    return images, torch.tensor(labels)


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
])  # fmt: skip
@pytest.mark.parametrize("level", [0.0, -3.0])
def test_saturated_means_above_one_minus_1e_7(margin, saturated, level):
    model = Chosen([row(4, margin, level)] * 3)
    assert training.clean_accuracy(model, *numbered([4, 4, 4])) == (100.0, saturated)


def test_a_network_sure_of_the_wrong_class_is_wrong_and_not_saturated():
    assert training.clean_accuracy(Chosen([row(4, 30.0)] * 2), *numbered([5, 5])) == (0.0, 0.0)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 500])
def test_shares_are_counted_over_all_images(batch_size):
    logits = [row(0, 20.0)] * 2 + [row(1, 10.0)] * 3 + [row(2, 20.0)] + [row(3, 5.0)] * 2
    labels = [0, 0, 1, 1, 1, 7, 3, 8]  # 2 saturated, 3 + 1 merely right, 1 + 1 wrong
    assert training.clean_accuracy(Chosen(logits), *numbered(labels), batch_size) == (75.0, 25.0)


@pytest.mark.parametrize("mode", [True, False])
def test_clean_accuracy_evaluates_without_dropout_and_leaves_the_mode(mode):
    model = nn.Sequential(Chosen([row(4, 10.0)] * 200), nn.Dropout(0.9)).train(mode)
    assert training.clean_accuracy(model, *numbered([4] * 200)) == (100.0, 0.0)
    assert [module.training for module in model.modules()] == [mode] * 3


# --- what is refused, before any step ---------------------------------------------------------------------------------


class Says(nn.Module):
    """Answers as `how` makes of Small's logits."""

    def __init__(self, how):
        super().__init__()
        self.net, self.how = Small(), how

    def forward(self, images):
        return self.how(self.net(images))


IMAGES, LABELS = torch.zeros(6, 1, 28, 28, dtype=torch.uint8), torch.arange(6)


@pytest.mark.parametrize("given, words", [
    ({"images": IMAGES.float()}, ["training images are torch.float32", "expected a tensor uint8 [N, C, H, W]"]),
    ({"images": IMAGES[:, 0]}, ["(6, 28, 28)", "uint8 [N, C, H, W]"]),
    ({"images": IMAGES[:0], "labels": LABELS[:0]}, ["(0, 1, 28, 28)", "N >= 1"]),
    ({"images": IMAGES.numpy()}, ["training images are a ndarray", "expected a tensor"]),
    ({"labels": LABELS.tolist()}, ["training labels are a list", "expected a tensor int64 [6]"]),
    ({"labels": LABELS.int()}, ["training labels are torch.int32", "int64 [6]"]),
    ({"labels": LABELS[:5]}, ["(5,)", "int64 [6]"]),
    ({"labels": LABELS - 1}, ["-1", "expected 0 to 9"]),
    ({"labels": LABELS + 5}, ["10", "expected 0 to 9"]),
    ({"test": (IMAGES, LABELS + 5)}, ["10", "expected 0 to 9"]),
    ({"test": (IMAGES.float(), LABELS)}, ["test images are torch.float32"]),
    ({"test": (IMAGES, LABELS[:3])}, ["test labels", "int64 [6]"]),
    ({"test": (IMAGES[:, :, :14], LABELS)}, ["(1, 28, 28) and (1, 14, 28)", "the same size"]),
    ({"seed": "a"}, ["seed is 'a'", "whole number"]),
    ({"seed": 1.5}, ["seed is 1.5", "whole number"]),
    ({"seed": None}, ["seed is None", "whole number"]),
    ({"seed": 2**70}, ["seed is 1180591620717411303424", "from 0 to 268435455"]),
    ({"save": "run.pt"}, ["save is 'run.pt'", "expected a function of the run"]),
    ({"recipe": Recipe(augment="no")}, ["augment is 'no'", "True or False"]),
    ({"epochs": 0}, ["epochs is 0", "1 or more"]),
    ({"epochs": 2.5}, ["epochs is 2.5", "whole number"]),
    ({"recipe": Recipe(target=80.0)}, ["80", "test"]),
    ({"model": Small}, ["torch.nn.Module"]),
    ({"defence": "mixup"}, ["defence is 'mixup'", "expected a Defence"]),
    ({"recipe": "adam"}, ["recipe is 'adam'", "expected a Recipe"]),
    ({"model": Says(lambda logits: (logits, logits))}, ["tuple", "logits [1, K]"]),
    ({"model": Says(lambda logits: logits[:, 0])}, ["(1,)", "logits"]),
    ({"model": Says(lambda logits: logits.softmax(1))}, ["answers with probabilities", "without its softmax"]),
])  # fmt: skip
def test_what_cannot_be_trained_gets_one_sentence(given, words, steps):
    usual = {"model": new(), "images": IMAGES, "labels": LABELS, "epochs": 1, "progress": False}
    with pytest.raises(ValueError) as caught:
        training.fit(**usual | given)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message
    assert not steps


@pytest.mark.parametrize("name, value", [
    ("optimizer", "lion"), ("lr", 0.0), ("lr", -1e-3), ("lr", float("nan")), ("lr", float("inf")), ("batch_size", 0),
    ("batch_size", 64.0), ("label_smoothing", 1.0), ("label_smoothing", -0.1), ("weight_decay", -1e-4),
    ("weight_decay", float("nan")), ("cycle", 0), ("cycle", 2.5), ("target", 0.0), ("target", 100.0), ("lr", "1e-3"),
])  # fmt: skip
def test_a_recipe_that_makes_no_sense(name, value):
    with pytest.raises(ValueError) as caught:
        Recipe(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} is {value!r}; expected") and "\n" not in message


@pytest.mark.parametrize("images, labels, words", [
    (IMAGES / 255, LABELS, "images are torch.float32 .* expected a tensor uint8"), (IMAGES[:0], LABELS[:0], "N >= 1"),
    (IMAGES, LABELS[:3], r"labels are torch.int64 of shape \(3,\)"),
])  # fmt: skip
def test_clean_accuracy_is_of_pixels_as_training_takes_them(images, labels, words):
    with pytest.raises(ValueError, match=words):
        training.clean_accuracy(new(), images, labels)


def test_a_frozen_network_is_refused():
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).requires_grad_(False)
    images, labels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0])
    with pytest.raises(ValueError, match="no parameter of the network requires a gradient"):
        training.fit(frozen, images, labels, epochs=1, progress=False)


def test_a_split_is_no_pair_of_tensors():
    sample = data.load("fashion-mnist-sample", train_size=20, test_size=10)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    with pytest.raises(ValueError, match=r"^test is a Split; expected a pair of tensors, \(images, labels\)"):
        training.fit(network, sample.train.images, sample.train.labels, epochs=1, test=sample.test, progress=False)
