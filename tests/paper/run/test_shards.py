"""An evaluation in parts: they merge to the result of the whole, in any order, after a kill, and beside each other."""

import functools
import random
import shutil
import signal

import pytest
import small_networks
import torch
from conftest import tiny_dataset
from small_networks import Small

from reprolib.attacks import slots
from reprolib.paper.plan import Attack, Evaluation, Trained
from reprolib.paper.run import evaluate, shards
from reprolib.paper.run.networks import Shelf
from reprolib.paper.run.store import Store

TRAINED = Trained(
    architecture="small", data="tiny", recipe={"optimizer": "adam", "lr": 3e-3, "batch_size": 60}, epochs=2
)
PGD = Attack(name="pgd", eps=0.08, alpha=0.01, steps=2, restarts=6)
IMAGES = 128

pytestmark = pytest.mark.usefixtures("architectures", "nothing_published")


@pytest.fixture(scope="module")
def trained(architectures, tiny, tmp_path_factory) -> Shelf:
    shelf = Shelf(tiny, Store(tmp_path_factory.mktemp("trained")))
    shelf.train(TRAINED, [2], progress=False)
    return shelf


@pytest.fixture
def shelf(trained, tmp_path) -> Shelf:
    shutil.copytree(trained.store.root, tmp_path / "store")
    return Shelf(trained.dataset, Store(tmp_path / "store"))


def asked(**fields) -> Evaluation:
    usual = {"network": TRAINED, "attack": PGD, "loss": "margin", "size": IMAGES, "decision": "any", "data": "tiny"}
    return Evaluation(**usual | fields)


def made(wanted: Evaluation, shelf: Shelf) -> evaluate.Outcome:
    evaluate.evaluate(wanted, shelf, progress=False)
    return evaluate.outcome(wanted, shelf)


def same(a: evaluate.Outcome, b: evaluate.Outcome) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("correct", "any_run", "last_run"))


def counted(monkeypatch) -> list[int]:
    """The number of images of each attack from now on."""
    seen, attacked = [], evaluate.attacked

    @functools.wraps(attacked)  # the code that evaluates is in the key
    def counting(model, evaluation, images, *more, **options):
        seen.append(len(images))
        return attacked(model, evaluation, images, *more, **options)

    monkeypatch.setattr(evaluate, "attacked", counting)
    return seen


AUTOATTACK = Attack(name="autoattack", eps=0.05, steps=2)


@pytest.mark.parametrize("wanted, count", [
    (asked(), 2), (asked(), 7), (asked(decision="last"), 3), (asked(attack=AUTOATTACK, loss="logits"), 3),
], ids=["any", "many", "last", "autoattack"])  # fmt: skip
def test_parts_in_any_order_merge_to_the_whole(wanted, count, shelf, trained, tmp_path, monkeypatch):
    shutil.copytree(trained.store.root, tmp_path / "whole")
    expected = made(wanted, Shelf(trained.dataset, Store(tmp_path / "whole")))
    name, seen = evaluate.name_of(wanted, shelf), counted(monkeypatch)
    parts = shards.names(name, count)
    for part in random.Random(count).sample(parts, count):
        evaluate.evaluate_part(wanted, shelf, part, progress=False)
    assert sum(seen) == IMAGES and len(seen) == count
    found = made(wanted, shelf)
    assert same(found, expected) and sum(seen) == IMAGES, "to put them together, nothing is computed"
    assert 0 < int((expected.any_run >= 0).sum()) < IMAGES
    assert {*found.meta} == {*expected.meta} and found.meta["calls"] > 0


def test_rows_of_the_parts_are_all_images_once():
    for size, count in ((128, 7), (10_000, 33), (5, 5)):
        rows = [shards.rows(name, size) for name in shards.names("evaluation/0a", count)]
        assert [i for part in rows for i in range(size)[part]] == list(range(size))
    assert shards.rows("evaluation/0a", 9) == slice(0, 9)


def evaluate_part_and_die(root, wanted, part):
    small_networks.register()
    slots.SAVE_EVERY = 0
    Small.fatal = 6
    evaluate.evaluate_part(wanted, Shelf(tiny_dataset(), Store(root), fresh=True), part, progress=False)


def test_a_killed_part_goes_on_and_whoever_wants_the_whole_makes_what_is_left(
    shelf, trained, tiny, processes, tmp_path, monkeypatch
):
    wanted = asked()
    shutil.copytree(trained.store.root, tmp_path / "whole")
    expected = made(wanted, Shelf(tiny, Store(tmp_path / "whole")))
    name = evaluate.name_of(wanted, shelf)
    first, second, third = shards.names(name, 3)
    evaluate.evaluate_part(wanted, shelf, third, progress=False)
    process = processes.Process(target=evaluate_part_and_die, args=(shelf.store.root, wanted, second))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert shelf.store.has(f"{second}-unfinished") and not shelf.store.has(second)
    seen = counted(monkeypatch)
    assert same(made(wanted, shelf), expected)
    assert sorted(seen) == [42, 43], "the first part and what was left of the second"
    assert not shelf.store.has(f"{second}-unfinished")
    shelf.store.path(first).unlink()
    evaluate.evaluate_part(wanted, shelf, first, progress=False)
    assert sorted(seen) == [42, 43], "a part of what is there is cut out of it"
    assert torch.equal(shelf.store.load(first)[0]["any_run"], expected.any_run[:42])


def test_parts_go_on_from_a_whole_that_was_interrupted(shelf, tmp_path, trained):
    """As a batch finds it that was planned with longer or fewer parts than the one before."""
    wanted, name = asked(), evaluate.name_of(asked(), shelf)
    shutil.copytree(trained.store.root, tmp_path / "whole")
    expected = made(wanted, Shelf(trained.dataset, Store(tmp_path / "whole")))
    done = {"correct": expected.correct, "any_run": expected.any_run, "last_run": expected.last_run}
    due = torch.full((IMAGES,), PGD.restarts, dtype=torch.int16)
    shelf.store.save(f"{name}-unfinished", done | {"next_run": due}, {**expected.meta, "calls": 640, "seconds": 64.0})
    parts = shards.names(name, 2)
    for part in parts:
        evaluate.evaluate_part(wanted, shelf, part, progress=False)
    assert [shelf.store.load(part)[1]["calls"] for part in parts] == [320, 320], "nothing was asked again"
    found = made(wanted, shelf)
    assert same(found, expected) and found.meta["calls"] == 640 and not shelf.store.has(f"{name}-unfinished")


@pytest.mark.parametrize("fields, seconds, count", [
    ({"size": 10_000}, shards.LONG - 1, 1),
    ({"size": 10_000}, 4.5 * shards.LONG, 5),
    ({"size": 10_000}, 1e9, 10_000 // shards.FEWEST),
    ({"size": 100}, 1e9, 1),
    ({"size": 10_000, "engine": "torchattacks", "decision": "last", "loss": "logits"}, 1e9, 1),
    ({"size": 10_000, "source": TRAINED, "decision": "last"}, 1e9, 1),
])  # fmt: skip
def test_only_what_is_long_and_can_be_split_is(fields, seconds, count):
    assert shards.count(asked(**fields), seconds) == count
