"""The diagnosis is right where the truth is known, each check can fail, and nothing is left behind."""

import copy
from functools import partial

import pandas as pd
import pytest
import torch
from conftest import TOY_EPS, Scale, toy_network
from scipy.linalg import hadamard
from torch import Tensor, nn

from reprolib.attacks import AutoAttack, LinfAttack, Probabilities, autoattack, fgsm, loss_per_image, pgd
from reprolib.diagnostics import VERDICTS, Report, check, checks
from reprolib.diagnostics.case import Case

MARGIN = partial(pgd, eps=TOY_EPS, alpha=0.025, steps=20, restarts=20, slots=4096)
LOGITS = partial(MARGIN, restarts=2, loss="logits", decision="last")
SOFTMAX = partial(LOGITS, loss="probabilities")
STILL = partial(MARGIN, alpha=0.0, restarts=2)
FEW_STEPS = partial(pgd, eps=TOY_EPS, alpha=TOY_EPS / 5, steps=5, restarts=2, slots=4096)


def template(patterns: Tensor) -> nn.Module:
    """A linear network that compares an 8x8 image with one pattern per class."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    with torch.no_grad():
        net[1].weight.copy_(patterns.flatten(1))
        net[1].bias.copy_(-0.5 * patterns.flatten(1).sum(1))
    return net.requires_grad_(False)


PATTERNS = torch.tensor(hadamard(64)[1:11], dtype=torch.float32).view(10, 1, 8, 8)  # orthogonal, sums 0


def two_cues() -> tuple[Tensor, Tensor]:
    """Images that show their class twice, in patterns that have nothing to do with each other."""
    labels = torch.arange(100) % 5
    noise = 0.02 * torch.randn(100, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    return 0.5 + 0.04 * PATTERNS[labels] + 0.04 * PATTERNS[5 + labels] + noise, labels


@pytest.fixture(scope="module")
def reports(brittle, sturdy, held_out):
    """name -> its report, made when it is first asked for."""
    younger = toy_network(500, adversarially=False)
    saturated, quiet = nn.Sequential(brittle, Scale(4.0)), nn.Sequential(brittle, Scale(14e-4))
    cases = {
        "undefended": (brittle, brittle, held_out, MARGIN),
        "undefended, trained on": (brittle, younger, held_out, LOGITS),
        "undefended, by probabilities": (brittle, brittle, held_out, SOFTMAX),
        "saturated": (saturated, brittle, held_out, SOFTMAX),
        "logits times 1e4": (nn.Sequential(quiet, Scale(1e4)), quiet, held_out, LOGITS),
        "logits times 1e4, all blind": (nn.Sequential(brittle, Scale(1e4)), brittle, held_out, LOGITS),
        "sturdy": (sturdy, brittle, held_out, MARGIN),
        "sturdy, by FGSM": (sturdy, brittle, held_out, partial(fgsm, eps=TOY_EPS, loss="logits")),
        "sturdy, few steps, no parent": (sturdy, None, held_out, FEW_STEPS),
        "still": (brittle, brittle, held_out, STILL),
        "still, no parent": (brittle, None, held_out, STILL),
        "another cue": (template(PATTERNS[5:]), template(PATTERNS[:5]), two_cues(), MARGIN),
    }
    made = {}

    def report(name: str) -> Report:
        if name not in made:
            with pytest.MonkeyPatch.context() as patched:
                square = autoattack.Square
                # Square is the slowest of all attacks here, and finds in 500 queries what it is needed for
                patched.setattr(autoattack, "Square", lambda *given, queries: square(*given, queries=500))
                made[name] = check(*cases[name])
        return made[name]

    return report


def row(report: Report, name: str) -> pd.Series:
    return report.table.set_index("check").loc[name]


@pytest.mark.parametrize(
    "name, verdict, words",
    [
        ("undefended", "not robust", ["No check fails", "0.0 % survive"]),
        ("undefended, trained on", "not robust", ["No check fails"]),
        ("undefended, by probabilities", "not robust", ["No check fails"]),
        ("saturated", "masked gradients", ["D2 zero gradients", "fail", "0.0 % survive"]),
        ("logits times 1e4", "masked gradients", ["D2 zero gradients", "fail", "0.0 % survive"]),
        ("logits times 1e4, all blind", "masked gradients", ["D2 zero gradients", "fail", "0.0 % survive"]),
        ("sturdy", "robust", ["No check fails", "against 0.0 %"]),
        ("sturdy, by FGSM", "attack too weak", ["D3 other losses fails"]),
        ("sturdy, few steps, no parent", "attack too weak", ["D5 more steps"]),
        ("still", "attack too weak", ["D0 control fails", "100.0 % are claimed"]),
        ("still, no parent", "attack too weak", ["D7 step size fails", "100.0 % are claimed"]),
        ("another cue", "robust only to transfer", ["D10", "100.0 % survive what breaks the parent", "only 0.0 %"]),
    ],
)
def test_the_verdict_where_the_truth_is_known(reports, name, verdict, words):
    report = reports(name)
    assert verdict in VERDICTS and report.verdict == verdict, report.table.to_string()
    assert all(word in report.reason for word in words) and report.reason.endswith(".")


def test_the_positive_control_passes_everything(reports):
    """D17 of the list: a network known to be robust, under a sound attack."""
    table = reports("sturdy").table
    assert [r.check for r in table.itertuples() if r.passed is not True] == []


def test_scaled_logits_leave_some_gradients(reports):
    """A check that only asks whether all gradients are zero would find nothing."""
    assert 10 < row(reports("logits times 1e4"), "D2 zero gradients")["measured"] < 90
    assert row(reports("logits times 1e4"), "D3 other losses")["measured"] > 20
    assert row(reports("logits times 1e4, all blind"), "D2 zero gradients")["measured"] == 100


def test_nothing_claimed_nothing_masked(reports, brittle, held_out):
    """Some images of the undefended network are saturated as well, but the attack has come through."""
    images = held_out[0].clone().requires_grad_()
    loss = loss_per_image(nn.Sequential(brittle, Scale(1.5))(images), held_out[1], "probabilities")
    assert (torch.autograd.grad(loss.sum(), images)[0] == 0).flatten(1).all(1).float().mean() > 0.01
    for name in ("D2 zero gradients", "D2 gradient size"):
        assert row(reports("undefended, by probabilities"), name)["passed"] is None


# --- each check can fail ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, checks",
    [
        (
            "saturated",
            [
                "D2 zero gradients",
                "D2 gradient size",
                "D3 other losses",
                "D6 more restarts",
                "D8 radius 1",
                "D9 black box",
                "D10 transfer",
                "D11 random noise",
                "D12 landscape",
                "D14 AutoAttack",
            ],
        ),
        ("still", ["D0 control", "D4 one step", "D7 step size", "D8 radius 0.5"]),
        ("sturdy, few steps, no parent", ["D5 more steps"]),
    ],
)
def test_checks_that_fail_in_the_known_cases(reports, name, checks):
    failed = reports(name).table.query("passed == False")["check"].tolist()
    assert set(checks) <= set(failed)


class Between(nn.Module):
    """One pixel, ten classes: class 1 between 0.45 and 0.47, else class 0. Its gradient leads there from both sides."""

    def forward(self, images: Tensor) -> Tensor:
        near = 0.01 - (images.flatten(1)[:, :1] - 0.46).abs()
        return torch.cat([-near, near, near.new_full((len(near), 8), -9.0)], 1)


class Wavering(Between):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + torch.rand(len(images), 10)


class Alone(Between):
    """Another network for a single image than for several."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) - (len(images) == 1) * torch.eye(10)[1]


def case(model: nn.Module, attack) -> Case:
    """Two images of one pixel, 0.4, of class 0."""
    images, labels = torch.full((2, 1, 1, 1), 0.4), torch.zeros(2, dtype=torch.int64)
    return Case(model, None, images, labels, attack, draws=20)


def passed(name: str, case: Case) -> bool | None:
    return checks.CHECKS[name](case)[2]


# 0.400, right -> 0.455, wrong -> 0.500, right
OVERSHOOTS = partial(pgd, eps=0.1, alpha=0.055, steps=2, decision="last")


@pytest.mark.parametrize(
    "name, broken",
    [
        ("D1 same answer twice", case(Wavering(), OVERSHOOTS)),
        ("D1 logits", case(Probabilities(Between()), OVERSHOOTS)),
        ("D13 silent success", case(Between(), OVERSHOOTS)),
        ("D8 larger budgets", case(Between(), partial(fgsm, eps=0.06))),  # 0.52 is right again
        ("D18 precision", case(Alone(), partial(fgsm, eps=0.06))),
    ],
)
def test_checks_that_fail_by_construction(name, broken):
    with torch.random.fork_rng():
        assert passed(name, broken) is False
    assert passed(name, case(Between(), partial(pgd, eps=0.1, alpha=0.0015, steps=60))) is True


def test_bpda_that_is_another_attack_is_noticed(brittle, sturdy, held_out, monkeypatch):
    made = Case(sturdy, None, *held_out, MARGIN, 1)
    assert checks.CHECKS["D15 BPDA"](made)[0] == 0
    monkeypatch.setattr(checks, "BPDA", lambda transform, model: brittle)
    assert passed("D15 BPDA", made) is False


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_is_complete_and_well_typed(reports):
    for name in ("saturated", "sturdy", "still, no parent"):
        table = reports(name).table
        assert table.columns.tolist() == ["check", "measured", "threshold", "passed", "meaning"]
        assert list(dict.fromkeys(c.split()[0] for c in table["check"])) == [f"D{i}" for i in (*range(16), 18)]
        assert table["check"].is_unique and table["measured"].dtype == "float64" and table["passed"].dtype == object
        assert all(passed is None or isinstance(passed, bool) for passed in table["passed"])
        assert [passed is None for passed in table["passed"]] == table["measured"].isna().tolist()
        assert all(isinstance(text, str) and text for c in ("check", "threshold", "meaning") for text in table[c])


@pytest.mark.parametrize(
    "name, checks",
    [
        ("still, no parent", ["D0 control", "D2 gradient size", "D10 transfer", "D12 landscape", "D18 precision"]),
        ("sturdy, by FGSM", ["D4 one step", "D7 step size"]),
        ("undefended", ["D2 zero gradients", "D2 gradient size"]),
        ("sturdy", []),
    ],
)
def test_what_does_not_apply(reports, name, checks):
    assert [r.check for r in reports(name).table.itertuples() if r.passed is None] == checks


def test_the_same_question_has_the_same_answer(reports, brittle, held_out):
    report = check(brittle, brittle, held_out, MARGIN)
    pd.testing.assert_frame_equal(report.table, reports("undefended").table)
    assert report.reason == reports("undefended").reason


def test_the_order_of_images_changes_nothing(sturdy, brittle, held_out):
    """As far as nothing is drawn at random, which goes by the row."""
    drawn = ("D6", "D9", "D11", "D12", "D14")
    attack, order = partial(FEW_STEPS, restarts=0), torch.randperm(200, generator=torch.Generator().manual_seed(5))
    images, labels = held_out
    tables = []
    for data in (held_out, (images[order], labels[order])):
        made = Case(sturdy, brittle, *data, attack, 1)
        measured = {name: one(made) for name, one in checks.CHECKS.items() if name.split()[0] not in drawn}
        tables.append(pd.DataFrame.from_dict(measured, "index", columns=["measured", "threshold", "passed"]))
    pd.testing.assert_frame_equal(*tables, rtol=1e-4)
    assert tables[0]["passed"].eq(False).any() and tables[0]["passed"].eq(True).any()


def test_no_attack_runs_twice(brittle, sturdy, held_out, monkeypatch):
    runs = []
    for kind in (LinfAttack, AutoAttack):

        def noted(self, images, labels, *rest, run=kind.run, **options):
            runs.append((id(self.model), *(value for key, value in vars(self).items() if key != "model"), len(images)))
            return run(self, images, labels, *rest, **options)

        monkeypatch.setattr(kind, "run", noted)
    check(brittle, sturdy, held_out, LOGITS, draws=1)
    assert len(runs) == len(set(runs)) > 8


# --- conduct ---------------------------------------------------------------------------------------------------------


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
            raise RuntimeError("stop")

    net[1].register_forward_hook(stop)
    images, labels = (tensor[:20].clone() for tensor in held_out)
    before, state, copies = copy.deepcopy(net.state_dict()), torch.get_rng_state(), images.clone()
    with torch.no_grad():
        if fails:
            with pytest.raises(RuntimeError, match="stop"):
                check(net, parent, (images, labels), MARGIN, draws=3)
        else:
            assert check(net, parent, (images, labels), MARGIN, draws=3).verdict in VERDICTS
    assert [module.training for module in net.modules()] == [True, False, True, True, True]
    assert all(module.training for module in parent.modules())
    assert all(parameter.grad is None for parameter in (*net.parameters(), *parent.parameters()))
    assert [parameter.requires_grad for parameter in net.parameters()] == [True, True, True, False]
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(images, copies)


def test_nothing_correct_is_no_error(brittle, held_out):
    images, labels = held_out
    report = check(brittle, brittle, (images[:20], (labels[:20] + 1) % 5), MARGIN, draws=3)
    assert report.verdict == "not robust"


@pytest.mark.parametrize(
    "change, words",
    [
        ({"data": (torch.empty(0, 1, 8, 8), torch.empty(0, dtype=torch.int64))}, ["no images"]),
        ({"data": (torch.full((2, 1, 8, 8), 3.0), torch.tensor([0, 1]))}, ["0, 1]"]),
        ({"attack": None}, ["attack is a NoneType", "functools.partial"]),
        ({"attack": pgd(nn.Identity(), 0.1, 0.02, 3)}, ["attack is a LinfAttack", "functools.partial"]),
        ({"attack": lambda net: net}, ["attack makes a Sequential", "LinfAttack"]),
        ({"attack": partial(AutoAttack, eps=0.1)}, ["attack makes a AutoAttack"]),
        ({"attack": partial(pgd, eps=0.0, alpha=0.02, steps=3)}, ["eps is 0"]),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 3))}, ["3 classes", "4 or more"]),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 4))}, ["0 to 3"]),
    ],
)
def test_impossible_questions(brittle, held_out, change, words):
    given = {"model": brittle, "parent": brittle, "data": held_out, "attack": MARGIN} | change
    with pytest.raises(ValueError) as error:
        check(**given)
    assert all(word in str(error.value) for word in words)
