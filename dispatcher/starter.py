"""The starter: a process of the keeper's that serves one command at a time, to its end.

It alone touches what a job names: working directory, program, interpreter. If they hang, it
hangs, and nobody else. It tells the keeper over a line between the two; the keeper writes the
book, and acknowledges the end. For each order:

1. it makes the command's log, which decides once for all who may begin it;
2. goes to the working directory, and marks the log: from here on the command may have begun;
3. spawns it, and tells `began`; or says in its log why it can't, with a code as a shell has it;
4. moves its output into the log (dispatcher/relay.py), and what it tells on its socket, where
   it has one, into a file (dispatcher/side_channel.py);
5. sees its end, tells that, and reaps when the keeper has it in the book;
6. goes on with 4 for as long as others have that output, and says when they have no more.

What the command has started and left falls to it, and is reaped when it ends.

When the keeper is dead it writes what that did not acknowledge into the book itself, lets go of
what says that something may still begin, and stays until its command has ended.

Standard library only, all imported before the fork.
"""
# ruff: noqa: PTH112 - a Path costs more than what is done with it here

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from dispatcher import book, dye, output_files, reaper, words
from dispatcher.guard import return_code, wake_up_pipe
from dispatcher.identity import boot_clock
from dispatcher.job_files import Replaced
from dispatcher.refusal import CANNOT_RUN, explain
from dispatcher.relay import Relay
from dispatcher.side_channel import SideChannel
from dispatcher.transits import Transit
from dispatcher.trouble import complain
from dispatcher.words import Commanded

# It is not told at once that a command has begun, but after this, s: the end of a short one is
# told together with it, and wakes the keeper once. Where the keeper finds it by its mark, if we
# are killed before that.
_SHORT: Final = 0.005
# Read from the keeper at once; an order has up to some hundred KiB.
_PORTION: Final = 256 * 1024

Limits = Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Fittings:
    """What a starter works with, in descriptors. home: the state directory.

    line: to the keeper. transit: what much output passes through, if there is one. ties: what
    says that something may still begin. ends: what says that an end may still be told. roll:
    who is a starter. id: the keeper's. mark: tells the daemon's dyes from others'.
    """

    id: str
    mark: int
    home: int
    line: int
    transit: Transit | None
    ties: Sequence[int]
    ends: int
    roll: int
    limits: Limits


def become(fittings: Fittings) -> NoReturn:
    """The life of a process that the keeper has just forked."""
    status = 1
    try:
        kept = {fittings.home, fittings.line, fittings.ends, fittings.roll, *fittings.ties}
        _close_others({0, 1, 2, *kept, *(fittings.transit or ())})
        fcntl.lockf(fittings.roll, fcntl.LOCK_EX, 1, os.getpid())
        os.setsid()
        reaper.become()
        # What commands begin with; all of ours has its mode from us.
        os.umask(0o022)
        status = Starter(fittings).run()
    except Exception:  # noqa: BLE001 - the process ends, and would say nothing
        for line in traceback.format_exc().splitlines():
            complain(line)
    finally:
        # Nothing of the keeper's own goes on here.
        os._exit(status)


def _close_others(kept: Iterable[int]) -> None:
    following = 0
    for file in sorted(kept):
        if following < file:
            # An empty range would be taken for all that there is.
            os.closerange(following, file)
        following = file + 1
    os.closerange(following, os.sysconf("SC_OPEN_MAX"))


class Starter:
    """The state of the process: what it has told and nobody has acknowledged."""

    def __init__(self, fittings: Fittings) -> None:
        self._fittings = fittings
        self._heard = b""
        self._told: list[bytes] = []
        # Of that, what the keeper has not heard either.
        self._unsaid = b""
        self._may_wait = dye.can_tell()
        self._book: book.BookWriter | None = None
        self._alone = False
        self._spare = output_files.SpareLog()
        self._gone: set[int] = set()
        self._refused: OSError | None = None
        self._own_session = True
        # What has a handler is as ever in a new program; to say so of all takes a call each.
        self._ignored = [
            number
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
            if signal.getsignal(number) in (signal.SIG_IGN, None)
        ]
        # The command's process until it is reaped; 0: none.
        self._pid = 0
        # Of the command that has events to tell; which of its sources are polled.
        self._channel: SideChannel | None = None
        self._heard_of: set[int] = set()
        self._wake = wake_up_pipe()
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(fittings.line, select.POLLIN)
        # While nothing else is waited for than what the keeper says.
        self._quiet = select.poll()
        self._quiet.register(self._wake, select.POLLIN)
        self._quiet.register(fittings.line, select.POLLIN)
        # And while not even an end is.
        self._line_only = select.poll()
        self._line_only.register(fittings.line, select.POLLIN)
        try:
            for kind, pair in fittings.limits.items():
                if resource.getrlimit(kind) != pair:
                    resource.setrlimit(kind, pair)
        except (OSError, ValueError) as error:
            # Told of each command: none may run without them.
            self._refused = OSError(errno.EPERM, f"its limits can't be set: {error}")

    def run(self) -> int:
        """Until the keeper hangs up, and what was begun has ended."""
        while not self._alone and (line := self._next_line()) is not None:
            order = words.commanded(words.read(line))
            if order is not None:
                self._serve(order)
            if not self._alone:
                self._spare.make()
        self._spare.drop()
        return 0

    def _serve(self, order: Commanded) -> None:
        job = list(order.job)
        try:
            served = self._make_output(job, order.limit)
        except OSError as error:
            reason = f"its log can't be written: {error.strerror}"
            complain(f"job {job[0]}, command {job[1]}: {reason}")
            text = f"sysadmd: cannot start it: {reason}\n"
            self._finish(book.refusal(job, CANNOT_RUN, text, 0))
            return
        if served is None:
            self._finish({"barred": job})
            return
        env = self._with_channel(order)
        # The command inherits it.
        dye.dye(job[0], self._fittings.mark)
        try:
            pid, code, text = self._begin(served, order.argv or [""], env, order.cwd)
        finally:
            dye.wash()
        if not pid:
            self._finish(book.refusal(job, code, text, served.say(text)))
            served.close()
            self._close_channel()
            return
        ended = self._see_end(pid, served)
        is_held = not served.through
        if is_held:
            self._hint(b'{"held":1}\n')
        self._tell(book.encode(book.end(job, return_code(ended), served.size)))
        # Nothing before that: the keeper may be on this processor, and the next one waits.
        self._hear_acknowledged()
        os.waitpid(pid, 0)
        self._pid = 0
        self._reap()
        if is_held:
            # The book has it no more as what is to be looked after.
            served.keep_to_pipe()
            self._serve_others(served)
        self._clear(served)
        if is_held:
            self._hint(b'{"free":1}\n')

    def _clear(self, served: Relay) -> None:
        """There is nothing to come of this command; get ready for the next one."""
        served.close(again=not self._alone)
        self._close_channel()
        if not self._alone:
            self._spare.make()

    def _with_channel(self, order: Commanded) -> Mapping[str, str]:
        """The command's environment, with the socket for its events, if it is to have one."""
        if not order.channel:
            return order.env
        try:
            self._channel = SideChannel(*order.job)
        except OSError as error:
            # It is worth less than the command.
            uid, n = order.job
            complain(f"job {uid}, command {n}: its events can't be heard: {error.strerror}")
            return order.env
        self._listen()
        return {**order.env, order.channel: self._channel.path}

    def _listen(self) -> None:
        """Have all of its sources polled."""
        sources = self._channel.sources if self._channel else []
        for gone in self._heard_of - set(sources):
            self._poll.unregister(gone)
        for source in sources:
            self._poll.register(source, select.POLLIN)
        self._heard_of = set(sources)

    def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            self._listen()
            channel.close()

    def _make_output(self, job: list[int], limit: int) -> Relay | None:
        """None: its log was made before. Raises: OSError."""
        log = output_files.make_log(job[0], job[1], self._spare)
        if log is None:
            return None
        try:
            source = output_files.open_pipe(*job)
            return Relay(job[0], job[1], log, source, limit, self._fittings.transit)
        except OSError:
            os.close(log)
            raise

    def _begin(
        self, served: Relay, argv: list[str], env: Mapping[str, str], cwd: str
    ) -> tuple[int, int, str]:
        """The command's pid; 0: it can't be started, with this code, and its log is to say this
        of it."""
        pid = code = 0
        pipe, reason = -1, ""
        since = 0.0
        try:
            if self._refused is not None:
                raise self._refused
            pipe = served.open()
            os.chdir(cwd)
            served.begin()
            since = boot_clock()
            pid = self._find_and_spawn(argv, env, pipe)
        except Replaced as error:
            # Not looked into: whoever did that may have put anything there.
            code, reason = CANNOT_RUN, f"{error.filename}: {error.strerror}"
        except OSError as error:
            code, reason = explain(error, argv[0], cwd)
        except ValueError as error:
            # Nothing that was accepted should get here; the command is answered for all the
            # same.
            code, reason = CANNOT_RUN, f"{argv[0]}: {error}"
        os.fchdir(self._fittings.home)
        self._pid = pid
        if pid:
            self._unsaid = b'{"began":[%d,%d],"pid":%d,"since":%r,"at":%r}\n' % (
                *served.job,
                pid,
                since,
                boot_clock(),
            )
            self._told.append(self._unsaid)
            if not self._may_wait:
                self._hint(b"")
        if pipe >= 0:
            os.close(pipe)
        return pid, code, f"sysadmd: cannot start {reason}\n"

    def _find_and_spawn(self, argv: list[str], env: Mapping[str, str], pipe: int) -> int:
        """Spawn the program, sought in the PATH that the command has. Raises: OSError."""
        program = argv[0]
        if "/" in program:
            return self._spawn(program, argv, env, pipe)
        candidates = [
            f"{directory or '.'}/{program}"
            for directory in env.get("PATH", os.defpath).split(":")
        ]
        for candidate in candidates if program else ():
            # To try each would cost a process.
            if os.access(candidate, os.X_OK):
                with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    return self._spawn(candidate, argv, env, pipe)
        for candidate in candidates:
            # One that is there shows why it was refused.
            if program and os.path.lexists(candidate) and not os.path.isdir(candidate):
                return self._spawn(candidate, argv, env, pipe)
        raise FileNotFoundError(errno.ENOENT, "command not found", program)

    def _spawn(self, path: str, argv: list[str], env: Mapping[str, str], pipe: int) -> int:
        actions = ((os.POSIX_SPAWN_DUP2, pipe, 1), (os.POSIX_SPAWN_DUP2, pipe, 2))
        if self._own_session:
            try:
                return os.posix_spawn(
                    path,
                    argv,
                    env,
                    file_actions=actions,
                    setsid=True,
                    setsigmask=(),
                    setsigdef=self._ignored,
                )
            except NotImplementedError:
                self._own_session = False
        return os.posix_spawn(
            path,
            argv,
            env,
            file_actions=actions,
            setpgroup=0,
            setsigmask=(),
            setsigdef=self._ignored,
        )

    def _see_end(self, pid: int, served: Relay) -> os.waitid_result:
        """Move its output until it has ended, and all that it has written by then."""
        self._poll.register(served.source, select.POLLIN)
        due = time.monotonic() + _SHORT
        while True:
            patience = max(0.0, due - time.monotonic()) * 1000 if self._unsaid else None
            self._wait(served, patience)
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            if ended is not None:
                break
            if self._unsaid and time.monotonic() >= due:
                self._hint(b"")
        if not served.through:
            served.drain()
            # Nothing more, or the word that nobody else has it.
            self._move(served)
        if self._channel is not None:
            self._channel.drain()
            self._listen()
        return ended

    def _serve_others(self, served: Relay) -> None:
        """Move what those write that the command has left behind."""
        while not served.through:
            if self._alone:
                # Of us no end is to be heard any more.
                self._let_go(self._fittings.ends)
            self._wait(served)

    def _wait(self, served: Relay, patience: float | None = None) -> None:
        """Wait for an end, for the keeper's, and for output; ms at most; None: for ever."""
        served.pause()
        for file, event in self._poll.poll(patience):
            if file == self._wake:
                self._reap()
            elif file == self._fittings.line:
                if not self._hear():
                    self._part()
            elif file in self._heard_of:
                self._hear_out(file)
            elif event == select.POLLHUP:
                # Nobody has it, and there is nothing in it.
                served.through = True
                self._poll.unregister(file)
            else:
                self._move(served)

    def _reap(self) -> None:
        """Those that had fallen to us and have ended; not the command, of which that is told
        first."""
        with suppress(BlockingIOError):
            os.read(self._wake, 4096)
        with suppress(ChildProcessError):
            while True:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None or ended.si_pid == self._pid:
                    # Those behind it come after it.
                    return
                os.waitpid(ended.si_pid, 0)

    def _hear_out(self, file: int) -> None:
        if self._channel is not None:
            # Not polled while it is closed, perhaps: another may get its number.
            self._channel.take(file)
            self._listen()

    def _move(self, served: Relay) -> None:
        if self._alone:
            # When the guard dies as well, nobody has what is under way.
            served.keep_to_pipe()
        served.take()
        if served.through:
            self._poll.unregister(served.source)

    def _finish(self, line: book.Line) -> None:
        """Tell the last of a command; returns when it is in the book."""
        self._tell(book.encode(line))
        self._hear_acknowledged()

    def _hear_acknowledged(self) -> None:
        """What was told is in the book."""
        # It comes at once, or there is nothing that could be done: others can wait. Polled for,
        # since who waits in a read is woken for nothing when what he has written is taken.
        while not self._alone and b"\n" not in self._heard:
            self._line_only.poll()
            if not self._read():
                self._part()
        if not self._alone:
            self._next_line()
        self._told.clear()

    def _tell(self, line: bytes) -> None:
        """Have it written into the book, by whoever does that now."""
        if self._alone:
            self._write(line)
        else:
            self._told.append(line)
            self._hint(line)

    def _hint(self, line: bytes) -> None:
        """Say it to the keeper, if that is there, after what it has not heard yet."""
        line, self._unsaid = self._unsaid + line, b""
        try:
            while line and not self._alone:
                line = line[os.write(self._fittings.line, line) :]
        except OSError:
            self._part()

    def _part(self) -> None:
        """The keeper is dead: write down what it may not have, and let go of the ties."""
        self._alone = True
        for line in self._told:
            self._write(line)
        self._unsaid = b""
        self._poll.unregister(self._fittings.line)
        self._let_go(*self._fittings.ties)

    def _write(self, line: bytes) -> None:
        if self._book is None:
            room, id = Path("keeper"), self._fittings.id
            newest = book.generations(room, id)
            self._book = book.BookWriter(room, id, newest[-1] if newest else 1)
        book.write(self._book.file, line)

    def _let_go(self, *files: int) -> None:
        for file in set(files) - self._gone:
            os.close(file)
            self._gone.add(file)

    def _next_line(self) -> bytes | None:
        """What the keeper says next: an order, or nothing, which acknowledges. None: it is
        dead."""
        while b"\n" not in self._heard:
            if not self._hear():
                return None
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def _hear(self) -> bool:
        """False: the keeper has hung up."""
        while self._fittings.line not in (ready := dict(self._quiet.poll())):
            if self._wake in ready:
                self._reap()
        return self._read()

    def _read(self) -> bool:
        """Hear what the keeper has said, or says next. False: it has hung up."""
        try:
            data = os.read(self._fittings.line, _PORTION)
        except OSError:
            data = b""
        self._heard += data
        return bool(data)
