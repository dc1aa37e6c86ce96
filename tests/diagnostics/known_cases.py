"""What the doctor has to answer where the truth is known. The answers were agreed on before the doctor was built.

Most networks here are linear, so what an eps-ball can move is a sum: template(PATTERNS[:5]) on `two_cues` has a margin
of 64 * 0.04 = 2.56 (with noise of 0.23), of which a ball of radius eps can take 64 * eps. It keeps 100 % at SMALL, 0 %
at LARGE. `item` is the item of the issue's list of faults that a case stands for; "own" are five kinds of our own."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
from conftest import TOY_EPS, Scale, toy_network, toy_task
from scipy.linalg import hadamard
from torch import Tensor, nn

from reprolib.attacks import Probabilities, fgsm, pgd

PATTERNS = torch.tensor(hadamard(64)[1:11], dtype=torch.float32).view(10, 1, 8, 8)  # orthogonal, sums 0
SMALL, LARGE = 0.02, 0.08


def sound(eps: float):
    return partial(pgd, eps=eps, alpha=eps / 4, steps=20, restarts=2, slots=4096)


TOY = partial(sound(TOY_EPS), restarts=20)
LAST = partial(sound(TOY_EPS), loss="logits", decision="last")
SOFTMAX = partial(LAST, loss="probabilities")
brittle, sturdy = cache(lambda: toy_network(3000, False)), cache(lambda: toy_network(300, True))
held_out = cache(lambda: toy_task(200, seed=2))


def template(patterns: Tensor) -> nn.Module:
    """A linear network that compares an image with one pattern per class."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(patterns[0].numel(), len(patterns)))
    with torch.no_grad():
        net[1].weight.copy_(patterns.flatten(1))
        net[1].bias.copy_(-0.5 * patterns.flatten(1).sum(1))
    return net.requires_grad_(False)


WIDE, OTHER = template(PATTERNS[:5]), template(PATTERNS[5:])


def two_cues(flagged: int = 0, count: int = 60) -> tuple[Tensor, Tensor]:
    """Images that show their class twice, in patterns that have nothing to do with each other. If some are flagged,
    the first pixel, the same in all patterns, is 1 in those, which show their first cue at a quarter, else 0."""
    labels, strength = torch.arange(count) % 5, torch.full((count, 1, 1, 1), 0.04)
    strength[:flagged] = 0.01
    noise = 0.02 * torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    noise[:flagged] = 0
    images = 0.5 + strength * PATTERNS[labels] + 0.04 * PATTERNS[5 + labels] + noise
    if flagged:
        images[:, 0, 0, 0] = (torch.arange(count) < flagged).float()
    return images, labels


class Flagged(nn.Module):
    """WIDE; but at flagged images without a gradient."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.where(images[:, 0, 0, :1] > 0.5, WIDE(images.detach()), WIDE(images))


class Behind(nn.Module):
    """A network behind a change of its images."""

    def __init__(self, change: Callable[[Tensor], Tensor], network: nn.Module):
        super().__init__()
        self.change, self.network = change, network

    def forward(self, images: Tensor) -> Tensor:
        assert len(images), "an empty batch"
        return self.network(self.change(images))


class After(Behind):
    """A network whose logits are changed."""

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.network(images))


def detached(images: Tensor) -> Tensor:
    return images.detach()


def through_numpy(images: Tensor) -> Tensor:
    return torch.from_numpy(images.numpy())  # which raises for a tensor that wants a gradient


def rounded(images: Tensor) -> Tensor:
    return (images * 255).round() / 255


def not_a_number(images: Tensor) -> Tensor:
    """The images; their gradient is 0 times infinity."""
    return images + 0 * (images - images.detach()).sqrt()


def wave(images: Tensor) -> Tensor:
    return images + 0.002 * torch.sin(1e5 * images)


def one_hot(logits: Tensor) -> Tensor:
    return nn.functional.one_hot(logits.argmax(1), logits.shape[1]).float()


def little_noise(logits: Tensor) -> Tensor:
    return logits + 0.003 * torch.randn_like(logits)


def much_noise(images: Tensor) -> Tensor:
    return images + 0.3 * torch.randn_like(images)


class OneClassDead(nn.Module):
    """Class 0 has a constant logit, the others a unit each, which images of class 0 leave dead by 1.28 (noise: 0.16),
    while a ball of 0.005 moves it by 0.32. Those of another class have a lead of 0.98 on the constant."""

    def forward(self, images: Tensor) -> Tensor:
        units = (WIDE(images)[:, 1:] - 1.28).relu()
        return torch.cat([units.new_full((len(units), 1), 0.3), units], 1)


class Constant(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 0 * images.flatten(1)[:, :5] + torch.tensor([1.0, 0, 0, 0, 0])


SIGNS = (torch.randint(0, 2, (5, 3, 16, 16), generator=torch.Generator().manual_seed(0)) * 2 - 1).float()


def waves() -> tuple[Tensor, Tensor]:
    """A margin of about 768 * 0.004, of which a ball takes about 768 * eps."""
    labels = torch.arange(60) % 5
    noise = 0.001 * torch.randn(60, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return 0.5 + 0.004 * SIGNS[labels] + noise, labels


class Known(NamedTuple):
    item: str
    given: Callable[[], tuple]  # -> model, parent, data, attack
    verdict: str
    keeps: tuple[float, float] | None  # percent, from and to; None where no number means anything
    points: tuple[float, float]  # by which the claim is too high, from and to
    words: tuple[str, ...]  # that the whole answer has
    why: str


def wide(model: nn.Module, parent=None, eps: float = SMALL):
    return lambda: (model, parent, two_cues(), sound(eps))


def toy(model: Callable[[], nn.Module], attack=TOY, parent: Callable[[], nn.Module | None] = brittle):
    return lambda: (model(), parent(), held_out(), attack)


ALL, NONE, NO_GAP = (100, 100), (0, 1), (0, 0)
KNOWN: dict[str, Known] = {
    # --- 14: no gradient with respect to the input ---
    "detached, falls": Known(
        "14", wide(Behind(detached, WIDE), WIDE, LARGE), "too high", NONE, (99, 100), ("gives no gradient", "masked"),
        "what breaks the same network with a gradient breaks it"),
    "numpy, falls, no parent": Known(
        "14", wide(Behind(through_numpy, WIDE), None, LARGE), "too high", (0, 50), (50, 100),
        ("gives no gradient", "masked"), "Square needs no gradient"),
    "argmax, falls": Known(
        "14", wide(After(one_hot, WIDE), WIDE, LARGE), "too high", NONE, (99, 100), ("no gradient", "masked"),
        "logits without a gradient are no other case than images without one"),
    "detached, stands": Known(
        "14", wide(Behind(detached, WIDE)), "not judged", ALL, NO_GAP, ("gives no gradient", "BPDA"),
        "nothing broke it, but no attack that follows gradients could try; BPDA is the way around"),
    # --- 15: NaN gradients are blind ---
    "NaN gradients, falls": Known(
        "15", wide(Behind(not_a_number, WIDE), WIDE, LARGE), "too high", NONE, (99, 100), ("NaN", "masked"), ""),
    "NaN gradients, stands": Known(
        "15", wide(Behind(not_a_number, WIDE)), "not judged", ALL, NO_GAP, ("NaN",),
        "as without a gradient: nobody could follow it"),
    # --- 16: answers that are noise or depend on the batch; probabilities ---
    "batch statistics": Known(
        "16", wide(nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), WIDE)), "not judged", None, NO_GAP,
        ("batch", "running statistics"), "an image has no answer of its own"),
    "little noise": Known(
        "16", wide(After(little_noise, WIDE)), "not judged", None, NO_GAP, ("differently", "noise"),
        "it keeps 100 %, but nobody can tell from single answers; and nothing is masked"),
    "probabilities": Known(
        "16", wide(Probabilities(WIDE), WIDE), "right", ALL, NO_GAP, ("probabilities",), "the same decisions as WIDE"),
    # --- 17: gradients that lead nowhere ---
    "wave": Known(
        "17", lambda: (Behind(wave, template(SIGNS)), None, waves(), sound(0.008)), "not judged", ALL, NO_GAP,
        ("radius 0.5", "at most"), "nothing in the ball breaks it, but its gradients do not even lead to what must be"),
    "wave, with the way around": Known(
        "17", lambda: (Behind(wave, template(SIGNS)), template(SIGNS), waves(), sound(0.008)), "too high", NONE,
        (99, 100), ("masked", "parent"), "every image falls to what fools the network without the wave"),
    # --- 18: zero gradients that hide nothing ---
    "dead for one class": Known(
        "18", wide(OneClassDead(), None, 0.005), "right", ALL, NO_GAP, ("gradient is 0",),
        "provably robust; a blind spot accuses nobody unless something breaks those images"),
    # --- 19: units ---
    "small logits": Known(
        "19", wide(After(lambda z: 1e-4 * z, WIDE), WIDE), "right", ALL, NO_GAP, (), "the same decisions as WIDE"),
    # --- 20: one tolerance for all checks ---
    "two of 200 fall": Known(
        "20", lambda: (Flagged(), None, two_cues(2, 200), sound(SMALL)), "right", (99, 99), (1, 1), (),
        "a point is within the tolerance, whoever finds it"),
    "four of 200 fall": Known(
        "intro", lambda: (Flagged(), None, two_cues(4, 200), sound(SMALL)), "too high", (98, 98), (2, 2), ("masked",),
        "a network that keeps 98 % where 100 % were claimed is robust, and the claim 2 points high"),
    # --- 21: small samples and empty claims ---
    "one image": Known(
        "21", lambda: (WIDE, None, two_cues(count=1), sound(SMALL)), "not judged", ALL, NO_GAP, ("1 image", "1000"),
        "its interval goes from 21 to 100 %"),
    "nothing claimed": Known(
        "21", wide(WIDE, OTHER, LARGE), "about nothing", NONE, NO_GAP, (), "the claimed attack leaves nothing"),
    "robust parent": Known("21", toy(sturdy, TOY, sturdy), "right", (50, 60), (0, 1), (), "parents may be robust"),
    "everything falls to noise": Known(
        "21", lambda: (Behind(lambda x: x, WIDE), None, two_cues(), partial(pgd, eps=0.5, alpha=0.0, steps=1)),
        "too high", NONE, (99, 100), (), "and no empty batch goes into the network, which would raise"),
    "wrong from the start": Known(
        "21", lambda: (Behind(lambda x: x, WIDE), WIDE, (two_cues()[0], (two_cues()[1] + 1) % 5), sound(SMALL)),
        "about nothing", NONE, NO_GAP, (), ""),
    # --- 22: cost; see also test_check.py ---
    "undefended, by the last iterate": Known(
        "22", toy(brittle, LAST), "about nothing", NONE, NO_GAP, ("AutoAttack was not needed",), "falls at once"),
    # --- weak claims: the network is robust, the claim too high ---
    "FGSM": Known(
        "intro", toy(sturdy, partial(fgsm, eps=TOY_EPS, loss="logits")), "too high", (50, 60), (1.5, 20), ("steps",),
        "what is left to FGSM falls to more steps; nothing is masked"),
    "stands still": Known(
        "intro", toy(brittle, partial(TOY, alpha=0.0, restarts=2)), "too high", NONE, (80, 100), ("steps",),
        "an attack of step size 0"),
    "another cue": Known(
        "intro", lambda: (OTHER, WIDE, two_cues(), sound(LARGE)), "about nothing", NONE, NO_GAP, ("parent",),
        "keeps nothing, though all withstand what breaks its parent: the answer says so"),
    # --- our own ---
    "adversarially trained": Known("own", toy(sturdy), "right", (50, 60), (0, 1), (), "a sound attack on a robust net"),
    "rescaled, all saturated": Known(
        "own", toy(lambda: nn.Sequential(brittle(), Scale(1e4)), LAST), "too high", NONE, (80, 100),
        ("masked", "gradient", "saturat"), "cross-entropy's gradient is 0 in float32"),
    "rescaled, partly saturated": Known(
        "own", toy(lambda: nn.Sequential(brittle(), Scale(14.0)), LAST), "too high", NONE, (10, 100),
        ("masked", "saturat"), "at some images 0, at others only nearly"),
    "clipped probabilities": Known(
        "own", toy(lambda: nn.Sequential(brittle(), Scale(4.0)), SOFTMAX), "too high", NONE, (20, 100),
        ("masked", "saturat"), "Keras' loss is flat from a margin of 16 on"),
    "rounded inputs, fall": Known(
        "own", wide(Behind(rounded, WIDE), None, LARGE), "too high", (0, 50), (50, 100), ("masked", "gradient"),
        "rounding has gradient 0, but hides nothing from Square"),
    "noisy": Known(
        "own", wide(Behind(much_noise, WIDE)), "not judged", None, NO_GAP, ("differently", "noise"), "as little noise"),
    "at chance": Known(
        "own", wide(Constant()), "about nothing", (20, 20), NO_GAP, ("commonest class",),
        "always the same class: unbreakable and worthless"),
}  # fmt: skip
