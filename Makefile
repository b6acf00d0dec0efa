.PHONY: demo test format lint types tests install bench soak clean

PYTHON ?= python3
BIN := .venv/bin
# What `make demo ARGS=--once` hands on.
ARGS ?=
SECONDS ?= 600

demo: install
	$(BIN)/headwater demo $(ARGS)

test: install format lint types tests

format: install
	$(BIN)/ruff format --check src tests bench

lint: install
	$(BIN)/ruff check src tests bench

types: install
	$(BIN)/mypy

# Three at a time, a file each, since most tests wait for servers; then what measures, by itself.
tests: install
	$(BIN)/pytest -rs -n 3 --dist loadfile -m "not alone"
	$(BIN)/pytest -rs -m alone $$(grep -rl --include='test_*.py' 'mark\.alone' tests)

bench: install
	$(BIN)/python -m bench.ingest $(ARGS)
	$(BIN)/python -m bench.journal $(ARGS)
	$(BIN)/python -m bench.load $(ARGS)
	$(BIN)/python -m bench.query $(ARGS)
	$(BIN)/python -m bench.pages $(ARGS)

soak: install
	$(BIN)/python -m tests.faults.soak --seconds $(SECONDS) $(ARGS)

install: .venv/.installed

.venv/.installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make PYTHON=python3.11 (Debian, Ubuntu: apt-get install python3)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv is missing. Debian, Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps -e .
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache
