# `make demo` and `make test` each set up everything they need, on a fresh Debian or Ubuntu too.
# PYTHON=python3.12 make test    chooses the interpreter (3.11 or newer) that .venv is made with.

SHELL := bash
.DELETE_ON_ERROR:
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export QT_API ?= pyqt5
# Some images set it. Then every process would compile all that it loads anew: ten seconds each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help set-up demo test lint format contracts types unit wheel clean

help:
	@echo "make demo    segment a sample scan; with a display the viewer stays open, without one see demo/"
	@echo "make test    lint, import contracts, types, tests"
	@echo "make format  put every file into the project's format"
	@echo "make wheel   build the wheel into dist/"

set-up:
	@scripts/system-packages
	@scripts/set-up

demo: set-up
ifeq ($(DISPLAY)$(filter Darwin,$(shell uname -s)),)
	scripts/with-display sparsetok demo --out demo
else
	sparsetok demo
endif

test: lint contracts
	@$(MAKE) --no-print-directory -j2 types unit

lint: set-up
	ruff check .
	ruff format --check .

format: set-up
	ruff check --fix .
	ruff format .

contracts: set-up
	lint-imports --no-logo

types: set-up
	mypy

unit: set-up
	scripts/run-tests

wheel: set-up
	python -m build --wheel --outdir dist

clean:
	rm -rf .venv build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
