# slotdeck: `make demo` shows it, `make test` checks it. Both make their own environment.
#
#   TORCH_INDEX   where a CPU-only build of PyTorch is to be had: the URL of a package index, or a
#                 directory with the wheel. Without it pip takes the build of its default index,
#                 which on x86-64 Linux brings CUDA libraries of several GB.
#   PYTHON        the Python (3.11 or newer) to make the environment with.

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCK := -c constraints.txt

ifneq ($(TORCH_INDEX),)
TORCH_FROM := $(if $(findstring ://,$(TORCH_INDEX)),--extra-index-url,--find-links) $(TORCH_INDEX)
endif

.PHONY: demo test test-numa test-engines check format bench screenshots clean

demo: $(VENV)/.torch
	@$(BIN)/slotdeck demo

test: check
	$(BIN)/pytest

# Boots virtual machines of several shapes; needs QEMU (apt-get install qemu-system-x86), and once
# fetches a kernel of Debian's into the cache (70 MB). Says what is missing, and skips.
test-numa: $(VENV)/.dev
	SLOTDECK_GUESTS=1 $(BIN)/pytest tests/numa

# Starts the real engines that `slotdeck engines install` has put into your data folder, each
# pinned to a core; what is not installed is skipped. Minutes, on a busy machine many.
test-engines: $(VENV)/.dev
	SLOTDECK_ENGINES=1 $(BIN)/pytest -s tests/engines

# What needs no running: style, types, the directions of imports.
check: $(VENV)/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(VENV)/.dev
	PYTHONPATH=. $(BIN)/python benchmarks/worker.py
	PYTHONPATH=. $(BIN)/python benchmarks/loadgen.py
	PYTHONPATH=. $(BIN)/python benchmarks/topology.py
	PYTHONPATH=. $(BIN)/python benchmarks/planner.py
	PYTHONPATH=. $(BIN)/python benchmarks/ab_simulation.py
	PYTHONPATH=. $(BIN)/python benchmarks/engines.py
	PYTHONPATH=. $(BIN)/python benchmarks/launch.py
	PYTHONPATH=. $(BIN)/python benchmarks/service_cost.py
	PYTHONPATH=. $(BIN)/python benchmarks/soak.py
	PYTHONPATH=. $(BIN)/python benchmarks/panel.py

# The README's pictures, drawn by the panel itself on a made-up machine.
screenshots: $(VENV)/.dev
	PYTHONPATH=. $(BIN)/python docs/screenshots.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit("slotdeck needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else None'
	@# Some distributions ship Python without venv's pip; virtualenv carries its own.
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  $(PYTHON) -m pip install --quiet --target $(VENV)-tools $(LOCK) virtualenv && \
	  PYTHONPATH=$(VENV)-tools $(PYTHON) -m virtualenv --quiet $(VENV) && rm -rf $(VENV)-tools; }
	touch $@

$(VENV)/.torch: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) install --quiet $(LOCK) $(TORCH_FROM) -e '.[torch]'
	touch $@

$(VENV)/.dev: $(VENV)/.torch
	$(PIP) install --quiet $(LOCK) -e '.[torch,dev]'
	touch $@
