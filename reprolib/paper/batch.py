"""`make tables`: the engine, Snakemake, called so that it works on this checkout, whatever the surroundings say.

The plan itself stands in the Snakefile, which can be given to any executor of Snakemake's without this module.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import resource
import shlex
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import yaml

from reprolib.paper import files, kernels, notebooks
from reprolib.paper.files import ROOT, make_folder, shown
from reprolib.paper.parameters import suggest

TELL_EVERY = 10.0  # seconds between two lines that say how far the batch is
ENGINES, LOCAL = ROOT / "params" / "engines", "local"
STEP_FAILED = re.compile(r"^error: (\S+:\S+:\S+): (.*)$", re.MULTILINE)  # as `python -m reprolib run` says it


def make_tables(
    profile: str,
    only: str = "",
    *,
    jobs: int | None = None,
    gpus: int | None = None,
    engine: str = LOCAL,
    dry_run: bool = False,
) -> int:
    """Make what is missing or older than its sources of a profile's pages; returns the engine's exit code.

    only: words; pages or notebooks whose names begin with one of them are made, for no word all.
    jobs: processes at once, by default one per core, on a cluster as many jobs as its engine's file says.
    gpus: of these on GPUs, all of them by default. engine: a folder of params/engines.
    dry_run: print what would be computed and about how long it takes, instead.
    Raises ValueError for an unknown profile, page or engine and for a number of processes below 1, StoreError where
    nothing can be written, and KeyboardInterrupt, once its processes have ended, where the reader stops it.
    """
    notebooks.check_profile(profile)
    check_engine(engine)
    notebooks.wanted(only)
    for name, number in (("JOBS", jobs), ("GPUS", gpus)):
        if number is not None and number < 1:
            raise notebooks.UnknownName(f"{name} is {number}; give a number of processes at once, 1 or more")
    for folder in (files.RESULTS / profile, ROOT / ".snakemake", files.store_root()):
        make_folder(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise files.StoreError(files.unwritable(folder, OSError("no permission")))
    heard = Listener(dry_run)
    failed = _engine(profile, only, jobs, gpus, LOCAL if dry_run else engine, dry_run, heard)
    if heard.interrupted:
        raise KeyboardInterrupt
    if not dry_run:
        if engine == LOCAL and heard.ended:
            print(heard.summary(jobs or os.cpu_count() or 1))
        from reprolib.paper.show.site import build_site  # takes seconds to import

        index = build_site(profile)
    if failed:
        print(heard.report(profile), end="", file=sys.stderr)
        print("error: not everything could be made, see above; the same command goes on from here", file=sys.stderr)
    elif not dry_run:
        print(f"Done: results are in {shown(files.RESULTS / profile)}/. Open {shown(index)}")
    else:
        from reprolib.paper.run import outlook  # takes seconds to import

        print(outlook.page([sheet for sheet in notebooks.wanted(only) if sheet.record in heard.pages], profile))
    return failed


def check_engine(engine: str) -> None:
    """Raises UnknownName for an engine that there is not, or whose part of Snakemake is not installed."""
    known = sorted(path.parent.name for path in ENGINES.glob("*/config.v8+.yaml"))
    if engine not in known:
        raise notebooks.UnknownName(suggest(engine, known, "engine"))
    executor = _settings(engine).get("executor", LOCAL)
    plugin = f"snakemake_executor_plugin_{executor.replace('-', '_')}"
    if executor != LOCAL and importlib.util.find_spec(plugin) is None:
        raise notebooks.UnknownName(
            f"the engine {engine} needs snakemake-executor-plugin-{executor}, which is not installed; docs/cluster.md "
            "has the line that installs it"
        )


def _settings(engine: str) -> dict[str, Any]:
    """An engine's file, whose names are those of Snakemake's options."""
    return yaml.safe_load((ENGINES / engine / "config.v8+.yaml").read_text("utf-8"))


class Listener(logging.Filter):
    """Lets through, of what the engine says, its warnings and errors. In their place it prints now and then how many of
    the jobs are done and about how long the others take, in whole lines, which suit a terminal and a log.

    pages: the records that a dry run would make. interrupted: whether the reader has pressed Ctrl-C.
    failed: by the engine's number, the log and the shell command of each job that failed and was not done later.
    """

    def __init__(self, dry_run: bool):
        super().__init__()
        self.dry_run, self.interrupted = dry_run, False
        self.pages: set[str] = set()
        self.running: set[int] = set()
        self.ended = 0  # jobs, failed ones too
        self.failed: dict[int, tuple[Path, str]] = {}
        self.started = self.told = time.monotonic()
        self.computed = computed()

    def filter(self, record: logging.LogRecord) -> bool:
        event, said = getattr(getattr(record, "event", None), "value", None), record.__dict__
        if event == "job_info" and said["rule_name"] == "notebook":
            self.pages.add(said["wildcards"]["record"])
        elif event == "job_started":
            self.running |= set(said["jobs"])
        elif event == "job_error":
            self._end(said["jobid"])
            self.failed[said["jobid"]] = ROOT / said["log"][0], said["shellcmd"]
        elif event == "job_finished":
            self._end(said["job_id"])
            self.failed.pop(said["job_id"], None)
        elif event == "progress" and not self.dry_run:
            self._tell(said["done"], said["total"])
        return record.levelno >= logging.WARNING and not self.interrupted

    def _end(self, job: int) -> None:
        self.ended += job in self.running
        self.running.discard(job)

    def summary(self, places: int) -> str:
        """One line: how many jobs, how long they took, and for what share of that the places computed, not the engine.

        The engine's own word for what runs would include the time until it sees that a job has ended.
        """
        seconds = max(time.monotonic() - self.started, 1e-9)
        share = (computed() - self.computed) / seconds / places
        jobs = "1 job" if self.ended == 1 else f"{self.ended} jobs"
        return f"{jobs} in {seconds:.0f} s; {places} at once, which computed for {share:.0%} of it"

    def _tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        if 0 < done < total and now - self.told >= TELL_EVERY:
            self.told = now
            left = (now - self.started) / done * (total - done)
            others = f"{len(self.running)} running, " + f"{len(self.failed)} failed, " * bool(self.failed)
            print(f"{done} of {total} jobs done, {others}{duration(left)} left", flush=True)

    def report(self, profile: str) -> str:
        """What failed: of each page or step its name, its log, and the command that takes it alone."""
        return "".join(
            f"{cell} failed\n    log:   {shown(log)}\n    again: {again}\n"
            for log, command in self.failed.values()
            for cell, again in _failures(log, command, profile)
        )

    def interrupt(self, *_: object) -> None:
        """Handles SIGINT, which the batch's processes get from the terminal as well."""
        self.interrupted = True
        raise KeyboardInterrupt


def computed() -> float:
    """Seconds of a core that the processes started from here have had, those that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def duration(seconds: float) -> str:
    """About how long, in one unit."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.0f} {unit}"
    return f"about {max(seconds, 1):.0f} s"


def _failures(log: Path, command: str, profile: str) -> list[tuple[str, str]]:
    """(what failed, the command that takes it alone) of a job: of those steps that its log names, else of all of it."""
    python = ".venv/bin/python" if Path(sys.executable).is_relative_to(ROOT) else "python"
    step, *words = shlex.split(command.split("-m reprolib ")[-1].split(" 2> ")[0])
    said = STEP_FAILED.findall(log.read_text("utf-8", errors="replace")) if log.exists() else []
    if step == "run" and said:
        return [(f"{word} ({why})", f"{python} -m reprolib run {word} --profile {profile}") for word, why in said]
    name = words[0] if step == "notebook" else f"a process with {words.index('--profile')} trainings and attacks"
    return [(name, f"{python} -m reprolib {shlex.join([step, *words])}")]


def _engine(
    profile: str, only: str, jobs: int | None, gpus: int | None, engine: str, dry_run: bool, heard: Listener
) -> int:
    from snakemake.cli import main

    command = ["--workflow-profile", "none", "--quiet", "rules", "host", "reason"]
    for name, value in _settings(engine).items():  # given as a profile, its path would be printed
        command += (
            [f"--{name}"] if value is True else [f"--{name}", *map(str, value if type(value) is list else [value])]
        )
    if engine == LOCAL:
        jobs = jobs or os.cpu_count() or 1
        command += ["--cores", str(jobs), "--resources", f"on_gpu={gpus or jobs}"]
    elif jobs:  # the later one counts
        command += ["--jobs", str(jobs)]
    command += ["--dry-run"] if dry_run else []
    command += ["--config", f"profile={profile}", f"only={only}", f"dry_run={dry_run}"]
    plan = files.RESULTS / profile / ".logs" / f"plan-{uuid.uuid4().hex}.json"
    if engine != LOCAL:  # whose jobs read the plan; from the root, as in a value the checkout's name is read as YAML
        command += [f"plan={shown(plan)}"]
    os.environ.pop("SNAKEMAKE_PROFILE", None)  # made for other workflows
    os.environ["PYTHONPATH"] = kernels.python_path()
    os.chdir(ROOT)
    if dry_run:
        os.environ["REPROLIB_OFFLINE"] = "1"
    said = logging.getLogger("snakemake.logging")
    said.addFilter(heard)
    before = signal.signal(signal.SIGINT, heard.interrupt)
    try:
        main(command)
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        plan.unlink(missing_ok=True)
        said.removeFilter(heard)
        signal.signal(signal.SIGINT, before)
    return 0
