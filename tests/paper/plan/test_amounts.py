"""How much is computed: each page's amounts, where they come from, and what they leave alone."""

import json
import shutil

import pytest
import yaml

from reprolib.paper import files
from reprolib.paper.plan import (
    OWN,
    PARAMS,
    PROFILES,
    Amounts,
    Column,
    Profile,
    SpecError,
    all_pages,
    amounts,
    amounts_of,
    load_plan,
    load_profile,
    used,
)
from reprolib.paper.plan.load import READ

PAGES = {page.record: page for page in all_pages()}
COMMITTED = {
    (profile, path.stem): json.loads(path.read_text())["provenance"]["amounts"]
    for profile in ("cpu", "paper")
    for path in sorted((files.RESULTS / profile).glob("*.json"))
    if path.stem in PAGES
}
GOOD = load_profile("quick").default


def sentence(action, *args, **kwargs) -> str:
    with pytest.raises(SpecError) as caught:
        action(*args, **kwargs)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def test_the_nearest_level_wins():
    profile = Profile(
        default=GOOD | {"steps": 1, "restarts": 1, "finetune": 1, "pretrain": 1, "seed": 1},
        datasets={"cifar-10": {"steps": 2, "restarts": 2, "finetune": 2, "pretrain": 2}},
        networks={"vgg16": {"restarts": 3, "finetune": 3, "pretrain": 3}},
        tables={"table03": {"finetune": 4, "pretrain": 4}, "table03_vgg16": {"pretrain": 5}},
    )
    found = profile.amounts("cifar-10", "vgg16", "table03", "table03_vgg16")
    assert (found.seed, found.steps, found.restarts, found.finetune, found.pretrain) == (1, 2, 3, 4, 5)
    other = profile.amounts("fashion-mnist", "fmnistconv", "table06_fashion_mnist", "table06_fashion_mnist")
    assert (other.seed, other.steps, other.restarts, other.finetune, other.pretrain) == (1, 1, 1, 1, 1)


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_has_amounts_for_every_page(name):
    profile = load_profile(name)
    for page in PAGES.values():
        small = {"quick": "sample", "cpu": "small" if page.dataset == "imagenet-subset" else "full"}
        assert amounts_of(page, profile).data == small.get(name, "full")


@pytest.mark.parametrize("name", OWN)
def test_no_profile_attacks_otherwise_than_printed(name, monkeypatch):
    wrong = {"default": GOOD | {name: "logits" if name == "loss" else 0.1}}
    monkeypatch.setattr(amounts, "read_yaml", lambda path: wrong)
    assert f"unknown amount {name!r}" in sentence(load_profile, "cpu")


def test_no_profile_file_is_left_out_of_these_tests():
    assert sorted(path.stem for path in (PARAMS / "profiles").glob("*.yaml")) == sorted(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_says_nothing_of_what_there_is_not(name):
    """A misspelt network would silently have the usual amounts."""
    profile = load_profile(name)
    assert set(profile.datasets) <= {page.dataset for page in PAGES.values()}
    assert set(profile.networks) <= {page.network for page in PAGES.values()}
    assert set(profile.tables) <= {page.table for page in PAGES.values()} | set(PAGES)


# --- committed records ------------------------------------------------------------------------------------------------


def test_there_are_committed_records():
    assert ("cpu", "table06_fashion_mnist") in COMMITTED and ("cpu", "table03_vgg16") in COMMITTED


@pytest.mark.parametrize("profile, record", COMMITTED, ids="-".join)
def test_a_committed_record_was_made_with_the_amounts_that_its_profile_has(profile, record):
    page = PAGES[record]
    assert COMMITTED[profile, record] == used(page, amounts_of(page, load_profile(profile)))


NEW = [
    {"networks": {"xception": {"train": 7, "test": 7, "pretrain": 7, "finetune": 7, "width": 0.7}}},
    {"tables": {"table12": {"test": 7, "steps": 7, "restarts": 7}, "table07_xception": {"seeds": 7}}},
    {"datasets": {"fashion-mnist-sample": {"train": 7, "test": 7, "every": 7, "engine": "torchattacks"}}},
]


@pytest.mark.parametrize("profile, record", COMMITTED, ids="-".join)
@pytest.mark.parametrize("new", NEW, ids=[next(iter(new)) for new in NEW])
def test_a_new_networks_amounts_leave_every_committed_record_valid(profile, record, new):
    before = load_profile(profile)
    level, entries = next(iter(new.items()))
    assert not entries.keys() & getattr(before, level).keys(), "choose names that nobody uses"
    after = Profile(**before.model_dump() | {level: getattr(before, level) | entries})
    page = PAGES[record]
    assert COMMITTED[profile, record] == used(page, amounts_of(page, after))


@pytest.mark.parametrize("profile, record", COMMITTED, ids="-".join)
def test_a_new_amount_with_a_use_elsewhere_would_be_the_records_only_if_its_page_uses_it(profile, record):
    """What a page does not use is not in its record: so turning it leaves the record valid, and it is in no other."""
    page = PAGES[record]
    amounts = amounts_of(page, load_profile(profile))
    assert amounts.networks == "trained"
    assert not used(page, amounts).keys() & set(OWN), "which no profile has"
    # `networks` has a use, and is said where it has
    spare = set(Amounts.model_fields) - set(used(page, amounts)) - {"networks"} - set(OWN)
    for name in spare:
        assert used(page, amounts.model_copy(update={name: 99})) == COMMITTED[profile, record]
    assert spare <= {"every", "seeds", "width", "finetune"}


def test_what_a_single_column_uses_is_used():
    """Its own architecture may have a width, and a member of a vote a parent, where the others have not."""
    page = PAGES["table06_fashion_mnist"].model_copy(update={"columns": {"undefended": Column(recipe="adam")}})
    amounts = amounts_of(page, load_profile("cpu"))
    assert not {"width", "finetune"} & used(page, amounts).keys()
    member = {"recipe": "adam", "parent": "undefended"}
    for name, column in (
        ("width", {"recipe": "adam", "architecture": "vgg16"}),
        ("finetune", member),
        ("finetune", {"members": [{"recipe": "adam"}, member]}),
    ):
        more = page.model_copy(update={"columns": page.columns | {"other": Column(**column)}})
        assert used(more, amounts).keys() - used(page, amounts).keys() == {name}


# --- overrides --------------------------------------------------------------------------------------------------------

OTHER = {"data": {"sample": "full", "full": "sample"}, "engine": {"reprolib": "torchattacks"}}
OTHER |= {"eps": {None: 0.07}, "alpha": {None: 0.007}, "loss": {None: "margin"}}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("table, network", [("table03", "vgg16"), ("table11", "fmnistconv")])
def test_any_turned_amount_that_the_page_uses_leads_to_a_folder_of_ones_own(profile, table, network):
    usual = load_plan(table, network, profile)
    assert usual.folder == profile
    amounts = usual.amounts.model_dump()
    read = READ[amounts.pop("networks")]  # where one of these is turned, the page trains its networks
    for name, value in amounts.items():
        turned = OTHER[name][value] if name in OTHER else value / 2 if name == "width" else value + 1
        plan = load_plan(table, network, profile, **{name: turned})
        can_count = (read | set(OWN)) & set(used(usual.page, plan.amounts))
        is_used = name in can_count or name in used(usual.page, usual.amounts)
        assert plan.folder == ("custom" if is_used else profile), name
        if name not in read:  # of these the published networks have their own
            assert load_plan(table, network, profile, **{name: value}).folder == profile, "as it is anyway"


@pytest.mark.parametrize("name, value", [
    ("steps", "10"), ("steps", 0), ("steps", 2.5), ("restarts", -1), ("test", 1.5), ("train", 0), ("data", "all"),
    ("engine", "foolbox"), ("seed", -1), ("width", 0.0), ("width", 2.0), ("finetune", None), ("seeds", True),
])  # fmt: skip
def test_an_amount_that_makes_no_sense(name, value):
    message = sentence(load_plan, "table03", "vgg16", "quick", **{name: value})
    assert f"Amounts.{name}" in message and repr(value) in message


def test_an_amount_that_there_is_not():
    assert "did you mean 'finetune'" in sentence(load_plan, "table03", "vgg16", "quick", fine_tune=3)


@pytest.mark.parametrize("table, network, profile, meant", [
    ("table3", "vgg16", "quick", "did you mean 'table03'"),
    ("table03", "vgg-16", "quick", "did you mean 'vgg16'"),
    ("table03", "fmnistconv", "quick", "known: vgg16, resnet20, resnet50"),
    ("table03", "vgg16", "qiuck", "did you mean 'quick'"),
    ("table03", "vgg16", "custom", "known: quick, cpu, gpu, paper"),
])  # fmt: skip
def test_an_unknown_table_network_or_profile(table, network, profile, meant):
    assert meant in sentence(load_plan, table, network, profile)


# --- files with mistakes ----------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A quick profile to make mistakes in: quick(**fields) adds to its file or replaces what stands there."""
    shutil.copytree(PARAMS, tmp_path / "params")
    monkeypatch.setattr(amounts, "PARAMS", tmp_path / "params")
    file = tmp_path / "params" / "profiles" / "quick.yaml"

    def change(**fields) -> None:
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | fields))

    return change


@pytest.mark.parametrize("fields, words", [
    ({"default": GOOD | {"restart": 2}}, ["quick.yaml", "'restart'", "did you mean 'restarts'"]),
    ({"networks": {"vgg16": {"finetune_epochs": 2}}}, ["quick.yaml", "'finetune_epochs'", "did you mean 'finetune'"]),
    ({"tables": {"table03": {"tests": 2}}}, ["quick.yaml", "did you mean 'test'"]),
    ({"network": {"vgg16": {"width": 0.5}}}, ["Profile.network", "did you mean 'networks'"]),
    ({"networks": {"vgg16": 0.5}}, ["Profile.networks.vgg16", "0.5"]),
])  # fmt: skip
def test_a_mistake_in_a_profile(quick, fields, words):
    quick(**fields)
    message = sentence(load_profile, "quick")
    assert all(word in message for word in words), message


@pytest.mark.parametrize("fields, words", [
    ({"default": GOOD | {"restarts": "1e1"}}, ["Amounts.restarts", "'1e1'"]),
    ({"default": {name: value for name, value in GOOD.items() if name != "restarts"}}, ["Amounts.restarts is missing"]),
    ({"networks": {"vgg16": {"width": 3.0}}}, ["Amounts.width", "3.0"]),
])  # fmt: skip
def test_a_mistake_in_a_profile_that_shows_when_a_page_asks(quick, fields, words):
    quick(**fields)
    message = sentence(load_plan, "table03", "vgg16", "quick")
    assert all(word in message for word in words), message


def test_a_profile_that_was_repaired_is_read_again(quick):
    quick(default=GOOD | {"restart": 2})
    sentence(load_profile, "quick")
    quick(default=GOOD)
    assert load_profile("quick").default == GOOD
