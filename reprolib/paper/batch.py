"""`make tables`: the engine, Snakemake, called so that it works on this checkout, whatever the surroundings say.

The plan itself stands in the Snakefile, which can be given to any executor of Snakemake's without this module.
"""

from __future__ import annotations

import logging
import os
import sys

from reprolib.paper import files, kernels, notebooks
from reprolib.paper.files import ROOT, make_folder, shown


def make_tables(profile: str, only: str = "", *, jobs: int, gpus: int | None = None, dry_run: bool = False) -> int:
    """Make what is missing or older than its sources of a profile's pages; returns the engine's exit code.

    only: words; pages or notebooks whose names begin with one of them are made, for no word all.
    jobs: processes at once; gpus: of these on GPUs, all of them by default.
    dry_run: print the plan, and what it may cost, instead.
    Raises ValueError for an unknown profile or page and for a number of processes below 1, and StoreError where nothing
    can be written.
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
    failed = _engine(profile, only, jobs, gpus or jobs, dry_run)
    if not dry_run:
        from reprolib.paper.show.site import build_site  # takes seconds to import

        index = build_site(profile)
    if failed:
        print("error: not everything could be made, see above; the same command goes on from here", file=sys.stderr)
    elif not dry_run:
        print(f"Done: results are in {shown(files.RESULTS / profile)}/. Open {shown(index)}")
    elif profile != "quick":
        from reprolib.paper.run import costs  # takes seconds to import

        print(costs.page(profile, only))
    return failed


def _engine(profile: str, only: str, jobs: int, gpus: int, dry_run: bool) -> int:
    from snakemake.cli import main

    command = ["--cores", str(jobs), "--resources", f"gpu={gpus}", "--keep-going", "--rerun-incomplete", "--nolock"]
    command += ["--keep-incomplete"]  # a parcel's last step may be done where another of its steps has failed
    command += ["--rerun-triggers", "mtime", "--workflow-profile", "none", "--quiet", "rules", "host", "reason"]
    command += ["--dry-run"] if dry_run else ["progress"]
    command += ["--config", f"profile={profile}", f"only={only}", f"dry_run={dry_run}"]
    os.environ.pop("SNAKEMAKE_PROFILE", None)  # made for other workflows
    os.environ["PYTHONPATH"] = kernels.python_path()
    os.chdir(ROOT)
    if dry_run:
        os.environ["REPROLIB_OFFLINE"] = "1"
    else:  # of what the engine says, its warnings and errors
        logging.getLogger("snakemake.logging").addFilter(lambda said: said.levelno >= logging.WARNING)
    try:
        main(command)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
