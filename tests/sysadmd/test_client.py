"""The client library against a real daemon and, for what no daemon does, a scripted one."""

import asyncio
import contextlib
import json
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from sysadmd import client as library
from sysadmd.client import (
    ChainBroken,
    EventFrame,
    NotPermitted,
    Refused,
    Target,
    Unreachable,
    connect,
    events,
)
from sysadmd.errors import BadRequest, SysadmdError
from sysadmd.pins import file_pin
from tests.kit import DEADLINE, QUIET, ROOT, Daemon

ALL = ["dispatcher", "life-preserver", "system-state"]
CUT = "cut the connection here"


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(DEADLINE):
            await work()

    asyncio.run(limited())


async def submit(target: Target, *ids: str) -> None:
    async with connect(target) as client:
        for id in ids:
            await client.request("rpc", "dispatcher", {"action": "run", id: "true"})


def make_certificate(directory: Path, subject: str, days: int) -> ssl.SSLContext:
    """A self-signed pair in the directory; returns a server's context of it."""
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    request = ["openssl", "req", "-new", *curve, "-subj", subject, "-keyout", str(key)]
    made = subprocess.run(request, check=True, capture_output=True)
    sign = ["openssl", "x509", "-req", "-signkey", str(key), "-days", str(days)]
    subprocess.run(
        [*sign, "-out", str(certificate)], input=made.stdout, check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@contextlib.asynccontextmanager
async def scripted(
    directory: Path, *scripts: list[Any], subject: str = "/CN=127.0.0.1", days: int = 2
) -> AsyncGenerator[tuple[Target, list[dict[str, Any]]]]:
    """A server that answers each connection's first request with the next script.

    A script is the reply's args and what is sent after it. Yields a pinned target, and the
    requests as they come in.
    """
    context = make_certificate(directory, subject, days)
    pin = file_pin(directory / "certificate.pem")
    left, requests = list(scripts), list[dict[str, Any]]()

    async def handle(socket: ServerConnection) -> None:
        request = json.loads(await socket.recv())
        requests.append(request)
        reply, *frames = left.pop(0)
        response = {"namespace": "events", "name": "response", "id": request["id"]}
        await socket.send(json.dumps({**response, "args": reply}))
        for frame in frames:
            if frame == CUT:
                return
            await socket.send(frame if isinstance(frame, str) else json.dumps(frame))
        await socket.wait_closed()

    async with serve(handle, "127.0.0.1", 0, ssl=context) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield Target(f"wss://127.0.0.1:{port}", pin=pin), requests


def frame(prev: str, cursor: str, name: str = "dispatcher", args: Any = None) -> dict[str, Any]:
    head = {"namespace": "events", "name": name, "id": "none", "time": "now"}
    return {**head, "prev": prev, "cursor": cursor, "args": args or {}}


def heartbeat(cursor: str, prev: str) -> dict[str, Any]:
    return frame(prev, cursor, "heartbeat", {"cursor": cursor, "prev": prev})


async def collect(target: Target, count: int, **options: Any) -> list[EventFrame]:
    found: list[EventFrame] = []
    stream = events(target, ["dispatcher"], **options)
    async with contextlib.aclosing(stream):
        async for event in stream:
            found.append(event)
            if len(found) == count:
                break
    return found


def test_the_package_itself_imports_nothing_heavy() -> None:
    code = (
        "import sys, sysadmd; print([m for m in ('asyncio', 'websockets') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("url", ["", "x", "ws://h:1", "wss://", "wss://h:99999", "wss://h:0"])
def test_an_address_that_is_none_is_said_at_once(url: str) -> None:
    with pytest.raises(BadRequest, match="wss://HOST:PORT"):
        Target(url)


def test_each_kind_of_failure_has_its_error(daemon: Daemon, tmp_path: Path) -> None:
    local = Target.local(daemon.state_dir)
    pin = file_pin(daemon.state_dir / "tls" / "certificate.pem")

    async def work() -> None:
        async with connect(local) as client:
            with pytest.raises(Refused, match="there is no job") as refused:
                await client.request("rpc", "dispatcher", {"action": "show", "job_id": "x"})
            assert (refused.value.number, refused.value.code) == (404, "refused")
            # The connection is as good as before.
            assert (await client.request("rpc", "identify"))["type"] == "server"
        with pytest.raises(NotPermitted):
            async with connect(Target(daemon.url, token="wrong", pin=pin)):
                pass
        async with connect(Target(daemon.url, pin=pin)) as stranger:
            with pytest.raises(NotPermitted):
                await stranger.request("rpc", "query")
        with pytest.raises(Unreachable, match="no daemon runs"):
            async with connect(Target.local(tmp_path / "nowhere")):
                pass
        with pytest.raises(Unreachable, match="certificate"):
            async with connect(Target(daemon.url, token=daemon.token)):
                pass
        cafile = daemon.state_dir / "tls" / "certificate.pem"
        async with connect(Target(daemon.url, daemon.token, cafile)) as client:
            await client.request("rpc", "query")

    run(work)
    daemon.stop()

    async def stopped() -> None:
        with pytest.raises(Unreachable):
            async with connect(Target(daemon.url, daemon.token, pin=pin)):
                pass
        with pytest.raises(Unreachable):
            await collect(local, 1)

    run(stopped)


def test_events_are_told_once_and_in_order_over_kills_of_the_daemon(daemon: Daemon) -> None:
    target = Target.local(daemon.state_dir)
    lost: list[SysadmdError] = []
    again: list[int] = []

    async def work() -> None:
        stream = events(
            target,
            ALL,
            since="oldest",
            lost=lambda error, pause: lost.append(error),
            again=lambda: again.append(1),
        )
        told: list[tuple[str, str]] = []
        async with contextlib.aclosing(stream):
            for round in range(3):
                await submit(target, f"job {round}")
                async for event in stream:
                    told.append((event.args["process_id"], event.args["state"]))
                    if event.args["state"] == "finished":
                        break
                await asyncio.to_thread(daemon.kill)
                await asyncio.to_thread(daemon.start)
        states = ("pending", "running", "finished")
        assert told == [(f"job {n}", state) for n in range(3) for state in states]

    run(work)
    assert lost
    assert len(again) == 2


def test_a_snapshot_of_many_frames_comes_as_one(daemon: Daemon) -> None:
    target = Target.local(daemon.state_dir)

    async def work() -> None:
        text = "echo " + "x" * 60_000
        async with connect(target) as client:
            await client.request("rpc", "dispatcher", {"action": "pause", "queue": "pkg_queue"})
            for number in range(10):
                job = {"id": f"job {number}", "commands": [text], "queue": "pkg_queue"}
                await client.request("rpc", "dispatcher", {"action": "submit", "job": job})
        stream = events(target, ALL, snapshot=True)
        async with contextlib.aclosing(stream):
            snapshot = await anext(stream)
            assert snapshot.name == "snapshot"
            assert [job["id"] for job in snapshot.args["jobs"]] == [
                f"job {n}" for n in range(10)
            ]
            assert snapshot.args["life_preserver"] is None
            async with connect(target) as client:
                kill = {"action": "kill", "job_id": "job 3"}
                await client.request("rpc", "dispatcher", kill)
            event = await anext(stream)
            assert (event.args["process_id"], event.args["state"]) == ("job 3", "finished")

    run(work)


def test_a_pin_is_all_that_counts(tmp_path: Path) -> None:
    async def work() -> None:
        # Of another name, and not valid any more since the day it was made.
        script = [{"type": "server"}]
        async with scripted(tmp_path, script, subject="/CN=elsewhere.example", days=-1) as (
            target,
            _,
        ):
            async with connect(target) as client:
                assert (await client.request("rpc", "identify"))["type"] == "server"
            for other in (
                Target(target.url, pin="A" * 43 + "="),
                Target(target.url, cafile=tmp_path / "certificate.pem"),
                Target(target.url),
            ):
                with pytest.raises(Unreachable):
                    async with connect(other):
                        pass
            with pytest.raises(BadRequest, match="no certificates"):
                async with connect(Target(target.url, cafile=tmp_path / "key.pem")):
                    pass

    run(work)


def test_a_missing_event_is_an_error(tmp_path: Path) -> None:
    reply = {"cursor": "c1", "prev": "c1"}

    async def work() -> None:
        for frames in (
            [frame("c1", "c2"), frame("c3", "c4")],
            [frame("c1", "c2"), heartbeat("c9", "c8")],
            [frame("c0", "c2")],
        ):
            async with scripted(tmp_path, [reply, *frames]) as (target, _):
                with pytest.raises(ChainBroken):
                    await collect(target, 9)

    run(work)


def test_it_resumes_behind_the_last_event_and_checks_that_the_server_does(
    tmp_path: Path,
) -> None:
    async def work() -> None:
        scripts = (
            [{"cursor": "c1", "prev": "c0"}, frame("c0", "c2"), heartbeat("c7", "c2"), CUT],
            [{"cursor": "c2", "prev": "c2"}, frame("c2", "g", "gap", {"count": 3}), CUT],
            [{"cursor": "g", "prev": "g"}, {**frame("g", "c5"), "merged": 2}, CUT],
            [{"cursor": "c5", "prev": "c4"}],
        )
        async with scripted(tmp_path, *scripts) as (target, requests):
            found = await collect(target, 3, since="c1")
            assert [event.name for event in found] == ["dispatcher", "gap", "dispatcher"]
            assert [event.merged for event in found] == [1, 1, 2]
        async with scripted(tmp_path, *scripts) as (target, requests):
            with pytest.raises(ChainBroken):
                await collect(target, 4, since="c1")
            assert [request["args"]["since"] for request in requests] == ["c1", "c2", "g", "c5"]

    run(work)


def test_a_snapshot_that_was_cut_is_asked_for_again(tmp_path: Path) -> None:
    def part(jobs: list[int], **more: Any) -> dict[str, Any]:
        return {**frame("", "c1", "snapshot", {"cursor": "c1", "jobs": jobs}), **more}

    async def work() -> None:
        first = [{"cursor": "c1", "prev": ""}, part([1], more=True), CUT]
        second = [
            {"cursor": "c9", "prev": "c8"},
            part([1, 2], more=True),
            part([3]),
            frame("c8", "c10"),
            CUT,
        ]
        third = [{"cursor": "c10", "prev": "c10"}, frame("c10", "c11")]
        async with scripted(tmp_path, first, second, third) as (target, requests):
            found = await collect(target, 3, snapshot=True)
        assert found[0].args["jobs"] == [1, 2, 3]
        assert [event.cursor for event in found[1:]] == ["c10", "c11"]
        asked = [(r["args"]["since"], r["args"]["snapshot"]) for r in requests]
        assert asked == [("now", True), ("now", True), ("c10", False)]

    run(work)


def mark(cursor: str, prev: str) -> dict[str, Any]:
    args = {"cursor": cursor, "prev": prev, "caught_up": True}
    return frame(prev, cursor, "heartbeat", args)


@pytest.mark.parametrize("begin", [{"last": 3}, {"since": "2026-11-24T18:00:02Z"}])
def test_where_it_began_is_asked_for_once_and_then_a_cursor(
    tmp_path: Path, begin: dict[str, Any]
) -> None:
    async def work() -> None:
        scripts = (
            # Cut before anything was told: what comes meanwhile must not move the beginning.
            [{"cursor": "c1", "prev": "c0"}, CUT],
            [{"cursor": "c1", "prev": "c0"}, frame("c0", "c2")],
        )
        async with scripted(tmp_path, *scripts) as (target, requests):
            await collect(target, 1, **begin)
        first, second = (request["args"] for request in requests)
        asked = {"systems": ["dispatcher"], "snapshot": False}
        assert first == asked | begin
        assert second == asked | {"since": "c1"}

    run(work)


def test_it_says_once_that_it_has_caught_up_however_often_it_is_cut(tmp_path: Path) -> None:
    async def work() -> None:
        scripts = (
            [{"cursor": "c1", "prev": "c1"}, frame("c1", "c2"), CUT],
            [
                *({"cursor": "c2", "prev": "c2"}, heartbeat("c9", "c2"), frame("c2", "c3")),
                *(mark("c8", "c3"), mark("c8", "c3"), CUT),
            ],
            [{"cursor": "c3", "prev": "c3"}, mark("c9", "c3"), frame("c3", "c4")],
        )
        async with scripted(tmp_path, *scripts) as (target, requests):
            found = await collect(target, 4, since="c1", caught_up=True)
        names = [event.name for event in found]
        assert names == ["dispatcher", "dispatcher", "caught_up", "dispatcher"]
        assert found[2].cursor == "c8"
        asked = [request["args"].get("caught_up") for request in requests]
        assert asked == [True, True, None]

    run(work)


def test_a_mark_that_does_not_follow_what_was_told_breaks_the_chain(tmp_path: Path) -> None:
    async def work() -> None:
        script = [{"cursor": "c1", "prev": "c1"}, frame("c1", "c2"), mark("c3", "c3")]
        async with scripted(tmp_path, script) as (target, _):
            with pytest.raises(ChainBroken):
                await collect(target, 2, caught_up=True)

    run(work)


def test_what_there_was_comes_before_it_has_caught_up(daemon: Daemon) -> None:
    target = Target.local(daemon.state_dir)

    async def work() -> None:
        (nothing,) = await collect(target, 1, caught_up=True)
        assert nothing.name == "caught_up"
        await submit(target, "one")
        *_, end = every = await collect(target, 3, since="oldest")
        assert end.args["state"] == "finished"
        # Two may be of one moment.
        then = sum(event.time >= end.time for event in every)
        begins: list[tuple[dict[str, Any], int]] = [
            ({"last": 2}, 2),
            ({"since": end.time}, then),
        ]
        for begin, count in begins:
            found = await collect(target, count + 1, caught_up=True, **begin)
            assert found[-1].name == "caught_up"
            assert found[-2].cursor == end.cursor
            assert len(found) == count + 1
        found = await collect(target, 4, last=2, snapshot=True, caught_up=True)
        names = [event.name for event in found]
        assert names == ["snapshot", "dispatcher", "dispatcher", "caught_up"]

    run(work)


def test_silence_is_a_lost_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "SILENCE", 0.2)
    lost: list[str] = []

    def note(error: SysadmdError, pause: float) -> None:
        lost.append(str(error))
        # What comes next is waited for as long as it takes.
        monkeypatch.undo()

    async def work() -> None:
        reply = {"cursor": "c1", "prev": ""}
        async with scripted(tmp_path, [reply], [reply, frame("", "c2")]) as (target, _):
            await collect(target, 1, lost=note)

    run(work)
    assert lost == ["nothing was heard for 0.2 s"]


def test_what_does_not_speak_the_protocol_is_unreachable(tmp_path: Path) -> None:
    async def work() -> None:
        for nonsense in ("nonsense", "[]", "{}", '{"id":[],"name":"x","namespace":"y"}'):
            script = [{"type": "server"}, nonsense]
            async with scripted(tmp_path, script) as (target, _), connect(target) as client:
                await client.request("rpc", "identify")
                with pytest.raises(Unreachable, match="no sysadmd"):
                    await anext(client.frames())
                with pytest.raises(Unreachable):
                    await client.request("rpc", "identify")

    run(work)


def test_a_cursor_of_another_database_is_refused_not_skipped(tmp_path: Path) -> None:
    with (
        Daemon(tmp_path / "one", QUIET) as one,
        Daemon(tmp_path / "two", QUIET) as two,
    ):

        async def work() -> None:
            await submit(Target.local(one.state_dir), "job")
            (event,) = await collect(Target.local(one.state_dir), 1, since="oldest")
            with pytest.raises(Refused) as refused:
                await collect(Target.local(two.state_dir), 1, since=event.cursor)
            assert refused.value.number == 400

        run(work)
