"""What a check costs, what it shows and leaves behind, and the questions that it refuses."""

import copy
from functools import partial

import pandas as pd
import pytest
import torch
from conftest import TOY_EPS
from diagnostics.known_cases import LARGE, LAST, OTHER, PATTERNS, SMALL, TOY, WIDE, sound, template, two_cues
from torch import nn

from reprolib.attacks import AutoAttack, LinfAttack, pgd
from reprolib.diagnostics import VERDICTS, check
from reprolib.diagnostics.case import Case

quiet = partial(check, draws=3, progress=False)
FEW_STEPS = partial(pgd, eps=TOY_EPS, alpha=TOY_EPS / 5, steps=5, slots=4096)


@pytest.fixture
def runs(monkeypatch):
    """What attacks ran: kind, network, fields, number of images."""
    noted = []
    for kind in (LinfAttack, AutoAttack):

        def note(self, images, labels, *rest, run=kind.run, **options):
            fields = [value for name, value in vars(self).items() if name != "model"]
            noted.append((type(self).__name__, id(self.model), *fields, len(images)))
            return run(self, images, labels, *rest, **options)

        monkeypatch.setattr(kind, "run", note)
    return noted


def test_a_network_that_falls_at_once_needs_no_autoattack(brittle, held_out, runs):
    report = quiet(brittle, None, held_out, TOY)
    assert report.keeps == 0 and runs and not any(run[0] == "AutoAttack" for run in runs)


@pytest.mark.slow
def test_one_that_stands_is_left_to_autoattack_whole(runs):
    images, labels = two_cues(count=50)
    assert quiet(WIDE, OTHER, (images, labels), sound(SMALL)).verdict == "right"
    parts = [run[4] for run in runs if run[0] == "AutoAttack"]
    assert [name for some in parts for name in some] == ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    assert len(runs) == len(set(runs))  # and no attack runs twice


@pytest.mark.slow
def test_a_network_of_three_classes_is_asked_what_needs_no_fourth(runs):
    images, labels = two_cues(count=200)
    few = labels < 3
    report = quiet(template(PATTERNS[:3]), None, (images[few], labels[few]), sound(SMALL))
    assert report.verdict == "right" and report.keeps > 90
    assert [name for run in runs if run[0] == "AutoAttack" for name in run[4]] == ["APGD-CE", "Square"]


def test_a_parent_may_be_left_out(brittle, held_out):
    assert str(quiet(brittle, data=held_out, attack=TOY)) == str(quiet(brittle, None, held_out, TOY))
    with pytest.raises(ValueError, match="nothing is given as data and attack; expected check"):
        check(brittle)


def test_the_same_question_has_the_same_answer(brittle, held_out):
    first, second = (quiet(brittle, None, held_out, LAST) for _ in range(2))
    pd.testing.assert_frame_equal(first.table, second.table)
    assert str(first) == str(second)


def test_the_order_of_images_changes_nothing(sturdy, held_out):
    """As far as nothing is drawn at random, which goes by the row."""
    order = torch.randperm(200, generator=torch.Generator().manual_seed(5))
    images, labels = held_out
    asked = []
    for data in (held_out, (images[order], labels[order])):
        case = Case(sturdy, None, *data, FEW_STEPS(sturdy), 1)
        for stage in (case.look_at_gradients, case.run_claim, case.look_at_wider_radii):
            stage()
        asked.append(case)
    for name in ("flat", "claim_flat", "claimed", "standing", "leads_nowhere"):
        assert torch.equal(getattr(asked[0], name)[order], getattr(asked[1], name))


@pytest.mark.parametrize("progress", [True, False])
def test_progress_can_be_switched_off(brittle, held_out, capsys, progress, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    check(brittle, None, held_out, TOY, draws=1, progress=progress)
    shown = capsys.readouterr()
    assert shown.out == "" and ("stage" in shown.err) == progress and ("noise" in shown.err) == progress


@pytest.mark.parametrize("fails", [False, True])
def test_leaves_no_trace_on_a_network_of_the_readers_own(held_out, brittle, fails):
    """Batch normalisation and dropout, in train mode but for one module; also after an error, and inside no_grad."""
    torch.manual_seed(3)
    parts = nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 5)
    with torch.no_grad():
        parts[3].weight.copy_(100 * PATTERNS[:5].flatten(1))
    net, parent, calls = nn.Sequential(*parts).train(), copy.deepcopy(brittle).train(), []
    net[0].eval()
    net[3].bias.requires_grad_(False)

    def stop(*_):
        calls.append(1)
        if fails and len(calls) == 20:
            raise OSError("stop")

    net[1].register_forward_hook(stop)
    images, labels = (tensor[:60].clone() for tensor in held_out)
    before, state, copies = copy.deepcopy(net.state_dict()), torch.get_rng_state(), images.clone()
    with torch.no_grad():
        if fails:
            with pytest.raises(OSError, match="stop"):
                quiet(net, parent, (images, labels), TOY)
        else:
            assert quiet(net, parent, (images, labels), TOY).verdict in VERDICTS
    assert [module.training for module in net.modules()] == [True, False, True, True, True]
    assert all(module.training for module in parent.modules())
    assert all(parameter.grad is None for parameter in (*net.parameters(), *parent.parameters()))
    assert [parameter.requires_grad for parameter in net.parameters()] == [True, True, True, False]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(images, copies)


class NotFinite(nn.Module):
    def forward(self, images):
        return WIDE(images) / 0


@pytest.mark.parametrize(
    "change, words",
    [
        ({"data": (torch.empty(0, 1, 8, 8), torch.empty(0, dtype=torch.int64))}, ["no images"]),
        ({"data": (torch.full((2, 1, 8, 8), 3.0), torch.tensor([0, 1]))}, ["0, 1]"]),
        ({"attack": None}, ["nothing is given as attack", "check(model, parent, (images, labels), attack)"]),
        ({"data": None}, ["nothing is given as data"]),
        ({"data": None, "attack": None}, ["nothing is given as data and attack"]),
        ({"attack": 3}, ["attack is a int", "functools.partial"]),
        ({"attack": pgd(nn.Identity(), 0.1, 0.02, 3)}, ["attack is a LinfAttack", "functools.partial"]),
        ({"attack": lambda net: net}, ["attack makes a Sequential", "LinfAttack"]),
        ({"attack": lambda net: pgd(template(PATTERNS[:5]), 0.1, 0.02, 3)}, ["on another network", "lambda net"]),
        ({"attack": partial(AutoAttack, eps=0.1)}, ["attack makes a AutoAttack"]),
        ({"attack": partial(pgd, eps=0.0, alpha=0.02, steps=3)}, ["eps is 0"]),
        ({"data": torch.zeros(2)}, ["data is", "(images, labels)"]),
        ({"model": template(PATTERNS[:4])}, ["0 to 3"]),
        ({"model": NotFinite()}, ["not finite"]),
        ({"parent": template(PATTERNS[:6])}, ["parent has 6 classes", "the network 5", "or None"]),
    ],
)
def test_impossible_questions(change, words):
    given = {"model": WIDE, "parent": WIDE, "data": two_cues(), "attack": sound(LARGE)} | change
    with pytest.raises(ValueError) as error:
        quiet(**given)
    assert all(word in str(error.value) for word in words)
