# make tables                 every table and figure, quick profile, no download
# make tables PROFILE=cpu     the real runs on a workstation; PROFILE=paper for a GPU
# make tables ONLY=table06    one of them; DRY_RUN=1 shows the plan and what it may cost
# make test                   unit tests, then every notebook against its stored output
# make bench                  our attacks and training raced against other libraries'; half an hour
# make lab                    JupyterLab;  make readme  the README's status block
PROFILE ?= quick
ONLY ?=
DRY_RUN ?=
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# ACTIVE=1 takes the environment that is active (conda's, say) as it is, instead of making .venv
ACTIVE ?=
BIN := $(if $(ACTIVE),$(patsubst %/,%,$(dir $(shell command -v python))),.venv/bin)
READY := $(if $(ACTIVE),,.venv/installed)
# Bars of a thousand jobs are noise in a log; a terminal shows them.
export TQDM_MININTERVAL ?= 2
export PYDEVD_DISABLE_FILE_VALIDATION = 1

.PHONY: tables test bench lab readme
tables: $(READY)
	@$(BIN)/snakemake --cores $(JOBS) --resources gpu=$(or $(GPUS),$(JOBS)) --keep-going --rerun-incomplete --nolock \
	  $(if $(DRY_RUN),--dry-run --quiet rules host,--quiet all) --config profile=$(PROFILE) only=$(ONLY) \
	  $(if $(DRY_RUN),$(if $(filter quick,$(PROFILE)),,&& $(BIN)/python -m reprolib costs --profile $(PROFILE)),&& echo "Done: results are in results/$(PROFILE)/. Open $$(ls results/$(PROFILE)/$(ONLY)*.html | head -n 1)")

test: $(READY)
	@TQDM_DISABLE=1 $(BIN)/python -m pytest -q tests
	@TQDM_DISABLE=1 $(BIN)/python -m pytest -q --nbval-lax --nbval-current-env --nbval-cell-timeout 300 \
	  --nbval-sanitize-with tests/nbval.cfg notebooks

bench: .venv/benchmarks-installed
	@$(BIN)/python benchmarks

.venv/benchmarks-installed: .venv/installed benchmarks/requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r benchmarks/requirements.lock
	@touch $@

lab: $(READY)
	@$(BIN)/jupyter lab notebooks

readme: $(READY)
	@$(BIN)/python -m reprolib readme

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null \
	  || { echo "Python 3.11 is needed, and '$(PYTHON)' is not one: install it, or say make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Setting up .venv from requirements.lock (once; some minutes, about 6 GB, most of it PyTorch)"
	@$(PYTHON) -m venv .venv || { echo "No virtual environment could be made: install Python's venv package (Debian: python3-venv)"; exit 1; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements.lock \
	  || { echo "The packages could not be installed: see above; is there a network, and are 8 GB free?"; exit 1; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --editable .
	@touch $@
