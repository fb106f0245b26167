"""What every test's daemon is held to when the test is over, whatever the test looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

from tests.kit.processes import Program
from tests.kit.state_file import ended_twice


@contextlib.contextmanager
def checked(program: Program, state_dir: Path, error: BaseException | None) -> Generator[None]:
    """Around its end: it must have lived until then, and told every job's end once.

    error: of the test itself; it is the one to be seen, and is only added to. Who means the
    daemon to end calls `wait`, `stop` or `kill`. Raises: AssertionError.
    """
    died = None
    try:
        program.check_alive()
    except AssertionError as trouble:
        died = trouble
    yield
    if error is not None:
        if died is not None:
            error.add_note(str(died))
        return
    if died is not None:
        raise died
    twice = ended_twice(state_dir)
    assert not twice, f"jobs that were told as finished more than once: {twice}"
