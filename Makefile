# make repro   everything: environment, llama.cpp build, the whole pipeline and its report (profile in params.yaml)
# make test    the environment if it is not there, then the tests
# make build   the environment only
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.PHONY: repro test build lint slow serve base

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.built
export PATH := $(CURDIR)/$(BIN):$(PATH)
export TOKENIZERS_PARALLELISM := false

repro: build
	@dvc repro
	echo "report: eval/reports/report.html"
	echo "next:   python -m phase4_serve up --workspace ."

# two processes of one thread each, whole files apart: the tests of a file share their fixtures
TEST_WORKERS ?= 2
test: build
	@OMP_NUM_THREADS=1 python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

slow: build
	@python -m pytest -m slow

lint: build
	@ruff check . && ruff format --check . && mypy

serve: build
	@python -m phase4_serve up --workspace .

# the shipped base again, from the weights of its first leg: about an hour on 2 cores; pretrain.start: null begins from nothing
FIRST_LEG := 417fb9a
base: build
	@mkdir -p phase2_train/out-base/start
	for file in config.json model.safetensors card.json; do git show $(FIRST_LEG):phase2_train/tiny_base/$$file > phase2_train/out-base/start/$$file; done
	for step in ingest clean scrub samples; do python -m phase1_data $$step --profile base --out phase1_data/out-base; done
	python -m phase2_train pretrain

build: $(STAMP)

$(STAMP): pyproject.toml requirements.lock llama-server.txt
	@step() { echo "[$$((SECONDS / 60))m$$((SECONDS % 60))s] $$*"; }
	fail() { echo "error: $$*" >&2; exit 5; }
	"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
		|| fail "Python 3.11 or 3.12 is needed, found $$("$(PYTHON)" --version 2>&1): name one with \`make PYTHON=python3.12 ...\`"
	command -v c++ g++ clang++ > /dev/null \
		|| fail "no C++ compiler: install one (Debian: apt install g++; macOS: xcode-select --install), or see README, Without a compiler"
	step "virtual environment in $(VENV) ($$("$(PYTHON)" --version))"
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	pip install -q --disable-pip-version-check 'pip>=23.1'  # older ones know no build settings in a requirements file
	has_server() { test -x "$$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/bin/llama-server"; }
	if ! has_server; then
		step "llama.cpp: llama-server, tools and the Python binding (one compile, 4 to 8 minutes on 2 cores)"
		# pip's wheel cache ignores build settings: a plain build cached earlier would come without llama-server
		pip install -q --no-cache-dir --force-reinstall --no-deps -r llama-server.txt
		has_server || fail "the llama.cpp build brought no llama-server: see the compiler's messages above"
	fi
	step "Python packages at the versions of requirements.lock"
	pip install -q -c requirements.lock -e '.[train,serve,dev]'
	test -d .dvc || dvc init -q --no-scm
	step "ready"
	touch $@
