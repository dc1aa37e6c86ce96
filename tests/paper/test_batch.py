"""`make tables` in a copy of the checkout, in a folder of an awkward name: what is planned, made, made again, and said.

The copy has the project's declarations and small notebooks of its own, so that nothing here takes long.
"""

import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook
from snakemake.cli import parse_config
from snakemake_interface_logger_plugins.common import LogEvent

from reprolib.paper import batch, cli, files, notebooks, plan, run
from reprolib.paper.run.parcels import SHORT
from reprolib.paper.run.steps import plan_steps

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
PAGE = """from reprolib.paper import run
page = run.open_page({table!r}, globals())
page.compute()
run.write_record(page.plan.page.record, run.provenance(page), run.measure(page))"""
LIST = """from reprolib.paper import run
import reprolib, time
print(reprolib.__file__)
with open({log!r}, "a") as log:
    print({name!r}, "begins", file=log, flush=True)
    time.sleep(0.2)
    print({name!r}, "ends", file=log)
run.write_record({name!r}, run.plain_provenance(profile), [])"""
LISTS = ("table01_networks", "00_scoreboard")
TINY = """title: "A table of one attack on two small networks"
dataset: fashion-mnist
columns:
  undefended: {recipe: adam}
  no patches: {parent: undefended, recipe: rmsprop, defence: {name: unmodified}}
rows: {FGSM: {losses: {logits: any}}}
pages: {fmnistconv: {record: tiny}}
"""
AMOUNTS = {"data": "sample", "train": 60, "test": 10, "pretrain": 1, "finetune": 1, "every": 1}
AMOUNTS |= {"steps": 2, "restarts": 1, "seeds": 1}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    copy = tmp_path_factory.mktemp("project") / "a {copy} of it's"
    copy.mkdir()
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("Snakefile", "Makefile", "pyproject.toml", "requirements.lock", "params", "reprolib"):
        source = files.ROOT / name
        shutil.copytree(source, copy / name, ignore=skip) if source.is_dir() else shutil.copy(source, copy)
    (copy / "params" / "tables" / "tiny.yaml").write_text(TINY)
    for table in (path.stem for path in (copy / "params" / "tables").glob("*.yaml")):
        network = next(iter(notebooks.record_names(table)), "fmnistconv")
        write(copy, table, PAGE.format(table=table), f'\nnetwork: str = "{network}"')
    for name in LISTS:
        write(copy, name, LIST.format(name=name, log=str(copy / "log")))
    return copy


@pytest.fixture
def published(copy) -> Iterator[None]:
    """The published networks, which quick pages attack, in the copy for as long as a test takes."""
    networks = Path("results", "cpu", "networks")
    shutil.copytree(files.ROOT / networks, copy / networks)
    yield
    shutil.rmtree(copy / networks)


def write(copy: Path, name: str, source: str, more: str = "") -> Path:
    parameters = new_code_cell(f'profile: str = "quick"{more}', metadata={"tags": ["parameters"]})
    path = copy / "notebooks" / "tables" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[parameters, new_code_cell(source)], metadata={"kernelspec": KERNEL}), path)
    return path


def make(copy: Path, *words: str, **surroundings: str) -> subprocess.CompletedProcess:
    """make with this environment, which knows another checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MAKEFLAGS")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["make", "--no-print-directory", "ACTIVE=1", "JOBS=2", *words]
    return subprocess.run(
        command, cwd=copy, timeout=300, env=environment | surroundings, capture_output=True, text=True
    )


def plan_of(copy: Path, *config: str) -> subprocess.CompletedProcess:
    """The engine's own dry run, as a cluster's user calls it."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--nolock", "--cores", "1", "--printshellcmds"]
    command += ["--rerun-triggers", "mtime", "--config", *config]
    return subprocess.run(command, cwd=copy, timeout=300, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def jobs_in(done: subprocess.CompletedProcess) -> dict[str, int]:
    """Rule -> number of jobs, from the engine's own table."""
    assert done.returncode == 0, done.stdout
    if "Nothing to be done" in done.stdout:
        return {}
    table = done.stdout.split("Job stats:", 1)[1].split("total", 1)[0]
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


def steps_in(done: subprocess.CompletedProcess) -> list:
    """The steps that the shell commands ask for, as the command line reads them; in the order of the dry run."""
    return [cli.read(shlex.split(command)) for command in re.findall(r"-m reprolib (.*) 2> ", done.stdout)]


def words_in(done: subprocess.CompletedProcess) -> list[list[str]]:
    """The trainings and evaluations that each process is told, by their names in the store."""
    return [[word.split(":")[2] for word in step.words] for step in steps_in(done) if step.step.__name__ == "_run"]


def pages(copy: Path, profile: str = "quick") -> list[str]:
    """The files of a profile's pages, without the index that is there after each batch."""
    names = sorted(path.name for path in (copy / "results" / profile).glob("[!.]*"))
    names.remove("index.html")
    return names


def files_of(*records: str) -> list[str]:
    return sorted(f"{record}{suffix}" for record in records for suffix in (".csv", ".html", ".ipynb", ".json"))


# --- the plan -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_quick_batch_makes_every_page_and_the_scoreboard_last(copy, published):
    """And each training and evaluation once, in a few processes before the pages that show it, or by the one page."""
    done = plan_of(copy, "profile=quick")
    sheets = plan.all_pages()
    records = [page.record for page in sheets] + ["tiny", *LISTS]
    planned = plan_steps([(page.table, page.network) for page in sheets], "quick")
    jobs, parcels = jobs_in(done), words_in(done)
    assert jobs["notebook"] == len(records)
    assert jobs.get("trainings", 0) + jobs["evaluations"] == len(parcels)
    read = {name for name, step in planned.trainings.items() if step.done and not step.file.exists()}  # as published
    assert planned.parcels.keys() - read <= {name for names in parcels for name in names}
    assert len({name for names in parcels for name in names}) == sum(map(len, parcels))
    assert 10 * len(parcels) < sum(map(len, parcels)), "a process takes many steps"
    steps = steps_in(done)
    assert sorted(step.page for step in steps if "page" in step) == sorted(records)
    assert {step.profile for step in steps} == {"quick"}
    assert steps[-1].page == "00_scoreboard"


@pytest.mark.slow
def test_batch_of_the_cpu_profile(copy, monkeypatch, results):
    """Every training is a job, every evaluation part of one, also where two pages share it."""
    monkeypatch.setenv("REPROLIB_OFFLINE", "1")
    done = plan_of(copy, "profile=cpu", "only=table09_autoattack table11_epochs", "dry_run=true")
    wanted = [("table09", "fmnistconv"), ("table11", "fmnistconv")]
    planned = plan_steps(wanted, "cpu", without_data=True)
    parcels = words_in(done)
    jobs = {"trainings": 3, "evaluations": len(parcels) - 3, "notebook": 2, "all": 1}
    assert jobs_in(done) == jobs and len(planned.trainings) == 3
    assert {step.profile for step in steps_in(done)} == {"cpu"}
    names = [name for parcel in parcels for name in parcel]
    assert sorted(names) == sorted([*planned.trainings, *planned.evaluations])
    assert len(parcels) < len(planned.trainings) + len(planned.evaluations)
    for name, step in planned.trainings.items():
        assert [name] in parcels
        assert all(names.index(parent) < names.index(name) for parent in step.asks)


@pytest.mark.slow
def test_a_job_on_a_cluster_reads_the_plan_that_the_batch_kept_and_needs_no_torch_for_it(copy, tmp_path, monkeypatch):
    """And takes the same steps, in the same order."""
    plan = Path("results", "quick", ".logs", "plan.json")
    config = ["profile=quick", "only=tiny", f"plan={plan}"]
    planned = steps_in(plan_of(copy, *config))
    (tmp_path / "torch.py").write_text("raise SystemExit('a job imports torch to plan')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    read = plan_of(copy, *config)
    assert read.returncode == 0, read.stdout
    assert len(planned) > 1 and steps_in(read) == planned
    (copy / plan).unlink()
    assert "a job imports torch to plan" in plan_of(copy, *config).stdout


@pytest.mark.parametrize("engine, kept", [("local", False), ("slurm", True)])
def test_only_an_engine_whose_jobs_read_the_plan_keeps_it_whatever_the_checkouts_name(engine, kept, monkeypatch):
    """Snakemake takes a value of --config for YAML, where ` #` begins a comment and `: ` makes a mapping."""
    told: list[list[str]] = []
    monkeypatch.setattr("snakemake.cli.main", told.append)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for root in (files.ROOT, Path("/tmp/a: b #2")):
        monkeypatch.setattr(files, "ROOT", root)
        monkeypatch.setattr(files, "RESULTS", root / "results")
        batch._engine("quick", "tiny", None, None, engine, False, batch.Listener(dry_run=False))
    for command in told:
        config = parse_config(command[command.index("--config") + 1 :])
        assert config["only"] == "tiny" and ("plan" in config) == kept
        if kept:
            assert re.fullmatch(r"results/quick/\.logs/plan-[0-9a-f]{32}\.json", config["plan"])


@pytest.mark.parametrize("config, words", [
    ("profile=cpuu", ["unknown profile 'cpuu'", "did you mean 'cpu'"]),
    ("only=tabel06_fashion_mnist", ["unknown page", "did you mean 'table06_fashion_mnist'"]),
])  # fmt: skip
def test_wrong_names_in_the_batch(copy, config, words):
    done = plan_of(copy, config)
    assert done.returncode != 0
    assert all(word in done.stdout for word in words), done.stdout


# --- make -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(copy, tmp_path_factory) -> subprocess.CompletedProcess:
    """Two pages and the scoreboard, in surroundings that mislead."""
    long = tmp_path_factory.mktemp("t" * 90)
    return make(copy, "tables", "ONLY=00 table01", "DRY_RUN=0", SNAKEMAKE_PROFILE="/nowhere", TMPDIR=str(long),
                HOME="/nowhere", PYTHONPATH=str(files.ROOT))  # fmt: skip


def test_several_names_select_pages_and_the_end_says_which_to_open(copy, made):
    assert made.returncode == 0, made.stdout + made.stderr
    assert pages(copy) == sorted(f"{name}{suffix}" for name in LISTS for suffix in (".html", ".ipynb", ".json"))
    assert made.stdout.splitlines()[-1] == "Done: results are in results/quick/. Open results/quick/index.html"
    assert not made.stderr, "no word of the engine's, unless something is wrong"


def test_what_runs_is_this_checkouts_code_and_needs_no_home(copy, made):
    text = (copy / "results" / "quick" / "table01_networks.ipynb").read_text()
    assert str(copy / "reprolib" / "__init__.py") in text
    assert (copy / ".home").is_dir()
    log = (copy / "log").read_text().splitlines()
    assert log[-2:] == ["00_scoreboard begins", "00_scoreboard ends"]


def test_what_is_there_is_not_made_again(copy, made):
    assert jobs_in(plan_of(copy, "only=00 table01")) == {}
    (copy / "results" / "quick" / "table01_networks.html").rename(copy / "kept")
    assert jobs_in(plan_of(copy, "only=00")) == {}, "00 is the scoreboard alone"
    (copy / "kept").rename(copy / "results" / "quick" / "table01_networks.html")


def test_a_dry_run_is_one_table_with_a_total(copy, made, published):
    """Of pages to be made alone; the numbers are the plan's."""
    done = make(copy, "tables", "ONLY=00 table01 table06", "DRY_RUN=1")
    assert done.returncode == 0 and not done.stderr, done.stderr
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()
                      if line.startswith("|")]  # fmt: skip
    assert head == ["page", "trainings", "evaluations", "expected minutes"]
    table06, scoreboard, total = rows
    planned = plan_steps([("table06_fashion_mnist", "fmnistconv")], "quick")
    missing = [str(sum(not step.done for step in some.values())) for some in (planned.trainings, planned.evaluations)]
    assert table06[:3] == ["table06_fashion_mnist", *missing] and scoreboard[:3] == ["00_scoreboard", "0", "0"]
    assert total[:3] == ["total", *missing]
    assert float(total[3]) == pytest.approx(float(table06[3]) + float(scoreboard[3]), abs=0.11)
    assert "Nothing is to be done" in make(copy, "tables", "ONLY=table01", "DRY_RUN=1").stdout


@pytest.mark.slow
def test_ctrl_c_ends_a_batch_in_one_line_and_leaves_it_to_go_on(copy, made):
    """As a terminal sends it: to make, the engine, the jobs and their kernels' keepers at once."""
    source = copy / "notebooks" / "tables" / "table01_networks.ipynb"
    kept = source.read_bytes()
    write(copy, source.stem, "import time\ntime.sleep(100)")
    command = [sys.executable, "-m", "reprolib", "tables", "--only", "table01", "--jobs", "2"]
    try:
        with subprocess.Popen(command, cwd=copy, start_new_session=True, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as process:  # fmt: skip
            while (line := process.stdout.readline()) and line != "table01_networks: started\n":
                pass
            time.sleep(3)  # the kernel is starting, or runs
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
    finally:
        source.write_bytes(kept)
    assert (process.returncode, out, err) == (130, "", "Stopped; the same command goes on from here\n")
    again = make(copy, "tables", "ONLY=table01")
    assert again.returncode == 0, again.stdout + again.stderr


def test_how_far_a_batch_is_said_in_whole_lines_and_not_too_often(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(batch.time, "monotonic", lambda: now[0])
    heard = batch.Listener(dry_run=False)
    for done, seconds in ((0, 0), (1, 5), (2, 20), (3, 25), (4, 40), (5, 100), (200, 20000), (203, 30000)):
        now[0] = 100 + seconds
        said = {"levelno": logging.INFO, "event": LogEvent.PROGRESS, "done": done, "total": 203}
        assert not heard.filter(logging.makeLogRecord(said))
    assert capsys.readouterr().out.splitlines() == [
        "2 of 203 jobs done, 0 running, about 34 min left", "4 of 203 jobs done, 0 running, about 33 min left",
        "5 of 203 jobs done, 0 running, about 66 min left", "200 of 203 jobs done, 0 running, about 5 min left",
    ]  # fmt: skip
    assert heard.filter(logging.makeLogRecord({"levelno": logging.ERROR}))


def test_what_runs_and_what_failed_is_counted_and_what_failed_is_reported_with_its_log(monkeypatch, tmp_path, capsys):
    """A page, two of a process's steps, and a process that was killed; not what its second attempt has done."""
    now = [100.0]
    monkeypatch.setattr(batch.time, "monotonic", lambda: now[0])
    heard = batch.Listener(dry_run=False)
    log = tmp_path / "parcel.log"
    log.write_text("error: t:n:training/0a:2: no room\nTraceback\nerror: t:n:evaluation/0b: out of numbers\n")
    commands = ["notebook table01_networks --profile cpu", "run t:n:training/0a:2 t:n:evaluation/0b --profile cpu"]
    commands += ["run t:n:evaluation/0c t:n:evaluation/0d --profile cpu", "notebook table02 --profile cpu"]
    said = {"event": LogEvent.JOB_STARTED, "jobs": [1, 2, 3, 4, 5], "levelno": logging.INFO}
    heard.filter(logging.makeLogRecord(said))
    for job, command in enumerate(commands, 1):
        shell = f"OMP_NUM_THREADS=1 env PYTHONPATH=/a python -m reprolib {command} 2> >(tee a.log >&2)"
        said = {"event": LogEvent.JOB_ERROR, "jobid": job, "shellcmd": shell, "levelno": logging.ERROR}
        heard.filter(logging.makeLogRecord(said | {"log": [str(log if job == 2 else tmp_path / "none")]}))
    heard.filter(logging.makeLogRecord({"event": LogEvent.JOB_FINISHED, "job_id": 4, "levelno": logging.INFO}))
    now[0] = 200
    heard.filter(logging.makeLogRecord({"event": LogEvent.PROGRESS, "done": 1, "total": 5, "levelno": logging.INFO}))
    assert capsys.readouterr().out == "1 of 5 jobs done, 1 running, 3 failed, about 7 min left\n"
    lines = heard.report("cpu").splitlines()
    again = [line.split(" -m reprolib ")[1] for line in lines[2::3]]
    assert again == [commands[0], *(f"run {w} --profile cpu" for w in commands[1].split()[1:3]), commands[2]]
    assert lines[0::3] == [
        "table01_networks failed", "t:n:training/0a:2 (no room) failed", "t:n:evaluation/0b (out of numbers) failed",
        "a process with 2 trainings and attacks failed",
    ]  # fmt: skip
    assert lines[4] == f"    log:   {log}"


def test_the_end_says_how_much_of_the_time_its_processes_computed(monkeypatch):
    """Two places had 100 s, and their processes 120 s of a core; what had run before does not count."""
    now, used = [0.0], [50.0]
    monkeypatch.setattr(batch.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(batch, "computed", lambda: used[0])
    heard = batch.Listener(dry_run=False)
    for event, said in (
        (LogEvent.JOB_STARTED, {"jobs": [7]}),
        (LogEvent.JOB_STARTED, {"jobs": [8]}),
        (LogEvent.JOB_FINISHED, {"job_id": 8}),
        (LogEvent.JOB_ERROR, {"jobid": 7, "log": ["a.log"], "shellcmd": "-m reprolib notebook a"}),
    ):
        heard.filter(logging.makeLogRecord({"event": event, "levelno": logging.INFO} | said))
    now[0], used[0] = 100.0, 170.0
    assert heard.summary(2) == "2 jobs in 100 s; 2 at once, which computed for 60% of it"


def test_what_ended_processes_computed_is_counted():
    before = batch.computed()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 1: pass"], check=True)
    assert 1 <= batch.computed() - before < 3


@pytest.mark.slow
def test_a_cluster_is_asked_for_memory_minutes_and_a_gpu_where_the_profile_is_for_one(copy):
    for profile, gpu in (("cpu", 0), ("paper", 1)):
        done = plan_of(copy, f"profile={profile}", "only=table11_epochs", "dry_run=true")
        asked = [dict(pair.split("=") for pair in line.split(", "))
                 for line in re.findall(r"^    resources: (.+)$", done.stdout, re.MULTILINE)]  # fmt: skip
        wanted = [each for each in asked if "mem_mb" in each]
        assert len(wanted) > 1 and all(int(each["mem_mb"]) >= 2000 for each in wanted), done.stdout
        assert {int(each.get("gpu", 0)) for each in wanted} == {gpu}
        assert len({int(each["runtime"]) for each in wanted}) > 1 and all(int(each["runtime"]) >= 15 for each in wanted)


def test_an_engine_is_a_folder_and_its_plugin_is_asked_for_in_one_sentence(copy, monkeypatch):
    with pytest.raises(notebooks.UnknownName, match="unknown engine 'slrum'; did you mean 'slurm'"):
        batch.check_engine("slrum")
    batch.check_engine("local")
    monkeypatch.setattr(batch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(notebooks.UnknownName, match="needs snakemake-executor-plugin-slurm, which is not installed"):
        batch.check_engine("slurm")


@pytest.mark.parametrize("only, suffix", [("00 table01", ".json"), ("table01", ".ipynb"), ("table01", ".html")])
@pytest.mark.slow
def test_what_is_deleted_is_made_again(only, suffix, copy, made):
    path = copy / "results" / "quick" / f"table01_networks{suffix}"
    kept = path.with_suffix(".kept")
    path.rename(kept)
    try:
        again = [step.page for step in steps_in(plan_of(copy, f"only={only}"))]
        assert again == ["table01_networks", *(["00_scoreboard"] if "00" in only else [])]
    finally:
        kept.rename(path)


@pytest.mark.parametrize("words, said", [
    (["JOBS=0"], "error: JOBS is 0; give a number of processes at once, 1 or more"),
    (["ONLY=tabel01"], "error: unknown page 'tabel01'; did you mean 'table01'?"),
    (["PROFILE=qiuck"], "error: unknown profile 'qiuck'; did you mean 'quick'?"),
])  # fmt: skip
def test_wrong_words_for_make_are_told_in_one_sentence(words, said, copy):
    done = make(copy, "tables", *words)
    assert done.returncode != 0 and not done.stdout
    assert done.stderr.splitlines()[0] == said and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_page_that_fails_keeps_its_record_and_is_made_again(copy, made):
    record = copy / "results" / "quick" / "table01_networks.json"
    before, source = record.read_bytes(), copy / "notebooks" / "tables" / "table01_networks.ipynb"
    kept = source.read_bytes()
    write(copy, source.stem, "raise KeyError('breadth')")
    assert [step.page for step in steps_in(plan_of(copy, "only=table01"))] == [source.stem], "its source has changed"
    done = make(copy, "tables", "ONLY=table01")
    assert done.returncode != 0
    assert f"error: {source.stem} failed in cell" in done.stderr and "KeyError: 'breadth'" in done.stderr
    assert f"{source.stem} failed\n    log:   results/quick/.logs/{source.stem}.log\n" in done.stderr
    assert f"-m reprolib notebook {source.stem} --profile quick\n" in done.stderr
    assert "KeyError: 'breadth'" in (copy / "results" / "quick" / ".logs" / f"{source.stem}.log").read_text()
    assert record.read_bytes() == before and not record.with_suffix(".html").exists()
    index = record.with_name("index.html").read_text()
    assert f'href="{source.stem}.failed.ipynb"' in index and 'href="00_scoreboard.html"' in index
    source.write_bytes(kept)
    os.utime(source, (1e9, 1e9))  # that its source is newer is not why it is made again
    assert [step.page for step in steps_in(plan_of(copy, "only=table01"))] == [source.stem]


@pytest.mark.slow
def test_the_site_alone_computes_nothing_and_changes_no_plan(copy, made, published):
    """A clone gets the pages of the records that are committed there, which its batch makes by running them."""
    folder, log = copy / "results" / "quick", (copy / "log").read_bytes()
    mine, committed = folder / "00_scoreboard.html", folder / "saturation.html"
    for suffix in (".json", ".ipynb"):
        shutil.copyfile(mine.with_suffix(suffix), committed.with_suffix(suffix))
    before = mine.stat().st_mtime_ns
    done = make(copy, "site")
    assert (done.returncode, done.stdout) == (0, "Open results/quick/index.html\n"), done.stderr
    assert mine.stat().st_mtime_ns == before and 'href="index.html"' in mine.read_text()
    assert 'href="index.html"' in committed.read_text() and (copy / "log").read_bytes() == log
    planned = steps_in(plan_of(copy, "only=saturation"))
    assert [vars(step)["page"] for step in planned if "page" in step] == ["saturation"]
    committed.touch()
    assert jobs_in(plan_of(copy, "only=saturation")) == {}, "its time alone tells them apart"
    for suffix in (".json", ".ipynb", ".html"):
        committed.with_suffix(suffix).unlink()


@pytest.mark.slow
def test_two_batches_that_make_the_same_page_do_it_one_after_the_other(copy, made):
    (copy / "log").unlink()
    command = [sys.executable, "-m", "reprolib", "notebook", "table01_networks"]
    both = [subprocess.Popen(command, cwd=copy, stderr=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    assert (copy / "log").read_text().splitlines() == ["table01_networks begins", "table01_networks ends"] * 2


@pytest.mark.slow
def test_a_batch_with_trainings_and_evaluations_as_jobs(copy, monkeypatch, tmp_path):
    """In the cpu profile, whose amounts are tiny here. All but a fine-tuning and an evaluation is there already."""
    profile = copy / "params" / "profiles" / "cpu.yaml"
    monkeypatch.setenv("REPROLIB_STORE", str(tmp_path / "a store's place"))
    profile.write_text(yaml.safe_dump({"default": AMOUNTS}))
    prepare = (
        f"from reprolib.paper import run; {PAGE.format(table='tiny').splitlines()[1]}; page.compute(progress=False)"
    )
    prepare = prepare.replace("globals()", "{'profile': 'cpu'}")
    subprocess.run([sys.executable, "-c", prepare], cwd=copy, check=True, timeout=300)
    store = run.Store()
    trained = sorted((store.root / "training").glob("*/epoch-0001.safetensors"), key=os.path.getmtime)
    evaluated = sorted((store.root / "evaluation").glob("*.safetensors"), key=os.path.getmtime)
    gone = [trained[-1], evaluated[0]]
    content = {path: path.stat().st_size for path in gone}
    for path in gone:
        path.unlink()
    shutil.rmtree(trained[-1].parent)
    stamps = {path: path.stat().st_mtime_ns for path in store.root.rglob("*.safetensors")}
    done = make(copy, "tables", "PROFILE=cpu", "ONLY=tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    assert pages(copy, "cpu") == files_of("tiny")
    assert {path: path.stat().st_size for path in gone} == content
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps, "nothing else was computed again"
    assert jobs_in(plan_of(copy, "profile=cpu", "only=tiny")) == {}


@pytest.mark.slow
def test_a_quick_batch_computes_before_its_notebooks(copy, monkeypatch, tmp_path):
    """Whose page is made here only if nothing is left to compute. One step can't be taken at first."""
    monkeypatch.setenv("REPROLIB_STORE", str(tmp_path / "store"))
    profile, amounts = copy / "params" / "profiles" / "quick.yaml", yaml.safe_dump({"default": AMOUNTS})
    source, parcels = copy / "notebooks" / "tables" / "tiny.ipynb", copy / "reprolib" / "paper" / "run" / "parcels.py"
    kept = {path: path.read_bytes() for path in (profile, source, parcels)}
    lazy = PAGE.format(table="tiny").replace("page.compute()", "assert not page.missing_trainings()\n"
                                             "assert not page.missing_evaluations()")  # fmt: skip
    try:
        profile.write_text(amounts)
        parcels.write_text(parcels.read_text().replace(f"SHORT = {SHORT}", "SHORT = 0"))  # nothing is left to the page
        write(copy, "tiny", lazy, '\nnetwork: str = "fmnistconv"')
        plans = words_in(plan_of(copy, "only=tiny"))
        evaluations = [name for names in plans for name in names if name.startswith("evaluation/")]
        in_the_way = run.Store().path(f"{evaluations[0]}.lock").with_suffix("")
        in_the_way.mkdir(parents=True)
        failed = make(copy, "tables", "ONLY=tiny")
        assert failed.returncode != 0 and failed.stderr.count("error: tiny:fmnistconv:evaluation/") == 1
        assert f"{evaluations[0]}: cannot write" in failed.stderr and "Traceback" not in failed.stderr
        left = {name for names in words_in(plan_of(copy, "only=tiny")) for name in names}
        together = next(names for names in plans if evaluations[0] in names)
        assert left.intersection(together) == {evaluations[0]} and len(together) > 1
        in_the_way.rmdir()
        done = make(copy, "tables", "ONLY=tiny")
        assert done.returncode == 0, done.stdout + done.stderr
        assert pages(copy)[-4:] == files_of("tiny")
        assert jobs_in(plan_of(copy, "only=tiny")) == {}
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


def test_a_moved_checkout_runs():
    """Console scripts carry the path of the environment in which they were made; modules don't."""
    text = (files.ROOT / "Makefile").read_text()
    assert set(re.findall(r"\.venv/bin/(\w+)", text)) == {"python"} and "$(PY) -m" in text
