"""`sysadmctl`, the admin's client: a command line on the client library."""

import signal
import sys


def main() -> None:
    """Run `sysadmctl`; exits."""
    # While modules are still loaded there is nothing to be ended, and nothing to be said.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sysadmd.ctl.app import run

    sys.exit(run(sys.argv[1:]))
