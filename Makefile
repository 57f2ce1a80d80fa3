# A fresh machine needs only `make demo` and `make test`, with Python 3.10 to 3.13, pip and make.
# Every target does its own set-up and can be repeated.
#
#   PYTHON=python3.12       which Python the virtual environments are made with
#   PYTEST_ARGS='-k wait'   further arguments for pytest (test, test-unit, test-rounds, test-contract)
#   BUDGET=600              time limit of test-all in seconds; it lists the parts that it leaves out

VENV := .venv
CONTRACT_VENV := .venv-contract
BUILD := build

# The Python versions that this package is tested on; `python3` may be another one.
RIGHT_PYTHON := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))
ifndef PYTHON
# The Python that made .venv, if there is one; otherwise the first suitable one on the path.
PYTHON := $(shell $(VENV)/bin/python -c 'import sys; print(sys._base_executable)' 2>/dev/null)
endif
ifeq ($(PYTHON),)
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c '$(RIGHT_PYTHON)' 2>/dev/null && { echo $$p; break; }; done)
endif
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

# The name contains the Python version, so that another PYTHON= creates a new environment.
READY := $(VENV)/.ready-$(PYTHON_VERSION)
CONTRACT_READY := $(CONTRACT_VENV)/.ready-$(PYTHON_VERSION)

PY := $(VENV)/bin/python
# Constraints apply to build dependencies too: PIP_CONSTRAINT for older pips, the other variable for newer ones.
PIP_INSTALL = PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=constraints.txt \
	PIP_BUILD_CONSTRAINT=constraints.txt $(1) -m pip install -qq

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-ui up down bench test test-all test-nightly test-unit test-rounds test-postgres test-scale test-contract figures guarantees screenshots coverage lint format types check build wheel-check clean
# A target that failed half-way is built again.
.DELETE_ON_ERROR:

help:
	@echo "make demo           runs a Bolt schedule from Prefect: simulator, Prefect server, flow, artifacts"
	@echo "make demo-ui        the same, and keeps Prefect's UI up until Ctrl-C"
	@echo "make up             Prefect's server, a worker and all flows on this machine, to start them in the UI (make down)"
	@echo "make test           what a change must pass: 8 minutes on two cores (make test-unit: its quickest layer)"
	@echo "make test-all       the rest: every combination, the vendor's SDK, Dask, benchmarks (BUDGET=seconds)"
	@echo "make test-nightly   all of it, and the process tests ten times (ROUNDS=10)"
	@echo "make test-postgres  the fault stories on a Prefect server with a real PostgreSQL (apt-get install postgresql)"
	@echo "make bench          what the package costs, beside yardsticks: BENCHMARKS.md (BENCH_ARGS='--only waiting')"
	@echo "make test-scale     60 flow runs at once, two workers, PostgreSQL; one worker is killed, one stopped: 4 minutes"
	@echo "make guarantees     writes flows/GUARANTEES.md from the marks on the tests"
	@echo "make figures        runs every fault and process test once, and counts them: tests/faults/FIGURES.md"
	@echo "make lint           ruff, format check, mypy, import contracts, fresh guarantees (make format fixes)"
	@echo "make wheel-check    builds the wheel, installs it into an empty environment, runs the smallest flow"
	@echo "make clean          removes what these targets have created"

setup: $(READY)

# $(call make_venv,FOLDER): create a virtual environment with this Python; clear one made with another Python.
define make_venv
	@test -n "$(PYTHON_VERSION)" || { \
		echo "No Python 3.10 to 3.13 with venv was found. Install one, or name it: make PYTHON=/path/to/python3.12"; \
		exit 1; }
	@$(PYTHON) -c '$(RIGHT_PYTHON)' || { \
		echo "$(PYTHON) is Python $(PYTHON_VERSION), or lacks venv (on Debian: apt install python3-venv)."; \
		echo "Needed is Python 3.10 to 3.13: make PYTHON=/path/to/python3.12"; \
		exit 1; }
	@echo "Setting up $(1) with Python $(PYTHON_VERSION) (a minute or two, once)"
	@$(PYTHON) -m venv $$(ls $(1)/.ready-$(PYTHON_VERSION) >/dev/null 2>&1 || echo --clear) $(1)
endef

$(READY): pyproject.toml constraints.txt
	$(call make_venv,$(VENV))
	@$(call PIP_INSTALL,$(PY)) -c constraints.txt -e '.[testing,dev]'
	@touch $@

# The vendor's SDK has 60 dependencies with old pins, so it gets its own environment.
$(CONTRACT_READY): tests/contract/requirements.txt
	$(call make_venv,$(CONTRACT_VENV))
	@PIP_DISABLE_PIP_VERSION_CHECK=1 $(CONTRACT_VENV)/bin/python -m pip install -qq -r $<
	@touch $@

demo: $(READY)
	@$(PY) deployments/demo.py

demo-ui: $(READY)
	@$(PY) deployments/demo.py --ui

# Against the real service if the PARADIME_* variables are set, or else against the simulator.
up: $(READY)
	@$(PY) deployments/local.py up

down: $(READY)
	@$(PY) deployments/local.py down

# Three processes: many tests wait for servers and processes. tests/support/layers.py distributes the tests.
PARALLEL := -n 3
ROUNDS := 10

test: $(READY)
	@$(PY) -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-unit: $(READY)
	@$(PY) -m pytest $(PARALLEL) tests/unit $(PYTEST_ARGS)

# All tests that `make test` leaves out, part by part.
test-all: $(READY)
	@$(PY) .ci/rest.py $(if $(BUDGET),--seconds $(BUDGET))

test-nightly: test
	@$(MAKE) --no-print-directory test-all BUDGET=
	@$(MAKE) --no-print-directory test-rounds

# The process tests many times: a race shows in few rounds.
test-rounds: $(READY)
	@for round in $$(seq $(ROUNDS)); do \
		echo "== round $$round of $(ROUNDS)"; \
		$(PY) -m pytest $(PARALLEL) -q tests/processes --include full $(PYTEST_ARGS) || exit 1; \
	done

# The fault stories on a Prefect server whose database is a real PostgreSQL: there, writes to a flow run's labels race.
POSTGRES_TESTS := $(patsubst %,tests/e2e/test_%.py,label_writes faults retried_parents call_paths sweep_orphans \
	timeline watching users_flows pipeline slots)

test-postgres: $(READY)
	@$(PY) -m pytest $(PARALLEL) -rs --database postgresql $(POSTGRES_TESTS) $(PYTEST_ARGS)

# Two workers and a server on PostgreSQL: one worker is killed, one is stopped. RUNS=60 SCHEDULES=20 LIMIT=10
test-scale: $(READY)
	@$(PY) -m pytest -q --database postgresql --include exhaustive tests/scale $(PYTEST_ARGS)

# Runs all fault and process tests once and counts them: tests/faults/FIGURES.md.
figures: $(READY)
	@$(PY) tests/faults/figures.py $(PYTEST_ARGS)

# Without the vendor's SDK, two yardsticks are recorded figures.
bench: $(READY)
	@$(MAKE) --no-print-directory $(CONTRACT_READY) || echo "The vendor's SDK cannot be installed here."
	@$(PY) tests/benchmarks/bench.py $(BENCH_ARGS)

# Writes flows/GUARANTEES.md from the marks on the tests.
guarantees: $(READY)
	@$(PY) tests/support/guarantees.py

# It has its own pytest and configuration: ours needs plugins and packages that are not installed there.
test-contract: $(READY) $(CONTRACT_READY)
	@cd tests/contract && PARADIME_SIMULATOR_PYTHON="$(abspath $(PY))" \
		"$(abspath $(CONTRACT_VENV))/bin/python" -m pytest \
		$(if $(wildcard tests/contract/pytest.ini),-c pytest.ini,-c /dev/null) \
		--rootdir=. --confcutdir=. -p no:cacheprovider -ra $(PYTEST_ARGS) .

coverage: $(READY)
	@$(PY) -m coverage run -m pytest -o unit_limit_seconds=inf $(PYTEST_ARGS)
	@$(PY) -m coverage report

# Screenshots of the Prefect UI for the README, from a headless Chromium.
screenshots: $(READY)
	@$(PY) tests/ui/screenshots.py

lint: $(READY)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m deptry paradime_blocks flows/paradime_flows
	@$(VENV)/bin/lint-imports --no-cache --no-logo
	@$(PY) tests/support/guarantees.py --check

types: $(READY)
	@$(PY) -m mypy

format: $(READY)
	@$(PY) -m ruff check --fix-only -q .
	@$(PY) -m ruff format .

# Both ends of the range in pyproject.toml: the versions that pip installs today, and the lowest version of each
# direct dependency. The environments are created anew each time, since pip's choice changes from day to day. The time
# limit of unit tests does not apply here; `make test` checks it.
NEWEST_VENV := .venv-newest
LOWEST_VENV := .venv-lowest
ENDS_TESTS := tests/unit tests/client tests/simulator tests/memory tests/e2e/test_run_schedule.py \
	-o unit_limit_seconds=inf
PIP_PLAIN = PIP_DISABLE_PIP_VERSION_CHECK=1 $(1)/bin/python -m pip install -qq
.PHONY: test-newest test-lowest pins

test-newest:
	$(call make_venv,$(NEWEST_VENV))
	@$(call PIP_PLAIN,$(NEWEST_VENV)) -e '.[testing,dev]'
	@$(NEWEST_VENV)/bin/python -m pytest $(PARALLEL) $(ENDS_TESTS) $(PYTEST_ARGS)

test-lowest:
	$(call make_venv,$(LOWEST_VENV))
	@$(call PIP_PLAIN,$(LOWEST_VENV)) packaging tomli
	@$(LOWEST_VENV)/bin/python .ci/lowest.py > $(LOWEST_VENV)/lowest.txt
	@$(call PIP_PLAIN,$(LOWEST_VENV)) -c $(LOWEST_VENV)/lowest.txt -e '.[testing,dev]'
	@$(LOWEST_VENV)/bin/python -m pytest $(PARALLEL) $(ENDS_TESTS) $(PYTEST_ARGS)

# Writes constraints.txt: the newest versions that work together, for all supported Pythons.
pins: $(READY)
	@$(PY) -m uv pip compile pyproject.toml --all-extras --universal --python-version 3.10 --upgrade \
		--no-annotate --no-python-downloads --custom-compile-command "make pins" -q -o constraints.txt

# The wheel is built from the sdist, which proves that the sdist is complete.
build: $(READY)
	@rm -rf dist
	@$(PY) -m build --no-isolation --outdir dist . > $(BUILD).log || { cat $(BUILD).log; exit 1; }
	@rm -f $(BUILD).log
	@ls dist

wheel-check: build
	@$(PY) .ci/check_wheel.py contents dist
	@rm -rf $(BUILD)/wheel
	@$(PYTHON) -m venv $(BUILD)/wheel
	@$(call PIP_INSTALL,$(BUILD)/wheel/bin/python) -c constraints.txt dist/*.whl
	@cd $(BUILD) && wheel/bin/python -I ../.ci/check_wheel.py installed
	@$(call PIP_INSTALL,$(BUILD)/wheel/bin/python) -c constraints.txt "$$(ls dist/*.whl)[testing]"
	@cd $(BUILD) && wheel/bin/python -I ../.ci/check_wheel.py runs ../README.md
	@rm -rf $(BUILD)/wheel

check: test lint test-contract wheel-check

clean:
	@rm -rf $(VENV) $(CONTRACT_VENV) $(NEWEST_VENV) $(LOWEST_VENV) .demo .local $(BUILD) $(BUILD).log dist .pytest_cache .mypy_cache .ruff_cache \
		.hypothesis .coverage
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
