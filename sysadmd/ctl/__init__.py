"""`sysadmctl`, the admin's client: a command line on the client library."""

from sysadmd.ctl.app import main

__all__ = ["main"]
