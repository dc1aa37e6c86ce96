"""The answers as a table, as text and as HTML."""

from dataclasses import dataclass
from html import escape

import pandas as pd

from reprolib.diagnostics import verdict
from reprolib.diagnostics.case import Case, share

TITLES = ("What the network keeps", "What the claim is worth", "What else to know")


@dataclass(frozen=True)
class Report:
    """What `check` found; `print` it, or leave it to Jupyter.

    keeps: percent of the images that stand whatever was tried; None where answers are noise or depend on the batch.
    interval: its 95 % Wilson interval, in percent; the images are a sample.
    verdict: what the claim is worth, one of VERDICTS; reason: the sentence that says why, with the remedy if any.
    points: by how many points of the images the claim is too high, at least.
    sentences: per heading what there is to say, whole sentences.
    table: a row per measurement with columns `check`, `measured` (float) and `meaning`."""

    verdict: str
    reason: str
    keeps: float | None
    interval: tuple[float, float] | None
    points: float
    sentences: dict[str, str]
    table: pd.DataFrame

    def __str__(self) -> str:
        return "\n".join(f"{title}: {text}" for title, text in self.sentences.items())

    def _repr_html_(self) -> str:
        told = "".join(f"<h4>{escape(title)}</h4><p>{escape(text)}</p>" for title, text in self.sentences.items())
        table = self.table.to_html(index=False, float_format=lambda value: f"{value:.1f}", border=0)
        return f"<div>{told}<details><summary>All measurements</summary>{table}</details></div>"


def refused(why: str) -> Report:
    """No number where an image has no answer of its own."""
    reason = f"Nobody can judge this claim: {why}."
    said = {TITLES[0]: "No number would mean anything.", TITLES[1]: f"Not judged. {reason}"}
    return Report("not judged", reason, None, None, 0.0, said, pd.DataFrame(columns=["check", "measured", "meaning"]))


def reported(case: Case) -> Report:
    word, reason = verdict.judge(case)
    notes = " ".join(verdict.notes(case))
    said = dict(zip(TITLES, (verdict.what_it_keeps(case), f"{word.capitalize()}. {reason}", notes), strict=True))
    interval = verdict.wilson(int(case.standing.sum()), len(case.labels))
    table = pd.DataFrame(measurements(case), columns=["check", "measured", "meaning"]).astype({"measured": float})
    keeps, points = share(case.standing), share(case.lost[case.asked])
    return Report(word, reason, keeps, interval, points, {title: text for title, text in said.items() if text}, table)


def measurements(case: Case) -> list[tuple[str, float, str]]:
    """In percent of all images but for the cosine."""
    among = case.correct
    rows = [
        ("clean accuracy", share(among), "classified correctly"),
        ("claim", share(case.claimed[case.asked]), "left by the claimed attack under its own rule"),
        ("gradient 0", share(case.flat & among), "the margin's gradient is 0 at the correctly classified image"),
        ("claimed loss flat", share(case.claim_flat & among), "as before, of the claimed loss"),
        ("gradient NaN", share(case.nan & among), "one of the two is not finite"),
        ("mean cosine", case.cosine, "of the gradients at an image and at a random point of its ball; from -1 to 1"),
        ("leads nowhere", share(case.leads_nowhere), "still left by PGD-100 at radius 0.5 or 1, gradients not 0"),
    ]
    rows += [(name, share(broken), "standing until then, broken by it") for name, broken in case.broken.items()]
    if case.parent_keeps is not None and case.survive_parents is not None:
        rows.append(("parent", share(case.parent_keeps), "left of the parent by ten steps of PGD by margin"))
        rows.append(("transfer", share(case.survive_parents), "right on these images, made for the parent"))
    return [*rows, ("kept", share(case.standing), "stand whatever was tried")]
