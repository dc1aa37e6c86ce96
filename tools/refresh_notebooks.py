"""Execute the notebooks in place with their default parameters and store their outputs, which nbval then compares.

    python tools/refresh_notebooks.py [NAME ...]     default: all

Run it after changing a notebook, and read what changed before you commit it.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this checkout's code
os.environ["TQDM_DISABLE"] = "1"  # a progress bar is no result

import nbformat
from nbclient import NotebookClient

from reprolib.paper import kernels, notebooks


def main(names: list[str]) -> None:
    lessons = notebooks.lessons()
    named = [lessons[name] if name in lessons else notebooks.find_sheet(name).notebook for name in names]
    for path in dict.fromkeys(named or [*(page.notebook for page in notebooks.sheets()), *lessons.values()]):
        notebook = nbformat.read(path, as_version=4)
        with kernels.kernel() as kernel:
            resources = {"metadata": {"path": path.parent}}
            NotebookClient(notebook, km=kernel, timeout=600, kernel_name="python3", resources=resources).execute()
        notebook.metadata["kernelspec"]["display_name"] = "Python 3"
        del notebook.metadata["language_info"]["version"]
        nbformat.write(notebooks.clean(notebook), path)
        print(path.stem, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
