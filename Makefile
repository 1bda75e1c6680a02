# `make compare` runs the main job, `make test` the tests; both first set up .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# pytest -n: two workers are what the smallest machine has.
JOBS ?= 2

.PHONY: setup compare test lint types bench bench-boot guest picture clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml plugins/native/pyproject.toml plugins/xen/pyproject.toml plugins/lguest/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --group test --group lint \
	    -e . -e plugins/native -e plugins/xen -e plugins/lguest
	touch $@

compare: setup
	$(BIN)/pvops compare

test: setup
	$(BIN)/python -m pytest -n $(JOBS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks

# Real kernels booted here and in QEMU (Debian package qemu-system-x86), turn about; wants PVOPS_KERNELS.
bench-boot: setup
	$(BIN)/python -m benchmarks.boots

# Rebuilds the built-in guest's objects from its source; needs the gcc and binutils that build.py names.
guest: setup
	$(BIN)/python -m pvops_core.guests.build

# The README's picture; the same in every run until the guest, a backend or the table changes.
picture: setup
	$(BIN)/pvops compare --backends native,xen,lguest --svg docs/compare.svg

clean:
	rm -rf $(VENV)
