# The two commands of the README, and what the gate runs. GNU make, Python >= 3.11.
#   make reproduce   environment, data, then every quick study and its report
#   make setup       environment and data
#   make test        environment and every test
# A CPU-only build of torch:  make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup reproduce test sanitize lint types contracts check mutants bench clean
help:
	@sed -n 's/^#   //p' Makefile

$(VENV)/.package: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "expected Python >= 3.11, got $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "expected Python with venv; on Debian: apt install python3-venv"; exit 2; }
	$(PIP) install -q -c constraints.txt torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.developer: $(VENV)/.package
	$(PIP) install -q -c constraints.txt -e '.[test,lint]'
	@touch $@

setup: $(VENV)/.package
	$(BIN)/normlab data fashion-mnist

reproduce: setup
	$(BIN)/normlab study run all

test: $(VENV)/.developer
	$(BIN)/normlab data fashion-mnist
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The kernels with every access and every overflow checked; torch itself is not, and leaks what it keeps to the end.
sanitize: export NORMLAB_KERNELS = native
sanitize: export NORMLAB_KERNELS_CACHE = $(CURDIR)/.pytest_cache/sanitized
sanitize: export NORMLAB_KERNELS_FLAGS = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
sanitize: $(VENV)/.developer
	$(BIN)/python -c 'from normlab.kernels import build, serving; build.plan(serving.SOURCES).make()'
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 NORMLAB_TEST_EXAMPLES=60 \
	$(BIN)/python -m pytest -q -k "not compile and not reference" tests/kernels/test_kernels_stage.py tests/kernels/test_kernels_ops.py \
	tests/kernels/test_kernels_chain.py tests/kernels/test_kernels_loss.py

lint: $(VENV)/.developer
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.developer
	$(BIN)/mypy

contracts: $(VENV)/.developer
	$(BIN)/lint-imports

check: lint types contracts

mutants: $(VENV)/.developer
	$(BIN)/python tests/mutants.py src/normlab/norms/batch.py src/normlab/norms/standardize.py src/normlab/norms/channels.py -- tests/norms

# What the allocator would give back at every step it takes as fresh pages again, from whichever arm comes next.
HELD := MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=2147483648 MALLOC_TOP_PAD_=268435456

bench: $(VENV)/.package
	$(HELD) $(BIN)/python -m normlab.bench.batch_norm
	$(BIN)/python -m normlab.bench.trials
	$(BIN)/normlab bench train

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
