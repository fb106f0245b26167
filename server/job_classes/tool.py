"""Programs that are asked something: what they say, within bounds. No class, no job."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sysadmd.errors import ToolFailed
from sysadmd.machine import COMMAND_PATH
from sysadmd.text import printable

# Of what a program says, bytes: some catalogue's names are 2 MB.
MOST: Final = 16 * 1024 * 1024
_PORTION: Final = 64 * 1024
# Between two looks whether it has ended though others keep its output open, s.
_LOOK: Final = 0.1
# Of an error, characters.
_REASON: Final = 500


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """code: as subprocess has it. output, errors: what was said on each, as text."""

    code: int
    output: str
    errors: str

    @property
    def reason(self) -> str:
        """What it complains of, in one line."""
        text = " ".join((self.errors.strip() or self.output.strip()).split())
        return printable(text)[:_REASON] or f"exit status {self.code}"


def ask(argv: Sequence[str], timeout: float) -> ToolAnswer:
    """Run it to its end; for a thread. Raises: ToolFailed."""
    name = argv[0].rpartition("/")[2]
    env = {"PATH": COMMAND_PATH, "LANG": "C.UTF-8", "HOME": "/", "PAGER": "cat"}
    try:
        process = subprocess.Popen(
            argv,
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise ToolFailed(f"{name} can't be run: {error.strerror}") from error
    with process:
        try:
            until = time.monotonic() + timeout
            output, errors = _listen(process, until)
            code = process.wait(max(0.0, until - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            raise ToolFailed(
                f"{name} has not answered within {timeout:g} s (classes.query_timeout)"
            ) from error
        except OverflowError as error:
            raise ToolFailed(f"{name} says more than {MOST} bytes; ask for less") from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    return ToolAnswer(
        code, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace")
    )


def _listen(process: subprocess.Popen[bytes], until: float) -> tuple[bytearray, bytearray]:
    """Both of its outputs, until it has ended. Raises: TimeoutError, OverflowError."""
    assert process.stdout is not None
    assert process.stderr is not None
    said = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in said:
            selector.register(stream, selectors.EVENT_READ, said[stream])
        while selector.get_map():
            ready = selector.select(_LOOK)
            # What it has left running may keep them open for ever.
            if not ready and process.poll() is not None:
                break
            if time.monotonic() > until:
                raise TimeoutError
            for key, _ in ready:
                data = os.read(key.fd, _PORTION)
                if not data:
                    selector.unregister(key.fileobj)
                key.data.extend(data)
            if sum(map(len, said.values())) > MOST:
                raise OverflowError
    return said[process.stdout], said[process.stderr]
