"""Draw the pictures of committed records again, in today's style, without computing anything.

    python tools/redraw_pictures.py [RECORD ...]     default: every record of results/<profile> that a notebook made

The notebooks' own cells draw, from the record's cells; results/<profile> then has each picture as PNG and SVG, and the
executed notebook there shows it. Pictures of adversarial images need their networks, and are left out where these are
not published.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout's code

import matplotlib

matplotlib.use("Agg")
import nbformat

from reprolib import data
from reprolib.paper import files, notebooks, run, show
from reprolib.paper.plan import JUDGED
from reprolib.paper.show import notebook as module

# what a notebook calls, and computes or writes more than a picture
SILENT = ((show, "display"), (show, "full_run"), (show, "publish"), (run.Page, "compute"), (run, "write_record"))
drawn: dict[str, str] = {}  # text alternative -> the PNG as a notebook has it


def main(names: list[str]) -> None:
    module.show_in_notebook = keep  # type: ignore[assignment]
    for room, name in SILENT:
        setattr(room, name, lambda *_: Path())
    for profile in JUDGED:
        for sheet in notebooks.sheets():
            record = files.RESULTS / profile / f"{sheet.record}.json"
            if record.exists() and sheet.record in (names or [sheet.record]):
                drawn.clear()
                draw(sheet, profile, run.read_record(record))
                if drawn:
                    replace(record.with_suffix(".ipynb"))
                print(profile, sheet.record, len(drawn), flush=True)


def draw(sheet: notebooks.Sheet, profile: str, record: run.Stored) -> None:
    """Run a notebook's cells with the record's numbers in place of measured ones."""
    for name in ("measure", "measure_contingency"):
        setattr(run, name, lambda *_: record.cells)
    parameters, *cells = [
        cell.source for cell in nbformat.read(sheet.notebook, as_version=4).cells if cell.cell_type == "code"
    ]
    names: dict = {}
    exec(parameters, names)
    names |= notebooks.parameters_for(sheet, profile)
    for cell in cells:
        try:
            exec(cell, names)
        except (files.StoreError, data.DataError) as error:
            if "under_attack" not in cell:
                raise
            print(f"{sheet.record}: no adversarial images, since {error}")


def keep(content: object, **options: dict) -> None:
    """Instead of displaying it."""
    if isinstance(content, dict) and "image/png" in content:
        drawn[options["metadata"]["image/png"]["alt"]] = content["image/png"]


def replace(executed: Path) -> None:
    """Put the new pictures where the executed notebook has those with the same text alternative."""
    notebook = nbformat.read(executed, as_version=4)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            new = drawn.get(output.get("metadata", {}).get("image/png", {}).get("alt", ""))
            if new:
                output.data["image/png"] = new
    files.write_atomically(executed, nbformat.writes(notebook).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
