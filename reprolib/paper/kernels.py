"""Kernels for notebooks: of this interpreter and this checkout, whatever else a machine has installed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from reprolib.paper.files import ROOT

if TYPE_CHECKING:
    from jupyter_client import AsyncKernelManager

FOR_LAB = Path(__file__).parent / "jupyter"  # where Jupyter finds kernels/python3/kernel.json
SOCKET_PATH = 107  # bytes that a socket's path may have
SOCKET_NAME = len("/kernel-xxxxxxxx/kernel-5")


class NotebookError(RuntimeError):
    """A notebook failed; the message names the cell, the error and where to look."""


@contextlib.contextmanager
def kernel() -> Iterator[AsyncKernelManager]:
    """A kernel of this interpreter and this checkout, whatever else is installed, on sockets in a folder of its own:
    notebooks that start together would race for ports or file names."""
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_core.utils import run_sync

    with tempfile.TemporaryDirectory(prefix="kernel-", dir=short_folder()) as sockets:
        here = KernelSpecManager(kernel_dirs=[])  # a python3 that somebody installed for all projects would go first
        manager = AsyncKernelManager(
            kernel_name="python3", kernel_spec_manager=here, transport="ipc", ip=f"{sockets}/kernel"
        )
        spec = manager.kernel_spec
        assert spec is not None  # ipykernel brings it
        spec.env["PYTHONPATH"] = python_path()
        try:
            yield manager
        finally:  # papermill leaves a kernel that it was given running
            if manager.has_kernel:
                run_sync(manager.shutdown_kernel)(now=True)


def python_path() -> str:
    """PYTHONPATH with this checkout first: an environment may be shared with another one, whose code it would take."""
    return _first(ROOT, "PYTHONPATH")


def jupyter_path() -> str:
    """JUPYTER_PATH with the kernel for JupyterLab first, which does not tell the version of its Python: JupyterLab
    would write that into a notebook that is only opened, and show it as unsaved."""
    return _first(FOR_LAB, "JUPYTER_PATH")


def _first(folder: Path, variable: str) -> str:
    others = os.environ.get(variable, "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([str(folder), *filter(None, others)]))


def short_folder() -> str:
    """A folder for sockets, whose paths may have 107 bytes: the usual one for temporary files, if that is short enough.

    Raises NotebookError when none can be used.
    """
    usual = tempfile.gettempdir()
    for folder in (usual, os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/var/tmp", "/dev/shm"):
        if folder and len(os.fsencode(folder)) + SOCKET_NAME <= SOCKET_PATH and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise NotebookError(
        f"the folder for temporary files, {usual}, is too long for the sockets of a kernel; set TMPDIR to one of at "
        f"most {SOCKET_PATH - SOCKET_NAME} characters"
    )
