# Python 3.11 or newer: the first that runs and can make virtual environments (a command of that
# name may exist and still not run). `make PYTHON=/path/to/python3.12 book` chooses another.
PROBE := import sys, ensurepip, ssl, venv; sys.exit(sys.version_info < (3, 11))
RUNS = $(shell $(1) -c '$(PROBE)' >/dev/null 2>&1 && echo $(1))
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3.14 python3 python,$(call RUNS,$(name))))
NO_PYTHON = no usable Python 3.11 or newer with venv: install one, or say make PYTHON=/path/to/python

BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
INSTALL = $(BIN)/python -m pip install --no-compile --constraint constraints.txt --editable
STUDY ?= digits

.DEFAULT_GOAL := help
.PHONY: help setup book test test-gpu check-results sweep bench clean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

setup: .venv/.installed  ## .venv with lthlib and what the book needs, at the versions of constraints.txt

.venv/.installed: pyproject.toml constraints.txt
	$(if $(and $(PYTHON),$(call RUNS,$(PYTHON))),,$(error $(NO_PYTHON)))$(PYTHON) -m venv --clear .venv
	$(INSTALL) '.[book,cluster,parquet]' && touch $@

.venv/.tested: .venv/.installed
	$(INSTALL) '.[dev,export,interop]' && touch $@

book: setup  ## compute what is missing, run the notebooks, build the book
	$(BIN)/lth book

test: .venv/.tested  ## lint, types and all tests
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

test-gpu: .venv/.tested  ## tests marked gpu, on a machine with a GPU
	$(BIN)/pytest -m gpu

check-results: setup  ## compute published studies again, compare with the record
	$(BIN)/lth check-results

sweep: setup  ## run one study: make sweep STUDY=digits
	$(BIN)/lth sweep $(STUDY)

bench: setup  ## speed and memory against reference code
	$(BIN)/python -m benchmarks

clean:  ## remove what the book is built from; runs, results and .venv stay
	rm -rf build
