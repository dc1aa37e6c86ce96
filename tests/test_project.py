"""The project holds together: one list of packages in three files, files of a readable size, no machine's traces."""

import __future__

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
import yaml
from packaging.requirements import Requirement

from reprolib.paper import plan, run

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for path in (ROOT / "reprolib").rglob("*.py") if ".ipynb_checkpoints" not in path.parts)
LONGEST = 350  # lines of a file
METHOD = 2700  # lines of code of all but the apparatus and the defences, without docstrings and blank lines
DEFENCE = 120  # lines of code of a defence, of which there may be many


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return {m[1].lower(): m[2] for line in lines if (m := re.match(r"([\w.-]+)==([^ ;]+)", line))}


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(r) for r in [*project["dependencies"], *project["optional-dependencies"]["test"]]]


@pytest.mark.parametrize("requirement", wanted(), ids=lambda r: r.name)
def test_the_lock_satisfies_pyproject_and_is_installed(requirement):
    assert requirement.specifier.contains(locked()[requirement.name.lower()])
    assert version(requirement.name).split("+")[0] == locked()[requirement.name.lower()]


def test_environment_yml_has_the_versions_of_the_lock():
    text = (ROOT / "environment.yml").read_text()
    pip = next(d["pip"] for d in yaml.safe_load(text)["dependencies"] if isinstance(d, dict))
    pins = dict(line.split("==") for line in pip)
    assert pins | {"torchattacks": re.search(r"--no-deps torchattacks==([\d.]+)", text)[1]} == {
        r.name: locked()[r.name.lower()] for r in wanted()
    }


def test_torchattacks_is_not_silently_an_older_one_and_does_not_drag_others_down():
    assert locked()["torchattacks"] == "3.5.1"
    assert int(locked()["jupyterlab"].split(".")[0]) >= 4
    assert tuple(map(int, locked()["requests"].split(".")[:2])) >= (2, 32)


# --- code that can be read --------------------------------------------------------------------------------------------


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "reprolib")))
def test_no_file_is_too_long_to_read(path):
    assert length(path) <= LONGEST


def lines_of_code(path: Path) -> int:
    """Without blank lines and docstrings."""
    text = path.read_text(encoding="utf-8")
    prose: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            prose |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return sum(bool(line.strip()) for number, line in enumerate(text.splitlines(), 1) if number not in prose)


def test_the_method_is_a_thin_library():
    assert sum(lines_of_code(path) for path in FILES if not {"paper", "defenses"} & set(path.parts)) <= METHOD


@pytest.mark.parametrize("path", [path for path in FILES if "defenses" in path.parts], ids=lambda path: path.stem)
def test_a_defence_is_a_short_file(path):
    assert lines_of_code(path) <= DEFENCE


def statements(path: Path) -> list[tuple[int, str] | None]:
    """A file's statements in order, without prose and imports; None where a definition begins or ends."""
    found: list[tuple[int, str] | None] = []

    def walk(body: list[ast.stmt]) -> None:
        for statement in body:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                found.append(None)
                walk(statement.body)
                found.append(None)
            elif not isinstance(statement, ast.Import | ast.ImportFrom) and not _is_prose(statement):
                found.append((statement.lineno, ast.unparse(statement).splitlines()[0]))
                for block in ("body", "handlers", "orelse", "finalbody"):
                    for below in getattr(statement, block, []):
                        walk(below.body if isinstance(below, ast.ExceptHandler) else [below])

    walk(ast.parse(path.read_text(encoding="utf-8")).body)
    return found


def _is_prose(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def test_no_run_of_six_lines_of_logic_stands_twice():
    places = defaultdict(list)
    for path in FILES:
        lines = statements(path)
        for start in range(len(lines) - 5):
            some = lines[start : start + 6]
            if None not in some:
                places[tuple(text for _, text in some)].append(f"{path.relative_to(ROOT)}:{some[0][0]}")
    assert not [found for found in places.values() if len(found) > 1]


# --- what tab completion lists ----------------------------------------------------------------------------------------

ROOMS = ["attacks", "data", "defenses", "devices", "diagnostics", "networks", "patches", "streams", "training"]
ROOMS += [f"paper.{room}" for room in ("judge", "plan", "run", "show", "teach")]


def listed(room: str) -> set[str]:
    """What a reader is offered behind the dot."""
    return {name for name in dir(import_module(f"reprolib.{room}")) if not name.startswith("_")}


@pytest.mark.parametrize("room", ROOMS)
def test_tab_completion_lists_what_a_room_has_of_its_own_and_nothing_else(room):
    """No torch, no typing, no file that happened to be imported."""
    module = import_module(f"reprolib.{room}")
    assert listed(room) and set(module.__all__) <= listed(room)
    for name in listed(room):
        thing = getattr(module, name)
        assert not isinstance(thing, ModuleType | __future__._Feature), name
        if isinstance(thing, type | FunctionType):
            assert thing.__module__.split(".")[0] == "reprolib", name


def test_the_library_lists_its_rooms_and_opens_them():
    import reprolib

    assert {*ROOMS, "paper"} - {room for room in ROOMS if "." in room} == set(dir(reprolib)) - {"__version__"}
    command = "import reprolib; assert 'torch' not in __import__('sys').modules; print(reprolib.attacks.pgd.__name__)"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "pgd\n", done.stderr
    with pytest.raises(AttributeError, match="has no attribute 'attack'"):
        _ = reprolib.attack


def examples() -> list[str]:
    """The Python of the README, the documentation and the notebooks."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    code = [part for page in pages for part in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in path.parts:
            cells = json.loads(path.read_text("utf-8"))["cells"]
            code.append("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))
    return code


def test_what_examples_use_is_listed():
    used = set()
    for source in examples():
        nodes = list(ast.walk(ast.parse(source)))
        own = {node.arg for node in nodes if isinstance(node, ast.arg)}
        own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id not in own:
                used |= {(room, node.attr) for room in ROOMS if room.split(".")[-1] == node.value.id}
    assert len(used) > 30
    assert not sorted((room, name) for room, name in used if name not in listed(room))


# --- make -------------------------------------------------------------------------------------------------------------


def test_make_alone_prints_help_and_every_goal_stands_in_it():
    done = subprocess.run(["make", "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    goals = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert {"tables", "check", "test", "start", "lab"} <= set(goals)
    for goal in set(goals) - {"help"}:
        assert f"make {goal}" in done.stdout, goal
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_the_line_for_a_cluster_names_the_plugin_that_pyproject_does():
    (wanted,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["slurm"]
    page = (ROOT / "docs" / "cluster.md").read_text()
    assert re.findall(r"^\.venv/bin/python -m pip install (.+)$", page, re.MULTILINE) == [wanted]


# --- what is committed ------------------------------------------------------------------------------------------------


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


def test_no_tracked_file_names_a_registry_or_a_machine():
    traces = re.compile(
        "|".join(
            [
                "py" + r"pi\.org",
                "python" + "hosted",
                "registry" + r"\.npm",
                "deb" + r"\.debian",
                "/ro" + "ot/",
                "/wo" + "rk/",
                "/home/" + r"\w",
            ]
        )
    )
    for path in tracked():
        if path.suffix not in {".png", ".npz", ".safetensors"}:
            found = traces.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path.relative_to(ROOT)} says {found[0]}"


def test_of_networks_only_published_ones_are_committed():
    """A clone carries them all; how large they are together: tests/paper/run/test_published.py."""
    assert not [path for path in tracked() if path.suffix == ".safetensors" and path.parent.name != "networks"]


RECORDS = sorted(path for profile in plan.JUDGED for path in (ROOT / "results" / profile).glob("*.json"))
PAGES = {page.record: page for page in plan.all_pages()}


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_committed_records_are_whole_and_belong_to_their_profile(path):
    made = run.read_record(path).provenance
    assert made["profile"] == path.parent.name
    assert made["commit"] and all(re.fullmatch("[0-9a-f]{40}", commit) for commit in made["commit"])
    assert made["dirty"] == ["False"] and made["torch"]
    if path.stem in PAGES:
        page = PAGES[path.stem]
        assert made["amounts"] == plan.used(page, plan.amounts_of(page, plan.load_profile(path.parent.name)))
        assert made["device"] and made["seconds"]["attacks"] > 0 and len(made["data"]["sha256"]) == 64


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_committed_records_are_read_again_as_they_were_written(path):
    """No field is lost or given another form on the way through a cell."""
    stored = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert [cell.content() for cell in run.read_record(path).cells] == stored
