"""The notebooks as committed: parameters that papermill reads, outputs from a clean run, nothing of anybody's machine.

Nothing is executed here; that is nbval's work. Every test holds for every notebook under notebooks/.
"""

import ast
import re
from pathlib import Path

import nbformat
import papermill
import pytest

from reprolib import specs

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
PATHS = sorted(path for path in FOLDER.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)

MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|work|tmp|Users|mnt|opt|private)\b|\b[A-Za-z]:\\[A-Za-z]")
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:href|src)=\"([^\"]+)\"")


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
    """The functions that a cell calls, as written: specs.load_profile."""
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


def test_there_are_notebooks_and_no_two_share_a_name():
    """A record is named after its notebook, whatever folder that is in."""
    names = [path.stem for path in PATHS]
    assert names and len(names) == len(set(names))


def test_notebook_is_valid(notebook):
    nbformat.validate(notebook)


# --- parameters -----------------------------------------------------------------------------------------------------


def test_the_first_code_cell_and_no_other_holds_the_parameters(notebook):
    assert [is_parameters(cell) for cell in code_cells(notebook)].index(True) == 0
    assert sum(map(is_parameters, notebook.cells)) == 1


def test_papermill_sees_every_parameter_with_type_help_and_the_quick_value(path, notebook):
    body = ast.parse(code_cells(notebook)[0].source).body
    assert all(isinstance(line, ast.AnnAssign) for line in body), "the cell holds `name: type = value` and nothing else"
    found, quick = papermill.inspect_notebook(str(path)), specs.load_profile("quick").content()
    assert list(found) == [line.target.id for line in body]
    for name, parameter in found.items():
        assert name in specs.Settings.model_fields, name
        default = ast.literal_eval(parameter["default"])
        assert parameter["inferred_type_name"] == type(default).__name__, name
        assert len(parameter["help"]) >= 5, name
        assert (default, type(default)) == (quick[name], type(quick[name])), name


def test_the_cell_after_the_parameters_validates_them(path, notebook):
    called = calls(code_cells(notebook)[1])
    names = list(papermill.inspect_notebook(str(path)))
    assert "specs.settings_from" in called or (names == ["profile"] and "specs.load_profile" in called)


# --- structure ------------------------------------------------------------------------------------------------------


def test_kernel_is_python3(notebook):
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.kernelspec.language == "python"


def test_one_title_and_no_skipped_heading(notebook):
    levels = [level for cell in notebook.cells if cell.cell_type == "markdown" for level in headings(cell)]
    assert notebook.cells[0].cell_type == "markdown" and headings(notebook.cells[0])[:1] == [1]
    assert levels.count(1) == 1
    assert all(lower <= higher + 1 for higher, lower in zip(levels, levels[1:], strict=False)), levels


def test_logic_lives_in_reprolib(notebook):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for cell in code_cells(notebook):
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, kinds)], cell.source


def test_the_last_code_cell_writes_the_record_named_after_the_notebook(path, notebook):
    written = calls(code_cells(notebook)[-1])["report.write_record"]
    assert ast.literal_eval(written.args[0]) == path.stem


def test_links_lead_to_files_that_exist(path, notebook):
    for text in markdown_texts(notebook):
        for target in (first or second for first, second in LINK.findall(text)):
            if re.match(r"[a-z]+:|#", target):  # a URL, a data: picture, a heading of this page
                continue
            file = path.parent / target.split("#")[0]
            assert file.exists() and file.resolve().is_relative_to(ROOT), target


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


@pytest.mark.parametrize("text", ["https://example.org/" + "home/x", "../../tmp/x", "a/root", "n/" + "work", "ratio: \\alpha"])
def test_other_paths_are_not(text):
    assert not MACHINE_PATH.search(text)
