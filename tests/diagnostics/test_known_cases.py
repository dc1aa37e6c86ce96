"""The doctor's answers where the truth is known."""

from importlib import import_module

import pytest
from diagnostics.known_cases import KNOWN

from reprolib.diagnostics import VERDICTS, Report, check

pytestmark = pytest.mark.slow  # three minutes in all


@pytest.fixture(scope="module")
def reports():
    """name -> its report, made when it is first asked for."""
    made = {}

    def report(name: str) -> Report:
        if name not in made:
            with pytest.MonkeyPatch.context() as patched:
                autoattack = import_module("reprolib.attacks.autoattack")  # the file, not the attack of its name
                square = autoattack.Square
                # Square is the slowest of all attacks here, and finds in 500 queries what it is needed for
                patched.setattr(autoattack, "Square", lambda *given, queries: square(*given, queries=500))
                made[name] = check(*KNOWN[name].given(), progress=False)
        return made[name]

    return report


@pytest.mark.parametrize("name", KNOWN)
def test_the_answer_is_the_known_one(reports, name):
    report, known = reports(name), KNOWN[name]
    assert report.verdict in VERDICTS and report.verdict == known.verdict, str(report)
    assert known.points[0] <= report.points <= known.points[1], str(report)
    if known.keeps is None:
        assert report.keeps is None and report.interval is None
    else:
        assert known.keeps[0] <= report.keeps <= known.keeps[1], str(report)
        assert report.interval[0] <= report.keeps <= report.interval[1]
    for word in known.words:
        assert word.lower() in str(report).lower()


@pytest.mark.parametrize("name", KNOWN)
def test_masking_is_said_only_where_something_broke_the_claim(reports, name):
    said, expected = "masked" in str(reports(name)), "masked" in KNOWN[name].words
    assert said == expected and (not said or reports(name).points > 1)


@pytest.mark.parametrize("name", KNOWN)
def test_whole_sentences_as_text_and_as_html(reports, name):
    report = reports(name)
    text, html = str(report), report._repr_html_()
    assert report.reason in text and all(line.endswith(".") for line in text.splitlines())
    assert len(text.splitlines()) == len(report.sentences) >= 2
    for title, sentence in report.sentences.items():
        assert f"<h4>{title}</h4><p>{sentence.replace(chr(39), '&#x27;')}</p>" in html


def test_the_table_is_complete_and_well_typed(reports):
    for name in ("adversarially trained", "rescaled, all saturated", "detached, stands", "little noise"):
        table = reports(name).table
        assert table.columns.tolist() == ["check", "measured", "meaning"] and table["check"].is_unique
        assert table.empty == (KNOWN[name].keeps is None)
        if not table.empty:
            assert table["measured"].dtype == "float64"
            assert table.set_index("check")["measured"]["kept"] == reports(name).keeps


def test_what_is_lost_has_one_reason_each(reports):
    """The points of all reasons add up to those that the claim is too high."""
    import re

    for name in ("FGSM", "rescaled, partly saturated", "clipped probabilities"):
        parts = [float(part) for part in re.findall(r"\(([\d.]+) points\)", reports(name).reason)]
        assert parts and sum(parts) == pytest.approx(reports(name).points)
