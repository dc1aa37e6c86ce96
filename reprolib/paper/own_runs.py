"""What a run of one's own was given: values as a command line and an executed notebook write them."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any


def value(text: str) -> Any:
    """A parameter's value as it is written: a fraction, as radii often are, a Python literal, or a bare word."""
    if fraction := re.fullmatch(r"(\d+)/([1-9]\d*)", text):
        return int(fraction[1]) / int(fraction[2])
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def earlier_settings(executed: Path) -> dict[str, Any]:
    """The parameters that papermill gave to this executed notebook."""
    import nbformat

    cells = nbformat.read(executed, as_version=4).cells
    injected = [item.source for item in cells if "injected-parameters" in item.metadata.get("tags", [])]
    nodes = [node for node in ast.parse("\n".join(injected)).body if isinstance(node, ast.Assign)]
    return {ast.unparse(node.targets[0]): value(ast.unparse(node.value)) for node in nodes}
