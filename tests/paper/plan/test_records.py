"""Records refuse what is wrong before any compute, in one sentence that says which parameter and what to do."""

import pydantic
import pytest

from reprolib.paper.plan import PARAMS, Record, SpecError, parse_yaml, read_yaml
from reprolib.paper.plan.records import Count, Decision, Loss, Seed, Share

NAN, INF = float("nan"), float("inf")


class Part(Record):
    size: Count
    note: str = ""


class Thing(Record):
    count: Count
    share: Share = 1.0
    seed: Seed = 0
    loss: Loss = "margin"
    decision: Decision | None = None
    part: Part | None = None
    parts: list[Part] = []
    named: dict[str, Part] = {}


def refusal(fields: dict, record=Thing) -> str:
    with pytest.raises(SpecError) as caught:
        record(**fields)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def test_good_records_are_accepted():
    thing = Thing(count=3, share=0.5, loss="logits", part=Part(size=1), named={"a": Part(size=2)})
    assert thing.part.size == 1 and Thing(count=1, share=1).share == 1


@pytest.mark.parametrize("typo, meant", [("cuont", "count"), ("shares", "share"), ("decsion", "decision")])
def test_an_unknown_parameter_is_told_which_was_meant(typo, meant):
    assert f"Thing.{typo}: unknown parameter {typo!r}; did you mean {meant!r}?" in refusal({"count": 1, typo: 1})


def test_an_unknown_parameter_like_no_other_is_told_which_there_are():
    message = refusal({"count": 1, "zzz": 1})
    assert all(name in message for name in Thing.model_fields)


def test_a_missing_parameter_is_named_with_its_place():
    assert "Thing.count is missing; give it a value" in refusal({})
    assert "Part.size is missing" in refusal({"count": 1, "part": {}})


@pytest.mark.parametrize("name, value", [
    ("count", 0), ("count", "3"), ("count", 3.0), ("count", True), ("count", None), ("share", 0.0), ("share", 1.5),
    ("share", NAN), ("share", INF), ("share", "half"), ("seed", -1), ("loss", "cross-entropy"), ("decision", "all"),
])  # fmt: skip
def test_a_wrong_value_is_named_with_its_place(name, value):
    message = refusal({"count": 1} | {name: value})
    assert f"Thing.{name}" in message and repr(value) in message


def test_a_wrong_value_deep_inside_is_named_with_its_place():
    assert "Thing.parts.1: Part.size" in refusal({"count": 1, "parts": [{"size": 1}, {"size": 0}]})
    assert "Thing.named.a: Part.note" in refusal({"count": 1, "named": {"a": {"size": 1, "note": 2}}})


@pytest.mark.parametrize("text, hint", [("1e-3", "1.0e-3"), ("1E-3", "1.0e-3"), ("3", "without quotes")])
@pytest.mark.parametrize("name", ["count", "share"])
def test_a_number_that_yaml_reads_as_text(name, text, hint):
    message = refusal({"count": 1} | {name: text})
    assert f"Thing.{name} is the text {text!r}" in message and hint in message


def test_records_cannot_be_changed():
    thing = Thing(count=3)
    with pytest.raises(pydantic.ValidationError):
        thing.count = 4
    assert thing.content() == {"count": 3}


def test_content_leaves_out_what_is_as_by_default_and_makes_the_record_again():
    """So a new field, with a default, changes no key."""
    thing = Thing(count=3, share=1.0, seed=0, part=Part(size=2, note=""))
    assert thing.content() == {"count": 3, "part": {"size": 2}}
    assert Thing(**thing.content()) == thing


# --- files ------------------------------------------------------------------------------------------------------------


def sentence(action, *args) -> str:
    with pytest.raises(SpecError) as caught:
        action(*args)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def test_a_file_that_is_not_there_is_told_which_was_meant():
    message = sentence(read_yaml, PARAMS / "tables" / "table6_fashion_mnist.yaml")
    assert "unknown table 'table6_fashion_mnist'; did you mean 'table06_fashion_mnist'" in message
    assert "params/tables" in message
    assert "'qiuck'; did you mean 'quick'" in sentence(read_yaml, PARAMS / "profiles" / "qiuck.yaml")


@pytest.mark.parametrize("text, word", [
    ("", "mapping"), ("- steps\n- 10\n", "mapping"), ("steps: [1\nseed: 2\n", "not valid YAML"),
    ("title: café\n", "not valid YAML"),
    ("a: 1\nb: 2\na: 3\n", "'a' stands twice"), ("rows:\n  FGSM:\n  PGD:\n  FGSM:\n", "'FGSM' stands twice"),
])  # fmt: skip
def test_a_file_that_is_no_mapping_of_names_to_values(tmp_path, text, word):
    path = tmp_path / "some.yaml"
    path.write_text(text, encoding="latin-1")
    message = sentence(read_yaml, path)
    assert "some.yaml" in message and word in message


def test_yaml_is_read_as_it_stands(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("lr: 1.0e-3\neps: 1e-3\nrows: {FGSM: , PGD: {steps: 3}}\n")
    assert parse_yaml(path) == {"lr": 0.001, "eps": "1e-3", "rows": {"FGSM": None, "PGD": {"steps": 3}}}
