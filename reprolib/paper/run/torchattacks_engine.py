"""The same attacks by another library, to compare with: `engine: torchattacks`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

import torch
from torch import Tensor, nn

from reprolib.attacks.linf import LinfAttack
from reprolib.attacks.network import NO_GRADIENT, answer, is_wrong, untouched
from reprolib.attacks.slots import AttackResult, begun


def run_torchattacks(
    attack: LinfAttack,
    images: Tensor,
    labels: Tensor,
    ids: Tensor | None = None,
    *,
    resume: AttackResult | None = None,
    save: Callable[[AttackResult], None] | None = None,
) -> AttackResult:
    """The same attack by torchattacks' FGSM, BIM or PGD: cross-entropy from logits, and the last iterate decides.

    Images, labels, resume and save as for `LinfAttack.run`. Random starts come from torch's generator, seeded per
    batch, so here results do depend on the batch. Raises ValueError for another loss or decision and for what
    `LinfAttack.run` refuses, and RuntimeError for another version of torchattacks.
    """
    import torchattacks

    if version("torchattacks") != "3.5.1":
        raise RuntimeError(
            f"torchattacks is {version('torchattacks')}; expected 3.5.1, whose results differ from older "
            "versions: install requirements.lock"
        )
    if not isinstance(attack, LinfAttack):
        raise ValueError(f"attack is a {type(attack).__name__}; expected one that fgsm, ifgsm or pgd made")
    if attack.loss != "logits" or attack.decision != "last":
        raise ValueError(
            f"torchattacks has loss 'logits' and decision 'last', not {attack.loss!r} and {attack.decision!r}; "
            "choose the engine 'reprolib' for these"
        )
    with untouched(attack.model):
        images, _, slots, result = begun(attack, attack.model, images, labels, ids, resume)
        network = _Asked(attack.model).eval()  # torchattacks puts this one back into the mode it had
        if attack.steps == 1 and attack.alpha == attack.eps and attack.restarts == 0:
            engine = torchattacks.FGSM(network, attack.eps)
        elif attack.restarts == 0:
            engine = torchattacks.BIM(network, attack.eps, attack.alpha, attack.steps)
        else:
            engine = torchattacks.PGD(network, attack.eps, attack.alpha, attack.steps, random_start=True)
        for number in range(attack.runs):
            rows = (result.next_run == number).nonzero().squeeze(1)
            for part in rows.split(slots) if len(rows) else ():
                with torch.random.fork_rng(), torch.enable_grad():
                    torch.manual_seed((attack.seed * 10_007 + number) * 10_000_019 + int(part[0]))
                    adversarial = engine(images[part], labels[part]).detach()
                with torch.no_grad():
                    wrong = is_wrong(answer(attack.model, adversarial), labels[part])
                result.last_run[part[wrong]] = result.any_run[part[wrong]] = number
                result.adversarial[part] = adversarial
                result.next_run[part] = torch.where(wrong, attack.runs, number + 1).to(torch.int16)
                result.calls += len(part) * (attack.steps + 1)
                if save is not None:
                    save(replace(result))
    return result


class _Asked(nn.Module):
    """The network as torchattacks may ask it: its images are its own, and its answers are checked."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        logits = answer(self.model, images)
        if images.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            raise ValueError(NO_GRADIENT)
        return logits
