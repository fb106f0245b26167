"""The C programs of bench/, compiled where that can be done, or why it can't."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

TLS = ("-lssl", "-lcrypto")
_HERE = Path(__file__).parent


def compiled(name: str, room: Path, libraries: Sequence[str] = ()) -> Path | None:
    """The program made of NAME.c, in room. None: it can't be built here, and it is said why.

    libraries: TLS, for what needs OpenSSL.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        print(f"no {name}.c: there is no compiler (cc)")
        return None
    program = room / name
    built = subprocess.run(
        [compiler, "-O2", "-pthread", "-o", program, _HERE / f"{name}.c", *libraries],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        first = "".join(built.stderr.strip().splitlines()[:1])
        lacks = "OpenSSL's headers are missing (libssl-dev), or else: " if libraries else ""
        print(f"no {name}.c: {lacks}{first}")
        return None
    return program
