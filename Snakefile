# The batch: which notebook needs which checkpoint and which attack. `make tables` calls it; on a cluster, call
#   snakemake --executor slurm --jobs 20 --config profile=paper
# Every step is idempotent and resumes by itself (reprolib/store.py), so a killed batch is simply started again.
# Stamps under results/<profile>/.done say what has been done; the store and the records decide whether it is valid.
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)
from reprolib import specs

PROFILE = config.get("profile", "quick")
ONLY = str(config.get("only") or "")  # the beginning of a notebook's name
DONE = f"results/{PROFILE}/.done"
SOURCES = [*Path("reprolib").glob("*.py"), *Path("params").rglob("*.yaml")]
NOTEBOOKS = {p.stem: str(p) for p in sorted(Path("notebooks").rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts}
WANTED = [name for name in NOTEBOOKS if name.startswith(ONLY)]


def plans():
    """A plan for every grid. A process of its own pays from minutes of work on; the quick notebooks compute
    their few seconds themselves."""
    settings = specs.load_profile(PROFILE)
    if not WANTED:
        raise specs.SpecError(specs.suggest(ONLY, [*(name.split("_")[0] for name in NOTEBOOKS), *NOTEBOOKS], "notebook"))
    return {} if PROFILE == "quick" else {name: specs.Plan(specs.load_grid(name), settings) for name in specs.grid_names()}


try:
    PLANS = plans()
except specs.SpecError as error:  # snakemake would wrap the sentence in a traceback, or be quiet about it
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)


def stamps(name):
    """The attack stamps that a notebook waits for, one per (grid, column, epoch, attack)."""
    if name in PLANS:
        wanted = {name: PLANS[name].jobs}
    elif PLANS and name in specs.view_names():
        view = specs.load_view(name)
        wanted = {grid: view.jobs(PLANS[grid]) for grid in view.grids}
    else:
        return []
    jobs = {(grid, job.column, job.evaluation.epoch, job.attack) for grid in wanted for job in wanted[grid]}
    return [f"{DONE}/{grid}/{column}/{epoch}-{attack}" for grid, column, epoch, attack in sorted(jobs)]


def parent_stamp(wildcards):
    """A fine-tuning waits for the column that is its parent: the pre-trained network itself."""
    plan = PLANS[wildcards.table]
    spec = plan.networks[wildcards.column][0]
    parents = [c for c, (other, _) in plan.networks.items() if other == spec.parent]
    return [f"{DONE}/{wildcards.table}/{parent}/trained" for parent in parents]


localrules: all


rule all:
    input: [f"{DONE}/{name}" + ".notebook" for name in WANTED]


rule train:
    input: parent_stamp
    output: touch(f"{DONE}/{{table}}/{{column}}/trained")
    threads: 1
    resources: gpu=1
    shell: f"OMP_NUM_THREADS={{threads}} {sys.executable} -m reprolib train {{wildcards.table:q}} {{wildcards.column:q}} --profile {PROFILE}"


rule evaluate:
    input: f"{DONE}/{{table}}/{{column}}/trained"
    output: touch(f"{DONE}/{{table}}/{{column}}/{{epoch,[0-9]+}}-{{attack}}")
    threads: 1
    resources: gpu=1
    shell: f"OMP_NUM_THREADS={{threads}} {sys.executable} -m reprolib evaluate {{wildcards.table:q}} {{wildcards.column:q}} {{wildcards.epoch}} {{wildcards.attack:q}} --profile {PROFILE}"


rule notebook:
    input:
        SOURCES,
        notebook=lambda w: NOTEBOOKS[w.name],
        jobs=lambda w: stamps(w.name),
        # the scoreboard reads what the others wrote
        others=lambda w: [f"{DONE}/{n}.notebook" for n in WANTED if n != w.name] if w.name == "00_scoreboard" else [],
    output: touch(f"{DONE}/{{name,[^/]+}}.notebook")
    threads: 1
    shell: f"OMP_NUM_THREADS={{threads}} {sys.executable} -m reprolib notebook {{input.notebook:q}} --profile {PROFILE}"
