# `make demo` and `make test` set everything up in .venv on first use; nothing else is touched.
#   TORCH   which torch to install, e.g. TORCH="torch>=2.11"
#   PYTHON  the Python (>= 3.11) that .venv is made of
#   WORKERS processes that run the tests

PYTHON  ?= python3
TORCH   ?= torch==2.13.0
WORKERS ?= 2
VENV    := .venv
BIN     := $(VENV)/bin
RUNS    := runs/demo

# A change of any of these rebuilds the extension; Python files are used in place.
SOURCES := pyproject.toml $(shell find csrc -type f -not -name '*.pyc')
CPP     := $(shell find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.PHONY: help setup demo test lint format bench clean

help:
	@echo "make demo    train supervised and MUSCLE on 20 labeled digits and compare them"
	@echo "make test    run the tests"
	@echo "make lint    check style      make format   fix it"
	@echo "make bench   time every op against eager PyTorch"
	@echo "make setup   only set up .venv         make clean   remove it and every build"

setup: $(VENV)/.built

$(VENV)/.torch: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fastssl needs Python >= 3.11, but $(PYTHON) is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)" scikit-build-core cmake ninja
	@touch $@

$(VENV)/.built: $(VENV)/.torch $(SOURCES)
	$(BIN)/python -m pip install --quiet --no-build-isolation --editable ".[test,lint]"
	@$(BIN)/python -c 'import fastssl; b = fastssl.build_info(); print("fastssl built", "with CUDA " + b["cuda"] + " kernels for " + b["architectures"] if b["cuda"] else "for the CPU only: no nvcc found")'
	@touch $@

demo: $(VENV)/.built
	$(BIN)/fastssl train supervised --data digits --labels 20 --seed 0 --out $(RUNS)/supervised --overwrite
	$(BIN)/fastssl train muscle --data digits --labels 20 --seed 0 --out $(RUNS)/muscle --overwrite
	$(BIN)/fastssl report $(RUNS)/supervised $(RUNS)/muscle --out $(RUNS)/report.html --out $(RUNS)/curves.png

test: $(VENV)/.built
	$(BIN)/python -m pytest -q --durations=20 -n $(WORKERS) --dist loadfile

lint: $(VENV)/.built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP)

format: $(VENV)/.built
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

bench: $(VENV)/.built
	$(BIN)/fastssl bench

clean:
	rm -rf $(VENV) build dist
