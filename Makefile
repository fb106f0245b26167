# For GNU make and BSD make alike. Each target first puts into .venv what it needs:
#   make, make demo   a daemon, a client, a job, the machine's state; what sysadmd itself needs
#   make run          the daemon in the foreground; the same
#   make test         the tests (TESTS=tests/ctl: some of them); pytest and what it needs, no Rust
#   make test-long    the tests that take minutes; the same
#   make test-portable   those that rest on a way of this system's, with the way of any; the same
#   make test-freebsd    what only FreeBSD can show, in a guest under qemu, if there is one; the same
#   make bench        measures (BENCHES="dispatch ctl": some), all into bench/RESULTS.md; the same
#   make check        format, lint, types; ruff, mypy, pyright, which Rust builds where no wheel is
#   make clean        removes what the others made
# Needs Python >= 3.11 with venv and sqlite3, and openssl.

# The first of these that is new enough and whole. FreeBSD has no python3 until it is asked for.
PYTHON = python3 python3.14 python3.13 python3.12 python3.11
BIN = .venv/bin
# A file's tests run in one process: they may share accounts, pools or a daemon.
SIDE_BY_SIDE = --dist loadfile --tx '3*popen//python=$(BIN)/python -X dev'
TESTS =
BENCHES =

all: demo

demo: .venv/runtime
	$(BIN)/sysadmd demo

run: .venv/runtime
	$(BIN)/sysadmd serve

test: .venv/test
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) $(TESTS)

test-long: .venv/test
	$(BIN)/python -m pytest -q -m long $(SIDE_BY_SIDE) $(TESTS)

test-portable: .venv/test
	SYSADMD_PORTABLE=1 $(BIN)/python -m pytest -q -m portable $(SIDE_BY_SIDE) $(TESTS)

test-freebsd: .venv/test
	$(BIN)/python -m tests.freebsd

bench: .venv/test
	$(BIN)/python -m bench $(BENCHES)

check: .venv/check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis dist

# Marks of what .venv has, each with all that is above it. Anew when the dependencies change.
.venv/runtime: pyproject.toml
	@what='what sysadmd needs' extra= marks=runtime; $(INSTALL)

.venv/test: pyproject.toml
	@what='what the tests need' extra='[test]' marks='runtime test'; $(INSTALL)

.venv/check: pyproject.toml
	@what='the linters' extra='[dev]' marks='runtime test check'; $(INSTALL)

# While pip works no mark is there: what was cut off is not taken for a whole, but begun anew. If
# pip failed before it had written anything, .venv is what it was, and its marks are put back.
INSTALL = set -e; ticker=; trap '[ -z "$$ticker" ] || kill $$ticker' EXIT; \
	trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM; \
	if [ ! -e .venv/runtime ] || ! $(BIN)/python -c ''; then rm -rf .venv; $(FIND_PYTHON); fi; \
	echo "Installing $$what into .venv: half a minute or so, more where a compiler has to work."; \
	$(TICKER) & ticker=$$!; \
	[ -d .venv ] || $$python -m venv .venv; \
	mkdir -p .venv/before; \
	for mark in runtime test check; do \
		[ ! -e .venv/$$mark ] || mv .venv/$$mark .venv/before; \
	done; \
	if $(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".$$extra"; then \
		cd .venv; rm -rf before; touch $$marks; \
	else \
		status=$$?; \
		if [ -z "$$(find .venv/lib -type f ! -name '*.pyc' -newer .venv/before)" ]; then \
			mv .venv/before/* .venv 2>/dev/null || :; \
		fi; \
		rm -rf .venv/before; exit $$status; \
	fi

# A word every ten seconds, until it is killed or nobody is there to do so.
TICKER = ( trap 'kill $$!; exit' TERM; seconds=0; \
	while sleep 10 & wait $$! && kill -0 $$$$ 2>/dev/null; do \
		seconds=$$((seconds + 10)); echo "still installing ($$seconds s)"; \
	done )

FIND_PYTHON = python= problem='No Python of 3.11 or newer among: $(PYTHON). \
	On FreeBSD install python311 and py311-sqlite3, on Debian python3 and python3-venv.'; \
	for candidate in $(PYTHON); do \
		lacks=$$($$candidate -c '$(LOOK)' 2>/dev/null) || continue; \
		if [ -z "$$lacks" ]; then python=$$candidate; break; fi; \
		problem="$$candidate lacks $$lacks"; \
	done; \
	if [ -z "$$python" ]; then echo "$$problem" >&2; exit 1; fi

# Says what a Python lacks, and in which package that is; fails if it is too old.
LOOK = import sys; from importlib.util import find_spec; version = sys.version_info[:2]; \
	version >= (3, 11) or sys.exit(1); \
	lacks = []; \
	find_spec("ensurepip") or lacks.append("venv (on Debian: python%d.%d-venv)" % version); \
	find_spec("_sqlite3") or lacks.append("sqlite3 (on FreeBSD: py%d%d-sqlite3)" % version); \
	print(" and ".join(lacks))

.NOTPARALLEL:
.PHONY: all demo run test test-long test-portable test-freebsd bench check clean
