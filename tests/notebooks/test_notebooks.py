"""The notebooks as committed: parameters that papermill reads, outputs from a clean run, nothing of anybody's machine.

Every test holds for every notebook under notebooks/, but for those `of_pages`. Few things are executed
here; the rest is nbval's work.
"""

import ast
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import papermill
import pytest
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpecManager

from reprolib.paper import kernels, notebooks, plan, run
from reprolib.paper.run.page import KNOBS

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "notebooks"
PATHS = sorted(path for path in FOLDER.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
PAGES = [path for path in PATHS if path not in notebooks.lessons().values()]
of_pages = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)  # lessons have tests of their own

MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|work|tmp|Users|mnt|opt|private)\b|\b[A-Za-z]:\\[A-Za-z]")
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:href|src)=\"([^\"]+)\"")
TYPES = {"data": "str", "engine": "str", "loss": "str", "width": "float", "eps": "float", "alpha": "float"}  # or int


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook) -> list:
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def is_parameters(cell) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


def calls(cell) -> dict[str, ast.Call]:
    """The functions that a cell calls, as written: run.open_page."""
    return {ast.unparse(node.func): node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)}


def texts(value, inside: str = ""):
    """Every text in a notebook, except the bytes of its pictures."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not (inside == "data" and key.startswith("image/")):
                yield from texts(item, key)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, inside)
    elif isinstance(value, str):
        yield value


def markdown_texts(notebook) -> list[str]:
    """What a reader sees as Markdown or HTML: cells and stored outputs."""
    shown = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    for output in outputs(notebook):
        shown += [output.get("data", {}).get(kind, "") for kind in ("text/markdown", "text/html")]
    return shown


def headings(cell) -> list[int]:
    """The levels of a Markdown cell's headings; lines inside fenced code are no headings."""
    prose = re.sub(r"^(```|~~~).*?^\1", "", cell.source, flags=re.MULTILINE | re.DOTALL)
    return [len(marks) for marks in re.findall(r"^(#{1,6})\s", prose, flags=re.MULTILINE)]


def test_every_declared_table_has_its_notebook_and_no_two_share_a_name():
    names = [path.stem for path in PATHS]
    assert len(names) == len(set(names)) and set(plan.table_names()) <= set(names)


def test_notebook_is_valid(notebook):
    nbformat.validate(notebook)


# --- parameters -----------------------------------------------------------------------------------------------------


@of_pages
def test_the_first_code_cell_and_no_other_holds_the_parameters(notebook):
    assert [is_parameters(cell) for cell in code_cells(notebook)].index(True) == 0
    assert sum(map(is_parameters, notebook.cells)) == 1


@of_pages
def test_papermill_sees_every_parameter_with_type_and_help(path, notebook):
    body = ast.parse(code_cells(notebook)[0].source).body
    assert all(isinstance(line, ast.AnnAssign) for line in body), "the cell holds `name: type = value` and nothing else"
    found = papermill.inspect_notebook(str(path))
    assert list(found) == [line.target.id for line in body]
    defaults = {name: ast.literal_eval(parameter["default"]) for name, parameter in found.items()}
    assert all(len(parameter["help"]) >= 5 for parameter in found.values())
    assert defaults.pop("profile") == "quick"
    if path.stem in plan.table_names():
        pages = plan.load_table(path.stem)
        assert defaults.pop("network", next(iter(pages))) in pages and ("network" in found) == (len(pages) > 1)
        assert defaults.pop("fresh") is False
        assert defaults.pop("run_name") is None and found["run_name"]["inferred_type_name"] == "str"
        assert set(defaults) <= set(KNOBS) and set(defaults.values()) == {None}, "a knob is as the profile says"
        assert all(found[name]["inferred_type_name"] == TYPES.get(name, "int") for name in defaults)
    else:
        assert defaults in ({}, {"seed": 0})


@of_pages
def test_the_cell_after_the_parameters_validates_them(path, notebook):
    called = calls(code_cells(notebook)[1])
    if path.stem in plan.table_names():
        assert [ast.unparse(part) for part in called["run.open_page"].args] == [repr(path.stem), "globals()"]
    else:
        declared = [line.target.id for line in ast.parse(code_cells(notebook)[0].source).body]
        _, *known = called["run.parameters"].args
        assert ["profile", *(name for part in known for name in ast.literal_eval(part))] == declared


def opened(notebook, **injected) -> dict:
    """A notebook's variables after its second code cell, with parameters as papermill would inject them."""
    names: dict = {}
    cells = code_cells(notebook)
    for source in (
        cells[0].source,
        "\n".join(f"{name} = {value!r}" for name, value in injected.items()),
        cells[1].source,
    ):
        exec(compile(source, "cell", "exec"), names)
    return names


@of_pages
@pytest.mark.parametrize("name, value", [("Seed", 3), ("epochs", 3), ("seeed", 3), ("cifar_test_size", 8)])
def test_a_parameter_that_there_is_not_is_refused(notebook, name, value):
    """papermill would only warn, and go on without it."""
    with pytest.raises(plan.SpecError) as caught:
        opened(notebook, **{name: value})
    assert f"unknown parameter '{name}'" in str(caught.value) and "\n" not in str(caught.value)


@of_pages
@pytest.mark.parametrize("profile, message", [("quik", "unknown profile 'quik'; did you mean 'quick'"), (3, "profile")])
def test_a_profile_that_there_is_not_is_refused(notebook, profile, message):
    with pytest.raises(plan.SpecError, match=message):
        opened(notebook, profile=profile)


@of_pages
@pytest.mark.parametrize("seed", [-1, 1.5, "one"])
def test_a_seed_that_is_none_is_refused(path, notebook, seed):
    if "seed" in papermill.inspect_notebook(str(path)):
        with pytest.raises(plan.SpecError, match=r"Amounts\.seed"):
            opened(notebook, seed=seed)


@pytest.mark.parametrize("table, network", [(page.table, page.network) for page in plan.all_pages()])
def test_every_page_can_be_opened_by_hand(table, network, monkeypatch):
    """papermill notebooks/tables/table03.ipynb out.ipynb -p profile cpu -p network vgg16"""
    (path,) = [path for path in PATHS if path.stem == table]
    shown: list = []
    monkeypatch.setattr("reprolib.paper.show.notebook.show_in_notebook", shown.append)
    page = opened(nbformat.read(path, as_version=4), profile="cpu", network=network)["page"]
    assert page.plan.folder == "cpu" and page.plan.page.network == network and len(shown) == 1
    changed = opened(nbformat.read(path, as_version=4), network=network, steps=4, fresh=True)["page"]
    assert changed.plan.folder == "custom" and changed.plan.amounts.steps == 4 and changed.fresh


@of_pages
def test_no_variable_of_a_notebook_is_taken_for_a_parameter(notebook):
    """A list, say, of a name near to a parameter's would be, when the second cell is run again."""
    names: dict = {name: [] for cell in code_cells(notebook)[1:] for line in ast.parse(cell.source).body
                   if isinstance(line, ast.Assign) for target in line.targets for name in names_in(target)}  # fmt: skip
    declared = [line.target.id for line in ast.parse(code_cells(notebook)[0].source).body]
    assert run.parameters(names | {"profile": "quick"}, tuple(declared)).keys() == {"profile"}


def names_in(target: ast.expr) -> list[str]:
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def test_a_knob_that_turns_nothing_is_refused():
    with pytest.raises(plan.SpecError, match="width makes no difference to table06_fashion_mnist; leave it out"):
        run.open_page("table06_fashion_mnist", {"width": 0.5})


@of_pages
def test_the_second_cell_can_be_run_again(notebook):
    """A plain variable set by a later cell would be taken for a parameter that there is not."""
    for cell in code_cells(notebook)[1:]:
        for line in ast.parse(cell.source).body:
            assert not isinstance(line, (ast.For, ast.While, ast.With, ast.AugAssign)), cell.source
            if isinstance(line, ast.Assign):
                assert not isinstance(line.value, (ast.Constant, ast.JoinedStr, ast.BinOp)), cell.source


# --- structure ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told() -> dict:
    """What JupyterLab writes into a notebook that is opened: what its kernel says of itself."""
    specs = KernelSpecManager(kernel_dirs=[str(kernels.FOR_LAB / "kernels")])
    spec = specs.get_kernel_spec("python3")
    manager = KernelManager(kernel_name="python3", kernel_spec_manager=specs)
    manager.start_kernel()
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        language = client.kernel_info(reply=True, timeout=60)["content"]["language_info"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    kernel = {"name": "python3", "display_name": spec.display_name, "language": spec.language}
    return {"kernelspec": kernel, "language_info": language}


def test_a_notebook_that_is_only_opened_is_not_unsaved(notebook, told):
    """The version of a Python is not the same everywhere, and neither held nor told."""
    assert notebook.metadata == told and "version" not in told["language_info"]


def test_one_title_and_no_skipped_heading(notebook):
    levels = [level for cell in notebook.cells if cell.cell_type == "markdown" for level in headings(cell)]
    assert notebook.cells[0].cell_type == "markdown" and headings(notebook.cells[0])[:1] == [1]
    assert levels.count(1) == 1
    assert all(lower <= higher + 1 for higher, lower in pairwise(levels)), levels


@of_pages
def test_logic_lives_in_reprolib(notebook):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for cell in code_cells(notebook):
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, kinds)], cell.source


@of_pages
def test_the_last_code_cell_writes_the_record(path, notebook):
    called = calls(code_cells(notebook)[-1])
    if path.stem in plan.table_names():
        assert ast.unparse(called["show.publish"].args[0]) == "page"
    else:
        assert ast.literal_eval(called["run.write_record"].args[0]) == path.stem


@of_pages
def test_a_table_shows_the_full_run_beside_its_own_and_an_attacked_image(path, notebook):
    if path.stem in plan.table_names():
        called = [set(calls(cell)) for cell in code_cells(notebook)]
        (beside,) = [names for names in called if "show.full_run" in names]
        assert "show.display" in beside, "in the cell that shows this run's own numbers"
        assert any("show.under_attack" in names for names in called) or path.stem.startswith("figure")


def test_a_notebook_that_misses_a_full_run_has_none(notebook):
    missing = re.findall(r"No full run.*ONLY=([\w-]+)", "\n".join(markdown_texts(notebook)))
    recorded = {path.stem for profile in plan.JUDGED for path in (ROOT / "results" / profile).glob("*.json")}
    assert not recorded & set(missing), "recorded since; tools/refresh_notebooks.py stores this notebook's outputs anew"


def test_links_lead_to_files_that_exist(path, notebook):
    for text in markdown_texts(notebook):
        for target in (first or second for first, second in LINK.findall(text)):
            if re.match(r"[a-z]+:|#", target):  # a URL, a data: picture, a heading of this page
                continue
            file, _, network = target.partition("#")
            found = (path.parent / file).resolve()
            assert found.exists() and found.is_relative_to(ROOT), target
            if network and found.suffix == ".ipynb":
                assert network in plan.load_table(found.stem), target


@pytest.mark.parametrize("page", plan.all_pages(), ids=lambda page: page.record)
def test_links_of_a_declaration_lead_from_its_notebook_to_pages_that_exist(page):
    (path,) = [path for path in PATHS if path.stem == page.table]
    for target in (first or second for first, second in LINK.findall(page.prose)):
        file, _, network = target.partition("#")
        assert (path.parent / file).exists(), target
        assert not network or network in plan.load_table(Path(file).stem), target


# --- stored outputs -------------------------------------------------------------------------------------------------


def test_outputs_come_from_one_clean_run_from_top_to_bottom(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    for cell in code_cells(notebook):
        assert {output.execution_count for output in cell.outputs if output.output_type == "execute_result"} <= {
            cell.execution_count
        }


def test_no_errors_and_no_warnings(notebook):
    assert not [o for o in outputs(notebook) if o.output_type == "error" or o.get("name") == "stderr"]


def test_cells_that_nbval_compares_have_an_output(notebook):
    for cell in code_cells(notebook):
        if re.search(r"^\s*#\s*NBVAL_CHECK_OUTPUT\s*$", cell.source, re.MULTILINE):
            assert cell.outputs, cell.source


def test_nothing_of_anybodys_machine(notebook):
    for text in texts(notebook):
        assert not MACHINE_PATH.search(text), text[:200]


def test_no_traces_of_papermill(notebook):
    for place in (notebook, *notebook.cells):
        assert "papermill" not in place.metadata
        assert "injected-parameters" not in place.metadata.get("tags", [])


def test_pictures_have_a_text_alternative(notebook):
    for output in outputs(notebook):
        if "image/png" in output.get("data", {}):
            alt = output.metadata.get("image/png", {}).get("alt", "")
            assert len(alt.strip()) >= 20, alt


def test_no_svg(notebook):
    """Its ids are random, so nbval would never agree with it."""
    for output in outputs(notebook):
        assert "image/svg+xml" not in output.get("data", {})
        assert not any("<svg" in text for text in texts(output.get("data", {}), "data"))


def test_pictures_have_their_data_beside_them(notebook):
    """A reader who cannot see the picture, or wants its numbers, finds a table in the same notebook."""
    shown = outputs(notebook)
    if any("image/png" in output.get("data", {}) for output in shown):
        assert any("|" in output.get("data", {}).get("text/markdown", "") for output in shown)


@pytest.mark.parametrize("text", ["see /" + "home/ann/x", "'/tmp/y'", "(/" + "root/z)", r"C:\Users\ann", "/Users/ann"])
def test_machine_paths_are_recognised(text):
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize(
    "text", ["https://example.org/" + "home/x", "../../tmp/x", "a/root", "n/" + "work", "ratio: \\alpha"]
)
def test_other_paths_are_not(text):
    assert not MACHINE_PATH.search(text)
