# `make compare` runs the main job, `make test` the tests; both first set up .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# pytest -n: two workers are what the smallest machine has. They take from each other's rest, so none ends long before.
JOBS ?= 2

.PHONY: setup compare test lint types bench bench-boot bench-growth mutate soak wheels guest picture reference docs clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml plugins/native/pyproject.toml plugins/xen/pyproject.toml plugins/lguest/pyproject.toml
	@echo "Setting up $(VENV) with $$($(PYTHON) --version): some minutes, once"
	@echo "1/3 an empty environment"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@echo "2/3 pvops, its libraries and tools (about 250 MB to fetch)"
	@$(BIN)/python -m pip install --progress-bar on --group test --group lint \
	    -e '.[report]' -e plugins/native -e plugins/xen -e plugins/lguest
	@echo "3/3 compiling"
	@$(BIN)/python -m compileall -q pvops_core plugins
	@touch $@
	@echo "Ready: $(BIN)/pvops --help"

compare: setup
	$(BIN)/pvops compare

test: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m benchmarks

# Real kernels booted here and in QEMU (Debian package qemu-system-x86), turn about; wants PVOPS_KERNELS.
bench-growth: setup
	$(BIN)/python -m benchmarks.growth

bench-boot: setup
	$(BIN)/python -m benchmarks.boots

# Small faults in what patches, switches and is an op: do the tests see them? Samples; half an hour and more.
mutate: $(VENV)/.mutation
	nice -n 19 $(BIN)/python -m mutation

$(VENV)/.mutation: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --group mutation
	touch $@

# Attackers of every kind for some minutes, from another seed each time one is given: `make soak SEED=7 MINUTES=60`,
# or so many rounds of each: `make soak ROUNDS=1`.
SEED ?= 0
MINUTES ?= 5
soak: setup
	nice -n 19 $(BIN)/python -m soak $(if $(ROUNDS),--rounds $(ROUNDS),--minutes $(MINUTES)) --seed $(SEED)

# Wheels of all distributions, in dist/, and everything used from an empty environment that they are installed in.
wheels: setup
	.ci/wheels

# Rebuilds the objects of the built-in guest and the workloads from their source; needs the gcc and binutils of toolchain.py.
guest: setup
	$(BIN)/python -m pvops_core.guests.builtin.build
	$(BIN)/python -m pvops_core.guests.workload.build

# The pictures: the README's, of a run, the same in every run until the guest, a backend or the table changes; and those
# of the pages.
picture: setup
	$(BIN)/pvops compare --backends native,xen,lguest --svg docs/compare.svg
	$(BIN)/python docs/tools/pictures.py docs/explanation/pictures

# The pages that are made of what they describe; tests fail when one is out of date.
reference: setup
	$(BIN)/python -m pvops_core.hookspecs.reference > docs/reference/hooks.md
	$(BIN)/typer pvops_core.cli utils docs --name pvops --title Commands --output docs/reference/commands.md
	$(BIN)/python docs/tools/schema.py
	$(BIN)/python docs/tools/fields.py > docs/reference/json.md
	$(BIN)/python -m pvops_xen.testing.rules.page > docs/reference/xen-rules.md
	$(BIN)/python docs/tools/settings.py > docs/reference/settings.md
	$(BIN)/python docs/tools/events.py > docs/reference/events.md
	$(BIN)/python docs/tools/plugin.py > docs/reference/pytest-plugin.md
	$(BIN)/python -m tests.testing.plantedtable > docs/reference/planted-bugs.md

# The site in docs/_build/html and the man page in docs/_build/man; a warning is an error.
docs: $(VENV)/.docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder html docs docs/_build/html
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --builder man docs docs/_build/man

$(VENV)/.docs: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --group docs
	touch $@

clean:
	rm -rf $(VENV) .mutation docs/_build
