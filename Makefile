# `make demo` and `make test` set everything up themselves; `make help` lists the targets.
SHELL := /bin/bash
BIN := .venv/bin
REGION := configs/regions/synthetic_small.yml
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-postgres lint format lock bench clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## GMT, Python 3.11 in .venv and the locked packages
	@scripts/setup.sh

demo: setup ## train the quick configuration, evaluate the Thwaites transect, make the figures
	@rm -rf saved_models/quick
	@$(BIN)/python train.py --config configs/quick.yml --region $(REGION) --out saved_models/quick
	@$(BIN)/python evaluate.py --transect thwaites --model saved_models/quick --region $(REGION) --out outputs/demo

test: lint ## style, types and the test suite, but for what takes long
	@$(BIN)/python -m pytest -q --durations=15 -m "not slow"

test-all: lint ## the same with servers, browser and long runs
	@scripts/setup.sh --postgres
	-@scripts/setup.sh --browser # without it one test is left out, and says so
	@$(BIN)/python -m pytest -q --durations=25

test-postgres: setup ## the tests with a PostgreSQL server, which they start themselves
	@scripts/setup.sh --postgres
	@$(BIN)/python -m pytest -q -m postgres

lint: setup ## style and types only
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "these files want make format:"; $(BIN)/ruff format --check .; }
	@$(BIN)/mypy

format: setup ## put the code in order
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

lock: ## remake requirements.txt from pyproject.toml; OPTIONS=--upgrade takes newer versions
	@uv=$$(scripts/setup.sh --uv) && "$$uv" pip compile --quiet pyproject.toml --extra dev --python-version 3.11 \
	    --no-annotate --custom-compile-command "make lock" --output-file requirements.txt $(OPTIONS)

bench: setup ## measure the speed of this machine
	@$(BIN)/deepbedmap bench

clean: ## remove caches, outputs and the demo's model; .venv and runs stay
	rm -rf outputs saved_models/quick build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find deepbedmap_tf tests -name __pycache__ -type d -prune -exec rm -rf {} +
