"""What may be asked for: an order for a job, and its limits. No table, no process, no wire."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dispatcher.commandline import Spec, check_text
from sysadmd.errors import BadRequest
from sysadmd.json_size import json_size

# Limits of one job. Source: the contract of the wire.
MAX_COMMANDS: Final = 1000
MAX_TEXT: Final = 64 * 1024
MAX_ID: Final = 256
# Beyond the contract: what posix_spawn can hand on in any case (ARG_MAX is 256 KiB on FreeBSD,
# for arguments and environment together), and a year, as for every other span of time.
MAX_ENV: Final = 64 * 1024
MAX_KEY: Final = 256
MAX_PATH: Final = 1023
MAX_TIMEOUT: Final = 31_536_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The class that queues a job, and what it wants of it.

    system: its name, as events have it. fields: what is told of the job from the first; a
    report adds to them (dispatcher/reports.py). setting: environment of its commands that is no
    secret. channel: the variable that names to a command the socket for its events; None: it
    has none. log_field: under which events have the present command's output; None: nowhere.
    """

    system: str
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    setting: Mapping[str, str] = field(default_factory=dict[str, str])
    channel: str | None = None
    log_field: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A job that is asked for.

    id: None: a new one is made up. queue: None: it waits for nobody. timeout: seconds from the
    start of the job. key: the same key and commands again mean the same job, even when it has
    finished. env: secret. origin: None: no class has queued it. account: who asks for it.
    """

    commands: tuple[Spec, ...]
    id: str | None = None
    queue: str | None = None
    timeout: float | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cwd: str | None = None
    key: str | None = None
    origin: Origin | None = None
    account: str | None = None


def new_id() -> str:
    """An id for a job that came without. Classes make theirs as the original did, in braces."""
    return str(uuid.uuid4())


def check(order: Order) -> None:
    """Raises: BadRequest, naming field and allowed range, if the order can't be taken."""
    if order.id is not None:
        _check_name("id", order.id, MAX_ID)
    if order.key is not None:
        _check_name("key", order.key, MAX_KEY)
    if len(order.commands) > MAX_COMMANDS:
        raise BadRequest(
            f"commands has {len(order.commands)} entries; allowed: at most {MAX_COMMANDS} a job"
        )
    size = 0
    for number, spec in enumerate(order.commands):
        if not spec.argv:
            raise BadRequest(f"commands[{number}] is empty; allowed: at least the program")
        for argument in spec.argv:
            check_text(argument, f"commands[{number}]")
        size += max(json_size(spec.text), sum(map(json_size, spec.argv)))
    if size > MAX_TEXT:
        raise BadRequest(
            f"commands has {size} bytes of text; allowed: at most {MAX_TEXT} (64 KiB, as JSON)"
            " a job"
        )
    if order.timeout is not None and not 0 < order.timeout <= MAX_TIMEOUT:
        raise BadRequest(
            f"timeout is {order.timeout}; allowed: seconds above 0, at most {MAX_TIMEOUT:.0f}"
        )
    if order.cwd is not None:
        _check_directory(order.cwd)
    _check_env(order.env)


def _check_name(name: str, value: str, most: int) -> None:
    check_text(value, name)
    control = any(ord(char) < 32 or 127 <= ord(char) < 160 for char in value)
    if not 1 <= len(value) <= most or control:
        raise BadRequest(
            f"{name} has {'a control character' if control else f'{len(value)} characters'};"
            f" allowed: 1 to {most} characters, none of them a control character"
        )


def _check_directory(path: str) -> None:
    check_text(path, "cwd")
    if not path.startswith("/") or len(path.encode()) > MAX_PATH:
        raise BadRequest(
            f"cwd must be an absolute path; allowed: 1 to {MAX_PATH} bytes that begin with /"
        )


def _check_env(env: Mapping[str, str]) -> None:
    size = 0
    for name, value in env.items():
        check_text(name, "env")
        check_text(value, f"env.{name}")
        if not name or "=" in name:
            raise BadRequest(
                f"env has the name {name!r}; allowed: names that are not empty and have no ="
            )
        size += len(name.encode()) + len(value.encode()) + 2
    if size > MAX_ENV:
        raise BadRequest(f"env has {size} bytes; allowed: at most {MAX_ENV} (64 KiB) a job")
