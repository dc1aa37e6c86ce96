"""A key changes with what could change a result, and with nothing else: nothing stale is read, nothing done twice."""

import ast
import importlib
import sys
from pathlib import Path

import pytest
import torch

import reprolib
from reprolib import attacks, defenses, networks, training
from reprolib.networks.cpu.folding import folded
from reprolib.networks.layers import seeded
from reprolib.networks.quantized import quantized
from reprolib.networks.voted import Vote
from reprolib.paper.run import evaluate, keys
from reprolib.paper.run.keys import definitions, digest, entry, key

ONE = '''"""A module."""

from typing import TYPE_CHECKING

import torch

from counted.two import helper
from counted import deep, two
import counted.three as third

if TYPE_CHECKING:
    from counted.types import Nothing

STEP = 2
UNUSED = 5
LIMIT = STEP * 10
TABLE = {}
TABLE["a"] = 1
for _number in (1, 2):
    TABLE[str(_number)] = _number

try:
    from counted.quick import way
except ImportError:
    way = None


class Base:
    scale = two.SCALE


class Counter(Base):
    """Counts."""

    def up(self, by: int = STEP, other: "Nothing" = None) -> int:
        """One up."""
        if by > LIMIT:  # too much
            raise ValueError(f"by is {by}; expected at most {LIMIT}")
        assert by, "by is nothing"
        return by + 1  # by one


def run(counter: Counter) -> int:
    from counted import late

    return sum(helper(x) for x in range(3)) + third.go() + late.go() + torch.add(1, 2) + way


def other():
    return UNUSED + TABLE["a"]


def everything():
    return deep
'''
PACKAGE = {
    "__init__": "from counted.three import go as started\n",
    "one": ONE,
    "two": "from counted.three import FACTOR\nSCALE = 3\nOTHER = 4\n\n\ndef helper(x):\n    return x * FACTOR\n\n\n"
           "def alone():\n    return OTHER\n",
    "three": "FACTOR = 7\n\n\ndef go():\n    return 1\n\n\ndef stay():\n    return 2\n",
    "late": "LATE = 1\n\n\ndef go():\n    return LATE\n",
    "quick": "def way():\n    return 3\n",
    "types": "class Nothing:\n    pass\n",
    "deep": "A = 1\n\n\ndef b():\n    return 2\n",
    "user": "import counted\nfrom counted import started\n\n\ndef f():\n    return started()\n\n\n"
            "def g():\n    return counted.three.stay()\n",
    "odd": "from . import two\nfrom counted.two import missing\n\n\ndef relative():\n    return two.SCALE\n\n\n"
           "def unknown():\n    return missing()\n",
}  # fmt: skip


@pytest.fixture
def package(monkeypatch, tmp_path):
    """A package `counted`, followed as this library is; rewrite(module, old, new) changes a file."""
    folder = tmp_path / "packages" / "counted"
    folder.mkdir(parents=True)
    for name, source in PACKAGE.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.setattr(keys, "LIBRARY", "counted")
    monkeypatch.syspath_prepend(folder.parent)
    for name in [name for name in sys.modules if name.split(".")[0] == "counted"]:
        monkeypatch.delitem(sys.modules, name)  # an earlier test's package of that name
    importlib.invalidate_caches()
    keys._path.cache_clear()
    keys.code_digest.cache_clear()

    def rewrite(module: str, old: str, new: str) -> None:
        source = (folder / f"{module}.py").read_text()
        assert source.count(old) == 1
        (folder / f"{module}.py").write_text(source.replace(old, new))

    yield rewrite
    keys._path.cache_clear()
    keys.code_digest.cache_clear()


def code(*entries: str) -> str:
    return digest(definitions(*[f"counted.{name}" for name in entries]))


# --- what counts ------------------------------------------------------------------------------------------------------


def test_the_text_behind_a_name_is_not_of_a_version_of_python(package):
    alone = "FunctionDef(name='b', args=arguments(), body=[Return(value=Constant(value=2))])"
    assert definitions("counted.deep:b") == {"counted.deep:b": alone}
    node = ast.parse("""def said(x): return f'{x!r} "{x["a"]}"'""").body[0]
    text = keys._text(node)
    fields = {"_fields": (*node._fields, "type_params"), "type_params": []}  # which Python 3.12 gives each function
    node.__class__ = type("FunctionDef", (ast.FunctionDef,), fields)
    assert keys._text(node) == text and "Subscript" in text


def test_what_a_version_of_python_spells_otherwise_is_the_same_text():
    """Python 3.12.1 ends a nested format specification with an empty string, and notes the u of any part's prefix."""
    nested, plain = (ast.parse(code).body[0].value for code in ('f"{x:{width}}"', '"\U0001fae8"'))
    text = keys._text(nested), keys._text(plain)
    nested.values[0].format_spec.values.append(ast.Constant(value=""))
    plain.kind = "u"
    assert (keys._text(nested), keys._text(plain)) == text
    assert text[1].isascii()  # 3.12 can show this letter, and 3.11 writes it as an escape


def test_definitions_are_followed_from_the_entry_point_and_no_others(package):
    assert set(definitions("counted.one:Counter")) == {
        "counted.one:Counter", "counted.one:Base", "counted.one:STEP", "counted.one:LIMIT", "counted.two:SCALE",
    }  # fmt: skip
    assert set(definitions("counted.one:run")) == {
        "counted.one:run", "counted.one:way", "counted.two:helper", "counted.three:FACTOR", "counted.three:go",
        "counted.late:go", "counted.late:LATE", "counted.quick:way",
    }  # fmt: skip
    assert set(definitions("counted.user:f")) == {"counted.user:f", "counted.three:go"}
    assert set(definitions("counted.user:g")) == {"counted.user:g", "counted.three:stay"}
    assert {"counted.deep:A", "counted.deep:b"} < set(definitions("counted.one:everything"))


@pytest.mark.parametrize("old, new", [
    ("# by one", "# by 1, as the paper has it"),
    ('"""A module."""', '"""A module\n\nthat counts."""'),
    ('    """Counts."""\n\n', ""),
    ('"""One up."""', '"""Up by one."""'),
    ("STEP = 2\n", "STEP = (\n    2\n)\n"),
    ("by + 1", "(by+1)"),
    ("\n\n\nclass Counter", "\n\nclass Counter"),
    ("class Counter", "@guards.kept\nclass Counter"),
    ("    def up(", "    @guards.in_parts\n    @guards.wants(STEP)\n    def up("),
    ('f"by is {by}; expected at most {LIMIT}"', 'f"{by} is too much"'),
    ("raise ValueError", "raise TypeError"),
    ('"by is nothing"', '"give a number"'),
    ('by: int = STEP, other: "Nothing" = None) -> int', "by=STEP, other=None)"),
    ("UNUSED = 5", "UNUSED = 6"),
    ("def other():\n", "class New(Counter):\n    pass\n\n\ndef other():\n"),
    ("return UNUSED", "return 2 * UNUSED"),
    ("import torch\n", "import torch\nimport numpy\n"),
])  # fmt: skip
def test_prose_layout_errors_and_what_is_not_mentioned_keep_the_code(package, old, new):
    before = code("one:Counter")
    package("one", old, new)
    assert code("one:Counter") == before


@pytest.mark.parametrize("module, old, new", [
    ("one", "STEP = 2\n", "STEP = 3\n"),
    ("one", "STEP = 2\n", "STEP = 2.0\n"),
    ("one", "STEP = 2\n", "STEP = 2\nSTEP = 4\n"),
    ("one", "LIMIT = STEP * 10", "LIMIT = STEP * 11"),
    ("one", "by + 1", "by - 1"),
    ("one", "return by + 1", "by + 1"),
    ("one", "by > LIMIT", "by >= LIMIT"),
    ("one", "= STEP, other", "= 2, other"),
    ("one", "class Counter(Base)", "@print\nclass Counter(Base)"),
    ("one", "    scale = two.SCALE", "    scale = two.OTHER"),
    ("two", "SCALE = 3", "SCALE = 4"),
])  # fmt: skip
def test_what_an_entry_point_mentions_changes_the_code(package, module, old, new):
    before = code("one:Counter")
    package(module, old, new)
    assert code("one:Counter") != before


@pytest.mark.parametrize("module, old, new", [
    ("two", "return x * FACTOR", "return x + FACTOR"),  # from ... import name
    ("three", "FACTOR = 7", "FACTOR = 8"),  # and what that mentions, with an import of its own
    ("three", "return 1", "return 10"),  # import ... as
    ("late", "LATE = 1", "LATE = 2"),  # imported inside the function
    ("quick", "return 3", "return 4"),  # imported inside of try
    ("one", "    way = None", "    way = 5"),
    ("one", "range(3)", "range(4)"),
])  # fmt: skip
def test_every_way_to_import_is_followed(package, module, old, new):
    before = code("one:run")
    package(module, old, new)
    assert code("one:run") != before


@pytest.mark.parametrize(
    "old, new", [('TABLE["a"] = 1', 'TABLE["a"] = 2'), ("in (1, 2)", "in (1, 2, 3)"), ("TABLE = {}", "TABLE = {0: 1}")]
)
def test_what_is_put_into_a_table_counts_as_the_table(package, old, new):
    before = code("one:other")
    package("one", old, new)
    assert code("one:other") != before


@pytest.mark.parametrize("module, old, new", [
    ("two", "return OTHER", "return 1 + OTHER"), ("three", "return 2", "return 3"), ("types", "pass", "x = 1"),
])  # fmt: skip
def test_what_others_of_a_followed_file_mention_keeps_the_code(package, module, old, new):
    before = code("one:run"), code("one:Counter")
    package(module, old, new)
    assert (code("one:run"), code("one:Counter")) == before


def test_a_name_that_a_package_hands_on_is_followed_to_where_it_is_made(package):
    before = code("user:f")
    package("three", "return 2", "return 20")
    assert code("user:f") == before
    package("three", "return 1", "return 10")
    assert code("user:f") != before


def test_entry_points_are_told_apart(package):
    found = [code("one:Counter"), code("one:run"), code("one:Counter", "one:run"), code("two:helper"), code("three:go")]
    assert len(set(found)) == len(found)
    assert code("one:run", "one:Counter") == code("one:Counter", "one:run")


@pytest.mark.parametrize("name, words", [
    ("one:Missing", ["counted.one defines no 'Missing'"]),
    ("odd:unknown", ["counted.two defines no 'missing'", "by its own name"]),
    ("odd:relative", ["from . import two", "relative"]),
    ("nowhere:f", ["no module counted.nowhere"]),
])  # fmt: skip
def test_code_that_cannot_be_found_is_an_error_and_not_a_key(package, name, words):
    with pytest.raises(ValueError) as caught:
        code(name)
    assert all(word in str(caught.value) for word in words)


def test_a_process_goes_on_with_the_code_that_it_began_with(package):
    entries = ["counted.one:Counter"]
    before = key("kind", {}, "data", entries)
    package("one", "by + 1", "by - 1")
    assert key("kind", {}, "data", entries) == before
    keys.code_digest.cache_clear()  # as in the next process
    assert key("kind", {}, "data", entries) != before


# --- what else is in a key --------------------------------------------------------------------------------------------


def test_a_key_covers_kind_record_data_code_and_torch(package, monkeypatch):
    entries = ["counted.one:Counter"]
    same = key("kind", {"a": 1, "b": [1, None]}, "data", entries)
    assert key("kind", {"b": [1, None], "a": 1}, "data", entries * 2) == same  # the order of fields means nothing
    others = [
        key("other", {"a": 1, "b": [1, None]}, "data", entries),
        key("kind", {"a": 2, "b": [1, None]}, "data", entries),
        key("kind", {"a": 1, "b": [None, 1]}, "data", entries),
        key("kind", {"a": 1}, "data", entries),
        key("kind", {"a": 1, "b": [1, None]}, "other", entries),
        key("kind", {"a": 1, "b": [1, None]}, "data", ["counted.one:run"]),
    ]
    monkeypatch.setattr(torch, "__version__", "9.9.9+cpu")
    others.append(key("kind", {"a": 1, "b": [1, None]}, "data", entries))
    assert len({same, *others}) == 8
    assert len(same) == 24 and set(same) <= set("0123456789abcdef")


def test_builds_of_one_torch_for_cpu_and_gpu_are_one_version(package, monkeypatch):
    found = set()
    for build in ("2.15.0+cu132", "2.15.0+cpu", "2.15.0"):
        monkeypatch.setattr(torch, "__version__", build)
        found.add(key("kind", {}, "data", ["counted.one:Counter"]))
    assert len(found) == 1


# --- this library -----------------------------------------------------------------------------------------------------

FOLDER = Path(reprolib.__file__).parent
ENTRIES = {
    **{f"network {name}": place for name, place in networks.ARCHITECTURES.items()},
    **{f"defence {name}": entry(kind) for name, kind in defenses.named().items()},
    "vote": entry(Vote),
    "training": entry(training.Run),
    "weights": entry(seeded),
    "LinfAttack": entry(attacks.LinfAttack),
    "AutoAttack": entry(attacks.AutoAttack),
    "attacked": entry(evaluate.attacked),
    "folded": entry(folded),
    "shown": entry(evaluate.shown),
}
NETWORKS = {name for name in ENTRIES if name.startswith("network ")}
DEFENCES = {name for name in ENTRIES if name.startswith("defence ")}


def digests() -> dict[str, str]:
    return {name: digest(definitions(place)) for name, place in ENTRIES.items()}


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    return digests()


@pytest.fixture
def edited(before, monkeypatch, tmp_path):
    """edited(module, change): which entries have another key once `change` has worked on the module's source."""
    usual = keys._path

    def edit(module: str, change) -> set[str]:
        source = Path(usual(module)).read_text(encoding="utf-8")
        assert change(source) != source, f"{module} has changed, and this test does nothing any more"
        (tmp_path / "changed.py").write_text(change(source), encoding="utf-8")
        monkeypatch.setattr(keys, "_path", lambda name: str(tmp_path / "changed.py") if name == module else usual(name))
        after = digests()
        return {name for name in ENTRIES if after[name] != before[name]}

    return edit


@pytest.fixture
def touched(edited):
    """touched(place): which entries have another key once the definition "module:name" is another one."""

    def touch(place: str) -> set[str]:
        module, name = place.split(":")
        return edited(module, lambda source: f"{source}\n{name} = {name}\n")

    return touch


def test_a_new_class_in_a_file_changes_no_key(edited):
    new = "\n\nclass New:\n    def forward(self, images):\n        return images\n\n\nNEW = New()\n"
    modules = sorted({place.split(":")[0] for place in definitions(*ENTRIES.values())})
    assert len(modules) > 20
    for module in [*modules[::3], "reprolib.defenses.patched", "reprolib.networks.resnet", "reprolib.attacks.linf"]:
        assert edited(module, lambda source: source + new) == set(), module


@pytest.mark.parametrize("name", sorted({*NETWORKS, *DEFENCES, "vote", "training", "attacked", "shown"}))
def test_a_changed_entry_point_changes_its_own_key_and_those_that_are_made_of_it(touched, name):
    """Batch normalisation is folded into a vote's members; a defence may be a case of another one."""
    made_of_it = {other for other, place in ENTRIES.items() if ENTRIES[name] in definitions(place)}
    assert name in made_of_it and len(made_of_it) <= 5
    assert touched(ENTRIES[name]) == made_of_it


@pytest.mark.parametrize("place, changed", [
    ("reprolib.networks.cpu.winograd:POINTS", {"network fmnistconv"}),
    ("reprolib.data.fashion_mnist:MEAN", {"network fmnistconv"}),
    ("reprolib.patches:OPERATIONS", {"defence patched", "defence patched_at", "defence patched_scaled"}),
    ("reprolib.patches:gaussian_blur", {"defence patched", "defence patched_at", "defence patched_scaled"}),
    (entry(quantized), {"defence quantised", "defence quantised_at"}),
    (entry(folded), {"folded"}),
    (entry(evaluate.run_torchattacks), {"attacked"}),
    ("reprolib.training:NEAR", {"training"}),
    (entry(training.clean_accuracy), {"training"}),
    (entry(training.is_saturated), {"training"}),
    (entry(seeded), {"weights", "defence hidden_space", "defence l2l_da", "defence renofeat"}),  # which add layers
])  # fmt: skip
def test_a_change_reaches_what_it_can_influence_and_nothing_else(touched, place, changed):
    assert touched(place) == changed


@pytest.mark.parametrize("place, changed, unchanged", [
    ("reprolib.streams:uniform", {"LinfAttack", "AutoAttack", "training", "defence patched"}, NETWORKS),
    ("reprolib.streams:_GOLDEN", {"LinfAttack", "AutoAttack", "training", "defence patched"}, NETWORKS),
    (entry(attacks.loss_per_image), {"LinfAttack", "defence pgd_at"}, {"training", "defence mixup", *NETWORKS}),
    (f"{attacks.loss_per_image.__module__}:CLIP", {"LinfAttack"}, {"training", *NETWORKS}),
    (entry(attacks.AttackResult), {"LinfAttack", "AutoAttack"}, {"training", *NETWORKS}),
    (entry(attacks.is_right), {"shown"}, {"training", *NETWORKS}),
    (entry(attacks.Gradients), {"LinfAttack", "AutoAttack", "defence pgd_at"}, {"training", *NETWORKS}),
    (entry(networks.Normalize), NETWORKS, {"training", "LinfAttack"}),
    (entry(defenses.Defence), DEFENCES - {"defence high_frequency"}, {"defence high_frequency", *NETWORKS}),
])  # fmt: skip
def test_a_change_to_what_many_share(touched, place, changed, unchanged):
    found = touched(place)
    assert changed <= found and not unchanged & found


@pytest.mark.parametrize("module, old, new", [
    ("reprolib.training", 'unit="epoch"', 'unit="lap"'),  # a progress label
    ("reprolib.training", "expected a tensor uint8", "expected something else"),  # what an error says
    ("reprolib.training", '"""Train a network, in place', '"""Teach a network, in place'),
    ("reprolib.paper.run.evaluate", "desc=words", 'desc="attack"'),
    ("reprolib.paper.run.evaluate", "CHUNK = 500", "CHUNK = 400"),
    ("reprolib.networks", "ARCHITECTURES = {", 'ARCHITECTURES = {"new": "reprolib.networks.vgg:VGG16",'),
])  # fmt: skip
def test_labels_wording_and_tables_of_names_change_no_key(edited, module, old, new):
    assert edited(module, lambda source: source.replace(old, new, 1)) == set()


FOLLOWED = [path for path in sorted(FOLDER.rglob("*.py")) if not {"paper", "__main__.py"} & set(path.parts)]
# how a network is traced, and that torch is silent about what is wanted
HARMLESS = ("torch.fx.wrap(", "warnings.filterwarnings(")


@pytest.mark.parametrize("path", [*FOLLOWED, Path(evaluate.__file__)], ids=lambda path: str(path.relative_to(FOLDER)))
def test_no_statement_of_the_method_acts_behind_the_keys_back(path):
    """A statement that gives nothing a name, such as a call that sets a global switch, would be in no key."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        text = ast.unparse(statement)
        is_prose = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        is_for_types = isinstance(statement, ast.If) and "TYPE_CHECKING" in text
        if not (is_prose or is_for_types or text.startswith(HARMLESS)):
            assert keys._bound(statement), f"no key would see: {text}"
