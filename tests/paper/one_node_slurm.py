"""A Slurm of one node on this machine, for as long as a test takes: Debian's packages slurm-wlm and munge, as root."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

CONF = Path("/etc/slurm/slurm.conf")  # elsewhere, the srun inside of a job does not find it
OURS = "# written by a test of reprolib, and taken away at its end"
ENGINE = "one_node"


def why_not() -> str:
    """Why no Slurm can be started here; nothing where it can."""
    if not all(
        shutil.which(name, path=f"/usr/sbin:{os.environ['PATH']}") for name in ("sbatch", "slurmctld", "munged")
    ):
        return "there is no Slurm here: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "only root can start a Slurm"
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "snakemake-executor-plugin-slurm is not installed, see docs/cluster.md"
    if CONF.exists() and not CONF.read_text().startswith(OURS):
        return f"{CONF} is this machine's own"
    return ""


@contextlib.contextmanager
def slurm() -> Iterator[None]:
    """Start it, wait until its node is idle, and stop what was started at the end."""
    started: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        place, name = Path(folder), socket.gethostname().split(".")[0]
        munge = Path("/run/munge")
        munge.mkdir(exist_ok=True)
        shutil.chown(munge, "munge", "munge")
        CONF.write_text(_configuration(place, name))
        try:
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            as_munge = ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups"]
            started.append(subprocess.Popen([*as_munge, "munged", "--foreground"], **quiet))
            _until(lambda: (munge / "munge.socket.2").exists(), "munged did not start")
            started.append(subprocess.Popen(["slurmctld", "-D"], **quiet))
            started.append(subprocess.Popen(["slurmd", "-D"], **quiet))
            _until(lambda: "idle" in _said("sinfo", "-h", "-o", "%T"), "the node did not become idle")
            yield
        finally:
            subprocess.run(["scancel", "--user=root"], capture_output=True)
            for process in reversed(started):
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                process.kill()
                process.wait()
            CONF.unlink(missing_ok=True)


def completed_jobs() -> int:
    return _said("squeue", "-h", "--states=COMPLETED", "-o", "%i").count("\n")


def _configuration(place: Path, name: str) -> str:
    for folder in ("state", "spool"):
        (place / folder).mkdir()
    return f"""{OURS}
ClusterName=one
SlurmctldHost={name}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge=3600
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
NodeName={name} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory=16000
PartitionName=main Nodes={name} Default=YES State=UP
"""


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


def _until(there, otherwise: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            raise RuntimeError(otherwise)
        time.sleep(0.2)


def write_engine(checkout: Path) -> str:
    """The engine `slurm`, as this Slurm needs it: no accounts, and its state asked of squeue. Returns its name."""
    engines = checkout / "params" / "engines"
    settings = yaml.safe_load((engines / "slurm" / "config.v8+.yaml").read_text())
    settings |= {"jobs": os.cpu_count(), "latency-wait": 10, "slurm-no-account": True}
    settings |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 2}
    settings |= {"seconds-between-status-checks": 3}
    settings["default-resources"] = ["mem_mb=1000", "runtime=10", "slurm_partition=main"]
    (engines / ENGINE).mkdir()
    (engines / ENGINE / "config.v8+.yaml").write_text(yaml.safe_dump(settings))
    return ENGINE
