# FlowChain. Two commands are enough to begin with: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPILED := $(VENV)/.compiled

.DEFAULT_GOAL := help
.PHONY: help install install-bench demo up down status chaos test test-long test-chaos test-fast lint contract lock clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) $(COMPILED) ## make .venv with the pinned dependencies, compile the hot path (the other targets do so by themselves)

$(STAMP): constraints.txt pyproject.toml sdk/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "FlowChain needs Python 3.11 or newer; PYTHON=... names one")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing pinned dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e ./sdk -e .
	@touch $(STAMP)

$(COMPILED): $(STAMP) infra/compiling.py $(wildcard streams/*.py)
	@echo "compiling the hot path of ingest ..."
	@$(BIN)/python -m infra.compiling
	@touch $(COMPILED)

install-bench: install ## add what the benchmarks measure beside, and what draws them (OpenTelemetry, matplotlib)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints-bench.txt

demo: install ## fourteen services on real engines, one breaks: what FlowChain says about it
	@$(BIN)/flowchain demo

up: install ## start Kafka, PostgreSQL, ClickHouse and the workers, and leave them running
	@$(BIN)/flowchain up

down: install ## stop them; their data stays
	@$(BIN)/flowchain down

status: install ## show what runs, how far it is, and what lags
	@$(BIN)/flowchain status

chaos: install ## kill, pause and restart everything under load for ten minutes, then verify that nothing is lost or twice
	@$(BIN)/flowchain chaos --seed 1

test: install ## all tests: those without engines, those on engines, those of the whole system, each by two processes
	@$(BIN)/pytest -n 2 --dist loadfile tests/contract tests/property tests/unit
	@$(BIN)/pytest -n 2 --dist loadfile --durations=10 tests/integration
	@$(BIN)/pytest -n 2 --dist loadfile --durations=5 tests/e2e

test-long: install ## what takes minutes: a real system's traces, benches of whole pipelines, examples in other languages (eight minutes)
	@$(BIN)/pytest tests/long

test-chaos: install ## a short `make chaos`, as a test (five minutes)
	@$(BIN)/pytest tests/chaos

test-fast: install ## the tests that need no engine
	@$(BIN)/pytest tests/unit tests/contract

lint: install ## style, types, the import rule, the contract
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --config pyproject.toml
	@$(BIN)/python -m schemas.generate --check
	@$(BIN)/python -m connectors.http.document --check

contract: install ## write the generated JSON Schemas, the AsyncAPI and the OpenAPI document anew
	@$(BIN)/python -m schemas.generate
	@$(BIN)/python -m connectors.http.document

lock: install ## resolve the dependencies anew into constraints.txt (needs uv on PATH)
	@uv pip compile pyproject.toml --extra devstack --extra dev --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -o constraints.txt
	@uv pip compile pyproject.toml --extra bench --constraint constraints.txt --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -o constraints-bench.txt

clean: ## remove what the targets made, the local stack's data included
	@rm -rf $(VENV) .flowchain .mypy_cache .ruff_cache .pytest_cache
	@rm -f flowchain__mypyc*.so streams/*.so
