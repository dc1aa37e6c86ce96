# The batch: which page needs which training and which attack. `make tables` calls it; docs/cluster.md says how to call it
# on a cluster.
# Every step is idempotent and resumes by itself (reprolib/paper/run/store.py), so a killed batch is simply started again.
# A job's output is a file that it makes: pages under results/, trainings and evaluations in the store. These are
# named by all that determines them, so they are `ancient`, never out of date; a page is made again when its sources
# change. `update` keeps the engine from deleting what stands there before a step has succeeded.
import json
import math
import os
import shlex
import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))
from reprolib.paper import files, kernels, notebooks

workdir: ROOT


def from_root(path):
    """A path that the engine takes: it would read braces in the checkout's own name."""
    return os.path.relpath(path, ROOT)


PROFILE = str(config.get("profile", "quick"))
ONLY = "" if config.get("only") is None else str(config["only"])  # 00 arrives as the number 0
DRY_RUN = bool(config.get("dry_run"))  # the plan can be shown without the data
PLAN = ROOT / config["plan"] if config.get("plan") else None  # kept for the jobs on a cluster, each of which reads this file
SOURCES = [p for folder, kind in (("reprolib", "py"), ("params", "yaml")) for p in (ROOT / folder).rglob(f"*.{kind}")]
# one input for all: a page is older than its sources if it is older than the last changed of them, and the engine reads the
# size of each input again for each job that it starts
LAST_CHANGED = from_root(max(SOURCES, key=lambda path: path.stat().st_mtime_ns))
PYTHON = shlex.join(["env", f"PYTHONPATH={kernels.python_path()}", sys.executable, "-m", "reprolib"])
RUN = "OMP_NUM_THREADS={threads} {PYTHON}"
LOGGED = " 2> >(tee {log:q} >&2)"
GPU = int(PROFILE in ("gpu", "paper"))  # what a cluster is asked for; the others' pages are made for CPUs


def minutes(seconds):
    """What a cluster is asked for: measured attacks took up to five times as long as estimated."""
    return 15 + math.ceil(5 * seconds / 60)


def planned():
    """The wanted pages, and the trainings and evaluations that they wait for, see `Steps.listed`."""
    notebooks.check_profile(PROFILE)
    wanted = {page.record: page for page in notebooks.wanted(ONLY)}
    asked = [(page.notebook.stem, page.network) for page in wanted.values() if page.network]
    if not asked:  # no need to wait for torch
        return wanted, {}
    if PLAN and PLAN.exists():
        return wanted, json.loads(PLAN.read_text(encoding="utf-8"))
    from reprolib.paper.run import steps

    root = from_root(files.store_root())
    if "{" in root or "}" in root:
        raise ValueError(f"the store is {root}, and Snakemake takes braces for wildcards; set REPROLIB_STORE to a path without")
    plan = steps.plan_steps(asked, PROFILE, without_data=DRY_RUN).listed()
    if PLAN:
        files.write_atomically(PLAN, json.dumps(plan).encode())
    return wanted, plan


def parcel_of(name):
    """The parcel that a step is in."""
    return STEPS["parcels"][STEPS["parcel_of"][name]]


def made_by(parcels):
    """The file by which each of these parcels, given by their numbers, is asked for."""
    return ancient([from_root(STEPS["parcels"][number]["file"]) for number in parcels])


try:
    WANTED, STEPS = planned()
except (ValueError, OSError, RuntimeError) as error:  # snakemake would wrap the sentence in a traceback
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


localrules: all


rule all:
    input: [f"results/{PROFILE}/{record}{suffix}" for record in WANTED for suffix in (".json", ".ipynb", ".html")]


if STEPS:
    STORE = from_root(STEPS["store"])

    # A job is a parcel of steps, asked for by what its last one makes; where that is a training, all of them are.
    rule trainings:
        input: lambda w: made_by(parcel_of(w.name)["after"])
        output: update(STORE + "/{name,training/[0-9a-f]+}/epoch-{epoch,[0-9]+}.safetensors")
        params: steps=lambda w: parcel_of(w.name)["command"]
        log: f"results/{PROFILE}/.logs/{{name}}/epoch-{{epoch}}.log"
        threads: 1
        resources:
            gpu=GPU,
            on_gpu=1,
            mem_mb=lambda w, attempt: 4000 * attempt,
            runtime=lambda w, attempt: minutes(parcel_of(w.name)["seconds"]) * attempt,
        priority: 1  # before notebooks, which take seconds: no core waits at the end
        shell: RUN + " {params.steps} --profile {PROFILE}" + LOGGED

    use rule trainings as evaluations with:
        output: update(STORE + "/{name,evaluation/[0-9a-f]+(/[0-9]+-of-[0-9]+)?}.safetensors")
        log: f"results/{PROFILE}/.logs/{{name}}.log"


rule notebook:
    input:
        LAST_CHANGED,
        notebook=lambda w: from_root(WANTED[w.record].notebook),
        steps=lambda w: made_by(STEPS["pages"].get(w.record, []) if STEPS else []),
        # the scoreboard reads what the others wrote
        others=lambda w: [f"results/{PROFILE}/{r}.json" for r in WANTED if r != w.record] if w.record == notebooks.LAST else [],
    output:
        update(f"results/{PROFILE}/{{record,[^/]+}}.json"),
        update(f"results/{PROFILE}/{{record}}.ipynb"),
        f"results/{PROFILE}/{{record}}.html",  # goes before each run: a page whose last run failed has none, and is made again
    log: f"results/{PROFILE}/.logs/{{record}}.log"
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=lambda w, attempt: 4000 * attempt,
        runtime=lambda w, attempt: minutes(0) * attempt,
    shell: RUN + " notebook {wildcards.record:q} --profile {PROFILE}" + LOGGED
