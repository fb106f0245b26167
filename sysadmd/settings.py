"""Settings: the configuration file as one frozen value with defaults. Reads no environment.

Every mistake of a file is found in one pass and named by its exact key path.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Final, Literal, Union, cast, get_args, get_origin

import msgspec
from msgspec import Meta, Struct, field

from sysadmd.errors import SettingsInvalid
from sysadmd.sizes import UNITS

_SIZE = re.compile(r"(\d+) ?(B|KiB|MiB|GiB|TiB)?")
_SIZE_UNITS: Final = {None: 1, "B": 1} | {f"{unit}iB": UNITS[unit] for unit in "KMGT"}
_DURATION = re.compile(r"(\d+) ?(s|m|h|d)?")
_DURATION_UNITS: Final = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# A key that needs no quotes in TOML.
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ADDRESS = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.%a-z]+)\]|(?P<four>[^:\[\]\s]+)):(?P<port>\d{1,5})"
)

# The name of the queue that always exists and can't be configured.
NO_QUEUE: Final = "no_queue"


class Size(int):
    """Bytes; written as a number or as text with a unit (`"16MiB"`)."""

    low: ClassVar[int] = 1
    high: ClassVar[int] = 2**50
    allowed: ClassVar[str] = 'a size such as 65536 or "64KiB"'


class EventLogSize(Size):
    """Text of one command in one event: small enough that a frame stays under 512 KiB."""

    low = 1024
    high = 64 * 1024
    allowed = 'a size from "1KiB" to "64KiB"'


class CommandLogSize(Size):
    """A command's log: at least what one event shows of it."""

    low = 128 * 1024
    allowed = 'a size of at least "128KiB"'


class JournalSize(Size):
    """Of all events: at least some hundred of them."""

    low = 64 * 1024
    allowed = 'a size of at least "64KiB"'


class Duration(int):
    """Seconds; written as a number or as text with a unit (`"30d"`)."""

    low: ClassVar[int] = 1
    high: ClassVar[int] = 100 * 366 * 86400
    allowed: ClassVar[str] = 'seconds, or text such as "15m", "12h", "30d"'


class Address(str):
    """Where to listen: `ADDRESS:PORT`, the address literal or a name; port 0: a free one."""

    __slots__ = ("host", "port")
    host: str
    port: int

    def __new__(cls, text: str) -> Address:
        """Raises: ValueError, saying what is allowed."""
        match = _ADDRESS.fullmatch(text)
        if match is None or int(match["port"]) > 65535:
            raise ValueError("ADDRESS:PORT, such as 127.0.0.1:12150 or [::1]:0")
        address = super().__new__(cls, text)
        address.host = match["six"] or match["four"]
        address.port = int(match["port"])
        return address


Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
Switch = bool | Literal["auto"]
Tool = Annotated[str, Meta(pattern=r"^(/.*[^/]|[A-Za-z0-9_.+-]+)$")]


class TlsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """PEM files; both empty: the self-signed pair of the state directory."""

    certificate: str = ""
    key: str = ""


class DoorSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Who may connect to a program of ours.

    listen: at least one. handshake_timeout: s for TLS and the HTTP request; login_timeout: s
    from the connection to the login; both up to a year. max_clients: that are logged in;
    unauthenticated_per_address: of strangers, by address (IPv6: by /64); 1 to 1,000,000 each.
    """

    listen: tuple[Address, ...] = (Address("127.0.0.1:12150"),)
    max_clients: Count = 10_000
    tls: TlsSettings = TlsSettings()
    handshake_timeout: Seconds = 10.0
    login_timeout: Seconds = 30.0
    unauthenticated_per_address: Count = 20


class ServerSettings(DoorSettings, frozen=True, forbid_unknown_fields=True):
    """What clients of the server may ask for.

    origins: of web pages that may connect, as browsers send them. client_ca: PEM file; empty:
    no login by certificate. requests_in_flight: of one client, 1 to 1,000,000.
    """

    dialect: Literal["documented", "sysadm-client"] = "documented"
    origins: tuple[str, ...] = ()
    client_ca: str = ""
    requests_in_flight: Count = 32


class BridgeSettings(DoorSettings, frozen=True, forbid_unknown_fields=True):
    """`sysadmd bridge`: where servers and clients meet.

    state_dir: empty: the default one. legacy_key_login: as `auth` has it, for original servers
    and clients.
    """

    listen: tuple[Address, ...] = (Address("127.0.0.1:12149"),)
    state_dir: str = ""
    legacy_key_login: bool = False


class BridgeClientSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A bridge that the server connects to, for clients that can't reach it otherwise.

    url: wss://HOST:PORT; empty: there is none. cafile: PEM that verifies the bridge, the
    system's authorities otherwise; pin: SHA-256 of its public key in base64, which then counts
    alone. key: PEM file of the private key by which it logs in, and is known to clients; empty:
    one of the state directory, made at the first start.
    """

    url: Annotated[str, Meta(pattern=r"^(wss://[^\s/]+)?$")] = ""
    cafile: str = ""
    pin: Annotated[str, Meta(pattern=r"^([A-Za-z0-9+/]{43}=)?$")] = ""
    key: str = ""


class AuthSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Who gets in, as what, and what failing costs.

    full, limited: accounts, or groups as `@wheel`. token_lifetime, client_token_lifetime: s
    from the last use. failures: within failure_window s they block an address for block_time s.
    legacy_key_login: also by the original client's RSA form, which signs what the other side
    sends and nothing else. syslog: logins and the trail are told to the system's log, too.
    pam_calls: at once, 1 to 64; pam_wait: s that a login waits for its turn, and then for PAM.
    """

    pam_service: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "sysadmd"
    full: tuple[str, ...] = ("root", "@wheel")
    limited: tuple[str, ...] = ("@operator",)
    password_login: bool = True
    token_lifetime: Duration = Duration(900)
    client_token_lifetime: Duration = Duration(30 * 86400)
    failures: Count = 5
    failure_window: Duration = Duration(600)
    block_time: Duration = Duration(3600)
    legacy_key_login: bool = False
    syslog: bool = True
    pam_calls: Annotated[int, Meta(ge=1, le=64)] = 8
    pam_wait: Seconds = 10.0


class HostnameSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """interval: s between two looks, up to a year."""

    enabled: bool = True
    interval: Seconds = 5.0


class ZpoolSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """enabled "auto": on from when the command is first seen.

    interval: s between two looks; timeout: s for one query; both up to a year.
    capacity_warning: %, 1 to 100; a pool filled above it is a 6.
    """

    enabled: Switch = "auto"
    command: Annotated[str, Meta(min_length=1)] = "zpool"
    interval: Seconds = 30.0
    timeout: Seconds = 10.0
    capacity_warning: Annotated[int, Meta(ge=1, le=100)] = 90


class LifePreserverSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """enabled "auto": on; a log that is not there is waited for.

    writers: accounts, and groups as `@wheel`, that may own files of the log's folder or write
    to them, beside root and the daemon's account. Of others none is read.
    """

    enabled: Switch = "auto"
    log: Annotated[str, Meta(min_length=1)] = "/var/log/lpreserver/lpreserver.log"
    writers: tuple[str, ...] = ()


class CollectorSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A table for each collector."""

    hostname: HostnameSettings = HostnameSettings()
    zpool: ZpoolSettings = ZpoolSettings()
    life_preserver: LifePreserverSettings = LifePreserverSettings()


class DispatcherSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How jobs run, and how much of their output is kept and told.

    kill_grace: s between TERM and KILL, 0 to 3600. command_log_limit: bytes of one command's
    log; event_log_limit: of it inside one event. progress_interval: s, at least, between two
    running events of a job, 0.1 to 3600. default_parallel, queues: jobs at once, 1 to 10,000.
    """

    kill_grace: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    command_log_limit: CommandLogSize = CommandLogSize(16 * 2**20)
    event_log_limit: EventLogSize = EventLogSize(64 * 2**10)
    progress_interval: Annotated[float, Meta(ge=0.1, le=3600)] = 1.0
    default_parallel: Annotated[int, Meta(ge=1, le=10_000)] = 16
    queues: dict[str, Annotated[int, Meta(ge=1, le=10_000)]] = field(
        default_factory=lambda: {"pkg_queue": 1, "iocage_queue": 1}
    )


class ClassSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The tools of the classes that queue jobs: names, sought as those of jobs' commands are,
    or absolute paths.

    pkg_database: is there if any package is installed. update_conf: the settings of
    freebsd-update. query_timeout: s that a tool has to answer a question, up to a year.
    """

    pkg: Tool = "pkg"
    pkg_database: Annotated[str, Meta(pattern="^/")] = "/var/db/pkg/local.sqlite"
    freebsd_update: Tool = "freebsd-update"
    update_conf: Annotated[str, Meta(pattern="^/")] = "/etc/freebsd-update.conf"
    shutdown: Tool = "shutdown"
    vm: Tool = "vm"
    iohyve: Tool = "iohyve"
    query_timeout: Seconds = 60.0


class RetentionSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept: events by age and bytes, finished jobs by age and number.

    events_days, jobs_days: days; jobs: records; 1 to 1,000,000 each. events_size: bytes.
    """

    events_days: Count = 30
    events_size: JournalSize = JournalSize(256 * 2**20)
    jobs_days: Count = 90
    jobs: Count = 10_000


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole configuration. `state_dir` is empty when the file does not name one."""

    state_dir: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    collectors: CollectorSettings = CollectorSettings()
    dispatcher: DispatcherSettings = DispatcherSettings()
    classes: ClassSettings = ClassSettings()
    retention: RetentionSettings = RetentionSettings()
    bridge: BridgeSettings = BridgeSettings()
    bridge_client: BridgeClientSettings = BridgeClientSettings()


def parse_duration(text: str, kind: type[Duration] = Duration) -> Duration:
    """Seconds from `900`, `"15m"`, `"30d"`. Raises: ValueError, saying what is allowed."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no span of time; allowed: {kind.allowed}")
    value = int(match[1]) * _DURATION_UNITS[match[2]]
    if not kind.low <= value <= kind.high:
        raise ValueError(f"{text!r} is out of range; allowed: {kind.allowed}")
    return kind(value)


def read_settings(path: Path) -> Settings:
    """The settings in a TOML file. Raises: SettingsInvalid with every mistake, OSError."""
    settings, problems = examine_settings(path)
    if problems:
        raise SettingsInvalid(problems)
    return settings


def examine_settings(path: Path) -> tuple[Settings, list[str]]:
    """What a TOML file says, as far as it is right, and every mistake in it.

    Where it is not the settings are the defaults. Raises: OSError.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        # Beside what is not TOML: what is not UTF-8, or a number too long for Python.
        return Settings(), [f"{path}: not TOML: {error}"]
    problems: list[str] = []
    settings: Settings = _build(Settings, table, "", problems)
    return settings, [f"{path}: {problem}" for problem in problems]


def build_settings(table: Mapping[str, Any]) -> Settings:
    """Settings from a parsed table. Raises: SettingsInvalid with every mistake in it."""
    problems: list[str] = []
    settings: Settings = _build(Settings, table, "", problems)
    if problems:
        raise SettingsInvalid(problems)
    return settings


def _contradictions(kind: type[Any], values: Mapping[str, Any], path: str) -> list[str]:
    """What the keys of a table say against each other."""
    problems: list[str] = []
    certificate, key = values.get("certificate", ""), values.get("key", "")
    if (
        kind is TlsSettings
        and None not in (certificate, key)
        and bool(certificate) != bool(key)
    ):
        missing = "key" if certificate else "certificate"
        problems.append(f"{path}.{missing}: is empty; set both files, or neither")
    if issubclass(kind, DoorSettings) and values.get("listen") == ():
        problems.append(f"{path}.listen: is empty; allowed: at least one ADDRESS:PORT")
    return problems


def _build(kind: type[Any], table: object, path: str, problems: list[str]) -> Any:
    """A Struct from a table, key by key: msgspec alone would stop at the first mistake.

    What is wrong is left out. None: it is no table.
    """
    if not isinstance(table, Mapping):
        problems.append(f"{path}: is {_name(table)}; allowed: a table")
        return None
    known: dict[str, Any] = {info.name: info.type for info in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for key, value in cast("Mapping[str, object]", table).items():
        here = _join(path, key)
        if key not in known:
            problems.append(f"{here}: unknown key; allowed: {', '.join(known)}")
            continue
        inner = known[key]
        if isinstance(inner, type) and issubclass(inner, Struct):
            values[key] = _build(inner, value, here, problems)
            continue
        before = len(problems)
        if get_origin(inner) is dict:
            found = _build_queues(get_args(inner)[1], value, here, problems)
        else:
            found = _leaf(inner, value, here, problems)
        # Of a list, too, all or nothing.
        values[key] = found if len(problems) == before else None
    problems += _contradictions(kind, values, path)
    return kind(**{key: value for key, value in values.items() if value is not None})


def _join(path: str, key: str) -> str:
    """The key path as TOML writes it: one line, and no doubt about a dot in a key."""
    part = key if _BARE_KEY.fullmatch(key) else json.dumps(key)
    return f"{path}.{part}" if path else part


def _build_queues(kind: Any, table: object, path: str, problems: list[str]) -> Any:
    if not isinstance(table, Mapping):
        problems.append(
            f"{path}: is {_name(table)}; allowed: a table of name = how many at once"
        )
        return None
    queues: dict[str, Any] = {}
    for name, value in cast("Mapping[str, object]", table).items():
        here = _join(path, name)
        if not _QUEUE_NAME.fullmatch(name) or name == NO_QUEUE:
            problems.append(
                f"{here}: not a queue's name; allowed: 1 to 64 of A-Z a-z 0-9 _ . -,"
                f" but not {NO_QUEUE} (its limit is dispatcher.default_parallel)"
            )
        queues[name] = _leaf(kind, value, here, problems)
    return queues


def _leaf(kind: Any, value: object, path: str, problems: list[str]) -> Any:
    if get_origin(kind) is tuple and isinstance(value, list):
        items = enumerate(cast("list[object]", value))
        return tuple(_leaf(get_args(kind)[0], v, f"{path}[{n}]", problems) for n, v in items)
    if isinstance(value, str) and "\0" in value:
        problems.append(f"{path}: is {_name(value)}; allowed: text without a NUL character")
        return None
    try:
        return msgspec.convert(value, kind, dec_hook=_convert)
    except msgspec.ValidationError as error:
        problems.append(f"{path}: is {_name(value)}; allowed: {_allowed(kind) or error}")
        return None


def _allowed(kind: Any) -> str:
    """What a key takes, for people; empty: the error's own text says it best."""
    if get_origin(kind) is Annotated:
        base, meta = get_args(kind)
        bounds = (
            (meta.gt, "above {}"),
            (meta.ge, "at least {}"),
            (meta.le, "at most {}"),
            (meta.min_length, "of at least {} characters"),
            (meta.pattern, "of the form {}"),
        )
        limits = [text.format(bound) for bound, text in bounds if bound is not None]
        return f"{_allowed(base)} {' and '.join(limits)}"
    choices: list[str] = []
    for part in get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,):
        if part is bool:
            choices += ["true", "false"]
        elif get_origin(part) is Literal:
            choices += [json.dumps(choice) for choice in get_args(part)]
    if get_origin(kind) is tuple:
        return "a list"
    if choices:
        return ", ".join(choices)
    if isinstance(kind, type) and issubclass(kind, Size | Duration):
        return str(kind.allowed)
    plain: dict[Any, str] = {int: "a whole number", float: "a number", str: "text"}
    return plain.get(kind, "")


def _convert(kind: type[Any], value: object) -> Any:
    if kind is Address:
        if not isinstance(value, str):
            raise ValueError("expected ADDRESS:PORT as text")
        return Address(value)
    pattern, units = (
        (_SIZE, _SIZE_UNITS) if issubclass(kind, Size) else (_DURATION, _DURATION_UNITS)
    )
    match = pattern.fullmatch(str(value)) if not isinstance(value, bool) else None
    number = int(match[1]) * units[match[2]] if match else -1
    if not kind.low <= number <= kind.high:
        raise ValueError(kind.allowed)
    return kind(number)


def _name(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:
        # Hexadecimal, it may be longer than Python writes in decimal.
        return "a number of too many digits"
    return text if len(text) <= 60 else text[:57] + "..."
