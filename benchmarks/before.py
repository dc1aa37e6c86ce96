"""The same work done by today's code and by the code from before the slot engine, each in a checkout of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from reprolib.paper.files import ROOT

COMMIT = "1ee4538"  # the last one before the slot engine
NOTEBOOKS = (  # those that both have
    "table01_networks", "table02_attack_parameters", "figure02_augmentation", "table06_fashion_mnist",
    "table09_autoattack", "table11_epochs", "saturation", "00_scoreboard",
)  # fmt: skip
COLUMNS = ("undefended", "7-P1", "no patches")


class Checkout:
    """A commit's files in a folder of their own; its code is run in processes that import nothing else.

    Raises SystemExit when the commit is not in the repository, as in a shallow clone.
    """

    def __init__(self, commit: str, folder: str):
        self.path = Path(folder) / commit
        self.path.mkdir()
        found = subprocess.run(["git", "-C", ROOT, "archive", commit], capture_output=True)
        if found.returncode:
            sys.exit(f"error: this clone has no commit {commit}; fetch the whole history: git fetch --unshallow")
        subprocess.run(["tar", "-x", "-C", self.path], input=found.stdout, check=True)

    def quick_batch(self) -> dict:
        """Every notebook of the quick profile, one after the other, from an empty store."""
        with tempfile.TemporaryDirectory() as store:
            for name in NOTEBOOKS:
                self._run(["-m", "reprolib", "notebook", name, "--profile", "quick"], REPROLIB_STORE=store)
        return {}

    def table06(self, count: int) -> dict:
        """Table 6's attacks in the cpu profile on three of its networks and `count` test images, with one thread: the
        batch has a process for each core (see the Snakefile), then and now.
        """
        done = self._run([__file__, str(count)], OMP_NUM_THREADS="1")
        return json.loads(done.splitlines()[-1])

    def _run(self, arguments: list[str], **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.path, env=os.environ | {"PYTHONPATH": str(self.path)} | environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"error: {' '.join(arguments)} failed in a checkout of {self.path.name}:\n{done.stderr[-2000:]}")
        return done.stdout


def _table06_today() -> list[tuple]:
    """Attacks of today's plan with the networks that are published."""
    from reprolib.paper import plan, run
    from reprolib.paper.run.published import find

    page = plan.load_plan("table06_fashion_mnist", "fmnistconv", "cpu")
    wanted = [job.evaluation for job in page.jobs if job.column in COLUMNS and job.evaluation.source is None]
    different = {str(evaluation.content()): evaluation for evaluation in wanted}.values()
    return [
        (e.attack.build(run.load_published(find(e.network)), e.loss, e.decision, e.seed), e.decision) for e in different
    ]


def _table06_before() -> list[tuple]:
    """The same by the code of `COMMIT`, with its own names."""
    from reprolib import attacks, report, specs, store

    plan = specs.Plan(specs.load_grid("table06_fashion_mnist"), specs.load_profile("cpu"))
    made = []
    for job in (job for job in plan.jobs if job.column in COLUMNS and job.evaluation.source is None):
        spec, name = job.evaluation, job.column.replace(" ", "_")
        net = report.load_network(store.ROOT / f"results/cpu/checkpoints/{name}.safetensors")
        attack = attacks.LinfAttack(net, **spec.attack.loop(), decision=spec.decision, seed=spec.seed)
        made.append((attack, spec.decision))
    return made


def _attack_table06(count: int) -> dict:
    """Run in a checkout: its own attacks on its own networks of results/cpu."""
    from reprolib import data

    test = data.load("fashion-mnist-sample", test_size=count).test
    images, labels = test.images.float() / 255, test.labels
    made = _table06_today() if Path("params/recipes.yaml").exists() else _table06_before()
    results = [(attack.run(images, labels), decision) for attack, decision in made]
    left = [float(result.robust(decision).float().mean()) for result, decision in results]
    evaluations = sum(result.calls for result, _ in results)
    return {"attacks": len(made), "evaluations": evaluations, "robust": round(100 * sum(left) / len(left), 2)}


if __name__ == "__main__":
    print(json.dumps(_attack_table06(int(sys.argv[1]))))
