# make                        this help
# make start                  a first look at the finding, in JupyterLab; about a minute
# make tables                 every table and figure, quick profile, no download
# make tables PROFILE=cpu     the real runs on a workstation; PROFILE=paper for a GPU
# make tables ONLY=table06    some of them, by the beginnings of their names; DRY_RUN=1 shows what would be done
# make own PAGE=table06_fashion_mnist RUN=mine SET="eps=0.1 steps=20"   a run of your own, in results/custom/mine
# make site PROFILE=cpu       results/cpu/index.html, the way to all pages; make tables ends with it
# make lab                    JupyterLab (LAB_ARGS="--no-browser --port 9999")
# make check                  linter, formatter (notebooks too) and type checker; seconds
# make test                   unit tests, then the notebooks but those of claims and studies against their stored output
# make test-slow              whole batches, kills, other networks' pages, the doctor's known cases; the other notebooks
# make bench                  our attacks and training raced against other libraries'; half an hour
# make gpu                    on a GPU: tests, bench, then the paper profile's pages, most claims per minute first; goes
#                             on from where it was stopped (PROFILE=gpu for a quarter of an hour)
# make status                 docs/status.md, from results/
# make graph PROFILE=paper    the batch's jobs and what they wait for, as results/paper/jobs.svg
# make chaos                  kills, a full disk, damaged files ... and what became of them, docs/chaos.md; half an hour
# ENGINE=slurm: the pages' jobs on a cluster, see docs/cluster.md.
# JOBS=4 and GPUS=1: processes at once. ACTIVE=1: the active environment instead of .venv (make bench also
# needs benchmarks/requirements.lock there). PYTHON: for making .venv
PROFILE ?= quick
PAGE ?=
RUN ?=
SET ?=
ONLY ?=
DRY_RUN ?=
ENGINE ?= local
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
GPUS ?= $(JOBS)
# As many as there are cores is no number for a cluster, whose file says its own.
AT_ONCE := $(if $(filter file,$(origin JOBS)),$(if $(filter local,$(ENGINE)),--jobs "$(JOBS)"),--jobs "$(JOBS)") --gpus "$(GPUS)"
LAB_ARGS ?=
PYTHON ?= $(shell command -v python3.11 || command -v python3)
ACTIVE ?=
PY := $(if $(ACTIVE),python,.venv/bin/python)
READY := $(if $(ACTIVE),,.venv/installed)
BENCH_READY := $(if $(ACTIVE),,.venv/benchmarks-installed)
# This checkout's code, also where the environment was copied with it or installed from another one.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
# Tools that keep settings and caches need a home folder and a name; users without get them here.
export HOME := $(shell if [ -d "$$HOME" ] && [ -w "$$HOME" ]; then echo "$$HOME"; else mkdir -p .home && echo "$$PWD/.home"; fi)
export LOGNAME := $(or $(LOGNAME),$(USER),$(shell id -un 2>/dev/null),nobody)
# Bars of a thousand jobs are noise in a log; a terminal shows them.
export TQDM_MININTERVAL ?= 2
export PYDEVD_DISABLE_FILE_VALIDATION = 1
# glibc gives large tensors back to the system after each use and gets them again, zeroed, which trainings spend a good part of their time on.
export MALLOC_MMAP_THRESHOLD_ ?= 1073741824
export MALLOC_TRIM_THRESHOLD_ ?= 4294967296
export MALLOC_TOP_PAD_ ?= 134217728

.PHONY: help tables own site check test test-slow bench gpu start lab status graph chaos
help:
	@sed -n '/^#/!q;s/^# //p' Makefile

tables: $(READY)
	@$(PY) -m reprolib tables --profile "$(PROFILE)" --only "$(ONLY)" --engine "$(ENGINE)" $(AT_ONCE) \
	  $(if $(filter-out 0 no No NO false False FALSE,$(DRY_RUN)),--dry-run)

own: $(READY)
	@$(PY) -m reprolib notebook "$(PAGE)" --profile "$(PROFILE)" --run-name "$(RUN)" --set $(SET)

site: $(READY)
	@$(PY) -m reprolib site --profile "$(PROFILE)"

check: $(READY)
	@$(PY) -m ruff check --quiet
	@$(PY) -m ruff format --check --quiet || { echo "Not formatted as above: say $(PY) -m ruff format"; exit 1; }
	@$(PY) -m mypy --no-error-summary

LONG := notebooks/claims notebooks/studies
NBVAL = OMP_NUM_THREADS=1 TQDM_DISABLE=1 $(PY) -m pytest -q -n $(JOBS) --dist loadfile --nbval-lax --nbval-current-env \
  --nbval-cell-timeout 300 --nbval-sanitize-with tests/nbval.cfg
test: $(READY)
	@TQDM_DISABLE=1 $(PY) -m pytest -q -n $(JOBS) --dist loadfile -m "not slow" tests
	@$(NBVAL) $(LONG:%=--ignore=%) notebooks

bench: $(BENCH_READY)
	@$(PY) benchmarks

test-slow: $(READY)
	@OMP_NUM_THREADS=1 TQDM_DISABLE=1 $(PY) -m pytest -q -n $(JOBS) --dist loadfile -m slow tests
	@$(NBVAL) $(LONG)

# What fails is told and the rest goes on: a lent GPU has no second hour.
gpu: PROFILE := $(PROFILE:quick=paper)
gpu: $(BENCH_READY)
	-@TQDM_DISABLE=1 $(PY) -m pytest -q tests/attacks tests/networks tests/defenses tests/test_training.py tests/test_patches.py
	-@$(PY) benchmarks
	@for page in $$($(PY) -m reprolib order --profile "$(PROFILE)"); do \
	  $(PY) -m reprolib tables --profile "$(PROFILE)" --only "$$page" --jobs "$(JOBS)" --gpus "$(GPUS)"; done
	@$(PY) -m reprolib tables --profile "$(PROFILE)" --jobs "$(JOBS)" --gpus "$(GPUS)"

.venv/benchmarks-installed: .venv/installed benchmarks/requirements.lock
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps -r benchmarks/requirements.lock
	@touch $@

start lab: $(READY)
	@$(PY) -m reprolib lab $(LAB_ARGS)

status: $(READY)
	@$(PY) -m reprolib status

graph: $(READY)
	@$(PY) -m reprolib graph --profile "$(PROFILE)"

chaos: $(READY)
	@PYTHONPATH="$(PYTHONPATH):$(CURDIR)/tests" $(PY) -m paper.chaos $(FAULT)

.venv/installed: requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
	  || { echo "Python 3.11 is needed, and '$(PYTHON)' is not one: install it, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Setting up .venv from requirements.lock (once; some minutes, 6 GB, 10 while it unpacks; most of it PyTorch)"
	@"$(PYTHON)" -m venv .venv || { echo "No virtual environment could be made: install Python's venv package (Debian: python3-venv)"; exit 1; }
	@rm -f .venv/complete; { $(PY) -m pip install --disable-pip-version-check --no-deps --progress-bar off --log .venv/pip.log \
	  -r requirements.lock && touch .venv/complete; } 2>&1 | { n=0; all=$$(grep -c == requirements.lock); while IFS= read -r line; do \
	    case $$line in Collecting*|Processing*|Ignoring*|Requirement*) n=$$((n + 1)); ! [ -t 2 ] || printf '\r%s of %s packages' $$n $$all;; \
	      Installing*) ! [ -t 2 ] || echo; echo "Writing them to .venv";; *[Ee]rror*|*ERROR*) ! [ -t 2 ] || echo; echo "$$line";; esac; done; }
	@test -e .venv/complete \
	  || { echo "The packages could not be installed: see above and .venv/pip.log; is there a network, and are 10 GB free (6 stay)?"; exit 1; }
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --editable .
	@touch $@
