"""Attacks by name: found in their files, and said as plain data."""

import inspect
import pydoc
import sys

import pytest
import torch
from torch import nn

from reprolib import attacks
from reprolib.attacks.autoattack import AutoAttack

NET = nn.Identity()


def test_names_are_those_of_the_constructors():
    named = attacks.named()
    made = named["pgd"](NET, eps=0.1, alpha=0.01, steps=4, restarts=2, loss="logits", decision="last", seed=3)
    assert made == attacks.LinfAttack(NET, 0.1, 0.01, 4, 2, "logits", "last", 3)
    assert named["square"](NET, eps=0.1) == attacks.AutoAttack(NET, 0.1, parts=("Square",))
    assert named["autoattack"](NET, eps=0.1, steps=7).parts == attacks.STANDARD


@pytest.mark.parametrize("make", attacks.named().values(), ids=attacks.named())
def test_help_shows_every_parameter_with_the_default_that_it_has(make):
    signature = inspect.signature(make)
    shown = pydoc.plain(pydoc.render_doc(make))
    for option in ("loss", "decision", "seed", "slots", "bfloat16"):
        default = signature.parameters[option].default
        assert f"{option}: " in shown and f"= {default!r}" in shown
        given = {"model": NET, "eps": 0.1, "alpha": 0.01, "steps": 4}
        made = make(**{name: value for name, value in given.items() if name in signature.parameters})
        assert getattr(made, option) == default
    assert "options" not in signature.parameters and "Unpack" not in shown


def test_every_named_attack_is_called_by_its_name():
    """Also where its file has the same one, from which its parts are imported as before."""
    assert {name: getattr(attacks, name) for name in attacks.named()} == attacks.named()
    assert attacks.autoattack(NET, 0.1) == AutoAttack(NET, 0.1)


def test_equal_computations_have_equal_content():
    one_step = attacks.pgd(NET, 0.1, 0.1, 1, loss="logits")
    assert attacks.content(attacks.fgsm(NET, 0.1, loss="logits")) == attacks.content(one_step)
    assert attacks.content(attacks.fgsm(NET, 1)) == attacks.content(attacks.fgsm(NET, 1.0))
    handed = [attacks.named()["square"](NET, eps=0.1, loss=loss) for loss in ("logits", "probabilities")]
    assert attacks.content(handed[0]) != attacks.content(handed[1])
    assert attacks.content(attacks.AutoAttack(NET, 0.1, parts=["Square"])) == attacks.content(handed[0])


def test_probabilities_are_handed_by_a_wrapper(net, task):
    wrapped = attacks.AutoAttack(attacks.Probabilities(net), 0.03, steps=2).run(*task)
    named = attacks.named()["autoattack"](net, eps=0.03, steps=2, loss="probabilities").run(*task)
    assert torch.equal(wrapped.any_run, named.any_run) and torch.equal(wrapped.adversarial, named.adversarial)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose files count as files of `reprolib.attacks`."""
    monkeypatch.setattr(attacks, "__path__", [*attacks.__path__, str(tmp_path)])
    yield tmp_path
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(f"reprolib.attacks.{file.stem}", None)
        vars(attacks).pop(file.stem, None)


def test_an_attack_is_one_file_also_where_the_others_have_been_listed_before(folder):
    attacks.named().clear()  # a copy
    assert "pgd" in attacks.named() and "grey" not in attacks.named()
    (folder / "grey.py").write_text(
        "from dataclasses import dataclass\n\n\n"
        "@dataclass(frozen=True)\nclass Grey:\n    model: object\n    eps: float\n\n\n"
        "def grey(model, eps, *, loss='margin', decision='any', seed=0):\n    return Grey(model, eps)\n\n\n"
        "ATTACKS = {'grey': grey}\n"
    )
    assert "grey" in attacks.named()
    assert attacks.content(attacks.named()["grey"](NET, eps=0.5)) == {"kind": "Grey", "eps": 0.5}


def test_two_files_cannot_define_one_name(folder):
    (folder / "another.py").write_text("ATTACKS = {'pgd': print}\n")
    with pytest.raises(ValueError, match=r"lists an attack 'pgd', as another file does; give it another name"):
        attacks.named()
