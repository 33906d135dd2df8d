# The two commands of the README, and what a maintainer runs. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV ?= .venv
BIN := $(VENV)/bin
# The first interpreter that the project supports; say PYTHON=... for another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && echo $$p && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Test files run side by side in so many processes, each with servers of its own.
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$(( n > 4 ? 4 : n )))
SEED ?= 1
RUNS ?= 3
# Tests and demo use their own threads; a busy machine is not made busier.
export OMP_NUM_THREADS ?= 1

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Bakeoff needs Python 3.11 to 3.14; none was found. Say PYTHON=/path/to/python."; exit 2; }
	$(PYTHON) -m venv $(VENV)

# One install for both: a constraints file holds every version.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo

.PHONY: install weights demo newcomer test test-unit test-api test-schema test-browser test-docs test-deploy test-faults docs pictures bench audit
.PHONY: lint check format clean
install: $(VENV)/.demo ## Install Bakeoff and the engines of the demo into .venv

weights: $(VENV)/.demo ## Fetch and verify the weights of the demo profile
	$(BIN)/bakeoff models pull --profile demo

demo: weights ## Install, fetch weights, start everything, judge 36 images and 10 recordings, stop (SEED=1)
	$(BIN)/python -m benchmarks.demo --seed $(SEED)

test: $(VENV)/.dev ## Unit and integration tests, with real servers, workers and weights
	$(BIN)/bakeoff models pull --profile demo
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-unit: $(VENV)/.dev ## The tests that start no server
	$(BIN)/python -m pytest tests/unit

test-api: $(VENV)/.dev ## The HTTP API: schemathesis with every check, security, clients (BAKEOFF_API_EXAMPLES, _SEED)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "api or not api" tests/unit/test_api_*.py \
		tests/unit/test_client_core.py tests/integration/test_api_*.py tests/integration/test_client_package.py \
		tests/integration/test_celery_by_name.py tests/integration/test_observing.py

test-schema: $(VENV)/.dev ## schemathesis alone, over the whole API with every check (BAKEOFF_API_EXAMPLES, _SEED)
	$(BIN)/python -m pytest -m api tests/integration/test_api_schema.py

test-browser: $(VENV)/.dev ## The pages and Flower in a real Chromium (BAKEOFF_BROWSER, or one on the PATH)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m browser tests/browser

pictures: $(VENV)/.dev weights ## The pictures of README and docs, from a run of the demo's engines
	$(BIN)/python -m benchmarks.pictures

docs: $(VENV)/.dev ## The documentation as a site in site/, strict: the reference is made from the code
	$(BIN)/python -m docs.generator
	$(BIN)/python -m sphinx -E -W --keep-going -q -b html docs site

test-docs: $(VENV)/.dev ## Every code block of the documentation, the quickstart, the site
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m docs tests/docs

test-deploy: $(VENV)/.dev ## Container commands, the wheel, an upgrade across versions, backup and restore
	$(BIN)/bakeoff models pull --profile demo
	$(BIN)/python -m pytest -m deploy

newcomer: ## What somebody new does, timed: install, up, ask in five ways, read by SQL, look in a Chromium
	@begun=$$(date +%s); $(MAKE) --no-print-directory weights && echo "Installed in $$(( $$(date +%s) - begun )) s"
	$(PIP) install --quiet -c constraints.txt openai playwright pytest pytest-timeout
	$(BIN)/python -m pytest -s -m newcomer tests/browser/test_newcomer.py

test-faults: $(VENV)/.dev ## Kill everything there is under load (BAKEOFF_FAULT_SEED, _WAVE, _REPORT=FILE)
	$(BIN)/python -m pytest tests/faults -m "faults or faults_smoke"

bench: $(VENV)/.dev ## Every benchmark, with figures and plots in benchmarks/results (RUNS=3)
	$(BIN)/python -m benchmarks.overhead --runs $(RUNS) --seconds 1.5
	for name in latency workers batching scale; do \
		$(BIN)/python -m benchmarks.$$name --runs $(RUNS) || exit 1; done

lint: $(VENV)/.dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test ## What must be green at every commit: lint, types, schema against migrations, tests

format: $(VENV)/.dev ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

audit: ## Look every pinned version up among known vulnerabilities (needs their database; not in CI)
	@test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && .audit/bin/pip install --quiet 'pip-audit>=2.10,<3'; }
	@.audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off \
		|| { echo "Vulnerable, or not every package could be looked up: the lines above say which."; exit 1; }

clean: ## Remove the virtual environment and caches; data in .bakeoff stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist site docs/reference docs/repository
