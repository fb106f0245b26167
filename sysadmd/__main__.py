"""The door: every program starts here. Imports upwards inside its functions only."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
# In a wheel the other rooms lie inside the package; in a checkout, beside it.
_ROOMS = _HERE / "_app" if (_HERE / "_app").is_dir() else _HERE.parent
if sys.path[:1] != [str(_ROOMS)]:
    sys.path.insert(0, str(_ROOMS))
if str(_HERE.parent) not in sys.path:
    # The keeper runs without site-packages, where a wheel has put this package.
    sys.path.append(str(_HERE.parent))


def main() -> None:
    """`sysadmd`: hands over to the keeper or to the command line."""
    from sysadmd import clean_start

    if sys.argv[1:2] == ["keeper"]:
        clean_start.as_daemon({})
        # Before anything heavy is imported: the keeper must stay small.
        from dispatcher.keeper import main as keeper_main

        sys.exit(keeper_main(sys.argv[2:]))
    if sys.argv[1:2] in (["serve"], ["bridge"]):
        # Until the daemon acts on them.
        clean_start.as_daemon(
            {signal.SIGTERM: _stop, signal.SIGINT: _stop, signal.SIGHUP: _Later()}
        )
    else:
        # While modules are loaded there is nothing to be ended, and nothing to be said.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        clean_start.as_tool()
    _need_sqlite()
    from server.cli import main as cli_main

    sys.exit(cli_main())


def _need_sqlite() -> None:
    """On FreeBSD it is a package of its own, which pip can't bring."""
    try:
        importlib.import_module("sqlite3")
    except ImportError as error:
        version = f"{sys.version_info.major}{sys.version_info.minor}"
        print(
            "sysadmd: Python's sqlite3 module is missing: on FreeBSD install the package"
            f" py{version}-sqlite3 ({error})",
            file=sys.stderr,
        )
        sys.exit(1)


class _Later:
    """Remembers a SIGHUP for the daemon, which may have read its configuration already."""

    came = False

    def __call__(self, number: int, frame: object) -> None:
        self.came = True


def _stop(number: int, frame: object) -> None:
    # No exception: what is imported meanwhile may swallow it. Nothing is served yet; what is
    # half done is as after a kill.
    os._exit(0)


if __name__ == "__main__":
    main()
