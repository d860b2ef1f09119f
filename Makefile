# Two commands matter: `make demo` runs the main job, `make test` all that must hold.
# Each installs what it lacks first; a second run starts in seconds.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
REQS   := requirements/service.txt requirements/guest.txt requirements/test.txt
export PYTHON
# T: a path, K: a pattern, for a part of the tests.
T ?= tests
K ?=
FUZZ_SECONDS ?= 3600
TARGETS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint fmt cover policies property conformance vectors kills readers flood fuzz bits bench run dist clean

help:  ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | \
	  awk -F '\t' '{printf "  make %-13s %s\n", $$1, $$2}'

# With bytecode, as a wheel is installed, even where Python is told to write none: it
# is a third of what every process of ours would spend until it does something.
setup: $(STAMP)  ## Install what is missing (system packages where allowed, Python packages into .venv)
	@$(BIN)/python -m compileall -q kbs

$(STAMP): $(REQS) setup.cfg pyproject.toml docker/system-packages.sh
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; set PYTHON=…" >&2; exit 1; }
	@docker/system-packages.sh
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing Python packages into $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check \
	  $(foreach file,$(REQS),-r $(file))
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## The whole story on this machine: broker, software TPM, a release, seven refused attacks
	@$(BIN)/python -m tests.demo

test: lint cover policies  ## Everything that must hold: linters, types, contracts, tests, policies

lint: setup  ## ruff, format, mypy, import contracts, docstrings, Dockerfiles, compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/interrogate -q -c setup.cfg kbs
	$(BIN)/hadolint $(wildcard docker/*Dockerfile)
	$(BIN)/compose-lint check --quiet --strict-config --skip-suppressed --fail-on low \
	  --config docker/.compose-lint.yml docker/compose.yaml

fmt: setup  ## Format and fix what can be fixed
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q .

cover: setup  ## All tests, with coverage (T=path K=pattern for a part, without coverage)
ifeq ($(T)$(K),tests)
	$(BIN)/pytest -q -n 2 --cov --cov-report=term tests
else
	$(BIN)/pytest -q $(T) $(if $(K),-k '$(K)')
endif

policies: setup  ## Every example policy against its own allow and deny cases
	$(BIN)/kbs policy test policies

property: setup  ## Property tests only
	$(BIN)/pytest -q tests/property

conformance: setup  ## Recorded evidence and published vectors only
	$(BIN)/pytest -q tests/conformance

vectors: setup  ## Rebuild generated documents; fails when they were not up to date
	$(BIN)/python -m tests.generate
	git diff --exit-code docs/claims.md policies/schema.json

# On each database a round kills once at each of nine steps of v1, and four times in rcar.
kills: setup  ## Ten thousand kills in the middle of releases (about an hour)
	KBS_KILL_ROUNDS=390 $(BIN)/pytest -q -n 2 tests/e2e/test_kill.py -k every_step

readers: setup  ## Ten thousand reads of a key that is rotated without a pause, on each database
	KBS_READS=10000 $(BIN)/pytest -q -s tests/e2e/test_at_once.py -k readers

flood: setup  ## A million and a half challenges that nobody answers, in a process and through a server (long)
	@$(BIN)/python -m tests.flood
	@$(BIN)/python -m tests.flood_served

# atheris (libFuzzer) has wheels for few Pythons and processors, and nothing else needs it.
fuzz: setup  ## Every parser under atheris, FUZZ_SECONDS each (default an hour); TARGETS= for some
	@$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements/fuzz.txt
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(TARGETS)
	@KBS_SCHEMA_EXAMPLES=200 $(BIN)/pytest -q tests/e2e/test_schemathesis.py

bits: setup  ## Every single bit of recorded evidence flipped, not one of each byte (minutes)
	KBS_EVERY_BIT=1 $(BIN)/pytest -q tests/conformance -k "every_changed or flipped or any_bit or any_other_character"

bench: setup  ## What it costs, beside one P-256 verification (under three minutes)
	@$(BIN)/python -m tests.bench

run: setup  ## A broker on loopback with its state in .demo/run
	$(BIN)/kbs serve --data .demo/run/data --trust .demo/run/trust --listen 127.0.0.1:8443

dist: setup  ## A wheel in dist/
	$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w dist .

clean:  ## Remove what make made, the virtual environment included
	rm -rf $(VENV) build dist .demo .fuzz .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache *.egg-info
	find kbs tests -name __pycache__ -prune -exec rm -rf {} +
