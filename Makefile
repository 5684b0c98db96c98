# Two commands matter: `make demo` and `make test`. Both set up what is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests that run side by side; many of them wait for servers rather than compute.
WORKERS ?= 3

.PHONY: help setup demo up stack-env stack-up stack-down test lint types format docs bench lock clean test-faults

help:  ## Say what there is to make
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP)  ## Make .venv with everything, pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## Run levels 1 to 4 on a year of real flights under a real scheduler
	$(BIN)/python scripts/demo.py

up: $(STAMP)  ## Keep Airflow's UI running on what the demo left, until Ctrl-C
	$(BIN)/python scripts/demo.py --up

# The stack needs Docker with Compose, and no virtual environment.
stack-env:  ## Write what is missing in .env: ports, users, random passwords
	$(PYTHON) scripts/stack.py env

stack-up: stack-env  ## Build the platform of docker-compose.yml, start it, wait until it is well
	$(PYTHON) scripts/stack.py up

stack-down:  ## Stop it; its data stays
	$(PYTHON) scripts/stack.py down

test: $(STAMP)  ## Run the whole test suite
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder

test-faults: $(STAMP)  ## Kill every part of Airflow at every stage of the loop; write the result into the docs
	$(BIN)/python -m pytest -m faults --capture=no tests/system/test_faults_scheduler.py

lint: $(STAMP)  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## Check types
	$(BIN)/mypy

format: $(STAMP)  ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)  ## Build the documentation; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: $(STAMP)  ## Print the figures the project promises
	$(BIN)/python benchmarks/run.py

lock: $(STAMP)  ## Resolve constraints.txt anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 pyproject.toml --extra dev \
	  --no-header --no-annotate --no-emit-index-url --upgrade --output-file constraints.txt

clean:  ## Remove what was made here
	rm -rf $(VENV) .demo .build dist docs/_build .mypy_cache .ruff_cache .pytest_cache
