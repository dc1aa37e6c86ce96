"""The reproduction's steps. Each is idempotent: what the store or results/ already has is not done again.

python -m reprolib tables --profile cpu --only "table03 table06"   all pages, or those whose names begin so
python -m reprolib costs --profile paper                           an estimate of the hours that a profile takes
python -m reprolib order --profile paper                           pages that ask networks, by claims per minute
python -m reprolib publish TABLE NETWORK --profile cpu             a page's networks, into results/cpu/networks
python -m reprolib site --profile cpu                              results/cpu/index.html, and pages linked with it
python -m reprolib graph --profile cpu                             the batch's jobs, drawn into results/cpu/jobs.svg
python -m reprolib status                                          docs/status.md, from results/
python -m reprolib lab                                             JupyterLab, at notebooks/start_here.ipynb
python -m reprolib notebook PAGE --run-name MINE --set eps=0.1      a run of your own, into results/custom/MINE

What `tables` is made of:
python -m reprolib notebook PAGE --profile cpu                     a page by its notebook, into results/cpu
python -m reprolib run STEP ... --profile cpu                      trainings and evaluations: TABLE:NETWORK:NAME of each
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable

from reprolib.paper import accelerators, files, kernels, notebooks

INTERRUPTED = 130  # what a shell calls a program that Ctrl-C ended


def main(arguments: list[str] | None = None) -> int:
    """Take one step; what a reader can mend is told in one sentence, anything else keeps its traceback."""
    options = read(arguments)
    try:
        return options.step(options) or 0
    except KeyboardInterrupt:  # first, since the later errors take seconds to import
        if options.step is not _run and options.step is not _notebook:  # whom a batch's own line speaks for
            print("Stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except (notebooks.UnknownName, notebooks.NotebookError, files.StoreError, files.RecordError) as error:
        message: Exception = error
    except _later_errors() as error:
        message = error
    print(f"error: {message}", file=sys.stderr)
    return 1


def read(arguments: list[str] | None = None) -> argparse.Namespace:
    """The step that is asked for and its options; ends the process, with a hint, where there is no such one."""
    options, more = parser().parse_known_args(arguments)
    if more and options.step is not _lab:
        parser().error(f"unrecognized arguments: {' '.join(more)}")
    options.more = more
    return options


def _later_errors() -> tuple[type[Exception], ...]:
    from reprolib import data
    from reprolib.attacks import guards
    from reprolib.paper import plan  # imports torch, which takes seconds

    return plan.SpecError, data.DataError, guards.TooLarge  # whose sentence says which batch would fit


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m reprolib", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = made.add_subparsers(required=True, metavar="STEP")

    def add(name: str, step: Callable[[argparse.Namespace], int | None], what: str) -> argparse.ArgumentParser:
        sub = steps.add_parser(name, description=what)
        sub.set_defaults(step=step)
        if step not in (_status, _lab):
            sub.add_argument("--profile", default="quick", help="quick (the default), cpu, gpu or paper: how much")
        return sub

    def only(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--only", default="", help="words with which pages or notebooks begin; by default all")

    tables = add("tables", _tables, "Make what is missing or older than its sources of a profile's pages.")
    only(tables)
    tables.add_argument("--jobs", type=int, help="processes at once; by default one per core")
    tables.add_argument("--gpus", type=int, help="how many of them on GPUs; by default all")
    tables.add_argument("--engine", default="local", help="a folder of params/engines, such as slurm; default: local")
    tables.add_argument("--dry-run", action="store_true", help="print what would be computed, and how long it takes")
    only(add("costs", _costs, "Estimate the hours that a profile takes."))
    add("order", _order, "List the pages that ask networks, first those that answer the most claims per minute.")
    publish = add("publish", _publish, "Put a page's networks into results/<profile>/networks.")
    publish.add_argument("table", help="a file of params/tables, such as table03")
    publish.add_argument("network", help="one of its pages, such as vgg16")
    add("site", _site, "Make results/<profile>/index.html, and pages linked with it.")
    add("graph", _graph, "Draw the batch's jobs into results/<profile>/jobs.svg.")
    add("status", _status, "Write docs/status.md, from results/.")
    add("lab", _lab, "Open JupyterLab at notebooks/start_here.ipynb; further options are JupyterLab's.")
    notebook = add("notebook", _notebook, "Make a page by its notebook.")
    notebook.add_argument("page", help="a notebook or a record, such as table06_fashion_mnist")
    notebook.add_argument("--run-name", default="", help="of a run of your own, which goes to results/custom/RUN_NAME")
    notebook.add_argument(
        "--set", dest="settings", nargs="*", default=[], metavar="PARAMETER=VALUE", help="such as eps=0.1 steps=20"
    )
    run = add("run", _run, "Compute trainings and evaluations, as `tables` plans them.")
    run.add_argument("words", nargs="+", metavar="TABLE:NETWORK:NAME[:EPOCH...]")
    return made


# What a step needs is imported by that step, since torch takes seconds.


def _tables(options: argparse.Namespace) -> int:
    from reprolib.paper import batch

    return batch.make_tables(
        options.profile,
        options.only,
        jobs=options.jobs,
        gpus=options.gpus,
        engine=options.engine,
        dry_run=options.dry_run,
    )


def _costs(options: argparse.Namespace) -> None:
    from reprolib.paper.run import costs

    print(costs.page(options.profile, options.only))


def _order(options: argparse.Namespace) -> None:
    from reprolib.paper.run import costs

    print("\n".join(costs.by_value(options.profile)))


def _publish(options: argparse.Namespace) -> None:
    from reprolib.paper import plan, run

    for path in run.publish_networks(run.Page(plan.load_plan(options.table, options.network, options.profile))):
        print(files.shown(path))


def _site(options: argparse.Namespace) -> None:
    from reprolib.paper.show.site import build_site

    print(f"Open {files.shown(build_site(options.profile))}")


def _graph(options: argparse.Namespace) -> None:
    from reprolib.paper import plan
    from reprolib.paper.run import schedule
    from reprolib.paper.show import pictures, scaling

    plan.load_profile(options.profile)
    alt = f"The jobs of the profile {options.profile} as bars over time, with lines from those that they wait for."
    path = files.RESULTS / options.profile / "jobs.svg"
    files.write_atomically(path, pictures.svg(scaling.plot_jobs(schedule.tasks(options.profile)), alt))
    print(f"Open {files.shown(path)}")


def _status(options: argparse.Namespace) -> None:
    from reprolib.paper import show

    show.write_status()


def _lab(options: argparse.Namespace) -> None:
    root = ["--allow-root"] if os.geteuid() == 0 else []
    # rooted where the notebooks' links to code and results lead, and opened at the first of them
    place = [f"--ServerApp.root_dir={files.ROOT}", f"--LabApp.default_url=/lab/tree/notebooks/{notebooks.FIRST}.ipynb"]
    command = [sys.executable, "-m", "jupyterlab", *place, *root, *options.more]
    os.chdir(files.ROOT)
    # threads spin while they wait for one another, and a kernel takes several times as long where others want the cores
    waits = {"OMP_WAIT_POLICY": "passive"} | os.environ
    paths = {"PYTHONPATH": kernels.python_path(), "JUPYTER_PATH": kernels.jupyter_path()}
    os.execve(sys.executable, command, waits | paths)


def _notebook(options: argparse.Namespace) -> None:
    accelerators.take_one()
    print(f"{notebooks.find_sheet(options.page).record}: started", flush=True)
    print(notebooks.run_notebook(options.page, options.profile, options.run_name, options.settings), flush=True)


def _run(options: argparse.Namespace) -> int:
    accelerators.take_one()
    from reprolib.paper.run import steps

    several = f"{len(options.words)} trainings and attacks of " + ", ".join(_tables_of(options.words))
    if len(options.words) > 1:  # one alone shows how far it is
        print(f"{several}: started", flush=True)
    started, failed = time.time(), 0
    for word, error in steps.take(options.words, options.profile):
        failed += 1
        if not isinstance(error, (files.StoreError, files.RecordError, *_later_errors())):
            traceback.print_exception(error)
        print(f"error: {word}: {error or type(error).__name__}", file=sys.stderr)
    if len(options.words) > 1:
        print(f"{several}: {time.time() - started:.0f} s" + f", {failed} failed" * bool(failed), flush=True)
    return min(failed, 1)


def _tables_of(words: list[str]) -> list[str]:
    return list(dict.fromkeys(word.split(":")[0] for word in words))
