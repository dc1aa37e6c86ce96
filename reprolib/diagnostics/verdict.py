"""What was found, as the two answers: what the network keeps, and what the claim is worth."""

import math

from torch import Tensor

from reprolib.diagnostics.case import ENOUGH, HALF, NOISE, PARENT, SQUARE, Case, more_than_few, share

VERDICTS = ("right", "too high", "about nothing", "not judged")  # what a claim is worth
STANDARD_ERRORS = 3  # above chance


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval (low, high) in percent of a share of `successes` among `n` independent examples (Wilson 1927).

    Raises ValueError unless 0 <= successes <= n and n >= 1."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n and n >= 1, not successes={successes}, n={n}")
    from scipy.stats import binomtest  # slow to import, and most users of the claims need no interval

    interval = binomtest(int(successes), int(n)).proportion_ci(0.95, method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def chance(case: Case) -> tuple[float, float]:
    """What always naming the commonest class gets right, in percent, and what is too much for that."""
    n = len(case.labels)
    share = int(case.labels.bincount().max()) / n
    return 100 * share, 100 * (share + STANDARD_ERRORS * math.sqrt(share * (1 - share) / n))


def what_it_keeps(case: Case) -> str:
    n, (low, high) = len(case.labels), wilson(int(case.standing.sum()), len(case.labels))
    kept, clean = f"{share(case.standing):.1f} % of {n} images", f"{share(case.correct):.1f} %"
    at_most, within = "at most " if unsure(case) else "", f"within eps {case.attack.eps:.4g}"
    text = f"The network keeps {at_most}{kept} {within} (95 % interval {low:.1f} to {high:.1f} %); "
    text += f"unattacked it is right on {clean}. "
    *tried, last = case.broken
    needed = f"That is what stands after {', '.join(tried)} and {last}."
    text += needed if SQUARE in case.broken else "So few stand that AutoAttack was not needed."
    if case.parent_keeps is not None and case.survive_parents is not None:
        text += f" Its parent keeps {share(case.parent_keeps):.1f} % under ten steps of PGD; on the images that these "
        text += f"made for the parent, this network is right in {share(case.survive_parents):.1f} %."
    elif case.parent is not None:
        text += " Its parent gives no gradient, so nothing was carried over from it."
    return text


def notes(case: Case) -> list[str]:
    """What a reader should know whatever the answers."""
    said = []
    if case.probabilities:
        good = "as good as logits up to a margin of 69"
        said.append(f"Its outputs are probabilities; their logarithms were attacked, which are {good}.")
    if not case.has_gradient:
        without = "only attacks without one could try: Square, noise, and images made to fool its parent"
        said.append(f"The network gives no gradient with respect to its input, so {without}.")
    for value, mask in (("NaN, which attacks take for 0", case.nan), ("0", case.flat & ~case.nan)):
        if (mask & case.correct).any():
            said.append(f"At {share(mask & case.correct):.1f} % of the images the gradient is {value}.")
    return said


def unsure(case: Case) -> str:
    """Why nobody can say that what stands is robust, with the remedy; "" where one can."""
    limit = chance(case)[1]
    if not case.standing.any():
        return ""
    if not case.has_gradient:
        remedy = "go around what takes it away with attacks.BPDA(transform, model), and hand that in"
        return f"the network gives no gradient with respect to its input; {remedy}"
    if more_than_few(case.nan & case.standing):
        remedy = "look for a root or a logarithm of 0 in the network, and add a small constant"
        return f"the gradient is NaN at {share(case.nan & case.standing):.1f} % of the images; {remedy}"
    if share(case.leads_nowhere) > limit:
        remedy = "hand in as parent the network without what bends its gradients, or go around that with attacks.BPDA"
        left = f"they leave {share(case.leads_nowhere):.1f} % at radius 0.5 or more, where {limit:.1f} % can be left"
        return f"its gradients lead nowhere ({left}; mean cosine with those nearby {case.cosine:.2f}); {remedy}"
    return ""


def reasons(case: Case) -> list[tuple[Tensor, str]]:
    """Each with the lost images that it explains; the first that fits counts."""
    square, noise, parent, half = (case.broken.get(name, case.none) for name in (SQUARE, NOISE, PARENT, HALF))
    blocked = case.none if case.claim_runs else ~case.none
    masked = "its gradients are masked: "
    return [
        (blocked, masked + "it gives no gradient that the claimed attack could follow"),
        (case.nan, masked + "they are NaN there"),
        (case.claim_flat & ~case.flat, masked + "the claimed loss saturates, so that its gradient is 0 there"),
        (case.claim_flat, masked + "the network's gradient is 0 there"),
        (case.claimed & ~case.never_wrong, "an earlier iterate of the claimed attack had fooled the network"),
        (case.by_loss, "another loss finds more in as many steps"),
        (case.by_steps, "the same loss finds more with other or twice the steps"),
        (
            square | noise | parent,
            masked + "what finds more needs none (noise, Square, images made to fool its parent)",
        ),
        (half, masked + "more is found within half the radius"),
        (~case.none, "stronger attacks find more (the quick evaluation, AutoAttack)"),
    ]


def judge(case: Case) -> tuple[str, str]:
    """One of VERDICTS, and the sentence that says why."""
    n, (guess, limit) = len(case.labels), chance(case)
    claimed, lost = case.claimed[case.asked], case.lost[case.asked]
    fewer = f" of {len(claimed)} images (more were not asked, as the network keeps next to nothing)"
    leaves = f"The claimed attack leaves {share(claimed):.1f} %{fewer if len(claimed) < n else ''}"
    if n < ENOUGH:
        images = f"{n} image{'s' * (n > 1)}"
        return "not judged", f"There are too few images: {images}; give {ENOUGH} or more, 1000 if possible."
    if share(case.correct) <= limit:
        same = f"Unattacked it is right on {share(case.correct):.1f} %"
        return "about nothing", f"{same}, no better than always naming the commonest class ({guess:.1f} %)."
    if not more_than_few(claimed):
        return "about nothing", f"{leaves}, so there is no robustness to be judged."
    if more_than_few(lost):
        left, parts = case.lost, []
        for mask, why in reasons(case):
            if (left & mask).any():
                parts.append(f"{why} ({share((left & mask)[case.asked]):.1f} points)")
            left = left & ~mask
        return "too high", f"{leaves}, at least {share(lost):.1f} points too many, because {'; '.join(parts)}."
    if why := unsure(case):
        return "not judged", f"{leaves}, and nothing broke more than few of these, but {why}."
    return "right", f"{leaves}, and {share(case.standing):.1f} % stand whatever was tried."
