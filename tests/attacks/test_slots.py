"""The slot engine: its queue and its resuming; and gradients in bfloat16, which are quicker and never the judge."""

import copy
from types import SimpleNamespace

import pytest
import torch
from attacks.small import ALPHA, EPS, stop_after
from torch import Tensor, nn

from reprolib.attacks import is_right, pgd, slots


class TwoFaced(nn.Module):
    """One pixel, two classes split at 0.5; under autocast it answers as if the border were elsewhere."""

    def __init__(self, border_under_autocast: float):
        super().__init__()
        self.border, self.seen = border_under_autocast, []

    def forward(self, images: Tensor) -> Tensor:
        fast = torch.is_autocast_enabled("cpu")
        self.seen.append(fast)
        x = images.flatten(1)[:, 0] - (self.border if fast else 0.5)
        return torch.stack([-x, x], 1)


IMAGES, LABELS = torch.tensor([0.30, 0.38, 0.42, 0.46]).view(-1, 1, 1, 1), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize("decision", ["any", "last"])
def test_what_bfloat16_calls_broken_float32_has_to_confirm(decision):
    """Under autocast everything above 0.2 is class 1: all images look broken from the start."""
    result = pgd(TwoFaced(0.2), 0.1, 0.02, 10, 3, decision=decision, bfloat16=True).run(IMAGES, LABELS)
    assert result.robust(decision).tolist() == [True, True, False, False]  # what float32's border at 0.5 allows
    assert (result.adversarial[2:] > 0.5).all()


@pytest.mark.parametrize("decision", ["any", "last"])
def test_the_last_iterate_is_never_left_to_bfloat16(decision):
    """Under autocast the border is at 0.9: nothing ever looks broken."""
    result = pgd(TwoFaced(0.9), 0.1, 0.02, 10, 3, decision=decision, bfloat16=True).run(IMAGES, LABELS)
    assert result.robust(decision).tolist() == [True, True, False, False]
    found = result.any_run if decision == "any" else result.last_run
    assert found[2:].tolist() == [0, 0], "a run in bfloat16 is enough where float32 agrees"


@pytest.mark.parametrize("loss", ["margin", "logits", "probabilities"])
@pytest.mark.parametrize("restarts, options, used", [
    (3, {}, False), (3, {"bfloat16": True}, True), (1, {"bfloat16": True}, False), (0, {"bfloat16": True}, False),
])  # fmt: skip
def test_bfloat16_searches_where_it_is_asked_for_before_the_last_run(loss, restarts, options, used):
    net = TwoFaced(0.5)
    pgd(net, 0.1, 0.02, 3, restarts, loss=loss, **options).run(IMAGES, LABELS)
    assert any(net.seen) == used and not net.seen[0], "the clean images are judged in float32"


class Misled(TwoFaced):
    """Under autocast the loss falls where it rises in float32, so every step leads away from the border."""

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            images = 2 * images.detach() - images
        return super().forward(images)


@pytest.mark.parametrize("decision", ["any", "last"])
def test_where_bfloat16_leads_astray_the_last_run_is_float32s_and_breaks_the_image(decision):
    result = pgd(Misled(0.5), 0.1, 0.02, 10, 4, decision=decision, bfloat16=True).run(IMAGES[2:3], LABELS[2:3])
    assert (result.any_run if decision == "any" else result.last_run).tolist() == [3]
    astray = pgd(Misled(0.5), 0.1, 0.02, 10, 4, decision=decision).run(IMAGES[2:3], LABELS[2:3])
    assert (astray.any_run if decision == "any" else astray.last_run).tolist() == [0], "in float32 the first run does"


@pytest.mark.parametrize("options", [{}, {"bfloat16": True}])
def test_a_callers_autocast_judges_nothing(options):
    with torch.autocast("cpu", torch.bfloat16):
        result = pgd(TwoFaced(0.2), 0.1, 0.02, 10, 3, **options).run(IMAGES, LABELS)
        assert is_right(TwoFaced(0.2), IMAGES, LABELS).all() and torch.is_autocast_enabled("cpu")
    assert result.robust().tolist() == [True, True, False, False]


def test_bfloat16_finds_what_float32_finds(sturdy, held_out):
    quick, exact = (pgd(sturdy, 0.1, 0.02, 20, 2, bfloat16=chosen).run(*held_out) for chosen in (True, False))
    assert quick.adversarial.dtype == torch.float32
    assert abs(int(quick.robust().sum()) - int(exact.robust().sum())) <= 2  # of 200
    broken = quick.correct & ~quick.robust()
    assert (sturdy(quick.adversarial).argmax(1) != held_out[1])[broken].all()


class Counted:
    """A method whose run takes as many evaluations as the image's id says, and breaks images with an odd id."""

    def begin(self, rows):
        rows["left"] = rows["id"].clone()

    def advance(self, rows):
        self.most = max(getattr(self, "most", 0), len(rows["id"]))
        over = rows["left"] == 0
        rows["left"] = rows["left"] - 1
        return rows["clean"], over & (rows["id"] % 2 == 1), over


@pytest.mark.parametrize("count", [1, 3, 64])
def test_slots_are_filled_again_and_waste_no_evaluation(count, monkeypatch):
    monkeypatch.setattr(slots, "PATIENCE", 100)  # no run is made ahead that might prove needless
    images, labels = torch.rand(10, 1, 2, 2), torch.zeros(10, dtype=torch.int64)
    result = clean(10, 2)
    method = Counted()
    slots.Slots(method, images, labels, torch.arange(10), result, count=2, slots=count).run()
    odd = torch.arange(10) % 2 == 1
    assert result.any_run.tolist() == torch.where(odd, 0, -1).tolist() and (result.next_run == 2).all()
    # one evaluation of each clean image; id + 1 for a run; images with an even id have two runs
    assert result.calls == 10 + sum((i + 1) * (1 if i % 2 else 2) for i in range(10))
    assert method.most == min(count, 10)


class Fates:
    """A method with fates drawn beforehand: how many steps an (image, run) pair takes, and where it is wrong.

    The image that it hands to the judge says where it comes from: run + step / 100.
    """

    def __init__(self, images: int, runs: int):
        generator = torch.Generator().manual_seed(images)
        self.length = torch.randint(0, 9, (images, runs), generator=generator)
        wrong = torch.rand(images, runs, 10, generator=generator)
        easy = torch.rand(images, 1, 1, generator=generator) ** 3  # a few fall at once, many stand for several runs
        self.wrong = wrong < 0.3 * easy

    def begin(self, rows):
        rows["step"] = torch.zeros_like(rows["run"])

    def advance(self, rows):
        image, run, step = rows["image"], rows["run"], rows["step"]
        rows["step"] = step + 1
        judged = (run + step / 100).view(-1, 1, 1, 1).expand_as(rows["clean"]).float()
        return judged, self.wrong[image, run, step], step == self.length[image, run]

    def one_after_the_other(self, image: int, decision: str) -> tuple[int, int, float]:
        """What becomes of an image whose runs are made in turn: its first run by either rule, and the image shown."""
        by_any = -1
        for run, length in enumerate(self.length[image].tolist()):
            wrong = self.wrong[image, run, : length + 1].nonzero().flatten().tolist()
            if wrong and by_any < 0:
                by_any = run
            if decision == "any" and wrong:
                return run, -1, run + wrong[0] / 100
            if decision == "last" and length in wrong:
                return by_any, run, run + length / 100
        return by_any, -1, run + length / 100


def class_zero(images: Tensor) -> Tensor:
    return torch.tensor([[1.0, 0.0]]).expand(len(images), 2)


def clean(count: int, runs: int) -> slots.AttackResult:
    attack, labels = SimpleNamespace(slots=50, runs=runs), torch.zeros(count, dtype=torch.int64)
    return slots.begun(attack, class_zero, torch.rand(count, 1, 2, 2), labels, None, None)[3]


@pytest.mark.parametrize("decision", ["any", "last"])
@pytest.mark.parametrize("count", [1, 8, 40, 1000])
@pytest.mark.parametrize("patience", [1, 3, 100])
def test_runs_made_ahead_change_nothing(decision, count, patience, monkeypatch):
    monkeypatch.setattr(slots, "PATIENCE", patience)
    fates, runs, size = Fates(60, 7), 7, 60
    images, labels, ids = torch.rand(size, 1, 2, 2), torch.zeros(size, dtype=torch.int64), torch.arange(size)
    result = clean(size, runs)
    slots.Slots(fates, images, labels, ids, result, count=runs, slots=count, decision=decision).run()
    expected = [fates.one_after_the_other(image, decision) for image in range(size)]
    assert len({by_any for by_any, _, _ in expected}) > 4, "these fates would show little"
    assert result.any_run.tolist() == [by_any for by_any, _, _ in expected]
    if decision == "last":
        assert result.last_run.tolist() == [by_last for _, by_last, _ in expected]
    assert result.adversarial[:, 0, 0, 0].tolist() == pytest.approx([shown for _, _, shown in expected])
    assert (result.next_run == runs).all()


@pytest.mark.parametrize("decision", ["any", "last"])
@pytest.mark.parametrize("patience", [3, 100])
def test_runs_made_ahead_are_resumed_from_any_save(decision, patience, monkeypatch):
    """As if killed right after each of its saves: what a run ahead of its time found is kept or made again."""
    monkeypatch.setattr(slots, "SAVE_EVERY", -1.0)
    monkeypatch.setattr(slots, "PATIENCE", patience)
    fates, runs, size, saved = Fates(24, 7), 7, 24, []
    images, labels, ids = torch.rand(size, 1, 2, 2), torch.zeros(size, dtype=torch.int64), torch.arange(size)
    options = {"count": runs, "slots": 64, "decision": decision}
    whole = clean(size, runs)
    slots.Slots(fates, images, labels, ids, whole, **options).run(lambda result: saved.append(copy.deepcopy(result)))
    assert len(saved) > 20
    for result in saved[::3]:
        slots.Slots(fates, images, labels, ids, result, **options).run()
        assert torch.equal(result.any_run, whole.any_run) and torch.equal(result.last_run, whole.last_run)
        assert torch.equal(result.next_run, whole.next_run)


def test_runs_made_ahead_shorten_the_wait(monkeypatch):
    """Two images that stand every run of ten: as soon as they count as stubborn all runs are made together."""
    monkeypatch.setattr(slots, "PATIENCE", 3)
    fates, size, waits = Fates(2, 10), 2, []
    fates.length[:], fates.wrong[:] = 8, False
    advance = fates.advance
    monkeypatch.setattr(fates, "advance", lambda rows: waits.append(len(rows["id"])) or advance(rows))
    images, labels = torch.rand(size, 1, 2, 2), torch.zeros(size, dtype=torch.int64)
    slots.Slots(fates, images, labels, torch.arange(size), clean(size, 10), count=10, slots=256).run()
    assert waits == [2] * 3 + [20] * 6 + [18] * 3


# --- a killed attack ---


@pytest.mark.parametrize("decision", ["any", "last"])
@pytest.mark.parametrize("restarts", [0, 3])
@pytest.mark.parametrize("saves", [1, 9, 20])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_killed_attack_goes_on(net, task, monkeypatch, decision, restarts, saves, bfloat16):
    monkeypatch.setattr(slots, "SAVE_EVERY", 0)
    attack = pgd(net, EPS, ALPHA, 4, restarts, decision=decision, slots=6, bfloat16=bfloat16)
    whole, saved = attack.run(*task), []
    with pytest.raises(RuntimeError, match="killed"):
        attack.run(*task, save=lambda now: stop_after(saved, saves, now))
    before = saved[-1].calls
    resumed = attack.run(*task, resume=copy.deepcopy(saved[-1]))
    for name in ("correct", "any_run", "last_run", "next_run"):
        assert getattr(resumed, name).tolist() == getattr(whole, name).tolist()
    torch.testing.assert_close(resumed.adversarial, whole.adversarial, rtol=0, atol=0)
    assert whole.calls <= resumed.calls <= whole.calls + attack.slots * (attack.steps + 1), "runs in flight are lost"
    assert resumed.calls - before < whole.calls


def test_every_save_is_a_place_to_go_on_from_and_a_finished_attack_has_nothing_to_do(net, task, monkeypatch):
    monkeypatch.setattr(slots, "SAVE_EVERY", 0)
    attack, saved = pgd(net, EPS, ALPHA, 3, 2, slots=20), []
    whole = attack.run(*task, save=lambda now: saved.append(copy.deepcopy(now)))
    assert len(saved) > 5
    for state in saved:
        calls = state.calls
        again = attack.run(*task, resume=state)
        assert again.any_run.tolist() == whole.any_run.tolist()
        assert again.calls >= calls
    done = attack.run(*task, resume=copy.deepcopy(whole))
    assert done.calls == whole.calls and done.any_run.tolist() == whole.any_run.tolist()


def test_without_time_nothing_is_saved(net, task, monkeypatch):
    monkeypatch.setattr(slots, "SAVE_EVERY", 1e9)
    saved = []
    pgd(net, EPS, ALPHA, 3, 2).run(*task, save=saved.append)
    assert saved == []
