"""What an artefact in the store is called: a digest of everything that determines its content.

That is its record, the data's checksum, the version of torch, and the code that computes it. The code is found by
following names from the entry points: a definition's text counts, and that of every definition of this library which
it mentions. So a change to one function, class or constant changes the keys of what it can influence, and of nothing
else. Comments, docstrings, layout and the wording of errors compute nothing and don't count, nor do decorators of
attacks/guards.py: they decide how many images at a time, or refuse, and change no result (as its tests show). A
definition's text is our own rendering of its syntax tree: `ast.unparse` writes quotes otherwise in Python 3.12, and
every name would change.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

LIBRARY = "reprolib"


def digest(value: Any) -> str:
    """SHA-256 of a JSON-able value in canonical form (sorted keys, no spaces), as 64 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def key(kind: str, record: dict, data_checksum: str, entries: Iterable[str]) -> str:
    """The address of an artefact, 24 hex digits; entries are the definitions that compute it, as "module:name"."""
    torch_version = torch.__version__.split("+")[0]  # builds for CPU and GPU are one version
    code = code_digest(*sorted(set(entries)))
    return digest({"kind": kind, "record": record, "data": data_checksum, "torch": torch_version, "code": code})[:24]


def entry(thing: Any) -> str:
    """A function or class as an entry point."""
    return f"{thing.__module__}:{thing.__qualname__}"


@functools.cache
def code_digest(*entries: str) -> str:
    """SHA-256 of the definitions named as "module:name" and of all that they mention, in this library.

    Worked out once, since a process goes on with the code that it began with.
    """
    return digest(sorted(definitions(*entries).items()))


def definitions(*entries: str) -> dict[str, str]:
    """The definitions behind these entry points: "module:name" -> its code without prose."""
    found: dict[str, str] = {}
    waiting = [tuple(one.split(":", 1)) for one in entries]
    while waiting:
        module, name = waiting.pop()
        if f"{module}:{name}" in found:
            continue
        nodes = _module(module).get(name)
        if nodes is None:
            raise ValueError(
                f"{module} defines no {name!r}, so the code behind it cannot be found; import it by its own name"
            )
        found[f"{module}:{name}"] = "\n".join(_read(node)[0] for node in nodes)
        for node in nodes:
            waiting += _mentioned(module, node)
    return found


def _module(name: str) -> dict[str, list[ast.stmt]]:
    """Its top-level definitions by name, imports included."""
    path = _path(name)
    if path is None:
        raise ValueError(f"there is no module {name}")
    state = os.stat(path)
    return _parsed(path, state.st_mtime_ns, state.st_size)


@functools.cache
def _path(module: str) -> str | None:
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return found.origin if found else None


@functools.lru_cache(maxsize=256)
def _parsed(path: str, modified: int, size: int) -> dict[str, list[ast.stmt]]:
    """The file's definitions; `modified` and `size` make the cache forget a file that changed."""
    by_name: dict[str, list[ast.stmt]] = {}
    for statement in _Strip().visit(ast.parse(Path(path).read_text(encoding="utf-8"))).body:
        for name in _bound(statement):
            by_name.setdefault(name, []).append(statement)
    return by_name


def _bound(node: ast.AST) -> list[str]:
    """The names that a statement gives a value, or puts something into; also inside of if, for, with and try."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return []  # there for types alone
    if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and isinstance(node.ctx, ast.Store):
        return [name.id for name in ast.walk(node) if isinstance(name, ast.Name)][:1]
    return [name for child in ast.iter_child_nodes(node) for name in _bound(child)]


def _mentioned(module: str, node: ast.stmt) -> Iterator[tuple[str, ...]]:
    """The definitions of this library that a definition mentions, as (module, name)."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return  # an import is followed where its name is mentioned
    outside = _module(module)
    _, inside, paths = _read(node)
    for path in paths:
        statements = inside.get(path[0]) or outside.get(path[0]) or []
        for statement in statements:
            if isinstance(statement, (ast.Import, ast.ImportFrom)):
                yield from _imported(statement, path)
            else:
                yield module, path[0]


@functools.cache
def _read(node: ast.stmt) -> tuple[str, dict[str, list[ast.stmt]], list[list[str]]]:
    """A definition's text, the imports inside of it by name, and what it names; worked out once, as many keys ask."""
    imports = [each for each in ast.walk(node) if isinstance(each, (ast.Import, ast.ImportFrom))]
    return _text(node), {name: [each] for each in imports for name in _bound(each)}, list(_dotted(node))


def _text(node: Any) -> str:
    """A syntax tree as text, without what versions of Python differ in: fields that newer ones add and old code leaves
    empty, how a string was spelt, an empty end of nested format specifications, and which letters can be shown."""
    if isinstance(node, ast.AST):
        fields = [field for field in ast.iter_fields(node) if field[0] != "kind" and field[1] not in (None, [])]
        return f"{type(node).__name__}({', '.join(f'{name}={_text(value)}' for name, value in fields)})"
    if isinstance(node, list):
        if any(isinstance(one, ast.FormattedValue) for one in node):
            node = [one for one in node if not (isinstance(one, ast.Constant) and one.value == "")]
        return f"[{', '.join(map(_text, node))}]"
    return ascii(node)


def _dotted(node: ast.AST) -> Iterator[list[str]]:
    """Every name in the code, with the attributes that follow it: `streams.uniform(...)` -> ["streams", "uniform"]."""
    if isinstance(node, ast.Attribute):
        path, below = [node.attr], node.value
        while isinstance(below, ast.Attribute):
            path, below = [below.attr, *path], below.value
        if isinstance(below, ast.Name):
            yield [below.id, *path]
            return
    if isinstance(node, ast.Name):
        yield [node.id]
    for child in ast.iter_child_nodes(node):
        yield from _dotted(child)


def _imported(statement: ast.Import | ast.ImportFrom, path: list[str]) -> Iterator[tuple[str, ...]]:
    """What a dotted name means that begins with an imported one."""
    for alias in statement.names:
        if (alias.asname or alias.name.split(".")[0]) != path[0]:
            continue
        if isinstance(statement, ast.ImportFrom) and statement.level:
            raise ValueError(f"{ast.unparse(statement)!r} is relative, and not followed; say from {LIBRARY}... import")
        if isinstance(statement, ast.Import):
            full = (alias.name.split(".") if alias.asname else [path[0]]) + path[1:]
        else:
            full = [*(statement.module or "").split("."), alias.name, *path[1:]]
        if full[0] == LIBRARY:
            yield from _resolved(full)


def _resolved(full: list[str]) -> Iterator[tuple[str, ...]]:
    """The longest beginning that is a module, and what the rest names in it; a module alone is all of it."""
    for length in range(len(full), 0, -1):
        module = ".".join(full[:length])
        if _path(module) is None:
            continue
        known = _module(module)
        if length == len(full):
            yield from ((module, name) for name in known)
            return
        statements = known.get(full[length])
        if statements is None:
            raise ValueError(
                f"{module} defines no {full[length]!r}, so its code cannot be found; import it by its own name"
            )
        imports = [s for s in statements if isinstance(s, (ast.Import, ast.ImportFrom))]
        for statement in imports:
            yield from _imported(statement, full[length:])
        if not imports:
            yield module, full[length]
        return


class _Strip(ast.NodeTransformer):
    """Takes out docstrings, what errors say, the types of parameters and results, and guards."""

    def _body(self, node: Any) -> Any:
        node.decorator_list = [one for one in node.decorator_list if not ast.unparse(one).startswith("guards.")]
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)

    visit_ClassDef = _body

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._body(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise(exc=None, cause=None)

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return ast.Assert(test=node.test, msg=None)
