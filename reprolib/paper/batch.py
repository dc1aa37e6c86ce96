"""`make tables`: the engine, Snakemake, called so that it works on this checkout, whatever the surroundings say.

The plan itself stands in the Snakefile, which can be given to any executor of Snakemake's without this module.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time

from reprolib.paper import files, kernels, notebooks
from reprolib.paper.files import ROOT, make_folder, shown

TELL_EVERY = 10.0  # seconds between two lines that say how far the batch is


def make_tables(profile: str, only: str = "", *, jobs: int, gpus: int | None = None, dry_run: bool = False) -> int:
    """Make what is missing or older than its sources of a profile's pages; returns the engine's exit code.

    only: words; pages or notebooks whose names begin with one of them are made, for no word all.
    jobs: processes at once; gpus: of these on GPUs, all of them by default.
    dry_run: print what would be computed and about how long it takes, instead.
    Raises ValueError for an unknown profile or page and for a number of processes below 1, StoreError where nothing can
    be written, and KeyboardInterrupt, once its processes have ended, where the reader stops it.
    """
    notebooks.check_profile(profile)
    notebooks.wanted(only)
    for name, number in (("JOBS", jobs), ("GPUS", gpus)):
        if number is not None and number < 1:
            raise notebooks.UnknownName(f"{name} is {number}; give a number of processes at once, 1 or more")
    for folder in (files.RESULTS / profile, ROOT / ".snakemake"):
        make_folder(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise files.StoreError(files.unwritable(folder, OSError("no permission")))
    heard = Listener(dry_run)
    failed = _engine(profile, only, jobs, gpus or jobs, dry_run, heard)
    if heard.interrupted:
        raise KeyboardInterrupt
    if not dry_run:
        from reprolib.paper.show.site import build_site  # takes seconds to import

        index = build_site(profile)
    if failed:
        print("error: not everything could be made, see above; the same command goes on from here", file=sys.stderr)
    elif not dry_run:
        print(f"Done: results are in {shown(files.RESULTS / profile)}/. Open {shown(index)}")
    else:
        from reprolib.paper.run import outlook  # takes seconds to import

        print(outlook.page([sheet for sheet in notebooks.wanted(only) if sheet.record in heard.pages], profile))
    return failed


class Listener(logging.Filter):
    """Lets through, of what the engine says, its warnings and errors. In their place it prints now and then how many of
    the jobs are done and about how long the others take, in whole lines, which suit a terminal and a log.

    pages: the records that a dry run would make. interrupted: whether the reader has pressed Ctrl-C.
    """

    def __init__(self, dry_run: bool):
        super().__init__()
        self.dry_run, self.interrupted = dry_run, False
        self.pages: set[str] = set()
        self.started = self.told = time.monotonic()

    def filter(self, record: logging.LogRecord) -> bool:
        event = getattr(getattr(record, "event", None), "value", None)
        if event == "job_info" and getattr(record, "rule_name", "") == "notebook":
            self.pages.add(record.__dict__["wildcards"]["record"])
        if event == "progress" and not self.dry_run:
            self._tell(**{name: record.__dict__[name] for name in ("done", "total")})
        return record.levelno >= logging.WARNING and not self.interrupted

    def _tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        if 0 < done < total and now - self.told >= TELL_EVERY:
            self.told = now
            left = (now - self.started) / done * (total - done)
            print(f"{done} of {total} jobs done, {duration(left)} left", flush=True)

    def interrupt(self, *_: object) -> None:
        """Handles SIGINT, which the batch's processes get from the terminal as well."""
        self.interrupted = True
        raise KeyboardInterrupt


def duration(seconds: float) -> str:
    """About how long, in one unit."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.0f} {unit}"
    return f"about {max(seconds, 1):.0f} s"


def _engine(profile: str, only: str, jobs: int, gpus: int, dry_run: bool, heard: Listener) -> int:
    from snakemake.cli import main

    command = ["--cores", str(jobs), "--resources", f"gpu={gpus}", "--keep-going", "--rerun-incomplete", "--nolock"]
    command += ["--keep-incomplete"]  # a parcel's last step may be done where another of its steps has failed
    command += ["--rerun-triggers", "mtime", "--workflow-profile", "none", "--quiet", "rules", "host", "reason"]
    command += ["--dry-run"] if dry_run else []
    command += ["--config", f"profile={profile}", f"only={only}", f"dry_run={dry_run}"]
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
        said.removeFilter(heard)
        signal.signal(signal.SIGINT, before)
    return 0
