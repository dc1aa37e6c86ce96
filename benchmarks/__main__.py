"""`make bench`: every job, each contestant in turn; writes benchmarks/results/<cpu or gpu>.json, .md and .png.

python benchmarks                 the whole, half an hour on two cores
python benchmarks --only auto     the jobs whose name begins so; their rows in the results are replaced
python benchmarks --scale 0.1     fewer images: a look, whose results are printed and not written
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path

import matplotlib
import pandas as pd
import yaml

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from jobs import everything
from networks import DEVICE

from reprolib.paper.files import write_atomically
from reprolib.paper.run.origin import stamp

RESULTS = Path(__file__).parent / "results"
REASONS = Path(__file__).parent / "reasons.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    done = []
    for found in everything(options.scale, options.rounds, options.only):
        done.append(found)
        print(f"\n{found['job']} ({found['size']})\n{pd.DataFrame(found['rows']).to_markdown(index=False)}", flush=True)
        if options.scale == 1.0:
            save(done, options.rounds, keep=True)  # half an hour should not be lost for the last job's sake
    if options.scale == 1.0:
        save(done, options.rounds, keep=bool(options.only))
        print(f"\nwritten: {RESULTS / DEVICE.type}.json, .md and .png")


def save(done: list[dict], rounds: int, *, keep: bool) -> None:
    """Write the results; with `keep`, jobs that were not run again stay as they were, on the device that ran them."""
    path = RESULTS / DEVICE.type
    done = [found | {name: stamp(DEVICE)[name] for name in ("commit", "device")} for found in done]
    if keep and path.with_suffix(".json").exists():
        again = {found["job"]: found for found in done}
        before = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["jobs"]
        done = [again.pop(found["job"], found) for found in before] + list(again.values())
    machine = {
        "machine": platform.machine(),
        "rounds": rounds,
        **{
            name: version(name)
            for name in ("torch", "torchattacks", "foolbox", "adversarial-robustness-toolbox", "kornia")
        },
    }
    text = json.dumps({"machine": machine, "jobs": done}, indent=1)
    write_atomically(path.with_suffix(".json"), f"{text}\n".encode())
    write_atomically(path.with_suffix(".md"), page(machine, done).encode())
    figure = plot(done)
    figure.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(figure)


def page(machine: dict, done: list[dict]) -> str:
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    commits = ", ".join(dict.fromkeys(job["commit"][:10] for job in done))
    lines = [
        "# Benchmarks",
        f"`make bench` on {about}; commit {commits}. The device's last word is the precision that is fast there: where "
        "it is float32, there are no units for bfloat16.",
        "Ratio: the other's time (memory) over that of the first, ours; the median of the rounds, their lowest and "
        "highest in brackets. Robust accuracy in percent of the images.",
    ]
    rows, missed = [], []
    for job, row, target in comparisons(done):
        reached = "" if target is None else "yes" if row["ratio"] >= target else "no"
        spread = f" [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]" if "ratio_low" in row else ""
        rows.append(
            {
                "job": f"{job['job']} ({job['size']})",
                "device": job["device"],
                "against": row["who"],
                "seconds, ours": _seconds(job["rows"][0]),
                "seconds, theirs": _seconds(row),
                "ratio": f"{row['ratio']:.2f}{spread}",
                "to reach": "" if target is None else f"{target:g}",
                "reached": reached,
                "robust, ours": job["rows"][0].get("robust", ""),
                "robust, theirs": row.get("robust", ""),
            }
        )
        if reached == "no":
            missed.append((f"{job['job']}, against {row['who']}", job["job"]))
    lines.append(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))
    if missed:
        reasons = yaml.safe_load(REASONS.read_text())[DEVICE.type]
        lines.append("## Not reached, and why")
        lines += [f"**{title}.** {reasons.get(job, 'Not looked into yet.').strip()}" for title, job in missed]
    return "\n\n".join(lines) + "\n"


def _seconds(row: dict) -> str:
    return f"{row['seconds']:.3g}" if "seconds" in row else ""


def comparisons(done: list[dict]) -> list[tuple[dict, dict, float | None]]:
    """(job, the other's row, the ratio to reach or None), for every contestant but ours."""
    targets = [job["target"] if isinstance(job["target"], dict) else {} for job in done]
    return [
        (job, row, named.get(row["who"], None if named else job["target"]))
        for job, named in zip(done, targets, strict=True)
        for row in job["rows"][1:]
    ]


def plot(done: list[dict]) -> plt.Figure:
    """One bar per job and peer: how many times as long the peer takes; a tick where the figure to reach stands."""
    bars = [bar for bar in comparisons(done) if not bar[0]["job"].startswith("precision")][::-1]  # no peer of ours
    figure, axis = plt.subplots(figsize=(9, 0.42 * len(bars) + 1.2), layout="constrained")
    names = [f"{job['job']}\nagainst {row['who']}" for job, row, _ in bars]
    axis.barh(names, [row["ratio"] for _, row, _ in bars], color="#4878a8")
    for place, (_, row, target) in enumerate(bars):
        if target:
            axis.plot([target, target], [place - 0.4, place + 0.4], color="black", linewidth=2)
        axis.annotate(f" {row['ratio']:.2f}", (row["ratio"], place), va="center", fontsize=8)
    axis.axvline(1, color="#999999", linewidth=0.8)
    axis.set(xscale="log", xlabel="times as long (memory: as much) as ours\nblack: the figure to reach")
    axis.tick_params(axis="y", labelsize=7)
    axis.margins(x=0.15, y=0.01)  # room for the longest bar's number
    return figure


if __name__ == "__main__":
    main()
