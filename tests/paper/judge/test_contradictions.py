"""The list of the paper's contradictions names only what the paper prints, and counts and subtracts correctly."""

import re

import pytest
import yaml

from reprolib.paper import plan
from reprolib.paper.judge import Contradiction, ledger
from reprolib.paper.judge.contradictions import CONTRADICTIONS_FILE
from reprolib.paper.judge.contradictions import load_contradictions as load

CLAIMS = ledger()
ENTRIES = load()
TEXT = CONTRADICTIONS_FILE.read_text(encoding="utf-8")

# Numbers that the paper does not print: a difference of the two claims beside it.
DIFFERENCES = {
    "30.71": ("T4.PGD.Proposed", "T4.PGD.EMPIR"),
    "33.02": ("T4.PGD.Proposed", "T4.PGD.FGSM-AT"),
    "35.74": ("T4.PGD.Proposed", "T4.PGD.PGD-AT"),
    "29.52": ("T4.PGD.Proposed", "T4.PGD.EMPIR-AT"),
}
PARAMETER = r"\b(eps|alpha) (\d+(?:\.\d+)?)"  # no accuracies, though some look like one

each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: f"{e.says[:40]}...")


def value(id):
    return CLAIMS[id].printed


def row(prefix):
    """The printed numbers of a row, its defended columns alone."""
    found = {id.rpartition(".")[2]: c.printed for id, c in CLAIMS.items() if id.rpartition(".")[0] == prefix}
    assert found, f"no claim begins with {prefix}"
    return {column: number for column, number in found.items() if column != "undefended"}


def numbers(text, pattern=r"\d+(?:\.\d+)?"):
    """Numbers as written, without those inside a name (7-P1, VGG-16) or beside eps and alpha."""
    return re.findall(rf"(?<![\w.-]){pattern}(?![\w-]|\.\d)", re.sub(PARAMETER, "", text))


def printed(id):
    """A claim's number in the ways in which it may be written; for a claim in words, the numbers in them."""
    number = CLAIMS[id].printed
    return (
        set(re.findall(r"[\d.-]+", number))
        if isinstance(number, str)
        else {f"{number:.{n}f}" for n in (0, 1, 2) if round(number, n) == number}
    )


def two_decimals(entry):
    return numbers(f"{entry.says} {entry.why}", r"\d+\.\d\d")


# --- params/contradictions.yaml ---


def test_the_committed_file_loads_whole_and_in_order():
    # YAML takes the last of two equal keys: a dash that is missing would silently swallow an entry.
    for field in Contradiction.model_fields:
        assert len(re.findall(rf"^[- ] {field}:", TEXT, re.MULTILINE)) == len(ENTRIES) >= 15
    ranks = [("high", "medium", "low").index(entry.matters) for entry in ENTRIES]
    assert ranks == sorted(ranks) and set(ranks) == {0, 1, 2}
    assert len({entry.says for entry in ENTRIES}) == len(ENTRIES)


@each_entry
def test_places_and_sentences_are_well_formed(entry):
    for place in entry.places:
        assert re.fullmatch(r"Abstract|Section [1-6](\.\d)?|Table ([1-9]|1[01])|Figure [1-4]", place)
    assert len(set(entry.places)) == len(entry.places)
    for text in (entry.says, entry.why):
        assert re.match(r"[A-Z].*\.$", text) and "  " not in text


@each_entry
def test_every_claim_exists_and_stands_in_one_of_the_places(entry):
    assert len(set(entry.claims)) == len(entry.claims)
    for id in entry.claims:
        where = CLAIMS[id].where.split(",")[0]
        assert where[0].upper() + where[1:] in entry.places, f"{id} stands in {where}"


@each_entry
def test_every_accuracy_is_printed_or_a_right_difference(entry):
    known = set().union(*map(printed, entry.claims))
    for number in two_decimals(entry):
        if number in DIFFERENCES:
            first, second = DIFFERENCES[number]
            assert {first, second} <= set(entry.claims)
            assert f"{value(first) - value(second):.2f}" == number
        else:
            assert number in known, f"{number} is printed by none of {entry.claims}"


@each_entry
def test_every_claim_listed_has_its_number_named(entry):
    named = set(re.findall(r"\d+-\d+", entry.says)) | set(numbers(f"{entry.says} {entry.why}"))
    for id in entry.claims:
        if id not in ("X05", "X23"):  # words without a number; parameters of an attack, which the next test checks
            assert printed(id) & named, f"{id} is listed, but its {value(id)} is not named"


def test_the_parameters_are_those_of_table_2():
    table = plan.read_yaml(plan.PARAMS / "attacks.yaml")
    attacks = [attack for per_dataset in table.values() for attack in per_dataset.values()]
    found = set(re.findall(PARAMETER, " ".join(f"{entry.says} {entry.why}" for entry in ENTRIES)))
    assert {name for name, _ in found} == {"eps", "alpha"}
    for name, number in found:
        assert float(number) in {attack.get(name) for attack in attacks}


def test_no_exception_is_left_over():
    assert set(DIFFERENCES) == {n for entry in ENTRIES for n in two_decimals(entry)} & set(DIFFERENCES)
    assert not set(DIFFERENCES) & set().union(*map(printed, CLAIMS))


# --- what the entries say of whole rows ---


def entry_with(words):
    found = [entry for entry in ENTRIES if words in entry.says]
    assert len(found) == 1, f"{len(found)} entries say {words!r}"
    return found[0]


def test_how_often_accuracy_rises_with_eps():
    pairs = {
        (network, attack, column): (number, row(f"T3.{network}.{attack}-v2")[column])
        for network in ("VGG16", "ResNet")
        for attack in ("PGD", "FGSM", "IFGSM")
        for column, number in row(f"T3.{network}.{attack}-v1").items()
    }
    rising = {key: larger - smaller for key, (larger, smaller) in pairs.items() if larger > smaller}
    iterated = [key for key in rising if key[1] != "FGSM"]
    assert max(rising, key=rising.get) == ("VGG16", "IFGSM", "7-P1")
    entry_with(f"In {len(rising)} of the {len(pairs)} pairs of defended accuracies in Table 3, {len(iterated)} of them")


def test_autoattack_lies_above_the_best_column_of_plainer_attacks():
    entry = entry_with("Under AutoAttack")
    of_table_7 = [c.printed for id, c in CLAIMS.items() if id.startswith("T7.") and "Natural" not in id]
    for network, best in (
        ("CIFAR10.VGG16", max(row("T3.VGG16.IFGSM-v2").values())),
        ("CIFAR10.ResNet50", max(row("T3.ResNet.PGD-v2").values())),
        ("F-MNIST.F-MNISTconv", max(row("T6.PGD-v2").values())),
        ("ImageNet.VGG16", max(of_table_7)),
    ):
        assert value(f"T9.{network}.proposed") > best
        assert f"{best:.2f}" in entry.says


def test_seven_of_eight_attacks_leave_about_the_same():
    left = sorted(c.printed for id, c in CLAIMS.items() if re.fullmatch(r"T7\.(PGD|FGSM|IFGSM)-v\d+\.P1", id))
    assert len(left) == 8
    entry_with(f"leave between {left[1]:.2f} and {left[-1]:.2f}; the eighth leaves {left[0]:.2f}")


def test_table_10_and_table_11_lie_beside_the_other_tables():
    entry_with("stand nowhere in Table 7")
    entry_with("Over the epochs, Table 11 reaches at most 52.1")
    table_7 = {c.printed for id, c in CLAIMS.items() if id.startswith("T7.") and "Natural" not in id}
    for attack in ("FGSM", "IFGSM", "PGD"):
        assert value(f"T10.{attack}.M1_clean_only") not in table_7
        assert value(f"T10.{attack}.M1_finetuned") - max(table_7) > 12
    attacks = [f"{name}-v{n}" for name in ("PGD", "FGSM", "IFGSM") for n in (1, 2)]
    vgg = [value(f"T3.VGG16.{attack}.7-P1") for attack in attacks]
    resnet = [number for attack in attacks for number in row(f"T3.ResNet.{attack}").values()]
    assert (min(vgg), max(vgg), min(resnet), max(resnet)) == (55.61, 70.40, 13.43, 51.00)
    assert max(resnet) < max(row("T11.CIFAR").values()) == 52.1 < min(vgg)
    assert all(abs(c.printed - 67.8) > 0.05 for id, c in CLAIMS.items() if id.startswith("T6."))


def test_the_pairs_of_table_5_are_out_of_order():
    entry = entry_with("IFGSM leaves more than FGSM")
    pairs = list(zip(entry.claims[::2], entry.claims[1::2], strict=True))
    assert len(pairs) == 6
    for stronger, weaker in pairs:
        assert value(stronger) > value(weaker)
        assert f"{stronger.rpartition('.')[2]} ({value(stronger):.2f} against {value(weaker):.2f})" in entry.says


# --- faulty files ---

GOOD = {"places": ["Table 6"], "says": "It says.", "matters": "low", "claims": ["T6.FGSM.7-P1"], "why": "Because."}


@pytest.fixture
def load_text(tmp_path):
    def load_it(text):
        path = tmp_path / "list.yaml"
        path.write_text(text)
        return load(path)

    return load_it


def test_a_small_file_loads_and_its_records_are_frozen(load_text):
    entries = load_text(yaml.safe_dump([GOOD, GOOD | {"claims": []}]))
    assert [entry.claims for entry in entries] == [["T6.FGSM.7-P1"], []]
    assert entries[0].content() == GOOD
    with pytest.raises(ValueError, match="frozen"):
        entries[0].matters = "high"


@pytest.mark.parametrize("missing", GOOD)
def test_a_missing_field_gets_one_sentence(load_text, missing):
    faulty = {name: value for name, value in GOOD.items() if name != missing}
    with pytest.raises(ValueError) as caught:
        load_text(yaml.safe_dump([GOOD, faulty]))
    assert str(caught.value) == f"list.yaml: entry 2: Contradiction.{missing} is missing; give it a value"


@pytest.mark.parametrize(
    ("field", "wrong", "message"),
    [
        ("wy", "x", "unknown parameter 'wy'; did you mean 'why'?"),
        (3, "x", "unknown parameter '3'; known: places"),
        ("matters", "hihg", "Contradiction.matters: input should be 'high', 'medium' or 'low', not 'hihg'"),
        ("says", "", "Contradiction.says: string should have at least 1 character, not ''"),
        ("says", 3.5, "Contradiction.says: input should be a valid string, not 3.5"),
        ("places", "Table 6", "Contradiction.places: input should be a valid list, not 'Table 6'"),
        ("places", [], "Contradiction.places: list should have at least 1 item"),
        ("places", [6], "Contradiction.places.0: input should be a valid string, not 6"),
        ("claims", None, "Contradiction.claims: input should be a valid list, not None"),
        ("claims", ["T6.FGSM.7-P1", "T6.FGMS.7-P1"], "unknown claim 'T6.FGMS.7-P1'; did you mean 'T6.FGSM.7-P1'"),
        ("claims", ["zzzzzz"], "unknown claim 'zzzzzz'; known: T3.VGG16"),
    ],
)
def test_a_wrong_field_gets_one_sentence(load_text, field, wrong, message):
    with pytest.raises(ValueError) as caught:
        load_text(yaml.safe_dump([GOOD, GOOD | {field: wrong}]))
    assert str(caught.value).startswith("list.yaml: entry 2: ")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list.yaml is no list of entries; begin each with '- places:'"),
        ("places: [Table 6]\n", "list.yaml is no list of entries; begin each with '- places:'"),
        ("- [1, 2", "list.yaml is not valid YAML: "),
        ("- Table 6\n", "list.yaml: entry 1 is 'Table 6'; expected a mapping such as {places: "),
    ],
)
def test_a_broken_file_gets_one_sentence(load_text, text, message):
    with pytest.raises(ValueError) as caught:
        load_text(text)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.yaml"):
        load(tmp_path / "none.yaml")
