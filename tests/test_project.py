"""The project holds together: one list of packages in three files, imports that point only down, no machine's traces."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from reprolib import claims, report, scoreboard, specs

ROOT = Path(__file__).resolve().parent.parent
FLOORS = [
    {"files", "specs", "claims", "contradictions", "store"},
    {"attacks", "slots", "devices", "patches", "models", "layers", "convnets", "deepnets", "data", "streams", "winograd",
     "autoattack", "autoattack_parts", "probes", "folding"},
    {"evaluation", "training", "ladder", "defenses"},
    {"measures", "records", "costs"},
    {"tables", "pictures"},
    {"scoreboard"},
    {"report"},
    {"diagnostics", "study"},
    {"batch"},
    {"__main__"},
]
NO_TORCH = {"files", "specs", "claims", "contradictions"}


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
    assert pins | {"torchattacks": re.search(r"--no-deps torchattacks==([\d.]+)", text)[1]} == \
        {r.name: locked()[r.name.lower()] for r in wanted()}


def test_torchattacks_is_not_silently_an_older_one_and_does_not_drag_others_down():
    assert locked()["torchattacks"] == "3.5.1"
    assert int(locked()["jupyterlab"].split(".")[0]) >= 4
    assert tuple(map(int, locked()["requests"].split(".")[:2])) >= (2, 32)


@pytest.mark.parametrize("path", sorted((ROOT / "reprolib").rglob("*.py")), ids=lambda p: p.stem)
def test_imports_point_only_down(path):
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}
    own = path.stem if path.parent.name == "reprolib" else path.parent.name
    if own == "__init__":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reprolib"):
            names = [a.name for a in node.names] if node.module == "reprolib" else [node.module.split(".")[1]]
            for name in names:
                assert name in floor, f"{name} stands on no floor: name it in FLOORS"
                assert floor[name] <= floor[own], f"{own} imports {name}, which stands above it"
        if own in NO_TORCH and isinstance(node, (ast.Import, ast.ImportFrom)):
            assert "torch" not in ast.unparse(node)


@pytest.mark.parametrize("module, without", [("batch", "torch"), ("report", "torchvision")])
def test_what_takes_seconds_to_import_is_imported_by_those_who_need_it(module, without):
    """Each notebook of a batch pays for both processes' imports, its own and its kernel's."""
    code = f"import sys, reprolib.{module}; sys.exit({without!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


def test_no_tracked_file_names_a_registry_or_a_machine():
    traces = re.compile("|".join(["py" + r"pi\.org", "python" + "hosted", "registry" + r"\.npm", "deb" + r"\.debian",
                                  "/ro" + "ot/", "/wo" + "rk/", "/home/" + r"\w"]))
    for path in tracked():
        if path.suffix not in {".png", ".npz", ".safetensors"}:
            found = traces.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path.relative_to(ROOT)} says {found[0]}"


def test_committed_checkpoints_stay_small():
    assert sum(p.stat().st_size for p in tracked() if p.suffix == ".safetensors") <= 20_000_000


RECORDS = sorted(p for profile in ("cpu", "paper") for p in (ROOT / "results" / profile).glob("*.json"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_committed_records_are_whole_and_belong_to_their_profile(path):
    origin = report.read_record(path)["provenance"]
    assert origin["profile"] == path.parent.name
    assert origin["settings"] == specs.load_profile(path.parent.name).content()
    assert re.fullmatch("[0-9a-f]{40}", origin["commit"])
    assert not origin["dirty"]


def test_the_readme_shows_the_results_as_they_are():
    assert scoreboard.README.read_text(encoding="utf-8") == report.readme_text(), "the README's status is stale: run `make readme`"


def test_the_readme_begins_with_the_two_commands():
    text = scoreboard.README.read_text(encoding="utf-8")
    assert text.index("make tables") < text.index("make test") < text.index("\n## ")


def test_every_percentage_among_the_findings_is_measured_or_printed():
    text = scoreboard.README.read_text(encoding="utf-8").split("## What was found so far")[1].split("\n![")[0]
    known = {f"{c['value']:.2f}" for path in RECORDS for c in report.read_record(path)["cells"] if c["value"] is not None}
    known |= {f"{claim.printed:.2f}" for claim in claims.load_claims().values() if isinstance(claim.printed, (int, float))}
    found = re.findall(r"\d+\.\d\d", text)
    assert len(found) >= 5
    assert set(found) <= known
