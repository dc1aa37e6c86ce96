"""`make chaos`: what can happen to a batch happens to one, and afterwards its numbers are those of an undisturbed one.

Every fault strikes a quick batch of a few real pages in a checkout and a store of its own. A watch on the store counts
how often each finished artefact was written. What happened is written to docs/chaos.md, and the exit code says whether
all of it ended well. It takes half an hour on two busy cores; faults that a machine cannot have are listed as such.
FAULT="a_full_disk ..." tries some alone, and leaves the other rows of the table as they are.
"""

from __future__ import annotations

import contextlib
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from paper import checkouts, one_node_slurm

from reprolib.paper import files

PAGES = "table11_epochs"  # trainings, attacks and a notebook, of one small network
KILLS, LATEST = 20, 60  # kills, and the seconds after which the last of them strikes
SINGLE = 5  # of these, those that hit one process of the batch; the others hit all at once
PAGE = files.ROOT / "docs" / "chaos.md"
DRAWN = random.Random(0)  # the moments


@dataclass
class Batch:
    """A checkout and a store of a fault's own, and how often each finished artefact was written there."""

    root: Path
    store: Path
    written: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))  # by the files' numbers (inodes)
    damaged: list[str] = field(default_factory=list)  # on purpose, so that they have to be made again

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.1):
                for name, path in checkouts.artefacts(self.store).items():
                    with contextlib.suppress(FileNotFoundError):
                        self.written[name].add(path.stat().st_ino)  # the engine changes the times of what is done

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def run(self, *words: str) -> tuple[int, str]:
        return checkouts.run(self.root, self.store, *(words or ("--jobs", "2")), pages=PAGES)

    def start(self, *words: str) -> subprocess.Popen:
        return checkouts.start(self.root, self.store, *(words or ("--jobs", "2")), pages=PAGES)

    def processes(self) -> list[int]:
        """All that work on this store, whoever started them."""
        mark, found = f"REPROLIB_STORE={self.store}\0".encode(), []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes() and int(path.parent.name) != os.getpid():
                    found.append(int(path.parent.name))
        return found

    @property
    def twice(self) -> list[str]:
        return [name for name, files in self.written.items() if len(files) > 1 and name not in self.damaged]


@dataclass
class Outcome:
    fault: str
    seen: str
    then: str
    batches: list[Batch]


class Campaign:
    def __init__(self, place: Path):
        self.place, self.outcomes = place, list[tuple[Outcome, bool, int]]()
        self.quiet = self.new("undisturbed")
        started = time.monotonic()
        code, said = self.quiet.run()
        self.seconds = time.monotonic() - started
        if code:
            raise SystemExit(f"the undisturbed batch failed:\n{said}")

    def new(self, name: str, *, finished: bool = False) -> Batch:
        """A fresh checkout; `finished`: with all that the undisturbed batch put into its store."""
        made = Batch(checkouts.copy_to(self.place / name), self.place / f"store-{name}")
        made.store.mkdir()
        if finished:
            shutil.copytree(self.quiet.store, made.store, dirs_exist_ok=True)
        return made

    def take(self, fault: Callable[[Campaign], Outcome]) -> None:
        started = time.monotonic()
        outcome = fault(self)
        same = all(self.same(batch) for batch in outcome.batches)
        twice = sum(len(batch.twice) for batch in outcome.batches)
        self.outcomes.append((outcome, same, twice))
        shown = f"numbers {'equal' if same else 'DIFFERENT'}, {twice} finished twice"
        print(f"{outcome.fault}: {shown}; {time.monotonic() - started:.0f} s", flush=True)

    def same(self, batch: Batch) -> bool:
        """The pages' numbers, and every network and outcome bit for bit."""
        pages = checkouts.numbers(batch.root)
        return pages == checkouts.numbers(self.quiet.root) and checkouts.same_tensors(batch.store, self.quiet.store)


# --- the faults -------------------------------------------------------------------------------------------------------


def killed_at_random_moments(campaign: Campaign) -> Outcome:
    batches, hit, ends = [campaign.new("killed-0")], 0, 0
    while hit < KILLS:
        batch, single = batches[-1], hit % (KILLS // SINGLE) == 0
        with batch.watched():
            process = batch.start()
            try:
                process.communicate(timeout=DRAWN.uniform(1, min(LATEST, campaign.seconds)))
            except subprocess.TimeoutExpired:
                alive = batch.processes()
                for each in [DRAWN.choice(alive)] if single else alive:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(each, signal.SIGKILL)
                hit += 1
                process.communicate()
                _until_gone(batch)
            if process.returncode == 0 and hit < KILLS:  # it came to its end; the rest strikes another one
                ends += 1
                batches.append(campaign.new(f"killed-{ends}"))
    with batches[-1].watched():
        code, said = batches[-1].run()
    seen = f"{hit} kills, {SINGLE} of them of one process drawn among the batch's, the others of all its processes"
    return Outcome("kill -9 at random moments", seen, _then("the same command again after each", code, said), batches)


def a_full_disk(campaign: Campaign) -> Outcome:
    batch = campaign.new("full-disk")
    size = sum(path.stat().st_size for path in campaign.quiet.store.rglob("*.safetensors"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size // 2}", "tmpfs", str(batch.store)]
    if subprocess.run(mount, capture_output=True).returncode:
        return Outcome("a full disk", "not tried: only root can mount a small disk", "", [])
    try:
        with batch.watched():
            code, said = batch.run()
            seen = f"exit code {code}; it said {_count(said, 'cannot write')} times what cannot be written, and why"
            subprocess.run(["mount", "-o", f"remount,size={8 * size}", str(batch.store)], check=True)
            code, said = batch.run()
        kept = campaign.place / "store-full-disk-kept"
        shutil.copytree(batch.store, kept)
    finally:
        subprocess.run(["umount", str(batch.store)], check=True)
    batch.store = kept
    return Outcome("a full disk", seen, _then("space made, the same command again", code, said), [batch])


def damaged_artefacts(campaign: Campaign) -> Outcome:
    batch = campaign.new("damaged", finished=True)
    names = sorted(name for name in checkouts.artefacts(batch.store) if name.startswith("evaluation/"))
    batch.damaged = DRAWN.sample(names, 2)
    cut, edited = (batch.store / name for name in batch.damaged)
    with batch.watched():
        time.sleep(0.5)  # the watch has seen all of them
        cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
        edited.write_bytes(edited.read_bytes()[:-1] + b"\7")
        code, said = batch.run()
        named = sum(str(path) in said for path in (cut, edited))
        seen = (
            f"exit code {code}; {named} of 2 files were named as damaged, with what to do, and no page was made of them"
        )
        rounds = 0
        while code and rounds < 2:  # a page stops at the first damaged file that it meets
            for path in (cut, edited):
                if str(path) in said:
                    path.unlink(missing_ok=True)
            code, said = batch.run()
            rounds += 1
    then = _then("the named files deleted, the same command again", code, said)
    return Outcome("an artefact cut off and another edited by hand", seen, then, [batch])


def two_batches_on_one_store(campaign: Campaign) -> Outcome:
    one, other = campaign.new("one"), campaign.new("other")
    shutil.rmtree(other.store)
    other.store = one.store
    with one.watched():
        both = [batch.start() for batch in (one, other)]
        said = [process.communicate()[0] for process in both]
    codes = [process.returncode for process in both]
    seen = f"exit codes {codes[0]} and {codes[1]}"
    return Outcome(
        "two batches at once on one store", seen, _then("nothing to be done", max(codes), said[0]), [one, other]
    )


def a_page_out_of_time(campaign: Campaign) -> Outcome:
    """As a cluster's limit or a patience ends it: SIGTERM to the batch while a cell does not come to its end."""
    batch = campaign.new("out-of-time", finished=True)
    stem = PAGES.split()[0]
    path = next((batch.root / "notebooks").rglob(f"{stem.split('_')[0]}.ipynb"))
    kept = path.read_bytes()
    notebook = nbformat.reads(kept.decode(), as_version=4)
    notebook.cells.insert(-1, nbformat.v4.new_code_cell("import time\ntime.sleep(3600)"))
    nbformat.write(notebook, path)
    with batch.watched():
        process = batch.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=campaign.seconds)
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate()
        _until_gone(batch)
        record = batch.root / "results" / "quick" / f"{stem}.json"
        seen = f"exit code {process.returncode}; {len(batch.processes())} processes were left, "
        seen += "a record was written" if record.exists() else "no record was written"
        path.write_bytes(kept)
        code, said = batch.run()
    return Outcome(
        "a notebook that times out", seen, _then("the notebook mended, the same command again", code, said), [batch]
    )


def a_worker_that_dies_under_slurm(campaign: Campaign) -> Outcome:
    if why := one_node_slurm.why_not():
        return Outcome("a worker that dies under Slurm", f"not tried: {why}", "", [])
    batch = campaign.new("slurm")
    engine = one_node_slurm.write_engine(batch.root)
    killed = 0
    with one_node_slurm.slurm(), batch.watched():
        process = batch.start("--engine", engine)
        while process.poll() is None and not killed:
            for each in batch.processes():
                with contextlib.suppress(OSError):
                    words = Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0")
                    if words[1:4] == [b"-m", b"reprolib", b"run"] and _age(each) > 8:
                        os.kill(each, signal.SIGKILL)
                        killed += 1
                        break
            time.sleep(0.5)
        said, _ = process.communicate()
    seen = f"{killed} worker was killed; Slurm's job failed and was submitted again by the engine"
    return Outcome(
        "a worker that dies under Slurm", seen, _then("nothing to be done", process.returncode, said), [batch]
    )


def _age(process: int) -> float:
    ticks = int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[19])
    return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def _until_gone(batch: Batch, seconds: float = 30) -> None:
    """Kernels end by themselves when whoever started them has."""
    end = time.monotonic() + seconds
    while batch.processes() and time.monotonic() < end:
        time.sleep(0.2)


def _count(said: str, words: str) -> int:
    return sum(words in line for line in said.splitlines())


def _then(done: str, code: int, said: str) -> str:
    if code:
        print(said[-3000:], flush=True)
    return f"{done}: exit code {code}"


FAULTS = (
    killed_at_random_moments, a_full_disk, damaged_artefacts, two_batches_on_one_store, a_page_out_of_time,
    a_worker_that_dies_under_slurm,
)  # fmt: skip


def page(campaign: Campaign, kept: str) -> str:
    """The table, with the rows of a page before it for the faults that were not tried now."""
    rows = {line.split(" | ")[0]: line for line in kept.splitlines() if line.startswith("| ")}
    rows.pop("| fault", None)
    for outcome, same, twice in campaign.outcomes:
        ended = f"{'equal' if same else '**different**'} | {twice} |" if outcome.batches else "| |"
        rows[f"| {outcome.fault}"] = f"| {outcome.fault} | {outcome.seen} | {outcome.then} | {ended}"
    pages = " and ".join(f"`{name}`" for name in PAGES.split())
    return "\n".join(
        [
            "# Faults, and what became of them",
            "",
            "Written by `make chaos` ([`chaos.py`](../tests/paper/chaos.py)), not by hand. Each fault strikes a quick",
            f"batch of {pages} in a checkout and a store of its own. Undisturbed, it took {campaign.seconds:.0f} s.",
            "",
            "*Numbers*: the pages' cells, and every network and outcome in the store, bit for bit, against the",
            "undisturbed batch's. *Twice*: finished artefacts that were written more than once, but for those that",
            "were damaged on purpose.",
            "",
            f"{platform.system()}, {os.cpu_count()} cores, {KILLS} kills, at a load of {os.getloadavg()[2]:.1f}, as "
            "the machine had other work, too.",
            "",
            "| fault | what was seen | then | numbers | twice |",
            "|---|---|---|---|---|",
            *rows.values(),
            "",
        ]
    )


def main() -> int:
    wanted = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="chaos-") as place:
        campaign = Campaign(Path(place))
        print(f"undisturbed: {campaign.seconds:.0f} s", flush=True)
        for fault in FAULTS:
            if not wanted or fault.__name__ in wanted:
                campaign.take(fault)
                tried_before = PAGE.exists() and (wanted or len(campaign.outcomes) > 1)
                kept = PAGE.read_text("utf-8") if tried_before else ""
                files.write_atomically(PAGE, page(campaign, kept).encode())
    print(f"Written: {files.shown(PAGE)}")
    ended_well = all(same and not twice and outcome.then.endswith(" 0") for outcome, same, twice in campaign.outcomes
                     if outcome.batches)  # fmt: skip
    return 0 if ended_well else 1


if __name__ == "__main__":
    sys.exit(main())
