"""The lessons as committed: each has what a lesson needs, its exercises are unsolved, and its solutions are right."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
import torch

from reprolib import patches, streams
from reprolib.paper import notebooks
from reprolib.paper.notebooks import lessons
from reprolib.paper.teach import checks
from reprolib.paper.teach.exercises import EXERCISES

PLANS = (notebooks.LESSONS / "README.md").read_text(encoding="utf-8")
SOLUTION = re.compile(r"<details><summary>Solution \d</summary>\n\n```python\n(.*?)```\n\n</details>", re.DOTALL)
KINDS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


@pytest.fixture(params=lessons().values(), ids=lessons())
def path(request) -> Path:
    return request.param


@pytest.fixture
def cells(path) -> list:
    return nbformat.read(path, as_version=4).cells


def code(cells) -> list:
    return [cell for cell in cells if cell.cell_type == "code"]


def prose(cells) -> str:
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def is_exercise(cell) -> bool:
    return "exercise" in cell.metadata.get("tags", [])


def names(cells) -> list[str]:
    return [ast.parse(cell.source).body[0].name for cell in code(cells) if is_exercise(cell)]


def solutions(cells) -> dict:
    """The functions that the folded solutions define, as a student would copy them."""
    made: dict = {"torch": torch, "patches": patches, "streams": streams}
    for source in SOLUTION.findall(prose(cells)):
        exec(source, made)
    return made


def test_lessons_are_no_pages_of_the_paper():
    assert len(lessons()) == 4
    assert not {sheet.notebook for sheet in notebooks.sheets()} & set(lessons().values())


def test_pages_link_to_a_lesson_where_it_lies():
    cell = nbformat.v4.new_markdown_cell("[a lesson](lessons/lesson1_write_the_attack.ipynb)")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    notebooks.relocate(notebook, notebooks.NOTEBOOKS, notebooks.files.RESULTS / "cpu")
    assert "(../../notebooks/lessons/lesson1_write_the_attack.ipynb)" in notebook.cells[0].source


def test_a_lesson_says_what_you_will_learn_and_what_you_have_learnt(cells):
    learn = cells[0].source.split("**What you will learn**\n\n")[1].split("\n\n")[0]
    assert learn.count("* ") == learn.count("\n") + 1 == 3
    assert prose(cells).count("\n## Summary\n") == 1


def test_every_lesson_has_a_teachers_plan_whose_minutes_add_up(path):
    (row,) = re.findall(rf"^\| \[(.*?)\]\({path.name}\) \| (\d+) \|", PLANS, re.MULTILINE)
    plan = PLANS.split(f"### {row[0]}: plan\n")[1].split("\n### ")[0]
    spans = [(int(a), int(b)) for a, b in re.findall(r"^\| (\d+) to (\d+) \|", plan, re.MULTILINE)]
    assert [0, *(end for _, end in spans)] == [*(start for start, _ in spans), int(row[1])]


def test_three_exercises_each_unsolved_then_checked_then_solved_in_a_fold(cells):
    exercises = [place for place, cell in enumerate(cells) if is_exercise(cell)]
    assert len(exercises) == 3
    for place in exercises:
        (function,) = ast.parse(cells[place].source).body
        docstring, stub = function.body
        assert isinstance(docstring, ast.Expr) and ast.unparse(stub) == "raise NotImplementedError"
        assert cells[place + 1].source == f"{function.name} = teach.check({function.name})"
        assert f"def {function.name}(" in SOLUTION.findall(cells[place + 2].source)[0]


def test_functions_are_written_in_exercises_alone(cells):
    for cell in code(cells):
        found = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, KINDS)]
        assert len(found) == is_exercise(cell), cell.source


def test_the_folded_solutions_are_right(cells):
    found = solutions(cells)
    for name in names(cells):
        assert checks.fault(found[name], EXERCISES[name]) is None


def test_every_exercise_belongs_to_a_lesson():
    used = [name for path in lessons().values() for name in names(nbformat.read(path, as_version=4).cells)]
    assert sorted(used) == sorted(EXERCISES)


def test_predictions_are_entered_in_a_cell_of_their_own_and_scored_later(cells):
    waiting, scored = set(), 0
    for cell in code(cells):
        body = ast.parse(cell.source).body
        calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
        for call in calls:
            if ast.unparse(call.func) in ("teach.score", "teach.answer"):
                waiting.remove(call.args[0].id)
                scored += 1
        if all(isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant) for line in body):
            waiting |= {line.targets[0].id for line in body}
    assert scored >= 3 and not waiting


def test_predictions_stand_before_what_they_predict(cells):
    """Each is asked for in prose above its cell."""
    for above, cell in pairwise(cells):
        if cell.cell_type == "code" and re.match(r"(prediction|control|verdict)_\w+ = ", cell.source):
            assert above.cell_type == "markdown" and re.search(r"\*\*(Predict|Answer)|Choose for each", above.source)
