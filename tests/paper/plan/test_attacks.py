"""An attack of a declaration is an attack of `reprolib.attacks`, refused where that one would refuse it."""

import inspect

import pytest
from torch import nn

from reprolib import attacks
from reprolib.paper.plan import Attack, SpecError, attacks_of

PGD = {"name": "pgd", "eps": 0.3, "alpha": 0.01, "steps": 100, "restarts": 10}
FGSM = {"name": "fgsm", "eps": 0.3}
NAN, INF = float("nan"), float("inf")


def refusal(fields: dict) -> str:
    with pytest.raises(SpecError) as caught:
        Attack(**fields)
    message = str(caught.value)
    assert message.startswith("Attack") and "\n" not in message
    return message


def built(attack: Attack, loss: str = "logits", decision: str = "last", seed: int = 3):
    return attack.build(nn.Identity(), loss, decision, seed)


def test_an_attack_is_built_from_its_record_with_what_the_evaluation_adds():
    pgd = built(Attack(**PGD), loss="probabilities")
    assert isinstance(pgd, attacks.LinfAttack)
    assert (pgd.eps, pgd.alpha, pgd.steps, pgd.restarts) == (0.3, 0.01, 100, 10)
    assert (pgd.loss, pgd.decision, pgd.seed) == ("probabilities", "last", 3)
    assert isinstance(built(Attack(name="square", eps=0.1), decision="any"), attacks.AutoAttack)


@pytest.mark.parametrize("name", list(attacks.named()))
def test_every_attack_of_the_library_can_be_declared(name):
    """A new file under attacks/ can be a row of a table at once."""
    record = Attack(name=name, **{p: v for p, v in PGD.items() if p in _parameters(name)})
    assert record.content() == Attack(**record.content()).content()
    assert attacks.content(record.build(nn.Identity(), "logits", "any", 0))


def _parameters(name: str) -> list[str]:
    return list(inspect.signature(attacks.named()[name]).parameters)


@pytest.mark.parametrize("fields, words", [
    ({"name": "bim", "eps": 0.1}, ["bim", "pgd"]),
    ({"name": "pdg", "eps": 0.1}, ["did you mean 'pgd'"]),
    ({"eps": 0.1}, ["name is missing"]),
    ({"name": "fgsm"}, ["eps"]),
    (PGD | {"restart": 3}, ["restart", "did you mean 'restarts'"]),
    (FGSM | {"epsilon": 0.1}, ["epsilon"]),
    (FGSM | {"steps": 1}, ["steps"]),
    (FGSM | {"alpha": 0.3}, ["alpha"]),
    ({"name": "ifgsm", "eps": 0.3, "alpha": 0.01, "steps": 10, "restarts": 1}, ["restarts"]),
    ({"name": "ifgsm", "eps": 0.3}, ["alpha"]),
    ({"name": "autoattack", "eps": 0.3, "restarts": 1}, ["restarts"]),
    (PGD | {"steps": 0}, ["alpha is 0.01 with 0 steps"]),
    (PGD | {"steps": 2.5}, ["steps", "2.5"]),
    (PGD | {"steps": -1}, ["steps", "-1"]),
    (PGD | {"restarts": -1}, ["restarts", "-1"]),
    (PGD | {"eps": 8}, ["eps is 8", "8/255"]),
    (PGD | {"eps": -0.1}, ["eps is -0.1"]),
    (PGD | {"eps": NAN}, ["eps is nan"]),
    (PGD | {"eps": True}, ["eps is True"]),
    (PGD | {"eps": "8e-2"}, ["eps is", "'8e-2'", "text"]),
    (PGD | {"alpha": INF}, ["alpha is inf"]),
    (PGD | {"loss": "margin"}, ["loss", "a row has its losses"]),
    (PGD | {"decision": "any"}, ["decision"]),
    (PGD | {"seed": 3}, ["seed"]),
    ({"name": "square", "eps": 2}, ["eps is 2"]),
    ({"name": "cw", "eps": 0.1}, ["unknown attack 'cw'", "known: ", "fgsm"]),
    ({"name": "ifgsm", "eps": 0.3, "steps": 10}, ["ifgsm: alpha is missing"]),
    (PGD | {"step": 4}, ["unknown parameter 'step'; did you mean 'steps'?"]),
    (PGD | {"slots": 2.0}, ["slots is 2.0"]),
    (PGD | {"bfloat16": 1}, ["bfloat16 is 1"]),
    (PGD | {"eps": "1e-3"}, ["eps is the text '1e-3'", "1.0e-3"]),
    (PGD | {"steps": 12.5}, ["steps is 12.5", "round up, for example with math.ceil"]),
])  # fmt: skip
def test_an_attack_that_makes_no_sense(fields, words):
    message = refusal(fields)
    assert all(word in message for word in words), message


def test_attacks_that_are_the_same_computation_have_the_same_content():
    """IFGSM, PGD without restarts, and FGSM as one whole step: so they share one artefact."""
    ifgsm, pgd = {"name": "ifgsm", "eps": 0.3, "alpha": 0.01, "steps": 100}, PGD | {"restarts": 0}
    assert attacks.content(built(Attack(**ifgsm))) == attacks.content(built(Attack(**pgd)))
    one_step = {"name": "ifgsm", "eps": 0.3, "alpha": 0.3, "steps": 1}
    assert attacks.content(built(Attack(**FGSM))) == attacks.content(built(Attack(**one_step)))
    assert attacks.content(built(Attack(**PGD))) != attacks.content(built(Attack(**pgd)))


def test_get_knows_what_the_attack_takes_by_default():
    assert Attack(**PGD).get("steps") == 100
    assert Attack(name="pgd", eps=0.1, alpha=0.1, steps=1).get("restarts") == 0
    assert Attack(name="autoattack", eps=0.1).get("steps") == 100
    assert Attack(**FGSM).get("steps", 0) == 0 and Attack(**FGSM).get("alpha") is None


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps, alpha", [(10, 0.075), (25, 0.03), (50, 0.015), (99, 0.01), (75, 0.01), (1, 0.75)])
def test_fewer_steps_are_longer_steps_and_nothing_else_changes(steps, alpha):
    limited = Attack(**PGD).limited(steps, 10)
    assert limited.content() == PGD | {"steps": steps, "alpha": pytest.approx(alpha)}
    # two and a half times across, where the paper's own step is not longer still
    assert limited.get("alpha") * steps == pytest.approx(max(2.5 * 0.3, 0.01 * steps))


@pytest.mark.parametrize("restarts", [3, 0])
def test_fewer_restarts_change_nothing_else(restarts):
    assert Attack(**PGD).limited(100, restarts).content() == PGD | {"restarts": restarts}


def test_limits_are_upper_limits():
    assert Attack(**PGD).limited(1000, 1000) == Attack(**PGD)
    assert Attack(**FGSM).limited(1, 0) == Attack(**FGSM)


@pytest.mark.parametrize("name", ["autoattack", "square"])
def test_autoattack_is_cut_short_below_100_steps_and_says_so(name):
    attack = Attack(name=name, eps=0.3)
    assert attack.limited(100, 0) == attack and attack.limited(200, 0) == attack
    assert attack.limited(10, 0).content() == {"name": name, "eps": 0.3, "steps": 10}


# --- Table 2 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset, count", [("fashion-mnist", 4), ("cifar-10", 6), ("imagenet-subset", 8)])
def test_the_papers_attacks_by_their_printed_names(dataset, count):
    found = attacks_of(dataset)
    assert len(found) == count
    for label, attack in found.items():
        assert label.lower().startswith(attack.name)
        assert attack.limited(100, 20) == attack, "the paper profile changes none of them"


def test_a_data_set_without_attacks():
    with pytest.raises(SpecError, match="did you mean 'cifar-10'"):
        attacks_of("cifar-100")


@pytest.mark.parametrize("fields, loss, decision, message", [
    ({"name": "square", "eps": 0.1}, "logits", "last", "^decision is 'last'; expected 'any'"),
    ({"name": "autoattack", "eps": 0.1}, "margin", "any", "^loss is 'margin'; expected one of logits, probabilities"),
    (FGSM, "hinge", "any", "^loss is 'hinge'; expected one of margin, logits, probabilities"),
])  # fmt: skip
def test_what_an_evaluation_adds_must_fit_the_attack(fields, loss, decision, message):
    with pytest.raises(ValueError, match=message):
        built(Attack(**fields), loss, decision)
