"""rpc/dispatcher: jobs as clients ask for them. Wire words in, the dispatcher's values out.

Source: docs/protocol.md, "Jobs"; `run`, `list` and `kill` after the original server.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final, cast

import msgspec

from dispatcher import logs, records
from dispatcher.commandline import Spec, parse_command
from dispatcher.orders import MAX_ID, Order
from dispatcher.records import Command, JobRow
from dispatcher.runner import Dispatcher
from server.classes.log_portions import (
    DEFAULT_LOG,
    MAX_LINES,
    MAX_LOG,
    last_lines,
    portion,
)
from server.classes.paging import REPLY_SIZE, first_page, number_of, paging
from server.dialects.values import job_value, list_value, queue_name
from server.login import audit
from server.login.roles import Role
from server.request_class import Begun
from server.session import Session
from server.wire.protocol import Reply, Request
from sysadmd.journal import Transaction
from sysadmd.settings import NO_QUEUE
from sysadmd.text import quoted

READING: Final = frozenset({"list", "history", "show", "log", "queues"})
_Handler = Callable[[Session, Request, dict[str, Any]], Coroutine[Any, Any, Reply]]


class DispatcherClass:
    """Answers rpc/dispatcher."""

    def __init__(self, dispatcher: Dispatcher, state_dir: Path) -> None:
        self._dispatcher = dispatcher
        self._state_dir = state_dir
        self._actions: Mapping[str, _Handler] = {
            "run": self._run,
            "submit": self._submit,
            "kill": self._kill,
            "pause": self._pause,
            "resume": self._resume,
            "list": self._list,
            "history": self._history,
            "show": self._show,
            "log": self._log,
            "queues": self._queues,
        }

    def role(self, request: Request) -> Role | None:
        return Role.READ if request.action() in READING else Role.FULL

    async def answer(self, session: Session, request: Request) -> Reply | None:
        handler = self._actions.get(request.action())
        if handler is None:
            raise request.refuse(
                404, f"rpc/dispatcher knows the actions {', '.join(self._actions)}"
            )
        return await handler(session, request, request.fields())

    # Changing.

    async def _run(self, session: Session, request: Request, args: dict[str, Any]) -> Reply:
        orders: list[Order] = []
        who = _who(session)
        for id, value in args.items():
            if id == "action":
                continue
            texts: object = [value] if isinstance(value, str) else value
            if not isinstance(texts, list):
                raise request.refuse(
                    400, f"args.{id[:MAX_ID]} must be a command or a list of commands"
                )
            several = cast("list[object]", texts)
            commands = _commands(request, f"args.{id[:MAX_ID]}", several, vectors=False)
            orders.append(Order(id=id, commands=commands, account=who[0]))
        if not orders:
            raise request.refuse(400, "name at least one job: args.<job id> = its commands")
        _few_enough(request, [order.id for order in orders])

        def note(change: Transaction, jobs: Sequence[JobRow]) -> None:
            audit.write(change, *who, "run " + ", ".join(job.id for job in jobs))

        jobs = await self._dispatcher.submit(orders, note)
        return Reply({"started": [job.id for job in jobs]})

    def begin(self, session: Session, request: Request) -> Begun | None:
        """As `RequestClass` has it."""
        if request.action() != "submit":
            return None
        session.require(request, Role.FULL)
        session.renew()
        return self._begin_submit(session, request, request.fields())

    async def _submit(self, session: Session, request: Request, args: dict[str, Any]) -> Reply:
        begun = self._begin_submit(session, request, args)
        return begun.reply(await begun.done)

    def _begin_submit(self, session: Session, request: Request, args: dict[str, Any]) -> Begun:
        who = _who(session)
        order = _order(request, args.get("job"), who[0])

        def note(change: Transaction, jobs: Sequence[JobRow]) -> None:
            (job,) = jobs
            audit.write(change, *who, f"submit {job.id} to {queue_name(job.queue)}")

        return Begun(self._dispatcher.begin_submit([order], note), self._submitted)

    def _submitted(self, jobs: Sequence[JobRow]) -> Reply:
        (job,) = jobs
        value = {
            "id": job.id,
            "state": job.state,
            "queue": queue_name(job.queue),
            "position": self._dispatcher.position(job.uid),
        }
        return Reply({"job": value})

    async def _kill(self, session: Session, request: Request, args: dict[str, Any]) -> Reply:
        ids = args.get("job_id")
        ids = [ids] if isinstance(ids, str) else ids
        if not isinstance(ids, list) or not all(
            isinstance(id, str) for id in cast("list[object]", ids)
        ):
            raise request.refuse(400, "args.job_id must be a job's id or a list of them")
        wanted = cast("list[str]", ids)
        _few_enough(request, wanted)
        who = _who(session)

        def note(change: Transaction, killed: Sequence[str]) -> None:
            audit.write(change, *who, "kill " + ", ".join(killed))

        return Reply({"killed": {"jobs": await self._dispatcher.kill(wanted, note)}})

    async def _pause(self, session: Session, request: Request, args: dict[str, Any]) -> Reply:
        name = _string(request, args, "queue")
        await self._dispatcher.pause(_queue(name), audit.entry(*_who(session), f"pause {name}"))
        return Reply({"paused": name})

    async def _resume(self, session: Session, request: Request, args: dict[str, Any]) -> Reply:
        name = _string(request, args, "queue")
        await self._dispatcher.resume(
            _queue(name), audit.entry(*_who(session), f"resume {name}")
        )
        return Reply({"resumed": name})

    # Reading.

    async def _list(self, session: Session, request: Request, args: dict[str, Any]) -> Reply:
        limit, after = paging(request, args)

        def look(db: Connection) -> tuple[list[tuple[JobRow, list[str]]], dict[str, str]]:
            jobs = records.active_jobs(db, after)
            entries = ((row.uid, (row, records.texts(db, row.uid))) for row in jobs)
            return first_page(entries, limit)

        page, more = await session.read(look)
        queues: dict[str, dict[str, Any]] = {
            queue_name(queue.name): {} for queue in self._dispatcher.queues() if queue.used
        }
        for row, texts in page:
            value = list_value(row, texts, self._dispatcher.position(row.uid))
            queues.setdefault(queue_name(row.queue), {})[row.id] = value
        return Reply({"jobs": queues, **more})

    async def _history(self, session: Session, request: Request, args: dict[str, Any]) -> Reply:
        limit, after = paging(request, args)

        def look(db: Connection) -> tuple[list[msgspec.Raw], dict[str, str]]:
            jobs = records.finished_jobs(db, after)
            return first_page(((row.uid, _in_full(db, row)) for row in jobs), limit)

        page, more = await session.read(look)
        return Reply({"jobs": page, **more})

    async def _show(self, session: Session, request: Request, args: dict[str, Any]) -> Reply:
        id = _string(request, args, "job_id")

        def look(db: Connection) -> tuple[int, dict[str, Any]]:
            row = _find(db, request, id)
            commands = records.commands(db, row.uid)
            return row.uid, job_value(row, map(partial(self._with_log, row.uid), commands))

        uid, value = await session.read(look)
        return Reply({"job": {**value, "position": self._dispatcher.position(uid)}})

    def _with_log(self, uid: int, command: Command) -> Command:
        """With the size that its log has by now, if it runs."""
        if command.state != "running":
            return command
        size, _ = logs.present(logs.path(self._state_dir, uid, command.n))
        return msgspec.structs.replace(command, log_size=size)

    async def _log(self, session: Session, request: Request, args: dict[str, Any]) -> Reply:
        id = _string(request, args, "job_id")
        number = number_of(request, args, "command", 0, 0, 1_000_000)
        offset = number_of(request, args, "offset", 0, 0, 2**62)
        lines = number_of(request, args, "tail", 0, 0, MAX_LINES) if "tail" in args else None
        if lines is not None and "offset" in args:
            raise request.refuse(
                400, "args.tail says where to begin, as args.offset does; name one of them"
            )
        limit = number_of(request, args, "limit", DEFAULT_LOG, 1, MAX_LOG)

        def look(db: Connection) -> dict[str, Any]:
            row = _find(db, request, id)
            found = records.commands(db, row.uid, number, number)
            if not found:
                count = len(records.texts(db, row.uid))
                raise request.refuse(
                    404, f"job {quoted(id)} has {count} commands, counted from 0"
                )
            path = logs.path(self._state_dir, row.uid, number)
            begin = offset if lines is None else last_lines(path, found[0], lines, limit)
            return portion(path, found[0], begin, limit)

        return Reply(await session.read(look))

    async def _queues(self, session: Session, request: Request, args: dict[str, Any]) -> Reply:
        queues = {
            queue_name(queue.name): {
                "limit": queue.limit,
                "paused": queue.paused,
                "drains": queue.drains,
                "waiting": queue.waiting,
                "running": queue.running,
            }
            for queue in self._dispatcher.queues()
        }
        return Reply({"queues": queues})


def _in_full(db: Connection, row: JobRow) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(job_value(row, records.commands(db, row.uid))))


def _find(db: Connection, request: Request, id: str) -> JobRow:
    """The newest job of the id that was asked for. Raises: ProtocolError 404."""
    row = records.newest(db, id)
    if row is None:
        raise request.refuse(
            404,
            f"there is no job {quoted(id)}; `list` names the active jobs, `history` those that"
            " have finished",
        )
    return row


def _who(session: Session) -> tuple[str, str]:
    """Account and address of who asks, for the trail; by the commit it may be somebody else."""
    assert session.login is not None
    return session.login.account, session.address


def _commands(
    request: Request, field: str, values: object, *, vectors: bool
) -> tuple[Spec, ...]:
    """Commands: text or, with `vectors`, lists of arguments. Blank text is dropped."""
    allowed = "text or a list of arguments" if vectors else "text"
    if not isinstance(values, list):
        raise request.refuse(400, f"{field} must be a list; each command is {allowed}")
    specs: list[Spec] = []
    for number, value in enumerate(cast("list[object]", values)):
        vector = vectors and isinstance(value, list)
        if not (isinstance(value, str) or (vector and _all_text(cast("list[object]", value)))):
            raise request.refuse(400, f"{field}[{number}] must be {allowed}")
        spec = parse_command(cast("str | list[str]", value), f"{field}[{number}]")
        if spec is not None:
            specs.append(spec)
    return tuple(specs)


def _few_enough(request: Request, ids: Sequence[str | None]) -> None:
    """The reply names them all again. Raises: ProtocolError 400."""
    if len(msgspec.json.encode(ids)) > REPLY_SIZE:
        raise request.refuse(
            400, f"the jobs' ids have more than {REPLY_SIZE} bytes; name fewer at a time"
        )


def _all_text(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _order(request: Request, value: object, account: str) -> Order:
    """The order in `submit`'s `job`. Raises: ProtocolError 400, BadRequest."""
    keys = ("id", "commands", "queue", "timeout", "env", "cwd", "key")
    if not isinstance(value, dict):
        raise request.refuse(400, f"args.job must be an object with some of {', '.join(keys)}")
    job = cast("dict[str, object]", value)
    for key in job:
        if key not in keys:
            raise request.refuse(
                400, f"args.job.{key[:MAX_ID]} is unknown; known are {', '.join(keys)}"
            )
    for key in ("id", "queue", "cwd", "key"):
        if not isinstance(job.get(key), str | None):
            raise request.refuse(400, f"args.job.{key} must be a string")
    timeout = job.get("timeout")
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float)
    ):
        raise request.refuse(400, "args.job.timeout must be a number of seconds above 0")
    env = job.get("env", {})
    if not isinstance(env, dict) or not _all_text(
        list(cast("dict[str, object]", env).values())
    ):
        raise request.refuse(400, "args.job.env must be an object of strings")
    queue = cast("str | None", job.get("queue"))
    return Order(
        id=cast("str | None", job.get("id")),
        commands=_commands(request, "args.job.commands", job.get("commands"), vectors=True),
        queue=None if queue is None else _queue(queue),
        timeout=None if timeout is None else float(cast("float", timeout)),
        env=cast("dict[str, str]", env),
        cwd=cast("str | None", job.get("cwd")),
        key=cast("str | None", job.get("key")),
        account=account,
    )


def _string(request: Request, args: dict[str, Any], key: str) -> str:
    value = args.get(key)
    if not isinstance(value, str):
        raise request.refuse(400, f"args.{key} must be a string")
    return value


def _queue(name: str) -> str | None:
    return None if name == NO_QUEUE else name
