"""Execute the notebooks in place with their default parameters and store their outputs, which nbval then compares.

    python tools/refresh_notebooks.py [NAME ...]     default: all

Run it after changing a notebook, and read what changed before you commit it.
"""

import os
import sys

os.environ["TQDM_DISABLE"] = "1"  # a progress bar is no result

import nbformat
from nbclient import NotebookClient

from reprolib import batch


def main(names: list[str]) -> None:
    for path in [batch.find_notebook(name) for name in names] or sorted(batch.NOTEBOOKS.rglob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}}
        ).execute()
        notebook.metadata["kernelspec"]["display_name"] = "Python 3"
        notebook.metadata["language_info"] = {"name": "python"}
        nbformat.write(batch.clean(notebook), path)
        print(path.stem)


if __name__ == "__main__":
    main(sys.argv[1:])
