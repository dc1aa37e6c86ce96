"""Published networks: a fresh clone finds them by their record, evaluates on them without training, or trains anew."""

import json
import shutil

import pytest
import safetensors.torch
import torch
from small_networks import same

from reprolib.paper import files, run
from reprolib.paper.files import RecordError
from reprolib.paper.plan import Evaluation, Trained, load_plan, read_network
from reprolib.paper.run import evaluate, published
from reprolib.paper.run.networks import Shelf
from reprolib.paper.run.store import Store

RECIPE = {"optimizer": "adam", "lr": 3e-3, "batch_size": 60}
PARENT = Trained(architecture="small", data="tiny", recipe=RECIPE, epochs=2)
CHILD = Trained(
    architecture="small", data="tiny", recipe=RECIPE, parent=PARENT, epochs=1,
    defence={"name": "patched", "size": 7, "count": 1},
)  # fmt: skip
PGD = {"name": "pgd", "eps": 0.1, "alpha": 0.05, "steps": 2, "restarts": 1}
COMMITTED = sorted(files.RESULTS.glob("*/networks/*.safetensors"))

pytestmark = pytest.mark.usefixtures("architectures")


def asked(network, **fields) -> Evaluation:
    usual = {"attack": PGD, "loss": "margin", "decision": "any", "data": "tiny", "size": 40}
    return Evaluation(network=network, **usual | fields)


@pytest.fixture(scope="module")
def home(architectures, tiny, tmp_path_factory) -> Shelf:
    """Where the networks were trained."""
    shelf = Shelf(tiny, Store(tmp_path_factory.mktemp("home")))
    shelf.train(PARENT, [1, 2], progress=False)
    shelf.train(CHILD, [1], progress=False)
    return shelf


@pytest.fixture
def out(results, home):
    """A results folder in which both are published; what a clone gets."""
    for name, network in (("parent", PARENT), ("child", CHILD)):
        tensors, meta = home.checkpoint(network)
        published.publish(name, "cpu", tensors, {"network": network.content(), **meta})
    return results / "cpu" / "networks"


@pytest.fixture
def clone(out, tiny, tmp_path) -> Shelf:
    return Shelf(tiny, Store(tmp_path / "empty store"))


# --- found ------------------------------------------------------------------------------------------------------------


def test_a_fresh_clone_has_them_without_training(clone, home):
    for network in (PARENT, CHILD):
        assert clone.has(network, network.epochs)
        assert same(clone.load(network).state_dict(), home.load(network).state_dict())
    assert not clone.store.root.exists(), "nothing was written"


def test_it_says_who_made_them_and_that_they_were_published(clone, home):
    (_, theirs), (_, ours) = home.checkpoint(CHILD), clone.checkpoint(CHILD)
    assert {name: ours[name] for name in theirs} == theirs, "history, seconds, commit, torch, device"
    assert ours["published"] == "child" and "published" not in theirs


def test_training_what_is_published_trains_nothing(clone):
    clone.train(PARENT, [2], progress=False)
    assert not list(clone.store.root.rglob("*.safetensors"))


def test_another_record_is_another_network(clone):
    others = [
        PARENT.model_copy(update={"epochs": 1}),  # it was trained, but is not published
        PARENT.model_copy(update={"seed": 1}),
        CHILD.model_copy(update={"parent": PARENT.model_copy(update={"epochs": 1})}),
        Trained(**PARENT.content() | {"recipe": RECIPE | {"lr": 1e-3}}),
    ]
    for other in others:
        assert not clone.has(other, other.epochs) and published.find(other) is None
    clone.train(others[0], [1], progress=False)
    assert clone.has(others[0], 1)


def test_an_attack_on_a_published_network_finds_what_it_found_at_home(clone, home):
    for shelf in (home, clone):
        evaluate.evaluate(asked(CHILD), shelf, progress=False)
    at_home, here = evaluate.outcome(asked(CHILD), home), evaluate.outcome(asked(CHILD), clone)
    assert torch.equal(at_home.any_run, here.any_run) and torch.equal(at_home.correct, here.correct)
    assert [path.parts[-2] for path in clone.store.root.rglob("*.safetensors")] == ["evaluation"], "nothing else"


def test_a_network_can_be_trained_further_from_a_published_parent(clone, home):
    """The parent is not trained again for that."""
    other = Trained(**CHILD.content() | {"defence": {"name": "unmodified"}})
    clone.train(other, [1], progress=False)
    assert len(list((clone.store.root / "training").iterdir())) == 2, "the new training's folder and its lock"
    home.train(other, [1], progress=False)
    assert same(clone.load(other).state_dict(), home.load(other).state_dict())


def test_fresh_trains_anew_instead(clone, home):
    anew = Shelf(clone.dataset, clone.store, fresh=True)
    assert not anew.has(PARENT, 2) and anew.name(PARENT) == home.name(PARENT)
    assert evaluate.name_of(asked(PARENT), anew) != evaluate.name_of(asked(PARENT), clone), (
        "it reads no outcome of theirs"
    )
    anew.train(PARENT, [2], progress=False)
    assert same(anew.load(PARENT).state_dict(), home.load(PARENT).state_dict())
    assert "published" not in anew.checkpoint(PARENT)[1]
    assert "published" not in clone.checkpoint(PARENT)[1], "and from then on these are taken"


def test_publishing_changes_nothing_where_the_networks_were_trained(tiny, tmp_path, results):
    """Trainings and attacks go on being found in the store, page by page and column by column."""
    shelf = Shelf(tiny, Store(tmp_path / "store"))
    shelf.train(PARENT, [2], progress=False)
    shelf.train(CHILD, [1], progress=False)
    names = [shelf.identity(PARENT), shelf.identity(CHILD), evaluate.name_of(asked(CHILD), shelf)]
    for network in (PARENT, CHILD):
        tensors, meta = shelf.checkpoint(network)
        assert "published" not in meta
        published.publish(f"{network.epochs}", "cpu", tensors, {"network": network.content(), **meta})
        assert [shelf.identity(PARENT), shelf.identity(CHILD), evaluate.name_of(asked(CHILD), shelf)] == names


def test_the_paper_profiles_network_comes_before_the_cpu_profiles(out, results, home):
    tensors, meta = home.checkpoint(PARENT)
    published.publish("same", "paper", tensors, {"network": PARENT.content(), **meta})
    assert published.find(PARENT) == results / "paper" / "networks" / "same.safetensors"


def test_quick_and_custom_networks_are_not_taken(out, results):
    for folder in ("quick", "custom"):
        shutil.copytree(out, results / folder / "networks")
    shutil.rmtree(out)
    assert published.find(PARENT) is None


# --- written ----------------------------------------------------------------------------------------------------------


def test_what_stands_there_already_is_not_written_again(out, home):
    before = (out / "parent.safetensors").read_bytes()
    tensors, meta = home.checkpoint(PARENT)
    published.publish("parent", "cpu", tensors, {"network": PARENT.content(), **meta})
    assert (out / "parent.safetensors").read_bytes() == before
    published.publish("parent", "cpu", tensors, {"network": PARENT.content(), **meta, "commit": "0" * 40})
    assert (out / "parent.safetensors").read_bytes() != before


def test_a_file_can_be_opened_by_anyone_who_has_safetensors(out, home):
    """Without this library; the metadata says what it is."""
    tensors = safetensors.torch.load_file(out / "child.safetensors")
    assert same(tensors, home.load(CHILD).state_dict())
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    with safetensors.safe_open(out / "child.safetensors", framework="pt") as file:
        meta = json.loads(file.metadata()["published"])
    assert read_network(meta["network"]) == CHILD
    assert {"commit", "dirty", "torch", "device", "history", "seconds", "sha256"} < meta.keys()


# --- damaged ----------------------------------------------------------------------------------------------------------


def refusal(action, *args) -> str:
    with pytest.raises(RecordError) as caught:
        action(*args)
    message = str(caught.value)
    assert "\n" not in message and "take it from the repository again" in message
    return message


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_gets_one_sentence(clone, out, share):
    path = out / "child.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert str(path) in refusal(clone.has, CHILD, 1)


def test_altered_weights_get_one_sentence(clone, out):
    path = out / "child.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert str(path) in refusal(clone.load, CHILD)
    assert clone.load(PARENT), "others can be read"


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"published": "no json"}, {"published": "[]"},
                                      {"published": "{}"}, {"published": '{"network": {}}'}])  # fmt: skip
def test_a_file_that_was_not_published_gets_one_sentence(clone, out, metadata):
    path = out / "some.safetensors"
    path.write_bytes(safetensors.torch.save({"x": torch.ones(3)}, metadata))
    assert str(path) in refusal(clone.has, CHILD, 1)
    path.unlink()
    assert clone.has(CHILD, 1), "as soon as it is gone"


def test_what_was_repaired_is_read_again(clone, out):
    path = out / "child.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    refusal(clone.has, CHILD, 1)
    path.write_bytes(content)
    assert clone.load(CHILD)


def test_a_file_that_was_overwritten_is_taken_for_what_it_is_now(clone, out):
    """In place, as cp does, so that the folder's own time stays."""
    assert clone.has(CHILD, 1)
    (out / "child.safetensors").write_bytes((out / "parent.safetensors").read_bytes())
    assert not clone.has(CHILD, 1) and clone.has(PARENT, 2)


# --- what is committed ------------------------------------------------------------------------------------------------


def test_table_6s_networks_are_committed():
    plan = load_plan("table06_fashion_mnist", "fmnistconv", "cpu")
    for (column, _), network in plan.networks.items():
        path = published.find(network)
        assert path is not None and path.parent == files.RESULTS / "cpu" / "networks", column
    assert sum(path.stat().st_size for path in COMMITTED) <= published.MOST == 120_000_000


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_a_committed_network_is_whole_and_answers(path):
    tensors, meta = published.read(path)
    network = read_network(meta["network"])
    assert network.content() == meta["network"] and published.find(network) == path
    assert {tensor.dtype for tensor in tensors.values()} <= {torch.float32, torch.int64}
    assert (
        len(meta["commit"]) == 40
        and meta["torch"]
        and meta["device"]
        and meta["history"][-1]["epoch"] <= network.epochs
    )


def test_a_page_with_published_networks_has_nothing_to_train(tiny, tmp_path):
    """Its notebook, and Table 9's on the same networks, run in minutes in a fresh clone."""
    for table in ("table06_fashion_mnist", "table09"):
        plan = load_plan(table, "fmnistconv", "cpu")
        page = run.Page(plan, store=Store(tmp_path), dataset=tiny)
        assert page.missing_trainings() == {} and page.missing_evaluations()
        anew = run.Page(plan, store=Store(tmp_path), dataset=tiny, fresh=True)
        assert len(anew.missing_trainings()) == len(plan.trainings) > 0
