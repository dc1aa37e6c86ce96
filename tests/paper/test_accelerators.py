"""Which of several GPUs a process takes: a machine with three of them is made up by what `nvidia-smi` says."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

TAKE = "import sys; from reprolib.paper import accelerators as a; print(a.take_one(), flush=True); sys.stdin.read()"
SHOWN = "import os; from reprolib.paper import accelerators as a; a.take_one(); print(os.environ.get(a.VISIBLE))"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """machine(3) has three GPUs from now on."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def with_gpus(number: int) -> None:
        lines = "".join(f"echo 'GPU {i}: Some GPU (UUID: GPU-{i})'\n" for i in range(number))
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{lines}")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return with_gpus


def start() -> tuple[subprocess.Popen, str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", TAKE], text=True, **pipes)
    return process, process.stdout.readline().strip()


def test_processes_spread_over_the_gpus_and_a_killed_one_makes_room(machine):
    machine(3)
    started = [start() for _ in range(7)]
    try:
        devices = [device for _, device in started]
        assert sorted(Counter(devices).values()) == [2, 2, 3] and set(devices) == {"0", "1", "2"}
        assert set(devices[:3]) == {"0", "1", "2"}, "one for each before any has two"
        killed, free = started[1]
        killed.kill()
        killed.wait()
        started.append(start())
        assert started[-1][1] == free
    finally:
        for process, _ in started:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number, visible, shown", [
    (0, None, "None"), (1, None, "None"), (3, None, "0"), (3, "2", "2"), (3, "2,1", "2"), (3, "GPU-1,GPU-0", "GPU-1"),
    (3, "", ""),
])  # fmt: skip
def test_what_a_process_and_its_children_see(number, visible, shown, machine, monkeypatch):
    machine(number)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    done = subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip("\n") == shown
    assert visible in (None, "2", "") or list(Path(os.environ["TMPDIR"]).glob("reprolib-gpus-*/*"))
