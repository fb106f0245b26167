"""What the system's log is told of logins and of the trail, as lines. Pure.

Failed and accepted logins are told in sshd's words. What somebody
else has chosen can be taken for no other line, nor for an address: names have neither blanks
nor anything else that is not plain, and the address is what such a line ends with.
"""

from __future__ import annotations

import string
from typing import Final

from sysadmd.text import printable

# How somebody has logged in, or tried to.
PASSWORD: Final = "password"  # noqa: S105 - a word
KEY: Final = "publickey"
# Characters of names that are written as they are.
_PLAIN: Final = frozenset(string.ascii_letters + string.digits + "._@+$-/")
# Characters of a name: more than any account has, and a line is cut behind the address only.
NAME_LENGTH: Final = 64
# Of a line: a packet has 1024 bytes at most, with its head. Source: RFC 3164, 4.1.
LINE_LENGTH: Final = 960


def failed(name: str, address: str, port: int | None, how: str = PASSWORD) -> str:
    """A password or proof was wrong, or its account may not log in."""
    return f"Failed {how} for {_name(name)} from {_where(address, port)}"


def accepted(name: str, address: str, port: int | None, how: str = PASSWORD) -> str:
    """A password or proof was right."""
    return f"Accepted {how} for {_name(name)} from {_where(address, port)}"


def blocked(address: str, port: int | None) -> str:
    """No more passwords are taken from there for a time."""
    return f"Too many failed passwords from {_where(address, port)}"


def entry(account: str, address: str, action: str) -> str:
    """An entry of the trail."""
    text = f"audit: {_name(account)}@{_where(address, None)}: {printable(action)}"
    # Others than ASCII, which not every system's log takes, are escapes, too.
    return text.encode("ascii", "backslashreplace")[:LINE_LENGTH].decode()


def _name(name: str) -> str:
    return "".join(c if c in _PLAIN else f"\\x{ord(c):02x}" for c in name)[:NAME_LENGTH]


def _where(address: str, port: int | None) -> str:
    # Which interface an address is on is nothing to a filter.
    host = address.partition("%")[0]
    return host if port is None else f"{host} port {port}"
