# Everything runs in .venv, which scripts/install.sh makes for the CPU. `make` alone lists the targets.

PYTHON ?= python3
export PYTHON
BIN := .venv/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
	--overrides requirements/overrides.txt pyproject.toml requirements/more.in

.DEFAULT_GOAL := help
.PHONY: help quickstart install check fmt test soak lock clean

help: ## list these targets
	@awk -F ': .*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

quickstart: ## install what the loop needs, then run it on a toy task; options in ARGS="…"
	@scripts/install.sh quickstart
	$(BIN)/ochat quickstart $(ARGS)

install: ## install everything, development tools too
	@scripts/install.sh dev

check: install ## lint, format, types, import direction
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fmt: install ## format, and mend what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test: check ## install, check, then the tests; options of pytest in ARGS="…"
	$(BIN)/pytest $(ARGS)

soak: install ## the slow tests
	$(BIN)/pytest -m soak $(ARGS)

lock: install ## remake the locks after a change of pyproject.toml; newest versions with ARGS=--upgrade
	$(COMPILE) $(ARGS) --extra train --extra serve --extra eval --extra ui --output-file requirements/quickstart.txt
	$(COMPILE) $(ARGS) --extra train --extra serve --extra eval --extra ui --extra data --extra tensorboard --extra dev --constraints requirements/quickstart.txt --output-file requirements/dev.txt

clean: ## remove the environment, caches and runs/
	rm -rf .venv .venv.unfinished runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
