"""An attack on a checkpoint is run once, survives kill -9 with its finished runs, and its outcome is never stale."""

import os
import shutil
import signal
import threading
import time

import pytest
import torch
from conftest import tiny_dataset
from torch import nn

from reprolib import attacks, data, evaluation, models, probes, slots, training
from reprolib.evaluation import Outcome
from reprolib.specs import Attack, Column, Evaluation, Grid, Plan, Recipe, Settings, SpecError, Training
from reprolib.store import Store, StoreError

EPOCH = 2  # clean accuracy is high, and the attack below breaks some images at once, some later and most never
TRAINED = Training(dataset="tiny", model="small", optimizer="adam", lr=3e-3, batch_size=60)
PGD = Attack(name="pgd", eps=0.08, alpha=0.01, steps=2, restarts=6)
IMAGES, RUN = 128, PGD.steps + 1  # a run evaluates the network once more than it steps


class Small(nn.Module):
    """A small network that counts the images it is shown, and kills its process in the evaluation numbered `fatal`."""

    seen = 0
    evaluations = 0
    fatal = None

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 8, stride=2, padding=3), nn.ReLU(), nn.Conv2d(8, 8, 6, stride=2),
                                    nn.ReLU(), nn.Flatten(), nn.Linear(8 * 5 * 5, 10))

    def forward(self, images):
        Small.seen += len(images)
        Small.evaluations += 1
        if Small.evaluations == Small.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.layers(images)


@pytest.fixture(scope="module", autouse=True)
def networks():
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(models.BUILDERS, "small", Small)
        yield


@pytest.fixture(scope="module")
def trained(networks, tiny, tmp_path_factory) -> Store:
    """A store that holds the trained network and nothing else; copied, never written."""
    store = Store(tmp_path_factory.mktemp("trained"))
    training.train(TRAINED, [1, EPOCH], tiny, store, progress=False)
    return store


@pytest.fixture
def store(trained, tmp_path) -> Store:
    """The trained network in a store of the test's own; the network's counters start at 0."""
    shutil.copytree(trained.root, tmp_path / "store")
    Small.seen = Small.evaluations = 0
    return Store(tmp_path / "store")


def spec(**fields) -> Evaluation:
    usual = {"training": TRAINED, "epoch": EPOCH, "attack": PGD, "size": IMAGES, "decision": "any"}
    return Evaluation(**usual | fields)


def attacked(wanted: Evaluation, dataset: data.Dataset, store: Store) -> Outcome:
    evaluation.evaluate(wanted, dataset, store, progress=False)
    return evaluation.outcome(wanted, dataset, store)


def same(a: Outcome, b: Outcome) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("correct", "any_run", "last_run"))


# --- killed and resumed -------------------------------------------------------------------------------------------


def evaluate_and_die(root, wanted, fatal):
    models.BUILDERS["small"] = Small
    slots.SAVE_EVERY = 0
    Small.fatal = fatal
    evaluation.evaluate(wanted, tiny_dataset(), Store(root), progress=False)


def kill_during(processes, store: Store, wanted: Evaluation, fatal: int) -> None:
    process = processes.Process(target=evaluate_and_die, args=(store.root, wanted, fatal))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("decision", ["any", "last"])
@pytest.mark.parametrize("done, step", [(1, 0), (3, 1), (5, 2)])
def test_killed_in_the_middle_of_an_attack(decision, done, step, tiny, store, processes, tmp_path):
    wanted = spec(decision=decision)
    name = evaluation.artefact(wanted, tiny)
    shutil.copytree(store.root, tmp_path / "whole")
    whole = attacked(wanted, tiny, Store(tmp_path / "whole"))
    assert Small.seen == whole.calls
    assert {-1, 0} < set(whole.any_run.tolist()), "some images break at once, some later, some never"

    # the clean images are the first evaluation; then all images that are left go through their runs together
    kill_during(processes, store, wanted, fatal=1 + done * RUN + step + 1)
    assert not store.has(name)
    tensors, meta = store.load(f"{name}-unfinished")
    survivors = whole.any_run < 0
    assert tensors["next_run"][survivors].tolist() == [done] * int(survivors.sum())
    assert 0 < meta["calls"] < whole.calls

    Small.seen = 0
    resumed = attacked(wanted, tiny, store)
    assert same(resumed, whole)
    assert Small.seen == resumed.calls - meta["calls"] < whole.calls - done * int(survivors.sum()) * RUN
    assert 0 <= resumed.calls - whole.calls <= IMAGES * step, "only the runs in flight were lost"
    assert resumed.seconds >= meta["seconds"]
    assert not store.has(f"{name}-unfinished")
    assert [path.stem for path in store.path(name).parent.glob("*.safetensors")] == [store.path(name).stem]


def test_killed_before_anything_was_saved(tiny, store, processes, tmp_path):
    shutil.copytree(store.root, tmp_path / "whole")
    kill_during(processes, store, spec(), fatal=2)
    assert not store.has(f"{evaluation.artefact(spec(), tiny)}-unfinished")
    assert same(attacked(spec(), tiny, store), attacked(spec(), tiny, Store(tmp_path / "whole")))


def test_killed_again_and_again(tiny, store, processes, tmp_path):
    shutil.copytree(store.root, tmp_path / "whole")
    for _ in range(3):
        kill_during(processes, store, spec(), fatal=6)
    resumed, whole = attacked(spec(), tiny, store), attacked(spec(), tiny, Store(tmp_path / "whole"))
    assert same(resumed, whole)
    assert resumed.calls <= whole.calls + 3 * IMAGES * PGD.steps


def test_truncated_save_of_a_killed_attack_can_be_deleted_as_the_message_says(tiny, store, processes):
    kill_during(processes, store, spec(), fatal=11)
    unfinished = store.path(f"{evaluation.artefact(spec(), tiny)}-unfinished")
    unfinished.write_bytes(unfinished.read_bytes()[:-10])
    with pytest.raises(StoreError) as caught:
        evaluation.evaluate(spec(), tiny, store, progress=False)
    assert str(unfinished) in str(caught.value) and "delete that file and run again" in str(caught.value)
    unfinished.unlink()
    assert attacked(spec(), tiny, store).robust().any()


# --- once, and under the right address ----------------------------------------------------------------------------


def test_second_time_computes_nothing(tiny, store, monkeypatch):
    first = attacked(spec(), tiny, store)
    assert Small.seen == first.calls > 0
    path = store.path(evaluation.artefact(spec(), tiny))
    before = path.stat().st_mtime_ns

    def refuse(*_):
        raise AssertionError("the network was evaluated again")

    monkeypatch.setattr(Small, "forward", refuse)
    assert same(attacked(spec(), tiny, store), first)
    assert path.stat().st_mtime_ns == before


def test_what_the_store_says_about_an_attack(tiny, store):
    found = attacked(spec(size=50, decision="last"), tiny, store)
    assert all(len(tensor) == 50 for tensor in (found.correct, found.any_run, found.last_run))
    assert found.correct.dtype == torch.bool
    assert found.seconds > 0 and "CPU" in found.device
    assert torch.all(found.any_run[~found.correct] == 0), "a clean error counts as broken in run 0"
    assert torch.all((found.last_run < 0) | ((found.any_run >= 0) & (found.any_run <= found.last_run)))
    model = training.checkpoint(TRAINED, EPOCH, tiny, store).model
    with torch.no_grad():
        logits = model(tiny.test.images[:50].float() / 255)
    assert torch.equal(found.correct, logits.argmax(1) == tiny.test.labels[:50])


def test_fewer_images_are_the_first_of_more(tiny, store):
    few, many = attacked(spec(size=40), tiny, store), attacked(spec(), tiny, store)
    assert same(few, Outcome(many.correct[:40], many.any_run[:40], many.last_run[:40], 0, 0, ""))


def test_ifgsm_and_pgd_without_restarts_share_one_artefact(tiny, store):
    ifgsm = spec(attack=Attack(name="ifgsm", eps=0.08, alpha=0.01, steps=2))
    pgd = spec(attack=Attack(name="pgd", eps=0.08, alpha=0.01, steps=2, restarts=0))
    assert evaluation.artefact(ifgsm, tiny) == evaluation.artefact(pgd, tiny)
    attacked(ifgsm, tiny, store)
    seen = Small.seen
    evaluation.evaluate(pgd, tiny, store, progress=False)
    assert Small.seen == seen


def test_every_part_of_an_evaluation_is_in_its_address(tiny):
    logits = spec(attack=Attack(**PGD.content() | {"loss": "logits"}), decision="last")
    seeded = TRAINED.model_copy(update={"seed": 1})
    others = [
        spec(), spec(epoch=1), spec(size=127), spec(seed=1), spec(decision="last"), logits,
        logits.model_copy(update={"engine": "torchattacks"}), spec(training=seeded),
        spec(training=TRAINED.model_copy(update={"lr": 1e-3})),
        spec(training=Training(**TRAINED.content() | {"parent": TRAINED, "parent_epoch": 1})),
        spec(training=Training(**TRAINED.content() | {"parent": seeded, "parent_epoch": 1})),
        *(spec(attack=Attack(**PGD.content() | {field: value})) for field, value in
          (("eps", 0.07), ("alpha", 0.02), ("steps", 3), ("restarts", 5), ("loss", "probabilities"))),
    ]
    names = [evaluation.artefact(other, tiny) for other in others]
    assert len(set(names)) == len(names)
    assert evaluation.artefact(spec(), tiny) == names[0]
    assert evaluation.artefact(spec(), tiny_dataset(train=255, test=129)) not in names


def test_checkpoints_code_is_in_the_address_of_an_attack_on_it(tiny, monkeypatch):
    before = evaluation.artefact(spec(), tiny)
    monkeypatch.setattr(training, "CODE", training.CODE[:1])
    assert evaluation.artefact(spec(), tiny) != before


# --- outcomes -----------------------------------------------------------------------------------------------------


OUTCOME = Outcome(correct=torch.tensor([False, True, True, True, True]),
                  any_run=torch.tensor([0, -1, 0, 1, 3], dtype=torch.int16),
                  last_run=torch.tensor([0, -1, 2, -1, 3], dtype=torch.int16), calls=0, seconds=0, device="CPU")


@pytest.mark.parametrize("decision, runs, robust", [
    ("any", None, [0, 1, 0, 0, 0]),
    ("any", 4, [0, 1, 0, 0, 0]),
    ("any", 3, [0, 1, 0, 0, 1]),
    ("any", 1, [0, 1, 0, 1, 1]),
    ("any", 0, [0, 1, 1, 1, 1]),  # no run: what is left is the clean accuracy
    ("last", None, [0, 1, 0, 1, 0]),
    ("last", 3, [0, 1, 0, 1, 1]),
    ("last", 2, [0, 1, 1, 1, 1]),
])
def test_robust(decision, runs, robust):
    assert OUTCOME.robust(decision, runs).tolist() == [bool(value) for value in robust]


def test_robust_is_by_default_the_sound_rule_over_all_runs():
    assert torch.equal(OUTCOME.robust(), OUTCOME.robust("any", None))


def test_first_runs_of_many_are_an_attack_of_fewer_runs(tiny, store):
    """So restarts need not be attacked again to see what fewer of them would have found."""
    six = attacked(spec(), tiny, store)
    two = attacked(spec(attack=Attack(**PGD.content() | {"restarts": 2})), tiny, store)
    assert torch.equal(six.robust(runs=2), two.robust())
    assert int(six.robust().sum()) < int(six.robust(runs=1).sum())


# --- the other engine ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [
    Attack(name="fgsm", eps=0.05, loss="logits"),
    Attack(name="ifgsm", eps=0.05, alpha=0.01, steps=4, loss="logits"),
], ids=["fgsm", "ifgsm"])
def test_torchattacks_finds_the_same(attack, tiny, store):
    pytest.importorskip("torchattacks")
    ours = attacked(spec(attack=attack, decision="last"), tiny, store)
    theirs = attacked(spec(attack=attack, decision="last", engine="torchattacks"), tiny, store)
    assert torch.equal(ours.correct, theirs.correct) and torch.equal(ours.last_run, theirs.last_run)
    assert 0 < int(ours.robust("last").sum()) < int(ours.correct.sum())


@pytest.mark.parametrize("loss, decision", [("margin", "last"), ("probabilities", "last"), ("logits", "any")])
def test_torchattacks_is_refused_where_it_has_no_answer(loss, decision):
    with pytest.raises(SpecError, match="torchattacks.*choose engine 'reprolib'"):
        spec(attack=Attack(**PGD.content() | {"loss": loss}), decision=decision, engine="torchattacks")


@pytest.mark.parametrize("fatal", [3, 9])
def test_torchattacks_can_be_killed_too(fatal, tiny, store, processes, tmp_path):
    pytest.importorskip("torchattacks")
    wanted = spec(attack=Attack(**PGD.content() | {"loss": "logits"}), decision="last", engine="torchattacks")
    shutil.copytree(store.root, tmp_path / "whole")
    kill_during(processes, store, wanted, fatal)
    assert same(attacked(wanted, tiny, store), attacked(wanted, tiny, Store(tmp_path / "whole")))


# --- transfer -----------------------------------------------------------------------------------------------------


def transferred(**fields) -> Evaluation:
    return spec(decision="last", source=TRAINED, source_epoch=1, **fields)


def networks_of(store: Store, tiny) -> dict[int, nn.Module]:
    return {epoch: training.checkpoint(TRAINED, epoch, tiny, store).model for epoch in (1, EPOCH)}


def test_a_transfer_attack_shows_what_was_made_on_the_source(tiny, store):
    strong = PGD.model_copy(update={"eps": 0.3, "alpha": 0.1, "steps": 5})
    found, nets = attacked(transferred(attack=strong), tiny, store), networks_of(store, tiny)
    attack = attacks.pgd(nets[1], 0.3, 0.1, 5, PGD.restarts, loss="margin", decision="last")
    images, labels = tiny.test.images[:IMAGES].float() / 255, tiny.test.labels[:IMAGES]
    assert torch.equal(found.robust("last"), probes.transfer(nets[EPOCH], attack, images, labels))
    assert 0 < int(found.robust("last").sum()) < int(found.correct.sum())


def test_transfer_to_the_source_itself_is_the_attack(tiny, store):
    to_itself = attacked(transferred(epoch=1), tiny, store)
    assert torch.equal(to_itself.robust("last"), attacked(spec(epoch=1, decision="last"), tiny, store).robust("last"))


def test_adversarial_images_are_made_once_for_all_networks_and_after_a_kill_not_again(tiny, store, processes, monkeypatch):
    monkeypatch.setattr(evaluation, "CHUNK", 50)
    attacked(transferred(), tiny, store)
    first = Small.seen
    attacked(transferred(epoch=1), tiny, store)
    assert Small.seen - first == 2 * IMAGES, "the clean images and the adversarial ones, once each"
    parts = sorted((store.root / "adversarial").rglob("*.safetensors"))
    assert [path.stem for path in parts] == ["000000", "000050", "000100"]
    store.path(evaluation.artefact(transferred(), tiny)).unlink()
    parts[-1].unlink()  # as a killed process leaves it
    before = Small.seen
    attacked(transferred(), tiny, store)
    assert Small.seen - before < first - 50


def test_who_wants_the_same_adversarial_images_makes_what_nobody_else_is_making(tiny, store, monkeypatch):
    monkeypatch.setattr(evaluation, "CHUNK", 50)
    parts = [f"{evaluation.artefact(transferred().crafting(), tiny).replace('evaluation', 'adversarial')}/{start:06d}"
             for start in (0, 50, 100)]
    worker = threading.Thread(target=evaluation.evaluate, args=(transferred(), tiny, store), kwargs={"progress": False})
    with store.lock(parts[0]):  # as another process that is at work on it
        worker.start()
        deadline = time.monotonic() + 60
        while not all(map(store.has, parts[1:])) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [store.has(part) for part in parts] == [False, True, True] and worker.is_alive()
    worker.join(60)
    assert all(map(store.has, parts)) and store.has(evaluation.artefact(transferred(), tiny))


@pytest.mark.parametrize("changed", [{"source_epoch": EPOCH}, {"source": TRAINED.model_copy(update={"seed": 1})}])
def test_the_source_is_in_the_address(changed, tiny):
    names = {evaluation.artefact(other, tiny)
             for other in (spec(decision="last"), transferred(), transferred().model_copy(update=changed))}
    assert len(names) == 3


@pytest.mark.parametrize("fields, part", [
    ({"source_epoch": None}, "come together"), ({"decision": "any"}, "decision is 'last'"),
])
def test_impossible_transfer(fields, part):
    with pytest.raises(SpecError, match=part):
        Evaluation(**transferred().model_dump() | {"training": TRAINED, "attack": PGD, "source": TRAINED} | fields)


# --- missing, damaged, unwritable ---------------------------------------------------------------------------------


def one_sentence(caught) -> str:
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def test_outcome_of_an_attack_that_was_not_run(tiny, store):
    with pytest.raises(StoreError) as caught:
        evaluation.outcome(spec(), tiny, store)
    message = one_sentence(caught)
    assert evaluation.artefact(spec(), tiny) in message and str(store.root) in message
    assert "run the training or evaluation first" in message


def test_attack_on_a_network_that_was_not_trained(tiny, store):
    with pytest.raises(StoreError) as caught:
        evaluation.evaluate(spec(epoch=7), tiny, store, progress=False)
    assert "epoch-0007" in one_sentence(caught)
    assert not store.has(evaluation.artefact(spec(epoch=7), tiny))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_checkpoint(share, tiny, store, trained):
    first = attacked(spec(epoch=1, size=20), tiny, store)
    path = store.path(f"{training.artefact(TRAINED, tiny)}/epoch-{EPOCH:04d}")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(StoreError) as caught:
        evaluation.evaluate(spec(), tiny, store, progress=False)
    message = one_sentence(caught)
    assert str(path) in message and "delete that file and run again" in message
    assert not store.has(evaluation.artefact(spec(), tiny))
    assert same(evaluation.outcome(spec(epoch=1, size=20), tiny, store), first), "nothing else is lost"

    path.unlink()
    training.train(TRAINED, [EPOCH], tiny, store, progress=False)
    shutil.copytree(trained.root, store.root.parent / "whole")
    assert same(attacked(spec(), tiny, store), attacked(spec(), tiny, Store(store.root.parent / "whole")))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_outcome_can_be_deleted_as_the_message_says(share, tiny, store):
    first = attacked(spec(), tiny, store)
    path = store.path(evaluation.artefact(spec(), tiny))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(StoreError) as caught:
        evaluation.outcome(spec(), tiny, store)
    message = one_sentence(caught)
    assert str(path) in message and "delete that file and run again" in message
    path.unlink()
    assert same(attacked(spec(), tiny, store), first)


def test_outcome_that_was_altered_is_noticed(tiny, store):
    attacked(spec(), tiny, store)
    path = store.path(evaluation.artefact(spec(), tiny))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="does not match its own checksum"):
        evaluation.outcome(spec(), tiny, store)


def test_store_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError) as caught:
        evaluation.evaluate(spec(), tiny, Store(tmp_path / "file" / "store"), progress=False)
    message = one_sentence(caught)
    assert str(tmp_path / "file") in message and "REPROLIB_STORE" in message


def test_disk_that_is_full_at_the_end_of_an_attack(tiny, store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left on device"):
            evaluation.evaluate(spec(), tiny, store, progress=False)
    assert not store.has(evaluation.artefact(spec(), tiny))
    assert attacked(spec(), tiny, store).robust().any()


# --- whole plans --------------------------------------------------------------------------------------------------


@pytest.fixture
def plan() -> Plan:
    """Two networks, one attack, two losses; run here on the tiny data set."""
    recipe = Recipe(optimizer="adam", lr=3e-3, batch_size=60)
    columns = {"undefended": Column(copies="none"), "no patches": Column(copies="unmodified")}
    grid = Grid(table="T6", dataset="fashion-mnist", model="small", pretraining=recipe, finetuning=recipe,
                columns=columns, attacks=["FGSM"], losses=["margin", "logits"])
    return Plan(grid, Settings(test_size=20, pretrain_epochs=1, finetune_epochs=1))


def test_a_plan_does_what_is_missing_and_nothing_twice(plan, tiny, tmp_path, capfd):
    store = Store(tmp_path / "store")
    evaluation.run_plan(plan, tiny, store, progress=False)
    outcomes = [evaluation.outcome(job.evaluation, tiny, store) for job in plan.jobs]
    assert len(outcomes) == 4 and all(len(found.correct) == 20 for found in outcomes)

    Small.seen = 0
    evaluation.run_plan(plan, tiny, store, progress=False)
    assert Small.seen == 0

    store.path(evaluation.artefact(plan.jobs[-1].evaluation, tiny)).unlink()
    evaluation.run_plan(plan, tiny, store, progress=False)
    assert Small.seen == outcomes[-1].calls
    assert same(evaluation.outcome(plan.jobs[-1].evaluation, tiny, store), outcomes[-1])
    assert capfd.readouterr() == ("", "")


def test_progress_can_be_seen(plan, tiny, tmp_path, capfd):
    evaluation.run_plan(plan, tiny, Store(tmp_path / "store"))
    shown = capfd.readouterr().err
    assert "trainings: 100%" in shown and "attacks: 100%" in shown


def test_the_plans_data(plan):
    dataset = evaluation.load_dataset(plan)
    assert dataset.name == plan.dataset == "fashion-mnist-sample"
    assert len(dataset.train) == plan.train_size == plan.settings.train_size and len(dataset.test) == 1000
