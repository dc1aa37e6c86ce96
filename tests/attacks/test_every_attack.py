"""What holds for every attack. A new one is a line in `EVERY`: its name, and parameters that break some images."""

import copy
import inspect
import json
import threading

import pytest
import torch
from attacks.small import EPS, InPlace, NoGradient, assert_equal_state, assert_same, model_in_a_strange_state, state_of
from torch import Tensor, nn

from reprolib import attacks
from reprolib.attacks import slots
from reprolib.attacks.inputs import Options

EVERY = {
    "fgsm": {"eps": EPS / 2},
    "ifgsm": {"eps": EPS / 2, "alpha": 0.01, "steps": 5},
    "pgd": {"eps": EPS / 2, "alpha": 0.01, "steps": 4, "restarts": 3, "seed": 2},
    "autoattack": {"eps": EPS / 2, "steps": 4, "seed": 1},
    "square": {"eps": EPS, "steps": 2, "seed": 1},
    "cascade": {"eps": EPS / 2, "seed": 1},
}
WITHOUT_GRADIENT = {"square"}
COUNT = 16


def test_every_attack_is_listed():
    assert set(EVERY) == set(attacks.named())


@pytest.fixture(params=EVERY)
def name(request) -> str:
    return request.param


@pytest.fixture
def some(task) -> tuple[Tensor, Tensor]:
    images, labels = (tensor[:COUNT].clone() for tensor in task)
    images[0, 0, 0], images[1, 0, 0] = 0.0, 1.0  # the box matters, too
    labels[3] = (labels[3] + 1) % 4  # a clean error
    return images, labels


def made(name: str, model: nn.Module, **changes):
    return attacks.named()[name](model, **EVERY[name] | changes)


def decisions(name: str, net: nn.Module) -> list[str]:
    return ["any", "last"] if isinstance(made(name, net), attacks.LinfAttack) else ["any"]


# --- what it finds ---


def test_results_are_in_the_ball_and_say_what_they_show(name, net, some):
    images, labels = some
    for decision in decisions(name, net):
        attack = made(name, net, decision=decision)
        result = attack.run(images, labels)
        left = result.robust(decision)
        assert 0 < left.sum() < COUNT - 1, "these parameters would show little"
        assert (result.adversarial - images).abs().max() <= attack.eps + 1e-6
        assert 0 <= result.adversarial.min() and result.adversarial.max() <= 1
        assert torch.equal(result.correct, net(images).argmax(1) == labels) and not result.correct.all()
        assert torch.equal(net(result.adversarial).argmax(1) == labels, left)
        assert (result.any_run[~result.correct] == 0).all() and (result.next_run == attack.runs).all()
        assert torch.equal(left, result.robust(decision, runs=attack.runs))
        assert torch.equal(attack(images, labels), result.adversarial)


def test_slots_batches_and_order_change_nothing(name, net, some):
    images, labels = some
    ids = 100 - 3 * torch.arange(COUNT)
    whole = made(name, net, slots=64).run(images, labels, ids)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(6))
    for part, count in ((order, 5), (order[:3], 1)):
        result = made(name, net, slots=count).run(images[part], labels[part], ids[part])
        for field in ("correct", "any_run", "next_run", "adversarial"):
            assert torch.equal(getattr(result, field), getattr(whole, field)[part]), field


def test_a_killed_attack_goes_on(name, net, some, monkeypatch):
    monkeypatch.setattr(slots, "SAVE_EVERY", -1)
    saved, attack = [], made(name, net, slots=4)
    whole = attack.run(*some, save=lambda now: saved.append(copy.deepcopy(now)))
    for state in saved[:: max(len(saved) // 3, 1)]:
        resumed = attack.run(*some, resume=state)
        for field in ("correct", "any_run", "next_run"):
            assert torch.equal(getattr(resumed, field), getattr(whole, field)), field
    calls = whole.calls
    assert attack.run(*some, resume=whole).calls == calls, "nothing is left to do"


def test_no_images_at_all(name, net):
    class NeedsImages(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            assert len(images), "no images"
            return net(images)

    result = made(name, NeedsImages()).run(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))
    assert result.calls == 0 and len(result.robust()) == 0 and result.adversarial.shape == (0, 1, 8, 8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torch_s_default_type_changes_nothing(name, net, some, dtype):
    usual = made(name, net).run(*some)
    torch.set_default_dtype(dtype)
    try:
        assert_same(made(name, net).run(*some), usual)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_where_the_caller_has_switched_gradients_off(name, net, some, context):
    outside = made(name, net).run(*some)
    with context():
        assert_same(made(name, net).run(*(tensor.clone() for tensor in some)), outside)


# --- what it leaves alone ---


@pytest.mark.parametrize("fails_at", [None, 1, 3])
def test_the_network_and_the_random_numbers_are_left_as_they_were(name, some, fails_at):
    model, calls = model_in_a_strange_state(), []

    def stop(*_) -> None:
        calls.append(1)
        if len(calls) == fails_at:
            raise RuntimeError("stop")

    model.register_forward_hook(stop)
    before = state_of(model)
    copies = [tensor.clone() for tensor in some]
    calls.clear()
    if fails_at is None:
        made(name, model)(*some)
    else:
        with pytest.raises(RuntimeError, match="stop"):
            made(name, model)(*some)
    assert_equal_state(state_of(model), before)
    assert all(torch.equal(one, two) for one, two in zip(some, copies, strict=True))


def test_a_network_may_change_its_images_in_place(name, net, some):
    images, labels = some
    copies = images.clone()
    assert_same(made(name, InPlace(net)).run(images, labels), made(name, InPlace(net, False)).run(images, labels))
    assert torch.equal(images, copies)


def test_two_threads_attack_one_network(name, some):
    """The second begins while the first is under way, and goes on when the first has put the network back."""
    model, begun = model_in_a_strange_state(), threading.Event()
    model.register_forward_hook(lambda *_: begun.set())
    before, alone = state_of(model), made(name, model).run(*some)
    begun.clear()
    found = {}

    def run(who: str, network: nn.Module) -> None:
        found[who] = made(name, network, seed=1).run(*some)

    alone = made(name, model, seed=1).run(*some)
    first = threading.Thread(target=run, args=("first", model))
    second = threading.Thread(target=run, args=("second", nn.Sequential(model)))
    first.start()
    assert begun.wait(20)
    second.start()
    first.join(60), second.join(60)
    assert_same(found["first"], alone), assert_same(found["second"], alone)
    assert_equal_state(state_of(model), before)


# --- what it refuses ---


def refused(name: str, model: nn.Module, images: Tensor, labels: Tensor, **changes) -> str:
    with pytest.raises(ValueError) as error:
        made(name, model, **changes).run(images, labels)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "changes",
    [{"eps": eps} for eps in (8, -0.1, torch.nan, torch.inf, True, None, "1e-3", "0.1")]
    + [{"seed": seed} for seed in (0.5, "0", 2**62, None)]
    + [{"slots": slots} for slots in (0, -1, 2.0)]
    + [{"steps": steps} for steps in (12.5, 20.0, True, -1, "5")]
    + [{"alpha": alpha} for alpha in (-0.1, torch.nan, torch.inf, "1e-3", False)]
    + [{"restarts": restarts} for restarts in (-1, 1.5, 40_000, True)]
    + [{"loss": loss} for loss in ("hinge", None)]
    + [{"decision": decision} for decision in ("best", None)],
)
def test_wrong_parameters(name, net, changes):
    (parameter,) = changes
    if parameter in inspect.signature(attacks.named()[name]).parameters or parameter in Options.__annotations__:
        with pytest.raises(ValueError, match=rf"^{parameter} is [^\n]+; expected [^\n]+$"):
            made(name, net, **changes)
    else:
        with pytest.raises((TypeError, ValueError), match=parameter):
            made(name, net, **changes)


@pytest.mark.parametrize("answer", ["tuple", "dict", "[B]", "[B, 1]", "squeezed", "four rows each", "bool"])
def test_networks_that_answer_in_another_form(name, net, some, answer):
    class Odd(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = net(images)
            return {
                "tuple": (logits, logits),
                "dict": {"logits": logits},
                "[B]": logits[:, 0],
                "[B, 1]": logits[:, :1],
                "squeezed": logits.squeeze(0),
                "four rows each": logits.repeat(4, 1),
                "bool": logits > 0,
            }[answer]

    sentence = refused(name, Odd(), *some, slots=1 if answer == "squeezed" else None)
    assert sentence.startswith("the network answers")


@pytest.mark.parametrize("how", ["detached", "no_grad", "inference", "integers", "not the images"])
def test_networks_without_a_gradient(name, net, some, how):
    model = NoGradient(net, how)
    if name in WITHOUT_GRADIENT:
        assert made(name, model).run(*some).correct.any()
    else:
        assert "gives no gradient with respect to its input" in refused(name, model, *some)


def test_networks_that_are_none(name, net, some):
    for model in (lambda images: images, net.forward, nn.Linear, None):
        assert refused(name, model, *some).startswith("the network is ")
        with pytest.raises(ValueError, match="^the network is .*expected a torch.nn.Module"):
            attacks.named()[name](model, **EVERY[name])


@pytest.mark.parametrize("make", [lambda x: x.numpy(), lambda x: x.tolist(), lambda x: None])
def test_images_and_labels_that_are_no_tensors(name, net, some, make):
    images, labels = some
    assert refused(name, net, make(images), labels).startswith("images are a ")
    assert refused(name, net, images, make(labels)).startswith("labels are a ")


# --- what it says of itself ---


def test_content_is_plain_and_says_everything_that_changes_results(name, net):
    said = attacks.content(made(name, net))
    assert json.loads(json.dumps(said)) == said
    assert said == attacks.content(made(name, nn.Identity(), slots=3)), "neither the network nor the slots"
    for parameter, value in EVERY[name].items():
        other = value + 1 if isinstance(value, int) else value / 2
        assert attacks.content(made(name, net, **{parameter: other})) != said, parameter
    losses = ("logits", "probabilities")
    assert len({json.dumps(attacks.content(made(name, net, loss=loss))) for loss in losses}) == 2
