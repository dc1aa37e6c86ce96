"""What a lesson answers a student: right, not yet and why, not written yet; and how near a prediction was."""

import math
from functools import partial

import pytest
import torch

from reprolib import attacks, patches
from reprolib.paper.teach import answer, check, checks, gradient, score
from reprolib.paper.teach.exercises import EXERCISES, Exercise
from reprolib.paper.teach.exercises import pgd as the_solution


@pytest.fixture
def said(monkeypatch) -> list[dict]:
    """Every box that is shown."""
    shown: list[dict] = []
    monkeypatch.setattr(checks, "show_in_notebook", lambda data, raw: shown.append(data))
    return shown


def box(said) -> str:
    (shown,) = said
    return shown["text/plain"]


def test_a_right_function_is_given_back(said):
    def margin(logits, labels):
        rows = range(len(labels))
        wrong = [max(z for k, z in enumerate(logits[i]) if k != labels[i]) for i in rows]
        return torch.stack([wrong[i] - logits[i, labels[i]] for i in rows])

    assert check(margin) is margin
    assert box(said).startswith("✔ right: ") and checks.GREEN in said[0]["text/html"]


def test_what_is_not_written_is_told_kindly_and_the_lesson_goes_on(said):
    def fgsm(images, gradient, eps):
        raise NotImplementedError

    assert check(fgsm) is EXERCISES["fgsm"].solution
    assert "not written yet" in box(said) and "goes on with the solution" in box(said) and "because" not in box(said)


def test_an_exception_is_told_in_one_line(said):
    def fgsm(images, gradient, eps):
        raise RuntimeError("sizes must\nmatch <b>")

    assert check(fgsm) is EXERCISES["fgsm"].solution
    assert "not yet: because it stops with RuntimeError: sizes must match <b>. " in box(said)
    assert "\n" not in box(said) and "match &lt;b&gt;" in said[0]["text/html"] and checks.ORANGE in said[0]["text/html"]


@pytest.mark.parametrize("wrong, reason", [
    (lambda gradient: None, "gives nothing back"),
    (lambda gradient: ..., "gives nothing back"),
    (lambda gradient: [True], "gives list where a tensor is expected"),
    (lambda gradient: gradient.flatten(1).sum(1), "numbers with decimals, and True and False are expected"),
    (lambda gradient: (gradient == 0).flatten(1).all(1)[:-1], "a tensor of the shape (5,), and a tensor of the"),
    (lambda gradient: torch.zeros(6, dtype=torch.bool), "it gives 0 at [1], where 1 is right"),
])  # fmt: skip
def test_what_is_wrong_is_named(wrong, reason):
    assert reason in checks.fault(wrong, EXERCISES["stands_still"])


@pytest.mark.parametrize("wrong, reason", [
    (lambda right, n: "high", "gives str where 1.586, 5.602 would be right"),
    (lambda right, n: 66.0, "is a single number, and a tensor of the shape (2,) is expected"),
    (lambda right, n: (math.nan, math.nan), "it gives nan at [0], where"),
])  # fmt: skip
def test_numbers_are_compared_too(wrong, reason):
    assert reason in checks.fault(wrong, EXERCISES["wilson"])


def test_a_function_that_changes_what_it_is_given_is_not_right():
    def black_out(images, size):
        ((top, left),) = patches.boxes(28, 28, size, 1)
        images[:, :, top : top + size, left : left + size] = 0
        return images

    assert "changes the tensor that it is given" in checks.fault(black_out, EXERCISES["black_out"])


def test_checking_twice_does_not_take_the_solution_for_the_students_own(said):
    check(the_solution)
    assert "not yet: because the cell above has put no function of yours" in box(said)


def test_another_name_is_refused_with_the_nearest_one():
    def fgms(images, gradient, eps):
        return images

    with pytest.raises(ValueError, match="unknown exercise 'fgms'; did you mean 'fgsm'.*keep the name"):
        check(fgms)


@pytest.mark.parametrize("name, reason", [(n, why) for n, e in EXERCISES.items() for why in e.mistakes])
def test_each_usual_mistake_is_told_apart_from_the_others(name, reason):
    exercise = EXERCISES[name]
    assert checks.fault(exercise.mistakes[reason], exercise) == reason


@pytest.mark.parametrize("name", EXERCISES)
def test_a_function_that_does_as_the_solution_is_right(name):
    exercise: Exercise = EXERCISES[name]
    assert checks.fault(lambda *given: exercise.solution(*given), exercise) is None


# --- the solutions are what the library does ---


def test_the_attacks_are_the_librarys():
    """Which leaves alone what is wrong from the start, so the labels are the network's answers."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(25, 5)), torch.rand(4, 1, 5, 5)
    labels = network(images).argmax(1)
    gradient_at = partial(gradient, network, labels=labels)

    asked = {"loss": "logits", "decision": "last"}
    one = EXERCISES["fgsm"].solution(images, gradient_at(images), 0.1)
    torch.testing.assert_close(one, attacks.fgsm(network, 0.1, **asked)(images, labels))
    many = EXERCISES["pgd"].solution(gradient_at, images, 0.1, 0.03, 6)
    torch.testing.assert_close(many, attacks.ifgsm(network, 0.1, 0.03, 6, **asked)(images, labels))


def test_salt_and_pepper_is_the_papers():
    patch = torch.rand(3, 1, 7, 7, generator=torch.Generator().manual_seed(2))
    (draw,) = patches.sample(torch.arange(3), 1, seed=5)
    found = EXERCISES["salt_and_pepper"].solution(patch, draw.uniform(patch.shape[1:]))
    assert torch.equal(found, patches.salt_and_pepper(patch, draw))


# --- predictions ---


@pytest.mark.parametrize("prediction, stars", [(72, 3), ("72 %", 3), (67.0, 3), (63, 2), (53, 1), (30, 0)])
def test_the_nearer_the_prediction_the_more_stars(said, prediction, stars):
    score(prediction, 72.0)
    assert box(said).count("★") == stars and "measured 72.0 %" in box(said)


@pytest.mark.parametrize("prediction", [
    "-1.3 points", "\N{MINUS SIGN}1.3", " -1.3 % ", "\N{EN DASH}1.3 Point", "-1.3 percentage points",
])  # fmt: skip
def test_a_prediction_is_taken_with_its_unit_and_any_minus(said, prediction):
    score(prediction, -1.3, "points")
    assert box(said).count("★") == 3


def test_what_counts_as_near_can_be_said(said):
    score(2.0, -1.0, "points", close=0.5)
    assert "★" not in box(said) and "measured -1.0 points: 3.0 off" in box(said)


def test_what_nobody_measured_is_not_called_measured(said):
    score(30.0, 88.1, found="printed")
    assert "printed 88.1 %" in box(said) and "measured" not in box(said)


@pytest.mark.parametrize("prediction, told", [
    (None, True), (..., True), ("a lot", False), (True, False), ("", False),
    ("nan", False), (math.inf, False), (10**400, False), ([30], False),
])  # fmt: skip
def test_no_prediction_is_no_error_and_a_failed_one_is_not_told_the_measurement(said, prediction, told):
    score(prediction, 72.0)
    assert "no prediction" in box(said) and ("Measured: 72.0 %" in box(said)) == told


def test_an_answer_is_compared_whatever_its_case(said):
    answer(" Not Robust", "not robust", "Nothing is left.")
    assert box(said) == "✔ agreed: not robust. Nothing is left."


@pytest.mark.parametrize("chosen", ["robust", 2])
def test_another_answer_is_told_the_right_one_and_why(chosen, said):
    answer(chosen, "not robust", "Nothing is left.")
    assert box(said) == f"✘ look again: you say {chosen!r}; the answer is 'not robust'. Nothing is left."


@pytest.mark.parametrize("chosen", [None, ...])
def test_who_gave_no_answer_is_told_it_without_blame(chosen, said):
    answer(chosen, "not robust", "Nothing is left.")
    assert box(said) == "✎ no answer: The answer is 'not robust'. Nothing is left."
