"""Requests of every class, half right and half wrong, and frames that are none.

Nothing may be answered that is not documented, nothing may leave a traceback, and memory must
not grow with the number of inputs. None may cost more time than its length allows.
"""

import contextlib
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from server.wire.protocol import ProtocolError, parse_request
from tests.kit import QUIET, Client, Daemon, RawClient
from tests.kit.figures import resident
from tests.kit.json_families import FAMILIES

CONFIG = QUIET + "[auth]\npassword_login = false\nfailures = 1000000\n"
# The client's own thread draws random masks and ids while a strategy runs.
pytestmark = pytest.mark.filterwarnings(
    "ignore::hypothesis.errors.HypothesisDeprecationWarning"
)
CODES = {204, 400, 401, 403, 404, 409, 429, 503, 507}
CLOSES = {1000, 1002, 1003, 1006, 1007, 1009, 4401}
BATCH = 50
# Inputs in `make test-long`, and those after which memory must not grow any more.
INPUTS = 100_000
WARM = 20_000
GROWTH = 4.0
# What reading one may cost; s of CPU for each KiB, of which the first few are free.
BUDGET = 0.005

# Values that look right often enough to get behind the first check. Commands are harmless.
WORDS = st.sampled_from(
    (
        *("dispatcher", "life-preserver", "system-state", "no_queue", "pkg_queue", "now"),
        *("oldest", "true", "job", "list", "hostinfo", "events-state", "read", "full", "1d"),
    )
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | WORDS, inner, max_size=4)
    ),
    max_leaves=8,
)
COMMANDS = st.sampled_from(
    ("true", "false", "/no/such/program", "echo x", '"', "a\0b", "", " ")
)
KEYS = st.sampled_from(
    (
        *("action", "job_id", "job", "commands", "queue", "timeout", "env", "cwd", "key", "id"),
        *("command", "offset", "limit", "after", "systems", "since", "snapshot", "token"),
        *("username", "password", "lifetime", "name", "role", "expires", "logs"),
        *("time_format", "start_time", "end_time"),
    )
)
ACTIONS = st.sampled_from(
    (
        *("run", "submit", "kill", "pause", "resume", "list", "history", "show", "log"),
        *("read_logs", "add", "revoke", "RUN", "nonsense"),
    )
)

JOB = st.fixed_dictionaries(
    {"commands": st.lists(COMMANDS | st.lists(COMMANDS, max_size=3), max_size=3)},
    optional={
        "queue": WORDS,
        "timeout": st.integers(-1, 5) | VALUES,
        "id": st.sampled_from(("a", "b")),
        "key": st.sampled_from(("k", "l")) | VALUES,
        "env": VALUES,
        "cwd": st.sampled_from(("/", "/tmp", "relative")) | VALUES,
    },
)
ARGS = (
    VALUES
    | st.fixed_dictionaries({"action": ACTIONS, "job": JOB})
    | st.fixed_dictionaries({"action": st.just("run"), "f": st.lists(COMMANDS, max_size=3)})
    | st.fixed_dictionaries({"action": ACTIONS}).flatmap(
        lambda base: st.dictionaries(KEYS, VALUES, max_size=4).map(
            lambda more: {**more, **base}
        )
    )
    | st.fixed_dictionaries(
        {"systems": st.lists(WORDS, max_size=3)},
        optional={"since": WORDS | VALUES, "snapshot": VALUES},
    )
)
NAMES = st.sampled_from(
    (
        *(("rpc", "identify"), ("rpc", "auth"), ("rpc", "auth_token"), ("rpc", "query")),
        *(("rpc", "dispatcher"), ("rpc", "logs"), ("rpc", "clients"), ("rpc", "tokens")),
        *(("events", "subscribe"), ("events", "unsubscribe"), ("RPC", "Dispatcher")),
        *(("sysadm", "pkg"), ("rpc", "weather"), ("", "x")),
    )
)


@st.composite
def requests(draw: st.DrawFn) -> str:
    """A request's text: mostly of a known class, sometimes cut or with other keys."""
    namespace, name = draw(NAMES)
    body: dict[str, Any] = {"namespace": namespace, "name": name, "id": "f"}
    body["args"] = draw(ARGS)
    text = json.dumps(body)
    if draw(st.integers(0, 19)) == 0:
        text = text[: draw(st.integers(0, len(text)))]
    return text


def check(frame: dict[str, Any]) -> None:
    assert set(frame) >= {"namespace", "name", "id", "args"}
    if frame["name"] == "error":
        assert frame["args"]["code"] in CODES
        assert frame["args"]["detail"]
        assert "Traceback" not in frame["args"]["detail"]


class Target:
    """The daemon under fire: connections are made anew when it has closed them."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.inputs = 0
        self.memory: list[tuple[int, float]] = []
        self._client: Client | None = None
        self._number = 0

    def batch(self, texts: list[str]) -> None:
        """Send some requests, and take everything until a last one's reply."""
        client = self._client or self.daemon.client()
        self._client = client
        self._number += 1
        last = f"last-{self._number}"
        try:
            for text in texts:
                client.socket.send(text)
            client.socket.send(json.dumps({"namespace": "rpc", "name": "identify", "id": last}))
            while (frame := client.receive())["id"] != last:
                check(frame)
        except ConnectionClosed as closed:
            assert closed.rcvd is None or closed.rcvd.code in CLOSES, closed
            with contextlib.suppress(Exception):
                client.close()
            self._client = None
        self._count(len(texts))

    def garbage(self, data: bytes) -> None:
        """Raw bytes on a connection that is open: none of it may be understood as more."""
        client = RawClient(self.daemon.state_dir).log_in()
        with contextlib.suppress(OSError):
            client.socket.sendall(data)
        client.close()
        self._count(1)

    def _count(self, inputs: int) -> None:
        self.inputs += inputs
        memory = resident(self.daemon.pid)
        self.memory.append((self.inputs, memory))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def fire(daemon: Daemon, inputs: int) -> Target:
    target = Target(daemon)

    @settings(
        max_examples=max(1, inputs // BATCH),
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(requests(), min_size=BATCH, max_size=BATCH))
    def send(texts: list[str]) -> None:
        target.batch(texts)

    send()
    source = random.Random(4711)
    for number in range(inputs // 200):
        kind = number % 4
        if kind == 0:
            data = os.urandom(source.randrange(1, 5000))
        elif kind == 1:
            data = Frame(source.choice(list(Opcode)), os.urandom(50)).serialize(mask=True)
        elif kind == 2:
            data = Frame(Opcode.TEXT, b'{"a":' * 4000).serialize(mask=True)
        else:
            data = Frame(Opcode.TEXT, b"[" * 100_000).serialize(mask=True)[:-10]
        target.garbage(data)
    target.close()
    assert "Traceback" not in daemon.log.read_text()
    with daemon.client() as client:
        assert client.ask("rpc", "identify")["type"] == "server"
    return target


def test_a_thousand_strange_requests_get_documented_answers(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", CONFIG, options=("--log-level", "info")) as daemon:
        fire(daemon, 1_000)


@pytest.mark.long
def test_a_hundred_thousand_strange_requests_leave_no_trace(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", CONFIG, options=("--log-level", "info")) as daemon:
        target = fire(daemon, INPUTS)
        assert target.inputs >= INPUTS
        warm = max(memory for inputs, memory in target.memory if inputs <= WARM)
        assert target.memory[-1][1] <= warm + GROWTH, (warm, target.memory[-1])


# What is put into texts that were dangerous once, in place of a part of them.
PIECES = st.sampled_from(
    (
        *(
            '"',
            "\\",
            '\\"',
            "[",
            "]",
            "{",
            "}",
            ",",
            ":",
            "[" * 65,
            '{"a":' * 65,
            '"a":',
            '"a":1,"a":1',
        ),
        *(
            "1e999",
            "NaN",
            "-",
            "9" * 33,
            "\\ud83d",
            "\\ude00",
            "\\u",
            "\n",
            "\0",
            "\ufeff",
            "é",
            "\U0001f600",
        ),
    )
)


@st.composite
def dangerous(draw: st.DrawFn) -> str:
    """Some families one after the other, mutated, or a request of the grammar repeated."""
    if draw(st.integers(0, 4)) == 0:
        return draw(requests()) * draw(st.integers(1, 200))
    text = ""
    for name in draw(st.lists(st.sampled_from(sorted(FAMILIES)), min_size=1, max_size=3)):
        text += FAMILIES[name](draw(st.sampled_from((10, 1000, 8000, 60_000))))
    for piece in draw(st.lists(PIECES, max_size=4)):
        begin, end = sorted(draw(st.integers(0, len(text))) for _ in range(2))
        text = text[:begin] + piece * draw(st.sampled_from((1, 1, 100))) + text[end:]
    return text


def cost(text: str) -> float:
    """Seconds of CPU that it takes to read it."""
    begun = time.thread_time()
    with contextlib.suppress(ProtocolError):
        parse_request(text)
    return time.thread_time() - begun


def read_in_time(inputs: int) -> None:
    @settings(
        max_examples=inputs,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(dangerous())
    def read(text: str) -> None:
        allowed = BUDGET * max(1, len(text.encode()) / 1024)
        # What is too much once may have been the collector of garbage.
        assert any(cost(text) <= allowed for _ in range(3)), len(text)

    read()


def test_no_request_costs_more_than_its_length_allows() -> None:
    read_in_time(300)


@pytest.mark.long
def test_none_of_many_requests_costs_more_than_its_length_allows() -> None:
    read_in_time(INPUTS // 4)
