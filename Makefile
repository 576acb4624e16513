# make demo, make test: each does all of its own set-up on a fresh machine.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Flower must neither phone home nor download anything at run time.
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help demo test test-federation soak fuzz lint bench clean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# PyTorch comes first and by its exact version: that takes the CPU build where the index offers one.
$(VENV)/run.stamp: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/python -m fedtp.streaming.fast
	@touch $@

$(VENV)/bench.stamp: $(VENV)/run.stamp
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	@touch $@

demo: $(VENV)/run.stamp  ## Simulate the drifting fleet `digits-rotating` and write its report
	$(BIN)/fedtp simulate digits-rotating --out runs/demo --force

# One thread for each worker, or they wait for each other; one worker more than cores, since some tests wait for servers.
test: export OMP_NUM_THREADS := 1
test: export OPENBLAS_NUM_THREADS := 1
test: lint  ## Run the whole test suite, with lint and type check
	$(BIN)/pytest -n 3 --dist worksteal

test-federation: $(VENV)/dev.stamp  ## Test real federations for minutes: what dies, and goes on
	$(BIN)/pytest -m federation tests/integration

soak: $(VENV)/dev.stamp  ## Run a real federation of eight devices for 44 rounds, and see that nothing grows
	$(BIN)/pytest -m soak -s tests/integration

fuzz: export OMP_NUM_THREADS := 1
fuzz: $(VENV)/dev.stamp  ## Feed twenty thousand broken inputs to all that reads from outside
	$(BIN)/pytest tests/fuzz --hypothesis-profile fuzz -n 2

lint: $(VENV)/dev.stamp  ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Quick, and on data that every installation has; the other benchmarks are run by hand. What is measured here stays apart
# from the results that are kept in benchmarks/results.
bench: $(VENV)/bench.stamp  ## Measure how fast a fleet is simulated, and tpSGD beside its peers on small data
	FEDTP_RESULTS=runs/bench $(BIN)/python benchmarks/fleet_speed.py rates --repeats 1
	$(BIN)/python benchmarks/peers.py --quick

clean:  ## Remove what the other targets made
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
