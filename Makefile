# make demo | make test | make check | make soak — each makes .venv first if it is not there.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check lint soak install

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: install
	$(BIN)/python -m jobs.demo

test: install
	$(BIN)/pytest

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

soak: install
	$(BIN)/pytest -m "soak or not soak"
