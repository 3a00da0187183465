# setup: .venv with everything · demo: something to search at 127.0.0.1:8000 · test: all there is to check
VENV ?= .venv
PY := $(VENV)/bin/python
PORT ?= 8000
PYTEST := $(PY) -m pytest -q --numprocesses=2 --dist=loadfile
PIP_ARGS ?=
# A smaller torch (a CPU build, 0.2 GB instead of 5): make setup PIP_ARGS="--extra-index-url URL-OF-PYTORCH-CPU-BUILDS"
ON_PORT := --port $(PORT)

.PHONY: setup demo serve check quick test bench

setup: $(VENV)/.installed data/trunks/.fetched

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade "pip>=25.1"
	$(PY) -m pip install --quiet -c constraints.txt $(PIP_ARGS) -e '.[server]' --group dev
	touch $@

data/trunks/.fetched: $(VENV)/.installed textmm/pretrained.py
	$(VENV)/bin/textmm models fetch mini --data data
	touch $@

# A shell that leaves "~" alone in an argument hands it to us as it is.
demo: setup
	$(VENV)/bin/textmm demo $(if $(PICTURES),--pictures "$(patsubst ~/%,$(HOME)/%,$(PICTURES))") $(ON_PORT)

serve: setup
	$(VENV)/bin/textmm serve $(ON_PORT)

check: setup
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/ruff check --quiet .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo 2>/dev/null || $(VENV)/bin/lint-imports

quick: check
	$(PYTEST) -m "not slow and not gpu"

test: check
	$(PYTEST)

bench: setup
	$(PY) -m tests.benchmarks.bench_ingest
	$(PY) -m tests.benchmarks.bench_import
	$(PY) -m tests.benchmarks.bench_search
	$(PY) -m tests.benchmarks.bench_filters
	$(PY) -m tests.benchmarks.bench_http
