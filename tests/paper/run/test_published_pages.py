"""Quick pages on published networks: read, not trained, on the page's own test images; and something stands."""

import pytest

from reprolib import data
from reprolib.paper import plan, run
from reprolib.paper.run import published

READING = [
    (page, planned)
    for page in plan.all_pages()
    if (planned := plan.load_plan(page.table, page.network, "quick")).amounts.networks != "trained"
]


def quick(table: str, **overrides) -> plan.Plan:
    return plan.load_plan(table, "fmnistconv", "quick", **overrides)


# --- which networks -------------------------------------------------------------------------------------------------


def test_the_pages_whose_point_is_saturation_read_published_networks():
    found = {page.record: planned.amounts.networks for page, planned in READING}
    assert found == {"table06_fashion_mnist": "published", "table09_autoattack": "published",
                     "table11_epochs": "finetuned", "saturation": "finetuned",
                     "budget_fmnistconv": "finetuned", "pipelines": "published", "seeds": "published"}  # fmt: skip


@pytest.mark.parametrize("page, planned", READING, ids=lambda one: getattr(one, "record", ""))
def test_what_is_read_is_published(page, planned):
    read = [network for network, _ in planned.trainings.values() if network.data != planned.data]
    assert read and all(published.find(network) for network in read)


def test_published_networks_are_those_of_the_cpu_profile():
    cpu = plan.load_plan("table06_fashion_mnist", "fmnistconv", "cpu")
    assert quick("table06_fashion_mnist").networks == cpu.networks
    assert quick("table06_fashion_mnist").data == "fashion-mnist-sample"


def test_finetuned_networks_come_from_a_published_parent():
    cpu = plan.load_plan("table06_fashion_mnist", "fmnistconv", "cpu")
    for (column, _), network in quick("saturation").networks.items():
        if column == "undefended":
            assert network == cpu.networks["undefended", 0]
        else:
            assert network.parent == cpu.networks["undefended", 0] and network.data == "fashion-mnist-sample"


@pytest.mark.parametrize("overrides", [{"finetune": 3}, {"train": 100}, {"pretrain": 1}, {"seed": 1}])
def test_who_says_how_networks_are_trained_has_them_trained(overrides):
    planned = quick("table06_fashion_mnist", **overrides)
    assert planned.amounts.networks == "trained" and planned.folder == "custom"
    assert {network.data for network, _ in planned.trainings.values()} == {"fashion-mnist-sample"}


@pytest.mark.parametrize("table", ["table06_fashion_mnist", "saturation"])
def test_fresh_trains_and_a_larger_test_does_not(table):
    assert run.open_page(table, {"fresh": True}).plan.amounts.networks == "trained"
    assert run.open_page(table, {"test": 200, "steps": 20}).plan.amounts.networks == quick(table).amounts.networks


def test_a_missing_network_is_not_trained_on_other_data(results):
    """results, the folder of one's own, has no published networks."""
    for table in ("table06_fashion_mnist", "saturation"):
        with pytest.raises(data.DataError) as caught:
            run.Page(quick(table)).compute(progress=False)
        message = str(caught.value)
        assert "a network of fashion-mnist cannot be trained on fashion-mnist-sample" in message and "\n" not in message


# --- what a reader sees ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> run.Page:
    """Table 6's quick page, of two attacks and three networks."""
    usual = quick("table06_fashion_mnist")
    rows = {name: usual.page.rows[name] for name in ("PGD-v2", "IFGSM")}
    few = usual.page.model_copy(update={"rows": rows, "shown": ["undefended", "7-P1", "no patches"]})
    made = run.Page(plan.Plan(few, usual.amounts, "quick"), store=run.Store(tmp_path_factory.mktemp("store")))
    assert not made.missing_trainings()
    made.compute(progress=False)
    return made


@pytest.mark.slow
def test_in_one_row_most_images_stand_by_one_protocol_and_none_by_another(page):
    values = {
        (c.row, c.protocol): c.value for c in run.measure(page) if c.column == "7-P1" and c.quantity == "accuracy"
    }
    assert values["IFGSM", "probabilities"] > 50 and values["PGD-v2", "sound"] == 0
    assert values["PGD-v2", "probabilities"] > 30 and values["IFGSM", "logits"] < 50


@pytest.mark.slow
def test_the_record_says_which_networks_were_read(page):
    made = run.provenance(page)
    assert made["published"] == [f"table06_fashion_mnist_{name}" for name in ("7-P1", "no_patches", "undefended")]
    assert made["amounts"]["networks"] == "published" and made["seconds"]["training"] == 0
    assert not {"train", "pretrain", "finetune"} & made["amounts"].keys()


@pytest.mark.slow
def test_saturation_is_counted_on_the_pages_own_images(page):
    """The network's history counted it on 10 000 others."""
    (cell,) = [c for c in run.measure(page) if c.quantity == "saturated" and c.column == "7-P1"]
    history = page.shelf.checkpoint(page.plan.networks["7-P1", 0])[1]["history"][-1]["saturated"]
    assert cell.n == len(page.dataset.test) == 1000 and 60 < cell.value < 85 and cell.value != history
