"""What is given by name and is wrong gets one sentence, with the nearest name that there is."""

from dataclasses import dataclass

import pytest
from torch import nn

from reprolib import attacks
from reprolib.paper.parameters import checked, suggest


@dataclass
class Oven:
    heat: float
    minutes: int
    mode: str = "air"
    fan: bool = True
    rack: int | None = None


GOOD = {"heat": 180.0, "minutes": 10}


def make(heat: float, minutes: int = 3) -> None:
    """A function is checked like a dataclass."""


def refusal(given: dict, what=Oven) -> str:
    with pytest.raises(ValueError) as caught:
        checked(what, given, "oven")
    message = str(caught.value)
    assert message.startswith("oven: ") and "\n" not in message
    return message


def test_good_parameters_pass_unchanged():
    for given in (GOOD, GOOD | {"mode": "gas", "fan": False, "rack": 2}, GOOD | {"rack": None}, GOOD | {"heat": 180}):
        assert checked(Oven, given, "oven") == given and Oven(**given)
    assert checked(make, {"heat": 1.0}, "oven") == {"heat": 1.0}


@pytest.mark.parametrize("typo, meant", [("minute", "minutes"), ("Heat", "heat"), ("modes", "mode")])
def test_a_misspelt_parameter_is_told_which_was_meant(typo, meant):
    assert f"unknown parameter {typo!r}; did you mean {meant!r}?" in refusal(GOOD | {typo: 1})


@pytest.mark.parametrize("given, words", [
    ({"eps": 0.1, "seed": "one"}, "seed is the text 'one'; expected a number"), ({"seed": 1}, "eps is missing"),
    ({"eps": 0.1, "options": 1}, "unknown parameter 'options'"), ({"eps": 0.1, "return": 2}, "unknown"),
    ({"eps": 0.1, "seeds": 2}, "unknown parameter 'seeds'; did you mean 'seed'?"),
])  # fmt: skip
def test_the_options_of_an_attack_are_known_too(given, words):
    assert words in refusal({"model": nn.Identity()} | given, attacks.fgsm)


def test_a_number_that_should_be_whole():
    assert "minutes is 2.5; expected int (round up, for example with math.ceil)" in refusal(GOOD | {"minutes": 2.5})


def test_an_unknown_parameter_like_no_other_is_told_which_there_are():
    assert "known: heat, minutes, mode, fan, rack" in refusal(GOOD | {"zzz": 1})


@pytest.mark.parametrize("what", [Oven, make])
def test_a_missing_parameter_is_named(what):
    assert "heat is missing" in refusal({"minutes": 3}, what)


@pytest.mark.parametrize("name, value", [
    ("minutes", 2.5), ("minutes", "10"), ("minutes", True), ("minutes", None), ("heat", False), ("heat", [1]),
    ("mode", 3), ("fan", "yes"), ("fan", 1), ("rack", 2.0), ("rack", "2"),
])  # fmt: skip
def test_a_value_of_another_type_is_named_with_what_was_expected(name, value):
    message = refusal(GOOD | {name: value})
    assert name in message and repr(value) in message and "expected" in message


@pytest.mark.parametrize("text, hint", [("1e-3", "1.0e-3"), ("1E2", "1.0e-3"), ("10", "without quotes")])
@pytest.mark.parametrize("name", ["heat", "rack"])
def test_a_number_that_yaml_reads_as_text(name, text, hint):
    message = refusal(GOOD | {name: text})
    assert repr(text) in message and hint in message


def test_suggest():
    assert suggest("mdel", ["model", "seed"], "parameter") == "unknown parameter 'mdel'; did you mean 'model'?"
    assert suggest("qqq", ["model", "seed"], "profile") == "unknown profile 'qqq'; known: model, seed"
    tables = ["table03", "table06_fashion_mnist", "table10", "table11"]
    for typed in ("table06", "Table06", "table06_fashion_mnist_cnn"):
        assert suggest(typed, tables, "table").endswith("did you mean 'table06_fashion_mnist'?")
    assert suggest("Seed", ["seeds", "seed"], "parameter").endswith("did you mean 'seed'?")
    assert suggest("epsilon", ["eps", "decision"], "parameter").endswith("did you mean 'eps'?")
    many = suggest("qqq", [f"claim{i}" for i in range(200)], "claim")
    assert "known: claim0, claim1, claim2, 197 more" in many and len(many) < 100
