"""Tables as declared: what a page takes from its file, from another table and from Table 2; and what is refused."""

import shutil
import string

import pytest
import yaml

from reprolib.paper.plan import (
    PARAMS,
    Answer,
    Column,
    Page,
    Row,
    SpecError,
    all_pages,
    attacks_of,
    load_plan,
    load_table,
    read_yaml,
    table_names,
    tables,
)
from reprolib.paper.run.timing import TIMED
from reprolib.training import Recipe

PAGES = {page.record: page for page in all_pages()}
CLAIMS = set(read_yaml(PARAMS / "claims.yaml")["claims"])


def sentence(action, *args, **kwargs) -> str:
    with pytest.raises(SpecError) as caught:
        action(*args, **kwargs)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


# --- the declarations that there are ----------------------------------------------------------------------------------


def test_every_table_has_pages_with_records_of_their_own():
    assert len(PAGES) == len(all_pages()) and {page.table for page in PAGES.values()} == set(table_names())
    for table in table_names():
        for network, page in load_table(table).items():
            assert (page.table, page.network) == (table, network)
            assert page.record.startswith(table.split("_")[0]) or table.startswith(page.record)


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_read_again_from_its_content_is_the_same(page):
    assert Page(**page.content()) == page


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_says_what_it_is_about(page):
    assert page.title and "{" not in page.title, "a page of a network has a title of its own"
    assert set(page.shown) <= set(page.columns) and page.rows


@pytest.mark.parametrize("page", [page for page in PAGES.values() if page.claims], ids=lambda page: page.record)
def test_every_answer_is_to_a_claim_that_there_is(page):
    """A template with a misspelt part would silently answer nothing."""
    plan = load_plan(page.table, page.network, "paper")
    rows, columns = ["Clean", *page.rows], page.shown or list(page.columns)
    epochs = {epoch for _, looks in plan.trainings.values() for epoch in looks} | {None}
    for answer in page.claims:
        answered = {answer.id(row, column, epoch) for row in rows for column in columns for epoch in epochs} - {None}
        answered |= {answer.id("Minutes", column, None) for column in TIMED}
        if answer.over:
            answered = {answer.claim}
        assert answered & CLAIMS, f"{page.record}: nothing of {answer.claim!r} is in claims.yaml"
        assert {field for _, field, _, _ in string.Formatter().parse(answer.claim) if field} <= {
            "row",
            "column",
            "epoch",
        }
        assert set(answer.called) <= {*rows, *page.columns}


@pytest.mark.parametrize("record, where", [
    ("table06_fashion_mnist", "Table 6"), ("table03_vgg16", "Table 3"), ("table03_resnet50", "Table 3"),
])  # fmt: skip
def test_a_tables_page_answers_all_that_the_paper_prints_there(record, where):
    """Each printed cell of the network has a row, a column and a template that name it."""
    page = PAGES[record]
    claims = read_yaml(PARAMS / "claims.yaml")["claims"]
    prefix = {"table06_fashion_mnist": "T6.", "table03_vgg16": "T3.VGG16.", "table03_resnet50": "T3.ResNet."}[record]
    printed = {name for name in claims if name.startswith(prefix)}
    template = page.claims[0]
    answered = {template.id(row, column, None) for row in ["Clean", *page.rows] for column in page.columns}
    assert printed and printed <= answered, printed - answered


def test_pages_of_a_table_differ_by_what_they_say_themselves():
    vgg, resnet = PAGES["table03_vgg16"], PAGES["table03_resnet20"]
    assert vgg.rows == resnet.rows and vgg.losses == resnet.losses and vgg.dataset == resnet.dataset == "cifar-10"
    assert vgg.columns["7-P1"] == resnet.columns["7-P1"]
    assert vgg.columns["undefended"].recipe.target == 83.91 != resnet.columns["undefended"].recipe.target
    assert "strong parent" in vgg.columns and "strong parent" not in resnet.columns
    assert vgg.claims[0].claim != resnet.claims[0].claim


def test_tables_about_another_tables_networks():
    for record, other in (("table09_autoattack", "table06_fashion_mnist"), ("table11_vgg16", "table03_vgg16")):
        page, of = PAGES[record], PAGES[other]
        assert (page.dataset, page.architecture) == (of.dataset, of.architecture)
        assert {name: page.columns[name] for name in of.columns} == of.columns
    assert set(PAGES["saturation"].columns) > set(PAGES["table06_fashion_mnist"].columns)


def test_rows_are_table_2s_attacks_or_changes_of_them():
    page, printed = PAGES["saturation"], attacks_of("fashion-mnist")
    assert page.rows["FGSM"].attack == printed["FGSM"]
    assert page.rows["PGD-v2, first start only"].attack == printed["PGD-v2"]
    changed = page.rows["IFGSM, eps 0.1"].attack
    assert changed.content() == printed["IFGSM"].content() | {"eps": 0.1, "alpha": 0.003333}
    assert PAGES["table09_autoattack"].rows["AutoAttack"].attack.content() == {"name": "autoattack", "eps": 0.3}


# --- columns, rows, answers -------------------------------------------------------------------------------------------


def test_a_recipe_is_given_by_name_or_with_what_differs():
    assert Column(recipe="adam").recipe == Recipe("adam", lr=1e-3, batch_size=128)
    changed = Column(recipe={"like": "adam", "lr": 2e-3, "target": 80.0}).recipe
    assert changed == Recipe("adam", lr=2e-3, batch_size=128, target=80.0)
    assert Column(recipe={"optimizer": "sgd"}).recipe == Recipe("sgd")


@pytest.mark.parametrize("fields, words", [
    ({}, ["one of recipe, weights, members and change", "not none"]),
    ({"recipe": "adam", "members": ["M1", "M2"]}, ["not recipe and members"]),
    ({"weights": "some.pth", "members": ["M1", "M2"]}, ["not weights and members"]),
    ({"change": {"name": "high_frequency", "rho": 0.5}}, ["change and of come together"]),
    ({"recipe": "adam", "of": "undefended"}, ["change and of come together"]),
    ({"recipe": "adma"}, ["did you mean 'adam'"]),
    ({"recipe": {"like": "adam", "batchsize": 3}}, ["did you mean 'batch_size'"]),
    ({"recipe": "adam", "parents": "undefended"}, ["did you mean 'parent'"]),
    ({"recipe": "adam", "seeds": 0}, ["Column.seeds", "0"]),
    ({"recipe": "adam", "voting": "soft"}, ["'soft' without members"]),
    ({"members": ["M1", "M2"], "voting": "majority"}, ["Column.voting", "'majority'"]),
])  # fmt: skip
def test_a_column_that_makes_no_sense(fields, words):
    message = sentence(Column, **fields)
    assert all(word in message for word in words), message


def test_an_answer_names_a_claim_by_what_row_and_column_are_called_in_the_paper():
    answer = Answer(claim="T3.{row}.{column}", called={"Clean": "Natural", "7-P1": "proposed"})
    assert answer.id("Clean", "7-P1", 10) == "T3.Natural.proposed"
    assert answer.id("FGSM", "undefended", None) == "T3.FGSM.undefended"
    along = Answer(claim="T11.{epoch}", row="PGD-v2", column="7-P1")
    assert along.id("PGD-v2", "7-P1", 30) == "T11.30"
    assert along.id("FGSM", "7-P1", 30) is None and along.id("PGD-v2", "undefended", 30) is None


def test_a_row_with_a_loss_that_there_is_not():
    message = sentence(Row, attack=attacks_of("fashion-mnist")["FGSM"], losses={"cross-entropy": "any"})
    assert "margin" in message and "cross-entropy" in message


# --- files with mistakes ----------------------------------------------------------------------------------------------


@pytest.fixture
def table(monkeypatch, tmp_path):
    """A declared table to make mistakes in: table(name, **fields) adds to its file or replaces what stands there."""
    shutil.copytree(PARAMS, tmp_path / "params")
    monkeypatch.setattr(tables, "PARAMS", tmp_path / "params")
    load_table.cache_clear()

    def change(name: str, drop: str = "", **fields) -> None:
        file = tmp_path / "params" / "tables" / f"{name}.yaml"
        content = yaml.safe_load(file.read_text()) | fields
        content.pop(drop, None)
        file.write_text(yaml.safe_dump(content, sort_keys=False))
        load_table.cache_clear()

    yield change
    load_table.cache_clear()


TABLE06 = read_yaml(PARAMS / "tables" / "table06_fashion_mnist.yaml")
COLUMNS, ROWS = TABLE06["columns"], TABLE06["rows"]


@pytest.mark.parametrize("fields, words", [
    ({"rows": {"PGDv2": None}}, ["row 'PGDv2'", "did you mean 'PGD-v"]),
    ({"rows": {"FGSM-v1": None}}, ["'FGSM-v1'", "did you mean 'FGSM'"]),  # it is CIFAR-10's
    ({"rows": {"x": {"attack": {"like": "FSGM", "eps": 0.1}}}}, ["row 'x'", "did you mean 'FGSM'"]),
    ({"rows": {"x": {"attack": {"like": "FGSM", "epsilon": 0.1}}}}, ["epsilon", "eps"]),
    ({"rows": {"x": {"attack": {"name": "pgd", "eps": "1e-1", "alpha": 0.1, "steps": 1}}}}, ["'1e-1'", "1.0e"]),
    ({"rows": {"FGSM": {"run": 1}}}, ["Row.run", "did you mean 'runs'"]),
    ({"rows": ROWS | {"FGSM": {"columns": ["7P1"]}}}, ["table06_fashion_mnist", "'7P1'", "did you mean '7-P1'"]),
    ({"columns": COLUMNS | {"x": {"recipe": "adam", "parent": "undefnded"}}}, ["did you mean 'undefended'"]),
    ({"columns": COLUMNS | {"x": {"recipe": "adam", "defence": {"name": "patched", "size": 7}}}}, ["count is missing"]),
    ({"columns": COLUMNS | {"x": {"recipe": "adam", "architecture": "vgg"}}}, ["did you mean 'vgg16'"]),
    ({"columns": COLUMNS | {"x": {"recipe": "adam", "parent": "undefended", "architecture": "resnet20"}}},
     ["the parent is a fmnistconv", "resnet20"]),
    ({"columns": {}}, ["Page.columns", "at least 1"]),
    ({"transfer_from": "undefende"}, ["did you mean 'undefended'"]),
    ({"shown": ["7-P1", "9-P1"]}, ["'9-P1'"]),
    ({"claims": [{"claim": "X16", "row": "FGSMM"}]}, ["did you mean 'FGSM'"]),
    ({"claims": [{"claim": "X16", "row": "FGSM", "over": "undefend"}]}, ["did you mean 'undefended'"]),
    ({"claims": [{"claim": "X", "rows": "FGSM"}]}, ["Answer.rows", "did you mean 'row'"]),
    ({"colums": {}}, ["'colums'", "did you mean 'columns'"]),
    ({"dataset": "fashion-minst"}, ["'fashion-minst'", "did you mean 'fashion-mnist'"]),
    ({"losses": {"margn": "any"}}, ["Page.losses", "margin", "'margn'"]),
    ({"losses": ["margin"]}, ["Page.losses"]),
    ({"pages": {"fmnistcon": {}}}, ["'fmnistcon'", "did you mean 'fmnistconv'"]),
    ({"pages": ["fmnistconv"]}, ["table06_fashion_mnist.yaml lacks `pages`"]),
    ({"networks_of": "table3"}, ["did you mean 'table03'"]),
    ({"networks_of": "table09"}, ["table09 has its networks from table06_fashion_mnist"]),
    ({"networks_of": "table06_fashion_mnist"}, ["table06_fashion_mnist has its networks from"]),
    ({"networks_of": "table03"}, ["table03", "known: vgg16, resnet20, resnet50"]),
    ({"columns": COLUMNS | {"x": {"recipe": "adam", "parent": "x"}}}, ["'x' is made from itself"]),
    ({"columns": COLUMNS | {"x": {"members": ["7-P1", "x"]}}}, ["'x' is made from itself"]),
    ({"columns": COLUMNS | {"x": {"members": ["7-P1", "7P2"]}}}, ["did you mean '7-P2'"]),
    ({"columns": COLUMNS | {"x": {"members": ["7-P1", {"recipe": "adam", "parent": "undefnded"}]}}},
     ["did you mean 'undefended'"]),
    ({"rows": {"FGSM": {"made_on": {"7-P1": "undefnded"}}}}, ["did you mean 'undefended'"]),
    ({"rows": {"FGSM": {"made_on": {"7P1": "undefended"}}}}, ["did you mean '7-P1'"]),
    ({"rows": {"FGSM": {"labels": "prediction"}}}, ["Row.labels", "'predicted'"]),
    ({"columns": COLUMNS | {"x": "adam"}}, ["column 'x' is 'adam'", "a mapping"]),
    ({"columns": 3}, ["columns is 3"]),
    ({"rows": {"FGSM": 3}}, ["row 'FGSM' is 3"]),
    ({"pages": {"fmnistconv": {"record": "../x"}}}, ["record is '../x'"]),
    ({"claims": [{"claim": "T6.{row}.{col}"}]}, ["{row}, {column} and {epoch} alone"]),
    ({"claims": [{"claim": "X99"}]}, ["unknown claim 'X99'"]),
    ({"claims": [{"claim": "T60.{row}.{column}"}]}, ["unknown claim 'T60"]),
])  # fmt: skip
def test_a_mistake_in_a_table(table, fields, words):
    load_table("table06_fashion_mnist")
    table("table06_fashion_mnist", **fields)
    message = sentence(load_plan, "table06_fashion_mnist", "fmnistconv", "quick")
    assert all(word in message for word in words), message


@pytest.mark.parametrize("fields", [
    {"columns": 3}, {"dataset": "fashion-minst"}, {"rows": {"x": {"attack": {"name": "pdg", "eps": 0.1}}}},
    {"rows": {"x": {"attack": {"name": "pgd", "eps": 3, "alpha": 0.1, "steps": 1}}}},
])  # fmt: skip
def test_another_page_that_stumbles_over_a_mistake_says_whose_it_is(table, fields):
    load_table("table06_fashion_mnist")
    table("table06_fashion_mnist", **fields)
    assert sentence(load_plan, "table03", "vgg16", "quick").startswith("table06_fashion_mnist.yaml")


@pytest.mark.parametrize("missing", ["title", "dataset", "columns", "rows"])
def test_what_a_table_lacks(table, missing):
    table("table06_fashion_mnist", drop=missing)
    assert missing in sentence(load_table, "table06_fashion_mnist")


def test_a_table_that_there_is_not():
    assert "did you mean 'table06_fashion_mnist'" in sentence(load_table, "table6_fashion_mnist")


def test_an_attack_that_an_engine_or_a_decision_rule_cannot_do_is_refused_before_any_compute(table):
    """AutoAttack judges every iterate, and has losses of its own: so "last" is refused when the plan is made."""
    autoattack = {"name": "autoattack", "eps": 0.3}
    for losses, words in (({"logits": "last"}, ["decision", "'last'"]), ({"margin": "any"}, ["loss", "'margin'"])):
        table("table06_fashion_mnist", rows=ROWS | {"AutoAttack": {"attack": autoattack, "losses": losses}})
        plan = load_plan("table06_fashion_mnist", "fmnistconv", "quick")
        message = sentence(lambda plan=plan: plan.jobs)
        assert all(word in message for word in words), message


# --- adding -----------------------------------------------------------------------------------------------------------


def test_a_defence_is_one_column(table):
    """What each later issue does: a file under defenses/, and this."""
    table("table06_fashion_mnist", columns=COLUMNS | {
        "Free AT": {"recipe": "adam", "defence": {"name": "free_at", "eps": 0.3, "replays": 4}},
        "High Frequency": {"change": {"name": "high_frequency", "rho": 0.5}, "of": "undefended"},
        "EMPIR": {"members": [{"recipe": "adam", "defence": {"name": "quantised", "weight_bits": bits,
                                                            "activation_bits": 2}} for bits in (4, 2)]},
    })  # fmt: skip
    plan = load_plan("table06_fashion_mnist", "fmnistconv", "quick")
    kinds = {name: type(network).__name__ for (name, _), network in plan.networks.items()}
    assert (kinds["Free AT"], kinds["High Frequency"], kinds["EMPIR"]) == ("Trained", "Changed", "Voted")
    assert plan.networks["High Frequency", 0].network == plan.networks["undefended", 0]
    for column in ("Free AT", "High Frequency", "EMPIR"):
        assert {job.row for job in plan.jobs if job.column == column} == set(ROWS)
    assert len(plan.trainings) == 6 + 1 + 2


def test_a_networks_page_is_a_few_lines(table):
    """Table 9 for another network of Table 3."""
    content = yaml.safe_load((PARAMS / "tables" / "table09.yaml").read_text())
    rows = {"AutoAttack": {"attack": {"name": "autoattack", "eps": 0.03}, "losses": {"logits": "any"}}}
    new = {"resnet20": {"networks_of": "table03", "title": "Table 9: ResNet-20", "rows": rows}}
    table("table09", pages=content["pages"] | new)
    plan = load_plan("table09", "resnet20", "quick")
    assert plan.page.record == "table09_resnet20" and {job.row for job in plan.jobs} == {"AutoAttack"}
    assert {job.column for job in plan.jobs} == {"undefended", "7-P1", "no patches"}
