"""Health checks of a robustness claim: is the accuracy that an attack leaves what remains, or is the attack at fault?

The checks are those that the literature asks for, gathered under the ids D0, D1, ...: Carlini et al. 2019 (advice on
evaluations), Athalye et al. 2018 (obfuscated gradients), Croce and Hein 2020 (AutoAttack), Pintor et al. 2022
(indicators of attack failure), Tramer et al. 2020 (adaptive attacks). Two of the list are left out: D16, the unit test
of Zimmermann et al. 2022, needs a network's features; D17, a robust network that has to pass, tests this module."""

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from reprolib.attacks import LinfAttack, check_images, untouched
from reprolib.diagnostics.case import Case, Make
from reprolib.diagnostics.checks import CHECKS, MEANINGS, Row
from reprolib.diagnostics.verdict import VERDICTS, judge

__all__ = ["VERDICTS", "Report", "check"]


@dataclass(frozen=True)
class Report:
    """What `check` found.

    table: a row per check with columns `check` (its id and name), `measured` (float; NaN where not applicable),
        `threshold` (text, with the unit of `measured`), `passed` (True, False, None where not applicable), `meaning`.
    """

    table: pd.DataFrame
    verdict: str  # one of VERDICTS; "robust" says that more is left than of the parent, beyond chance, not how much
    reason: str  # one sentence, with the checks that decided


def check(
    model: nn.Module, parent: nn.Module | None, data: tuple[Tensor, Tensor], attack: Make, *, draws: int = 100
) -> Report:
    """Examine the claim that `model` keeps the accuracy which an attack leaves it.

    An image counts as robust under the claim if `attack`, with its own loss and decision rule, leaves it correct. Most
    checks look for claimed images that something else breaks within the same ball: each point found there is a point
    by which the claim is too high. Attacks run on the images for which their answer is still open, so networks that
    are not robust cost little; one that is costs 15 to 20 times a claimed PGD of 100 steps and 10 restarts.

    Args:
        model: classifier of at least 4 classes, images float32 [B, C, H, W] in [0, 1] -> logits [B, K].
        parent: the undefended network with the same classes, or None: then checks that compare with it do not apply.
        data: images float32 [n, C, H, W] in [0, 1] and labels int64 [n], on the networks' device; 1000 if possible.
        attack: makes the attack whose robust accuracy is claimed from a network, for example
            functools.partial(pgd, eps=0.3, alpha=0.01, steps=100, restarts=10, loss="logits", decision="last").
        draws: random points of the ball for each image.
    Raises ValueError: no images, fewer than 4 classes, an attack that is none or has radius 0, and what attacks raise.
    The networks' modes, their gradients and the global random numbers are left untouched, also after an exception."""
    images, labels = data
    if len(images) == 0:
        raise ValueError("there are no images to check the claim on")
    check_images(images, labels)
    makes = callable(attack) and not isinstance(attack, LinfAttack)  # which is callable, but with images
    made = attack(model) if makes else attack
    if not (makes and isinstance(made, LinfAttack)):
        found, example = "makes" if makes else "is", "functools.partial(pgd, eps=0.3, alpha=0.01, steps=100)"
        expected = f"a callable that makes a LinfAttack from a network, such as {example}"
        raise ValueError(f"attack {found} a {type(made).__name__}; expected {expected}")
    if made.eps == 0:
        raise ValueError("the attack's eps is 0, which claims nothing but the clean accuracy")
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []), untouched(model, parent or model):
        classes = model(images[:1]).shape[1]
        if classes < 4:
            raise ValueError(f"the network has {classes} classes; AutoAttack's targeted parts need 4 or more")
        case = Case(model, parent, images.detach(), labels, attack, draws)
        rows = [Row(name, *measured(case), MEANINGS[name]) for name, measured in CHECKS.items()]
        verdict, reason = judge(rows, case)
    table = pd.DataFrame(rows, columns=Row._fields).astype({"measured": float})
    # left alone, pandas makes different types of True, False and None, depending on which of them are there
    return Report(table.assign(passed=pd.Series([row.passed for row in rows], dtype=object)), verdict, reason)
