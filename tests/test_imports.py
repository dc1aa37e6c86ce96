"""Two storeys: the method knows nothing of the apparatus, and inside each, imports run one way."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for path in (ROOT / "reprolib").rglob("*.py") if ".ipynb_checkpoints" not in path.parts)
# from the ground up; a room may import rooms of lower floors, and itself
METHOD = [
    {"streams", "devices"},
    {"data", "patches", "attacks"},
    {"networks"},
    {"defenses"},
    {"training"},
    {"diagnostics"},
]
APPARATUS = [
    {"files", "parameters"},
    {"accelerators", "kernels", "own_runs"},
    {"notebooks"},
    {"plan"},
    {"run"},
    {"judge"},
    {"show"},
    {"teach"},
    {"batch"},
    {"cli"},
]
HEIGHT = {room: height for height, rooms in enumerate(METHOD) for room in rooms} | {
    f"paper.{room}": 100 + height for height, rooms in enumerate(APPARATUS) for room in rooms
}
# what a thin library does without: declarations, stores, records, notebooks, pictures
NOT_IN_THE_METHOD = {
    "IPython", "filelock", "jupyter", "matplotlib", "nbformat", "papermill", "pydantic", "safetensors", "seaborn",
    "snakemake", "tabulate", "yaml",
}  # fmt: skip


def room(module: str) -> str:
    """reprolib.attacks.linf -> attacks; reprolib.paper.run.keys -> paper.run."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2] if parts[:1] == ["paper"] else parts[:1])


def room_of(path: Path) -> str:
    return room(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file, but for types alone."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.relative_to(ROOT)} imports relatively, which keys do not follow"
            # `from reprolib import streams` imports reprolib.streams
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "reprolib")))
def test_imports_run_one_way(path):
    own = room_of(path)
    for module in imported(path):
        if module.split(".")[0] == "reprolib" and own not in ("", "paper", "__main__"):
            other = room(module)
            assert own in HEIGHT and other in HEIGHT, f"{own} or {other} stands on no floor: name it here"
            lower = HEIGHT[other] < HEIGHT[own]
            assert lower or other == own, f"{own} imports {other}, which does not stand below it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "reprolib")))
def test_the_method_is_thin(path):
    own = room_of(path)
    if own.startswith("paper") or own == "__main__":
        return
    for module in imported(path):
        package = module.split(".")[0]
        assert not module.startswith("reprolib.paper"), f"{own} imports the apparatus: {module}"
        assert package not in NOT_IN_THE_METHOD, f"{own} imports {package}"
        assert package != "pandas" or own == "diagnostics", f"{own} imports pandas, which is the doctor's alone"


def test_no_room_is_missing_or_left_over():
    found = {room_of(path) for path in FILES} - {"", "paper", "__main__"}
    assert found == set(HEIGHT)


def loaded(code: str, *names: str) -> set[str]:
    """Which of these packages a fresh process has loaded after that code."""
    script = f"import sys\n{code}\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_method_can_be_had_without_the_apparatus():
    code = "from reprolib import attacks, data, defenses, diagnostics, networks, patches, training; defenses.named()"
    assert loaded(code, "reprolib.paper", "yaml", "pydantic", "matplotlib", "papermill", "torchvision") == set()


@pytest.mark.parametrize("module, without", [
    ("reprolib.data", "torch"), ("reprolib.paper.batch", "torch"), ("reprolib.__main__", "torch"),
])  # fmt: skip
def test_what_takes_seconds_to_import_is_imported_by_those_who_need_it(module, without):
    """Each step of a batch pays for its imports, and for those of its kernel."""
    assert loaded(f"import {module}", without) == set()


def test_a_notebook_pays_for_what_it_shows_alone():
    """And `run` for no pictures: a step of the batch has none."""
    code = "import reprolib.paper.run\nassert not {'torchvision', 'matplotlib', 'IPython'} & set(sys.modules)\n"
    assert loaded(code + "import reprolib.paper.show", "torchvision", "torch._dynamo", "papermill") == set()
