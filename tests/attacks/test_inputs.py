"""Bad input gets one sentence that names the value, what was expected and what to do."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attacks.small import ALPHA, EPS, InPlace, Linear, NoGradient
from torch import Tensor, nn

from reprolib import attacks
from reprolib.attacks import BPDA, AutoAttack, LinfAttack, Probabilities, pgd


@pytest.mark.parametrize(
    "values, message",
    [
        ({"eps": -0.1}, r"^eps is -0\.1; expected .*0 to 1"),
        ({"eps": 8.0}, r"^eps is 8\.0; expected .*8/255, not 8"),
        ({"eps": float("nan")}, r"^eps is nan; expected"),
        ({"alpha": -0.5}, r"^alpha is -0\.5; expected a number from 0 to 1"),
        ({"alpha": 2}, r"^alpha is 2; expected a number from 0 to 1 on the images' scale \(2/255, not 2\)"),
        ({"alpha": 0.1, "steps": 0}, r"^alpha is 0\.1 with 0 steps; give steps"),
        ({"alpha": 0.0, "steps": -1}, r"^steps is -1; expected a whole number, 0 or more"),
        ({"restarts": -2}, r"^restarts is -2; expected a whole number, from 0 to 32767"),
        ({"slots": 0}, r"^slots is 0; expected a whole number, 1 or more"),
        ({"steps": 12.5}, r"^steps is 12\.5; expected a whole number, 0 or more \(round up, .*math\.ceil\)"),
        ({"steps": True}, r"^steps is True; expected a whole number"),
        ({"restarts": 10.0}, r"^restarts is 10\.0; expected .*math\.ceil"),
        ({"eps": "1e-3"}, r"^eps is '1e-3'; expected a number .*this is text: in YAML write 0\.001 or 1\.0e-3"),
        ({"steps": "20"}, r"^steps is '20'; expected a whole number.*this is text.*no quotes"),
        ({"bfloat16": "yes"}, r"^bfloat16 is 'yes'; expected True or False"),
        ({"eps": torch.rand(9, 9)}, r"^eps is tensor\("),
        ({"loss": "Margin"}, r"^loss is 'Margin'; expected one of margin, logits, probabilities"),
        ({"decision": "best"}, r"^decision is 'best'; expected one of any, last"),
    ],
)
def test_wrong_parameters(values, message):
    with pytest.raises(ValueError, match=message) as error:
        LinfAttack(Linear(), **({"eps": 0.1, "alpha": 0.01, "steps": 2} | values))
    assert "\n" not in str(error.value)


def bad_inputs() -> dict:
    images, labels = torch.full((3, 1, 4, 4), 0.5), torch.tensor([0, 1, 0])
    return {
        "uint8": ((images * 255).to(torch.uint8), labels, r"^images are torch\.uint8 .*float32.*divide uint8 by 255"),
        "float64": (images.double(), labels, r"^images are torch\.float64 .*expected a tensor float32"),
        "3-D": (images[:, 0], labels, r"^images are .*\(3, 4, 4\) on cpu; expected .*\[B, C, H, W\]"),
        "above 1": (images * 3, labels, r"^images range from 1\.5 to 1\.5; expected \[0, 1\]"),
        "below 0": (images - 1, labels, r"^images range from -0\.5 to -0\.5; expected \[0, 1\]"),
        "just above 1": (images * 2 + 1.2e-7, labels, r"^images range from 1\.0000001\d* to 1\.0000001\d*; expected"),
        "numpy": (images.numpy(), labels, r"^images are a ndarray; expected a tensor float32 .*torch\.as_tensor"),
        "a list": (images.tolist(), labels, r"^images are a list; expected a tensor float32 .*torch\.as_tensor"),
        "numpy labels": (images, labels.numpy(), r"^labels are a ndarray; expected a tensor int64 \[3\]"),
        "labels elsewhere": (images, labels.to("meta"), r"^labels are .* on meta; expected a tensor .* on cpu"),
        "nan": (images * torch.nan, labels, r"^images range from nan to nan; expected \[0, 1\]"),
        "float labels": (images, labels.float(), r"^labels are torch\.float32 .*expected a tensor int64 \[3\]"),
        "fewer labels": (images, labels[:2], r"^labels are .*\(2,\) on cpu; expected a tensor int64 \[3\]"),
        "one-hot labels": (images, F.one_hot(labels), r"^labels are .*\(3, 2\) on cpu; expected a tensor int64 \[3\]"),
        "label too large": (images, torch.tensor([0, 1, 2]), r"^labels range from 0 to 2; expected 0 to 1 .*2 classes"),
        "negative label": (images, torch.tensor([0, 1, -1]), r"^labels range from -1 to 1; expected 0 to 1"),
    }


def test_no_images_at_all(net):
    result = pgd(net, EPS, ALPHA, 3, 2).run(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))
    assert result.adversarial.shape == (0, 1, 8, 8) and result.calls == 0 and len(result.robust()) == 0


# --- every entry -----------------------------------------------------------------------------------------------------


def entries(net: nn.Module) -> dict:
    """Every way into the room that asks a network: name -> a function of images and labels."""
    paper = pgd(net, EPS, ALPHA, 2, loss="logits", decision="last")
    return {
        "LinfAttack": pgd(net, EPS, ALPHA, 2, 2).run,
        "AutoAttack": AutoAttack(net, EPS, steps=1).run,
        "is_right": lambda images, labels: attacks.is_right(net, images, labels),
        "random_noise": lambda images, labels: attacks.random_noise(net, images, labels, EPS, draws=3),
        "transfer": lambda images, labels: attacks.transfer(net, paper, images, labels),
        "BPDA": lambda images, labels: pgd(BPDA(lambda x: x, net), EPS, ALPHA, 2).run(images, labels),
        "Probabilities": lambda images, labels: AutoAttack(Probabilities(net), EPS, steps=1).run(images, labels),
    }


ENTRIES = entries(nn.Identity())


@pytest.mark.parametrize("case", bad_inputs())
@pytest.mark.parametrize("entry", ENTRIES)
def test_wrong_images_and_labels_at_every_entry(case, entry):
    class FourClasses(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, :2] @ torch.eye(2, 4)

    images, labels, message = bad_inputs()[case]
    if case == "label too large":
        labels, message = labels + 3, "^labels range from 3 to 5; expected 0 to 3"
    if case == "negative label":
        message = "^labels range from -1 to 1; expected 0 to 3"
    with pytest.raises(ValueError, match=message) as error:
        entries(FourClasses())[entry](images, labels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_network_may_change_its_images_in_place_at_every_entry(net, task, entry):
    images, labels = (tensor[:16].clone() for tensor in task)
    results = [entries(InPlace(net, in_place))[entry](images, labels) for in_place in (True, False)]
    one, two = (result if isinstance(result, Tensor) else result.adversarial for result in results)
    assert torch.equal(one, two) and torch.equal(images, task[0][:16])


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("answer", [lambda z: (z,), lambda z: {"z": z}, lambda z: z[:, 0], lambda z: z[:, :1]])
def test_answers_of_another_form_at_every_entry(net, task, entry, answer):
    class Odd(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return answer(net(images))

    with pytest.raises(ValueError, match=r"^the network answers [^\n]*; expected [^\n]*logits [^\n]*$"):
        entries(Odd())[entry](*task)


@pytest.mark.parametrize("entry", ["LinfAttack", "AutoAttack", "transfer", "BPDA", "Probabilities"])
@pytest.mark.parametrize("how", ["detached", "no_grad", "inference", "integers"])
def test_no_gradient_at_every_entry_that_needs_one(net, task, entry, how):
    with pytest.raises(ValueError, match=r"^the network gives no gradient with respect to its input"):
        entries(NoGradient(net, how))[entry](*task)


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_network_of_a_fixed_batch_size_at_every_entry(net, task, entry):
    """Its own error passes, and a note says what was asked of it."""

    class Fixed(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return net(images.view(5, 1, 8, 8))

    with pytest.raises(RuntimeError, match="invalid for input of size") as error:
        entries(Fixed())[entry](*task)
    assert "one of a fixed batch size needs a wrapper" in error.value.__notes__[0]


@pytest.mark.parametrize("entry", ENTRIES)
def test_no_images_at_every_entry(net, entry):
    result = entries(NeedsImages(net))[entry](torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))
    assert len(result if isinstance(result, Tensor) else result.correct) == 0


class NeedsImages(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        assert len(images), "no images"
        return self.net(images)


@pytest.mark.parametrize("entry", ["is_right", "random_noise", "transfer"])
def test_a_network_that_answers_nan_is_right_nowhere(entry):
    class Diverged(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.where(torch.arange(4) == 0, torch.nan, images.flatten(1)[:, :4])

    healthy = pgd(Linear(), EPS, ALPHA, 1)
    ways = {"transfer": lambda images, labels: attacks.transfer(Diverged(), healthy, images, labels)}
    images, labels = torch.rand(6, 1, 4, 4), torch.zeros(6, dtype=torch.int64)
    assert not (entries(Diverged()) | ways)[entry](images, labels).any()


# --- numbers of the other entries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [8, -0.1, torch.nan, torch.inf, "0.1", True, None])
def test_eps_at_every_entry(net, task, eps):
    ways = [
        lambda: AutoAttack(net, eps),
        lambda: attacks.random_noise(net, *task, eps),
        lambda: pgd(net, eps, 0.1, 2),
        lambda: attacks.fgsm(net, eps),
    ]
    for way in ways:
        with pytest.raises(ValueError, match=r"^eps is [^\n]*; expected a number from 0 to 1 on the images' scale"):
            way()


@pytest.mark.parametrize(
    "draws, seed, wrong", [(-1, 0, "draws"), (2.5, 0, "draws"), (True, 0, "draws"), (5, 0.5, "seed")]
)
def test_draws_and_seed_of_noise(net, task, draws, seed, wrong):
    with pytest.raises(ValueError, match=f"^{wrong} is .*; expected a whole number"):
        attacks.random_noise(net, *task, EPS, draws, seed)


@pytest.mark.parametrize("parts", [(), [], "Square", None, ("APGD",), ("Square", "Square"), (1,), ([],)])
def test_parts_of_autoattack(net, parts):
    with pytest.raises(ValueError, match=r"^parts is [^\n]*; expected [^\n]*Square"):
        AutoAttack(net, EPS, parts=parts)


def test_what_counts_and_batch_sizes_must_be(net, task):
    with pytest.raises(ValueError, match="^batch_size is 0; expected a whole number, 1 or more"):
        attacks.is_right(net, *task, batch_size=0)
    with pytest.raises(ValueError, match=r"^runs is 0; expected a whole number, 1 or more"):
        pgd(net, EPS, ALPHA, 1).run(*task).robust(runs=0)


def test_a_result_that_does_not_fit(net, task):
    attack = pgd(net, EPS, ALPHA, 1)
    with pytest.raises(ValueError, match="^the result to go on from has 64 images; expected the same 5 images"):
        attack.run(task[0][:5], task[1][:5], resume=attack.run(*task))


def test_numbers_of_numpy_are_numbers(net, task):
    usual = pgd(net, 0.5, 0.25, 3, 2, seed=1)
    numpy = pgd(net, np.float32(0.5), np.float64(0.25), np.int64(3), np.int32(2), seed=np.int64(1))
    assert attacks.content(usual) == attacks.content(numpy)
    assert [type(value) for value in attacks.content(numpy).values()] == [
        type(value) for value in attacks.content(usual).values()
    ]


def test_transforms_of_bpda(net, task):
    with pytest.raises(ValueError, match=r"^BPDA's transform makes .*\(64, 1, 6, 6\).*; expected .*\(64, 1, 8, 8\)"):
        pgd(BPDA(lambda x: x[..., 1:-1, 1:-1], net), EPS, ALPHA, 1).run(*task)
    in_place, plain = (BPDA(transform, net) for transform in (lambda x: x.mul_(8).round_().div_(8), _eighths))
    assert torch.equal(pgd(in_place, EPS, ALPHA, 3)(*task), pgd(plain, EPS, ALPHA, 3)(*task))


def _eighths(x: Tensor) -> Tensor:
    return (x * 8).round() / 8
