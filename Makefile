# For GNU make and BSD make alike. Needs Python >= 3.11 with venv, and openssl.
PYTHON = python3
BIN = .venv/bin
# A file's tests run in one process: they may share accounts, pools or a daemon.
SIDE_BY_SIDE = --dist loadfile --tx '3*popen//python=$(BIN)/python -X dev'

all: demo

# Made anew when the dependencies change.
.venv/made: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch .venv/made

demo: .venv/made
	$(BIN)/sysadmd demo

run: .venv/made
	$(BIN)/sysadmd serve

check: .venv/made
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright

test: .venv/made
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE)

test-long: .venv/made
	$(BIN)/python -m pytest -q -m long $(SIDE_BY_SIDE)

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis dist

.PHONY: all demo run check test test-long clean
