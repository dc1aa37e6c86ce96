"""The doctor: what does a network keep, as far as anyone can find, and what is a claim about it worth?

What is asked is what the literature asks for: Carlini et al. 2019 (advice on evaluations), Athalye et al. 2018
(obfuscated gradients), Croce and Hein 2020 (AutoAttack), Pintor et al. 2022 (indicators of attack failure), Tramer et
al. 2020 (adaptive attacks). Sizes of gradients are never compared, as they depend on the logits' unit.

`answers`: is there anything to attack? `case`: the attacks, each on what the others left. `verdict`, `report`: the
two answers in words."""

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from reprolib.attacks import LinfAttack, check_images, guards, untouched
from reprolib.attacks.inputs import check_pair
from reprolib.attacks.network import answer
from reprolib.diagnostics.answers import why_not_judged
from reprolib.diagnostics.case import Case, Make
from reprolib.diagnostics.report import Report, refused, reported
from reprolib.diagnostics.verdict import VERDICTS

__all__ = ["VERDICTS", "Report", "check"]


def check(
    model: nn.Module,
    parent: nn.Module | None = None,
    data: tuple[Tensor, Tensor] | None = None,
    attack: Make | None = None,
    *,
    draws: int = 100,
    progress: bool = True,
) -> Report:
    """Examine the claim that `model` keeps the accuracy which an attack leaves it.

    An image counts as robust under the claim if `attack`, with its own loss and decision rule, leaves it correct. What
    it leaves is attacked quickly, then by AutoAttack, noise and what fools the parent, each on what still stands: a
    network that falls costs little more than the claimed attack, one that stands that and AutoAttack.

    A claim is "right" (to a point), "too high", "about nothing" (a classifier at chance, nothing claimed), or "not
    judged": answers that are noise or depend on the batch, fewer than 50 images, gradients that nobody can follow.

    Args:
        model: classifier, images float32 [B, C, H, W] in [0, 1] -> logits [B, K].
            Probabilities will do as well.
        parent: the undefended network with the same classes, or None: then nothing is carried over from it.
        data: needed; images float32 [n, C, H, W] in [0, 1] and labels int64 [n], on the networks' device; 1000 if
            possible.
        attack: needed; makes the attack whose robust accuracy is claimed from a network, for example
            functools.partial(pgd, eps=0.3, alpha=0.01, steps=100, restarts=10, loss="logits", decision="last").
        draws: random points of the ball for each image. progress: show a bar.
    Raises ValueError: no data, images or attack, a parent with other classes, an attack that is none, has radius 0 or
        was made on another network, and what attacks raise, but for networks without a gradient.
    The networks' modes, their gradients and the global random numbers are left untouched, also after an exception."""
    if data is None or attack is None:
        missing = " and ".join(name for name, given in (("data", data), ("attack", attack)) if given is None)
        expected = "check(model, parent, (images, labels), attack), with None as parent where there is none"
        raise ValueError(f"nothing is given as {missing}; expected {expected}")
    check_pair("data", data)
    images, labels = data
    if len(images) == 0:
        raise ValueError("there are no images to check the claim on")
    check_images(images, labels)
    made = _made(attack, model)
    devices, both = [images.device] if images.is_cuda else [], (model, parent or model)
    with torch.random.fork_rng(devices), untouched(*both), guards.probabilities_meant(*both):
        case = Case(model, parent, images.detach(), labels, made, draws)
        classes, parents = case.logits.shape[1], answer(parent or model, case.images[:2]).shape[1]
        if classes != parents:
            hint = "give the network that it was made from, or None"
            raise ValueError(f"the parent has {parents} classes and the network {classes}; {hint}")
        if why := why_not_judged(model, case.images, case.logits):
            return refused(why)
        with tqdm(case.stages().items(), unit="stage", disable=not progress) as bar:
            for name, stage in bar:
                bar.set_description(name)
                case.tell = bar.set_postfix_str
                stage()
    return reported(case)


def _made(attack: Make, model: nn.Module) -> LinfAttack:
    """The claimed attack on the network."""
    makes = callable(attack) and not isinstance(attack, LinfAttack)  # which is callable, but with images
    made = attack(model) if makes else attack
    if not (makes and isinstance(made, LinfAttack)):
        found, example = "makes" if makes else "is", "functools.partial(pgd, eps=0.3, alpha=0.01, steps=100)"
        expected = f"a callable that makes a LinfAttack from a network, such as {example}"
        raise ValueError(f"attack {found} a {type(made).__name__}; expected {expected}")
    if not _is_of(made.model, model):
        raise ValueError("the attack is on another network; make it on the one given: lambda net: pgd(net, ...)")
    if made.eps == 0:
        raise ValueError("the attack's eps is 0, which claims nothing but the clean accuracy")
    return made


def _is_of(attacked: nn.Module, model: nn.Module) -> bool:
    """Whether an attack asks this network, or one made around it."""
    own = {id(part) for part in [*model.modules(), *model.parameters()]}
    return any(id(part) in own for part in [*attacked.modules(), *attacked.parameters()])


def __dir__() -> list[str]:
    return __all__
