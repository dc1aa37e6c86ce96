"""Other people's ways of running the same attacks, for the study of `params/readings.yaml`: Keras' orders of clip and
soft-max, torchattacks' AutoAttack, and ART. Each function is called as `evaluate.attacked` is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from reprolib.attacks.linf import LinfAttack, SignSteps
from reprolib.attacks.network import CLIP, Probabilities, answer, is_wrong, logit_of, untouched
from reprolib.attacks.slots import AttackResult, Rows, Slots, begun

# order -> losses [B] from float32 soft-max outputs [B, K] and labels int64 [B]
ORDERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "unclipped": lambda p, y: -logit_of(p, y).log(),
    # categorical_crossentropy of Keras 2: divided by the sum, then clipped
    "renormalised, then clipped": lambda p, y: -logit_of(p / p.sum(1, keepdim=True), y).clamp(CLIP, 1 - CLIP).log(),
    # sparse_categorical_crossentropy of Keras 2: the logarithms of what was clipped are handed on as logits
    "clipped, then renormalised": lambda p, y: cross_entropy(p.clamp(CLIP, 1 - CLIP).log(), y, reduction="none"),
    "soft-max twice": lambda p, y: cross_entropy(p, y, reduction="none"),
}
PARTS = {"art (DeepFool, Square)": ("DeepFool", "Square"), "art (DeepFool)": ("DeepFool",)}  # of ART's AutoAttack


class Refused(Exception):
    """A library raised an error instead of attacking; its words."""


# --- Keras' orders ---


class OrderedSteps(SignSteps):
    """`SignSteps` with a loss of `ORDERS`. Where the gradient is not a number, the image stays, as in ART."""

    def __init__(self, attack: LinfAttack, order: str):
        super().__init__(attack)
        self.loss = ORDERS[order]

    def advance(self, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        x, labels = rows["x"], rows["label"]
        logits, _, gradient = self.gradients(x, lambda logits: self.loss(logits.softmax(1), labels))
        moved = torch.clamp(x + self.attack.alpha * gradient.nan_to_num(0).sign(), rows["lower"], rows["upper"])
        over = (rows["step"] == self.attack.steps) | (moved == x).flatten(1).all(1)
        wrong = self.gradients.misclassified(x, logits, labels, over)
        rows["x"], rows["step"] = moved, rows["step"] + 1
        return x, wrong, over


def in_order(
    model: nn.Module,
    evaluation: Any,
    images: Tensor,
    labels: Tensor,
    ids: Tensor | None = None,
    resume: AttackResult | None = None,
    save: Callable[[AttackResult], None] | None = None,
) -> AttackResult:
    """FGSM, IFGSM or PGD with the evaluation's order of clip and soft-max; the rest as in `LinfAttack.run`."""
    attack = evaluation.attack.build(model, evaluation.loss, evaluation.decision, evaluation.seed)
    with untouched(model):
        images, ids, slots, result = begun(attack, model, images.float() / 255, labels, ids, resume)
        steps = OrderedSteps(attack, evaluation.order)
        return Slots(steps, images, labels, ids, result, attack.runs, slots, decision=attack.decision).run(save)


# --- libraries ---


def by_torchattacks(model: nn.Module, evaluation: Any, images: Tensor, labels: Tensor, *_: Any, **__: Any) -> Any:
    """torchattacks' AutoAttack as its documentation calls it, on logits or on what it takes for them."""
    import torchattacks

    with _asked(model, evaluation) as network:
        engine = torchattacks.AutoAttack(network, eps=evaluation.attack.get("eps"), seed=evaluation.seed)
        images = images.float() / 255
        with torch.enable_grad():
            adversarial = engine(images, labels).detach()
        return _judged(model, images, adversarial, labels)


def by_art(model: nn.Module, evaluation: Any, images: Tensor, labels: Tensor, *_: Any, **__: Any) -> AttackResult:
    """ART's attack of that name as its documentation calls it; without labels where the evaluation predicts them.

    Raises Refused where ART raises ValueError, as its Auto-PGD does for a classifier that returns probabilities.
    """
    from art.estimators.classification import PyTorchClassifier

    with _asked(model, evaluation) as network:
        images = images.float() / 255
        with torch.no_grad():
            classes = answer(network, images[:1]).shape[1]
        loss = _ClippedLoss() if evaluation.loss == "probabilities" else nn.CrossEntropyLoss()
        classifier = PyTorchClassifier(
            network, loss, tuple(images.shape[1:]), classes, clip_values=(0.0, 1.0),
            device_type="gpu" if images.is_cuda else "cpu",
        )  # fmt: skip
        told = {} if evaluation.labels == "predicted" else {"y": labels.cpu().numpy()}
        try:
            made = _art_attack(classifier, evaluation).generate(x=images.cpu().numpy(), **told)
        except ValueError as error:
            raise Refused(" ".join(str(error).split())) from error
        return _judged(model, images, torch.from_numpy(made).to(images.device), labels)


def _art_attack(classifier: Any, evaluation: Any) -> Any:
    from art.attacks import evasion

    attack = evaluation.attack
    eps, alpha, steps, restarts = (attack.get(name) for name in ("eps", "alpha", "steps", "restarts"))
    loop = {"estimator": classifier, "eps": eps, "eps_step": alpha, "max_iter": steps, "verbose": False}
    if attack.name == "fgsm":
        return evasion.FastGradientMethod(estimator=classifier, eps=eps)
    if attack.name == "ifgsm":
        return evasion.BasicIterativeMethod(**loop)
    if attack.name == "pgd":
        return evasion.ProjectedGradientDescent(**loop, num_random_init=restarts)
    # the parts with the numbers that ART's AutoAttack itself gives them; shorter where the evaluation is
    parts = {
        "DeepFool": lambda: evasion.DeepFool(classifier, max_iter=steps, epsilon=1e-3, nb_grads=10, verbose=False),
        "Square": lambda: evasion.SquareAttack(
            classifier, max_iter=50 * steps, eps=eps, p_init=0.8, nb_restarts=5, verbose=False
        ),
    }
    chosen = [parts[name]() for name in PARTS.get(evaluation.engine, ())]
    found = evasion.AutoAttack(estimator=classifier, eps=eps, attacks=chosen or None)
    for part in found.attacks:
        part.set_params(verbose=False)
    return found


class _ClippedLoss(nn.Module):
    """Keras' loss from probabilities, which `loss_per_image` takes from logits: [B, K] and labels, by number or
    one-hot -> their sum."""

    def forward(self, p: Tensor, labels: Tensor) -> Tensor:
        labels = labels if labels.dim() == 1 else labels.argmax(1)
        return -logit_of(p, labels).clamp(CLIP, 1 - CLIP).log().sum()


@contextmanager
def _asked(model: nn.Module, evaluation: Any) -> Iterator[nn.Module]:
    """The network as it is handed to a library, and random numbers that are the evaluation's own inside."""
    network = Probabilities(model) if evaluation.loss == "probabilities" else model
    before = np.random.get_state()
    with untouched(network), torch.random.fork_rng():
        torch.manual_seed(evaluation.seed)
        np.random.seed(evaluation.seed)
        try:
            yield network
        finally:
            np.random.set_state(before)


def _judged(model: nn.Module, images: Tensor, adversarial: Tensor, labels: Tensor) -> AttackResult:
    """The outcome of one run, of which only the end is known."""
    with torch.no_grad():
        correct = ~is_wrong(answer(model, images), labels)
        fell = is_wrong(answer(model, adversarial), labels) | ~correct
    run = torch.where(fell, 0, -1).to(torch.int16)
    return AttackResult(correct, run, run.clone(), torch.ones_like(run), adversarial, len(images))
