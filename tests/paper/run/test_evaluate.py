"""An attack on a network is run once, survives kill -9 with its finished runs, and its outcome is never stale."""

import errno
import os
import shutil
import signal
import threading
import time

import pytest
import safetensors.torch
import small_networks
import torch
from conftest import tiny_dataset
from small_networks import Normalised, Small, new
from torch import nn

from reprolib import attacks, data
from reprolib.attacks import slots
from reprolib.networks.quantized import quantized
from reprolib.networks.voted import Vote
from reprolib.paper.files import StoreError
from reprolib.paper.plan import Attack, Changed, Evaluation, Pretrained, Trained, Voted
from reprolib.paper.run import evaluate, keys, origin
from reprolib.paper.run.evaluate import Outcome, name_of, outcome
from reprolib.paper.run.networks import Shelf
from reprolib.paper.run.store import Store

TRAINED = Trained(
    architecture="small",
    data="tiny",
    recipe={"optimizer": "adam", "lr": 3e-3, "batch_size": 60},
    epochs=2,  # clean accuracy is high, and the attack below breaks some images at once, some later and most never
)
EARLIER = TRAINED.model_copy(update={"epochs": 1})
PGD = Attack(name="pgd", eps=0.08, alpha=0.01, steps=2, restarts=6)
IMAGES, RUN = 128, 3  # a run evaluates the network once more than it steps

pytestmark = pytest.mark.usefixtures("architectures", "nothing_published")


@pytest.fixture(scope="module")
def trained(architectures, tiny, tmp_path_factory) -> Shelf:
    """A store that holds the trained network and nothing else; copied, never written."""
    shelf = Shelf(tiny, Store(tmp_path_factory.mktemp("trained")))
    shelf.train(TRAINED, [1, 2], progress=False)
    return shelf


def copied(shelf: Shelf, root) -> Shelf:
    shutil.copytree(shelf.store.root, root)
    return Shelf(shelf.dataset, Store(root))


@pytest.fixture
def shelf(trained, tmp_path) -> Shelf:
    """The trained network in a store of the test's own; the network's counters start at 0."""
    found = copied(trained, tmp_path / "store")
    Small.seen = Small.calls = 0
    return found


def asked(**fields) -> Evaluation:
    usual = {"network": TRAINED, "attack": PGD, "loss": "margin", "size": IMAGES, "decision": "any", "data": "tiny"}
    return Evaluation(**usual | fields)


def attacked(wanted: Evaluation, shelf: Shelf) -> Outcome:
    evaluate.evaluate(wanted, shelf, progress=False)
    return outcome(wanted, shelf)


def same(a: Outcome, b: Outcome) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("correct", "any_run", "last_run"))


# --- killed and resumed -----------------------------------------------------------------------------------------------


def evaluate_and_die(root, wanted, fatal):
    small_networks.register()
    slots.SAVE_EVERY = 0
    Small.fatal = fatal
    evaluate.evaluate(wanted, Shelf(tiny_dataset(), Store(root), fresh=True), progress=False)


def kill_during(processes, shelf: Shelf, wanted: Evaluation, fatal: int) -> None:
    process = processes.Process(target=evaluate_and_die, args=(shelf.store.root, wanted, fatal))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("decision, done, step", [("any", 1, 0), ("any", 3, 1), ("last", 3, 2), ("last", 5, 1)])
@pytest.mark.slow
def test_killed_in_the_middle_of_an_attack(decision, done, step, shelf, processes, tmp_path):
    wanted = asked(decision=decision)
    name = name_of(wanted, shelf)
    whole = attacked(wanted, copied(shelf, tmp_path / "whole"))
    assert Small.seen == whole.meta["calls"]
    assert {-1, 0} < set(whole.any_run.tolist()), "some images break at once, some later, some never"

    # the clean images are the first evaluation; then all images that are left go through their runs together
    kill_during(processes, shelf, wanted, fatal=1 + done * RUN + step + 1)
    assert not shelf.store.has(name)
    tensors, meta = shelf.store.load(f"{name}-unfinished")
    survivors = whole.any_run < 0
    assert tensors["next_run"][survivors].tolist() == [done] * int(survivors.sum())
    assert 0 < meta["calls"] < whole.meta["calls"]

    Small.seen = 0
    resumed = attacked(wanted, shelf)
    calls = resumed.meta["calls"]
    assert same(resumed, whole)
    assert Small.seen == calls - meta["calls"] < whole.meta["calls"] - done * int(survivors.sum()) * RUN
    assert 0 <= calls - whole.meta["calls"] <= IMAGES * step, "only the runs in flight were lost"
    assert resumed.meta["seconds"] >= meta["seconds"]
    assert [path.stem for path in shelf.store.path(name).parent.glob("*.safetensors")] == [shelf.store.path(name).stem]


def test_killed_before_anything_was_saved(shelf, processes, tmp_path):
    whole = attacked(asked(), copied(shelf, tmp_path / "whole"))
    kill_during(processes, shelf, asked(), fatal=2)
    assert not shelf.store.has(f"{name_of(asked(), shelf)}-unfinished")
    assert same(attacked(asked(), shelf), whole)


@pytest.mark.slow
def test_killed_again_and_again(shelf, processes, tmp_path):
    whole = attacked(asked(), copied(shelf, tmp_path / "whole"))
    for _ in range(3):
        kill_during(processes, shelf, asked(), fatal=6)
    resumed = attacked(asked(), shelf)
    assert same(resumed, whole)
    assert resumed.meta["calls"] <= whole.meta["calls"] + 3 * IMAGES * PGD.get("steps")


def test_truncated_save_of_a_killed_attack_can_be_deleted_as_the_message_says(shelf, processes):
    kill_during(processes, shelf, asked(), fatal=11)
    unfinished = shelf.store.path(f"{name_of(asked(), shelf)}-unfinished")
    unfinished.write_bytes(unfinished.read_bytes()[:-10])
    with pytest.raises(StoreError) as caught:
        evaluate.evaluate(asked(), shelf, progress=False)
    assert str(unfinished) in str(caught.value) and "delete that file and run again" in str(caught.value)
    unfinished.unlink()
    assert attacked(asked(), shelf).robust().any()


# --- once, and under the right name -----------------------------------------------------------------------------------


def test_second_time_computes_nothing(shelf, monkeypatch):
    first = attacked(asked(), shelf)
    assert Small.seen == first.meta["calls"] > 0
    path = shelf.store.path(name_of(asked(), shelf))
    before = path.stat().st_mtime_ns

    def refuse(*_):
        raise AssertionError("the network was evaluated again")

    monkeypatch.setattr(Small, "forward", refuse)
    assert same(attacked(asked(), shelf), first)
    assert path.stat().st_mtime_ns == before


def test_what_the_store_says_about_an_attack(shelf, tiny):
    found = attacked(asked(size=50, decision="last"), shelf)
    assert all(len(tensor) == 50 for tensor in (found.correct, found.any_run, found.last_run))
    assert found.correct.dtype == torch.bool
    made = {name: found.meta[name] for name in ("commit", "dirty", "torch", "device")}
    assert made == origin.stamp(torch.device("cpu")) and found.meta["seconds"] > 0
    assert torch.all(found.any_run[~found.correct] == 0), "a clean error counts as broken in run 0"
    assert torch.all((found.last_run < 0) | ((found.any_run >= 0) & (found.any_run <= found.last_run)))
    with torch.no_grad():
        logits = shelf.load(TRAINED)(tiny.test.images[:50].float() / 255)
    assert torch.equal(found.correct, logits.argmax(1) == tiny.test.labels[:50])


def test_fewer_images_are_the_first_of_more(shelf):
    few, many = attacked(asked(size=40), shelf), attacked(asked(), shelf)
    assert same(few, Outcome(many.correct[:40], many.any_run[:40], many.last_run[:40], {}))


def test_attacks_that_are_one_computation_share_one_artefact(shelf):
    ifgsm = asked(attack=Attack(name="ifgsm", eps=0.08, alpha=0.01, steps=2))
    pgd = asked(attack=Attack(name="pgd", eps=0.08, alpha=0.01, steps=2, restarts=0))
    assert name_of(ifgsm, shelf) == name_of(pgd, shelf)
    attacked(ifgsm, shelf)
    seen = Small.seen
    evaluate.evaluate(pgd, shelf, progress=False)
    assert Small.seen == seen


def test_every_part_of_an_evaluation_is_in_its_name(shelf):
    logits = asked(loss="logits", decision="last")
    others = [
        asked(), asked(network=EARLIER), asked(size=127), asked(seed=1), asked(decision="last"), logits,
        asked(loss="logits", decision="last", engine="torchattacks"), asked(loss="probabilities"),
        *(asked(network=Trained(**TRAINED.content() | fields)) for fields in
          ({"seed": 1}, {"recipe": {"lr": 1e-3}}, {"parent": TRAINED}, {"parent": EARLIER})),
        *(asked(attack=PGD.but(**{name: value})) for name, value in
          (("eps", 0.07), ("alpha", 0.02), ("steps", 3), ("restarts", 5), ("bfloat16", True))),
        asked(attack=Attack(name="autoattack", eps=0.08), loss="logits"),
        asked(attack=Attack(name="square", eps=0.08), loss="logits"),
        asked(network=Voted(members=[TRAINED, EARLIER])), asked(network=Voted(members=[EARLIER, TRAINED])),
        asked(network=Voted(members=[TRAINED, EARLIER], voting="soft")),
        *(asked(network=Changed(network=TRAINED, change={"name": "high_frequency", "rho": rho})) for rho in (0.1, 0.2)),
    ]  # fmt: skip
    names = [name_of(other, shelf) for other in others]
    assert len(set(names)) == len(names)
    assert name_of(asked(), shelf) == names[0]
    assert name_of(asked(), Shelf(tiny_dataset(train=255, test=129), shelf.store)) not in names


@pytest.mark.parametrize("slots", [1, 7, 500])
def test_what_changes_no_result_is_in_no_name(shelf, slots):
    assert name_of(asked(attack=PGD.but(slots=slots)), shelf) == name_of(asked(), shelf)


CODE = {
    "attacked": [keys.entry(evaluate.attacked), keys.entry(attacks.LinfAttack), "reprolib.streams:uniform",
                 "small_networks:Small", "reprolib.networks.cpu.folding:folded", "reprolib.training:Run"],
    "shown": [keys.entry(evaluate.shown), keys.entry(attacks.is_right)],
}  # fmt: skip


@pytest.mark.parametrize("place", [*CODE["attacked"], *CODE["shown"]])
def test_the_code_that_evaluates_is_in_the_name(shelf, place, monkeypatch):
    both = asked(decision="last"), asked(decision="last", source=EARLIER)
    before = [name_of(one, shelf) for one in both]
    usual = keys.definitions
    monkeypatch.setattr(
        keys, "definitions", lambda *entries: {k: v + " " * (k == place) for k, v in usual(*entries).items()}
    )
    keys.code_digest.cache_clear()
    after = [name_of(one, shelf) for one in both]
    keys.code_digest.cache_clear()
    assert after[1] != before[1]
    assert (after[0] != before[0]) == (place in CODE["attacked"]), "what shows adversarial images matters there alone"


def test_an_architectures_answers_are_in_the_name_of_an_attack_on_a_published_network(shelf, monkeypatch):
    """Its weights are what they are; but what they answer is today's code."""
    usual, names = keys.definitions, set()
    monkeypatch.setattr(Shelf, "identity", lambda self, network: "published/0123")
    for place in ("nothing", "small_networks:Small"):
        monkeypatch.setattr(
            keys, "definitions",
            lambda *entries, place=place: {k: v + " " * (k == place) for k, v in usual(*entries).items()},
        )  # fmt: skip
        keys.code_digest.cache_clear()
        names.add(name_of(asked(), shelf))
    keys.code_digest.cache_clear()
    assert len(names) == 2


def test_the_torch_version_is_in_the_name(shelf, monkeypatch):
    before = name_of(asked(), shelf)
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    assert name_of(asked(), shelf) != before


# --- outcomes ---------------------------------------------------------------------------------------------------------


OUTCOME = Outcome(
    correct=torch.tensor([False, True, True, True, True]),
    any_run=torch.tensor([0, -1, 0, 1, 3], dtype=torch.int16),
    last_run=torch.tensor([0, -1, 2, -1, 3], dtype=torch.int16),
    meta={},
)


@pytest.mark.parametrize("decision, runs, robust", [
    ("any", None, [0, 1, 0, 0, 0]), ("any", 4, [0, 1, 0, 0, 0]), ("any", 3, [0, 1, 0, 0, 1]),
    ("any", 1, [0, 1, 0, 1, 1]), ("last", None, [0, 1, 0, 1, 0]), ("last", 3, [0, 1, 0, 1, 1]),
    ("last", 2, [0, 1, 1, 1, 1]),
])  # fmt: skip
def test_robust(decision, runs, robust):
    assert OUTCOME.robust(decision, runs).tolist() == [bool(value) for value in robust]


def test_robust_is_by_default_the_sound_rule_over_all_runs():
    assert torch.equal(OUTCOME.robust(), OUTCOME.robust("any", None))


def test_first_runs_of_many_are_an_attack_of_fewer_runs(shelf):
    """So restarts need not be attacked again to see what fewer of them would have found."""
    six, two = attacked(asked(), shelf), attacked(asked(attack=PGD.but(restarts=2)), shelf)
    assert torch.equal(six.robust(runs=2), two.robust())
    assert int(six.robust().sum()) < int(six.robust(runs=1).sum())


# --- the other engine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [
    Attack(name="fgsm", eps=0.05), Attack(name="ifgsm", eps=0.05, alpha=0.01, steps=4),
], ids=["fgsm", "ifgsm"])  # fmt: skip
def test_torchattacks_finds_the_same(attack, shelf):
    ours = attacked(asked(attack=attack, loss="logits", decision="last"), shelf)
    theirs = attacked(asked(attack=attack, loss="logits", decision="last", engine="torchattacks"), shelf)
    assert torch.equal(ours.correct, theirs.correct) and torch.equal(ours.last_run, theirs.last_run)
    assert 0 < int(ours.robust("last").sum()) < int(ours.correct.sum())


@pytest.mark.slow
def test_torchattacks_can_be_killed_too(shelf, processes, tmp_path):
    wanted = asked(loss="logits", decision="last", engine="torchattacks")
    whole = attacked(wanted, copied(shelf, tmp_path / "whole"))
    kill_during(processes, shelf, wanted, fatal=9)
    assert same(attacked(wanted, shelf), whole)


# --- transfer ---------------------------------------------------------------------------------------------------------


def transferred(**fields) -> Evaluation:
    return asked(decision="last", source=EARLIER, **fields)


def test_a_transfer_attack_shows_what_was_made_on_the_source(shelf, tiny):
    found = attacked(transferred(attack=PGD.but(eps=0.3, alpha=0.1, steps=5)), shelf)
    attack = attacks.pgd(shelf.load(EARLIER), 0.3, 0.1, 5, 6, loss="margin", decision="last")
    images, labels = tiny.test.images.float() / 255, tiny.test.labels
    assert torch.equal(found.robust("last"), attacks.transfer(shelf.load(TRAINED), attack, images, labels))
    assert torch.equal(found.any_run, found.last_run)
    assert 0 < int(found.robust("last").sum()) < int(found.correct.sum())
    assert found.meta["calls"] == 2 * IMAGES and found.meta["commit"] == origin.code()["commit"]


def test_transfer_to_the_source_itself_is_the_attack(shelf):
    to_itself = attacked(transferred(network=EARLIER), shelf)
    attack = attacked(asked(network=EARLIER, decision="last"), shelf)
    assert torch.equal(to_itself.robust("last"), attack.robust("last"))


def test_adversarial_images_are_made_once_for_all_networks_and_after_a_kill_not_again(shelf, monkeypatch):
    monkeypatch.setattr(evaluate, "CHUNK", 50)
    attacked(transferred(), shelf)
    first = Small.seen
    attacked(transferred(network=EARLIER), shelf)
    assert Small.seen - first == 2 * IMAGES, "the clean images and the adversarial ones, once each"
    parts = sorted((shelf.store.root / "adversarial").rglob("*.safetensors"))
    assert [path.stem for path in parts] == ["000000", "000050", "000100"]
    shelf.store.path(name_of(transferred(), shelf)).unlink()
    parts[-1].unlink()  # as a killed process leaves it
    before = Small.seen
    attacked(transferred(), shelf)
    assert Small.seen - before < first - 50


def test_chunks_change_no_result(shelf, tmp_path, monkeypatch):
    other = copied(shelf, tmp_path / "other")
    whole = attacked(transferred(), other)
    monkeypatch.setattr(evaluate, "CHUNK", 50)
    assert same(attacked(transferred(), shelf), whole)


def test_who_wants_the_same_adversarial_images_makes_what_nobody_else_is_making(shelf, monkeypatch):
    monkeypatch.setattr(evaluate, "CHUNK", 50)
    crafted = name_of(transferred().crafting(), shelf).replace("evaluation", "adversarial")
    parts = [f"{crafted}/{start:06d}" for start in (0, 50, 100)]
    worker = threading.Thread(target=evaluate.evaluate, args=(transferred(), shelf), kwargs={"progress": False})
    with shelf.store.lock(parts[0]):  # as another process that is at work on it
        worker.start()
        deadline = time.monotonic() + 60
        while not all(map(shelf.store.has, parts[1:])) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [shelf.store.has(part) for part in parts] == [False, True, True] and worker.is_alive()
    worker.join(60)
    assert all(map(shelf.store.has, parts)) and shelf.store.has(name_of(transferred(), shelf))


@pytest.mark.parametrize("network", [EARLIER, TRAINED], ids=["itself", "another"])
def test_without_true_labels_it_goes_away_from_what_the_source_predicts(network, shelf, tiny):
    """By hand; and what it pushes into the true class counts as right, as in EMPIR's code."""
    attack = PGD.but(eps=0.05, alpha=0.02, steps=5, restarts=1)
    found = attacked(transferred(network=network, labels="predicted", attack=attack, loss="logits"), shelf)
    images, labels = tiny.test.images.float() / 255, tiny.test.labels
    source, network, is_source = shelf.load(EARLIER), shelf.load(network), network == EARLIER
    with torch.no_grad():
        told = source(images).argmax(1)
    assert not torch.equal(told, labels)
    attack = attacks.pgd(source, 0.05, 0.02, 5, 1, loss="logits", decision="last")
    made = attack.run(images, told).adversarial
    assert torch.equal(found.last_run < 0, attacks.is_right(network, made, labels))
    assert torch.equal(found.correct, attacks.is_right(network, images, labels))
    came_right = (found.last_run < 0) & ~found.correct
    assert came_right.any() or not is_source
    assert not torch.equal(made, attack.run(images, labels).adversarial), "which true labels would not have made"


def test_what_the_attack_is_told_is_in_both_names(shelf):
    true, predicted = transferred(), transferred(labels="predicted")
    assert name_of(true, shelf) != name_of(predicted, shelf)
    assert name_of(true.crafting(), shelf) != name_of(predicted.crafting(), shelf)


def test_the_source_is_in_the_name(shelf):
    others = [asked(decision="last"), transferred(), asked(decision="last", source=TRAINED),
              asked(decision="last", source=Trained(**TRAINED.content() | {"seed": 1}))]  # fmt: skip
    assert len({name_of(other, shelf) for other in others}) == 4


# --- networks of every kind -------------------------------------------------------------------------------------------


def by_hand(model: nn.Module, wanted: Evaluation, tiny: data.Dataset) -> attacks.AttackResult:
    attack = wanted.attack.build(model, wanted.loss, wanted.decision, wanted.seed)
    return attack.run(tiny.test.images[: wanted.size].float() / 255, tiny.test.labels[: wanted.size])


@pytest.fixture
def kinds(shelf, tiny, tmp_path) -> dict:
    """Networks of every kind, some with batch normalisation, some that calculate with few bits; and what they are."""
    theirs = new(Normalised, 5)
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    weights = Pretrained(architecture="normalised", weights=str(tmp_path / "theirs.safetensors"))
    normalised = Trained(**TRAINED.content() | {"architecture": "normalised", "parent": weights, "epochs": 1})
    few = Trained(**normalised.content() | {"defence": {"name": "quantised", "weight_bits": 4, "activation_bits": 4}})
    for network in (normalised, few):
        shelf.train(network, [1], progress=False)
    smoothed = {"name": "high_frequency", "rho": 0.2}
    return {
        "pre-trained": weights,
        "fine-tuned from it": normalised,
        "quantised": few,
        "a vote": Voted(members=[few, normalised, TRAINED]),
        "a soft vote": Voted(members=[few, normalised, TRAINED], voting="soft"),
        "smoothed": Changed(network=normalised, change=smoothed),
        "a smoothed vote": Changed(network=Voted(members=[normalised, TRAINED]), change=smoothed),
        "a vote of smoothed ones": Voted(members=[Changed(network=few, change=smoothed), weights]),
    }


def test_networks_of_every_kind_are_attacked_as_they_are(kinds, shelf, tiny):
    names = set()
    for kind, network in kinds.items():
        wanted = asked(network=network, size=60)
        found, expected = attacked(wanted, shelf), by_hand(shelf.load(network), wanted, tiny)
        # batch normalisation is folded, which rounds otherwise; no image here is that near to the boundary
        assert torch.equal(found.correct, expected.correct), kind
        assert int((found.any_run != expected.any_run).sum()) <= 1, kind
        names.add(name_of(wanted, shelf))
    assert len(names) == len(kinds)


def test_what_was_made_on_one_kind_is_shown_to_another(kinds, shelf):
    for network, source in ((kinds["a vote"], kinds["pre-trained"]), (TRAINED, kinds["smoothed"])):
        found = attacked(asked(network=network, source=source, decision="last", size=60), shelf)
        assert len(found.correct) == 60 and found.correct.any()


def test_a_quantised_network_is_attacked_with_few_bits(kinds, shelf, tiny):
    plain = new(Normalised)
    plain.load_state_dict(shelf.load(kinds["quantised"]).state_dict())
    wanted = asked(network=kinds["quantised"], size=60)
    assert torch.equal(attacked(wanted, shelf).any_run, by_hand(quantized(plain, 4, 4), wanted, tiny).any_run)


def test_autoattack_needs_the_votes_probabilities_alone(kinds, shelf, tiny):
    wanted = asked(network=kinds["a vote"], attack=Attack(name="square", eps=0.2, steps=2), loss="logits", size=30)
    found = attacked(wanted, shelf)
    vote = Vote([shelf.load(member) for member in kinds["a vote"].members])
    assert torch.equal(found.any_run, by_hand(vote, wanted, tiny).any_run) and found.correct.any()


# --- missing, damaged, unwritable -------------------------------------------------------------------------------------


def one_sentence(caught) -> str:
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def test_outcome_of_an_attack_that_was_not_run(shelf):
    with pytest.raises(StoreError) as caught:
        outcome(asked(), shelf)
    message = one_sentence(caught)
    assert name_of(asked(), shelf) in message and str(shelf.store.root) in message
    assert "run the training or evaluation first" in message


def test_attack_on_a_network_that_was_not_trained(shelf):
    untrained = asked(network=TRAINED.model_copy(update={"epochs": 7}))
    with pytest.raises(StoreError) as caught:
        evaluate.evaluate(untrained, shelf, progress=False)
    assert "epoch-0007" in one_sentence(caught)
    assert not evaluate.has(untrained, shelf)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_checkpoint(share, shelf, trained, tmp_path):
    first = attacked(asked(network=EARLIER, size=20), shelf)
    path = shelf.store.path(shelf.artefact(TRAINED))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(StoreError) as caught:
        evaluate.evaluate(asked(size=40), shelf, progress=False)
    message = one_sentence(caught)
    assert str(path) in message and "delete that file and run again" in message
    assert not evaluate.has(asked(size=40), shelf)
    assert same(outcome(asked(network=EARLIER, size=20), shelf), first), "nothing else is lost"

    path.unlink()
    shelf.train(TRAINED, [2], progress=False)
    assert same(attacked(asked(size=40), shelf), attacked(asked(size=40), copied(trained, tmp_path / "whole")))


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_outcome_can_be_deleted_as_the_message_says(share, shelf):
    first = attacked(asked(size=40), shelf)
    path = shelf.store.path(name_of(asked(size=40), shelf))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(StoreError) as caught:
        outcome(asked(size=40), shelf)
    message = one_sentence(caught)
    assert str(path) in message and "delete that file and run again" in message
    path.unlink()
    assert same(attacked(asked(size=40), shelf), first)


def test_outcome_that_was_altered_is_noticed(shelf):
    attacked(asked(size=40), shelf)
    path = shelf.store.path(name_of(asked(size=40), shelf))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="does not match its own checksum"):
        outcome(asked(size=40), shelf)


def test_store_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError) as caught:
        evaluate.evaluate(asked(), Shelf(tiny, Store(tmp_path / "file" / "store")), progress=False)
    message = one_sentence(caught)
    assert str(tmp_path / "file") in message and "REPROLIB_STORE" in message


def test_disk_that_is_full_at_the_end_of_an_attack(shelf, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left on device"):
            evaluate.evaluate(asked(size=40), shelf, progress=False)
    assert not evaluate.has(asked(size=40), shelf)
    assert attacked(asked(size=40), shelf).robust().any()
