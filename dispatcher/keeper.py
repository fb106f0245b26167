"""The keeper: hands commands over to its starters, and writes down what becomes of them.

It outlives the daemon, decides nothing, and says everything in its book, from where the daemon
takes it when it can: what comes next before it is handed over (dispatcher/starter.py), and an
end before its starter is let go of. It touches nothing that a job names. If a starter dies, its
command falls to the keeper, and its output. If the keeper dies, starters tell by themselves;
what falls to nobody else, the guard sees to (dispatcher/guard.py), its parent. If the guard
dies, the keeper takes no more commands and goes when the last one has ended. Without daemon and
commands it goes at once. Single-threaded, standard library only, everything imported at the
start: the very job that it runs may replace the files that it was started from.
"""

from __future__ import annotations

import fcntl
import gc
import os
import select
import signal
import socket
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final

from dispatcher import book, guard, output_files, reaper, relay, starter, words
from dispatcher.ahead import Ahead, Ordered
from dispatcher.crew import Crew
from dispatcher.daemon_line import NEWS, DaemonLine
from dispatcher.guard import Inheritance, Setup
from dispatcher.identity import boot_clock
from dispatcher.orphans import Orphans
from dispatcher.refusal import CANNOT_RUN
from dispatcher.relays import Relays
from dispatcher.starter import Fittings
from dispatcher.starter_line import HandedOver, StarterLine
from dispatcher.stopped import Stopped
from dispatcher.trouble import complain
from dispatcher.words import Commanded

# A keeper that its daemon never called, because that was killed meanwhile, goes after this; s.
UNCALLED: Final = 30.0
# A start that takes longer is told of: working directory or program do not answer; s.
HANGS: Final = 5.0
# How long the daemon may not hear that a command has begun, s.
BEGINNINGS: Final = 0.1
# How long it may not hear that one has ended after which a lent one begins, s: a wake-up of the
# daemon's, and a sync of its disk, then serve some jobs instead of one.
ENDS: Final = 0.006


def main(argv: list[str]) -> int:
    """`sysadmd keeper STATE_DIR ID VERSION LIMITS`: become guard and keeper, detached."""
    return guard.run(guard.read_setup(argv), keep)


def keep(setup: Setup, guard_end: socket.socket, kept: Inheritance, ready: int) -> int:
    """The keeper's life; returns its exit status, 0 if it owed nothing.

    ready: a pipe; a byte is written there when the keeper can be called.
    """
    # With a handler also what Python ignores: a command would inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        signal.signal(number, guard.noticed)
    os.setsid()
    # Its socket's mode, too; who starts commands has theirs.
    os.umask(0o077)
    reaper.become()
    output_files.remove_spares()
    keeper = Keeper(setup, guard_end, kept)
    os.write(ready, b"!")
    os.close(ready)
    # Nothing of what is there by now is garbage: those that are forked share it, untouched.
    gc.freeze()
    return keeper.run()


class Keeper:
    """The state of the process: its children, its daemon, its guard."""

    def __init__(self, setup: Setup, guard_end: socket.socket, kept: Inheritance) -> None:
        room = Path("keeper")
        self._setup = setup
        # Shows for as long as we live that we do.
        self._lock = os.open(room / f"{setup.id}.keeper", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        # Shows that a command may still begin: held by starters, too, until it can't.
        self._starts = os.open(room / f"{setup.id}.starts", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._starts, fcntl.LOCK_EX)
        self._book = book.BookWriter(room, setup.id, 1)
        # Shows that an end may still be told: held by starters, too, as long as they live.
        self._ends = os.open(room / f"{setup.id}.ends", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._ends, fcntl.LOCK_EX)
        # Shows who is a starter: each locks the byte of its pid.
        self._roll = os.open(room / f"{setup.id}.starters", os.O_RDWR | os.O_CREAT, 0o600)
        self._stopped = Stopped("starter")
        self._home = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        self._mark = os.stat(self._home).st_ino  # noqa: PTH116 - a descriptor
        # Of those handed over, not seen to have begun: until when, by the monotonic clock.
        self._fresh: deque[tuple[float, StarterLine, HandedOver]] = deque()
        self._orders: deque[Ordered] = deque()
        self._ahead = Ahead()
        self._news = False
        # When the daemon is to hear at the latest that there is something in the book.
        self._news_due: float | None = None
        self._turn = False
        self._draining = False
        self._guard: socket.socket | None = guard_end
        self._store = kept.store
        self._transits = kept.transits
        self._wake = guard.wake_up_pipe()
        self._poll = select.poll()
        for file in (self._wake, guard_end):
            self._poll.register(file, select.POLLIN)
        self._crew = Crew(self._poll, self._transits, self._fork)
        path = room / f"{setup.id}.sock"
        self._daemon = DaemonLine(path, self._poll, self._obey, self._forget)
        self._spare = output_files.SparePipe()
        # What dead starters have left, ours and those of others.
        self._relays = Relays(self._poll, self._transits)
        self._orphans = Orphans(self._mark, self._relays, self._write, self._end)

    def run(self) -> int:
        """Until there is nothing left to do."""
        since = time.monotonic()
        while self._daemon.is_up or self._owes() or not self._daemon.called:
            if self._draining and not self._owes():
                break
            if not self._daemon.called and time.monotonic() - since > UNCALLED:
                break
            self._look()
            self._follow_starts()
            self._relays.look()
            self._orphans.resolve_doubts()
            if self._turn:
                self._turn_book()
            if self._orders:
                while self._orders:
                    ordered = self._orders.popleft()
                    self._hand_over(ordered)
                    if ordered.command.room:
                        # That its turn has come is not known yet.
                        self._tell_within(ENDS)
                    self._get_ready()
            if self._news_due is not None and self._news_due <= time.monotonic():
                self._news = True
            if self._news:
                self._news = False
                self._tell(NEWS)
        self._daemon.close()
        return 0

    def _commands(self) -> list[HandedOver]:
        """Those that were begun, or are to be, and have not ended."""
        return [*self._crew.commands, *self._orphans.commands]

    def _owes(self) -> bool:
        """Has anybody to wait for us?"""
        return bool(self._commands() or self._relays.serves)

    def _look(self) -> None:
        """Wait for news, and hear it."""
        self._daemon.prepare()
        ready = dict(self._poll.poll(self._patience()))
        for file, event in ready.items():
            serving = self._crew.on_line(file)
            if serving is not None:
                self._attend(serving, event)
            else:
                self._relays.take(file)
        if self._wake in ready:
            os.read(self._wake, 4096)
            self._reap()
        if self._guard and self._guard.fileno() in ready:
            # It says nothing, so this is its end.
            self._poll.unregister(self._guard)
            self._guard = None
            self._drain()
        self._daemon.attend(ready)

    def _patience(self) -> float | None:
        """How long to wait at most, ms; None: for ever."""
        if self._orders:
            return 0
        now = time.monotonic()
        waits: list[float] = []
        if not self._daemon.called:
            waits.append(UNCALLED * 1000)
        if self._relays.patience is not None:
            waits.append(self._relays.patience)
        dues = [self._fresh[0][0]] if self._fresh else []
        if self._news_due is not None:
            dues.append(self._news_due)
        waits += [max(0.0, due - now) * 1000 + 1 for due in dues]
        return min(waits, default=None)

    def _obey(self, line: bytes) -> None:
        """Do what the daemon says; what is not understood is passed over, and complained of."""
        order = words.read(line)
        command = words.commanded(order)
        if command is not None:
            if not self._draining:
                self._take(Ordered(line, command))
        elif "hello" in order:
            answer = {
                "hello": self._setup.id,
                "version": self._setup.version,
                "draining": self._draining,
                "lends": True,
            }
            self._tell(book.encode(answer))
            self._tell_hanging()
        elif "drain" in order:
            self._drain()
        elif "turn" in order:
            self._turn = True
        elif "recall" in order:
            self._give_back(self._ahead.give_back(set(words.jobs(order["recall"]))))
        elif "over" in order:
            for uid in words.uids(order["over"]):
                self._orders.extend(self._ahead.over(uid))
        elif "serve" in order:
            for job in words.jobs(order["serve"]):
                self._relays.want(list(job), words.limit(order))
        else:
            # Not what it says: there may be a secret in it.
            complain(f"a word of the daemon is not known here, and passed over: {[*order]}")

    def _take(self, ordered: Ordered) -> None:
        if ordered.command.room:
            self._orders.extend(self._ahead.lend(ordered))
        else:
            self._ahead.occupy(ordered.command)
            self._orders.append(ordered)

    def _forget(self) -> None:
        """What is wanted and has not begun is not to begin: nobody is there who would know."""
        lent = [one.command for one in self._orders if one.command.room]
        self._orders.clear()
        self._give_back(lent + self._ahead.forget())

    def _give_back(self, lent: list[Commanded]) -> None:
        if lent:
            lines = (book.encode({"returned": one.job, "mark": one.mark}) for one in lent)
            book.write(self._book.file, b"\n".join(lines))
            self._news = True

    def _turn_book(self) -> None:
        """Begin a new generation with what still runs: nobody else writes while we live."""
        self._turn = False
        try:
            self._book.turn([line for one in self._commands() for line in one.lines])
        except OSError as error:
            complain(f"the book goes on without a new generation: {error}")
        self._tell(NEWS)

    def _drain(self) -> None:
        """Start nothing more: what has no `next` in the book by now will have none from us."""
        if not self._draining:
            self._draining = True
            self._forget()
            self._crew.dismiss_idle()
            self._tell(book.encode({"draining": True}))

    def _tell_within(self, seconds: float) -> None:
        """Have the daemon hear by then that there is something in the book."""
        due = time.monotonic() + seconds
        if self._news_due is None or due < self._news_due:
            self._news_due = due

    def _tell(self, data: bytes) -> None:
        """Say this to the daemon, if there is one."""
        if data == NEWS:
            self._news_due = None
        self._daemon.tell(data)

    def _hand_over(self, ordered: Ordered) -> None:
        """Give it to a starter."""
        order = ordered.command
        job = list(order.job)
        if order.argv is None:
            self._refuse(order, "the daemon is of another version, and does not say what")
            return
        try:
            pipe = output_files.make_pipe(*order.job, self._spare)
        except OSError as error:
            self._refuse(order, f"its log can't be written: {error.strerror}")
            return
        try:
            serving = self._crew.take()
        except OSError as error:
            output_files.forget_pipe(job, pipe)
            self._refuse(order, f"no process can be made: {error.strerror}")
            return
        following: book.Line = {"next": job, "at": boot_clock(), "pid": serving.pid}
        following["limit"] = order.limit
        if serving.transit is not None:
            following["transit"] = serving.transit
        command = HandedOver(order, following, pipe)
        # What an earlier attempt has left is this one's now.
        self._relays.forget(job)
        self._book.write(command.following)
        self._store.keep(job, order.limit, pipe)
        serving.command = command
        self._crew.say(serving, ordered.line + b"\n")
        self._fresh.append((time.monotonic() + HANGS, serving, command))

    def _get_ready(self) -> None:
        """For the next one that is handed over: nobody waits for this."""
        for uid, n in self._store.look():
            self._spare.reuse(uid, n)
        self._spare.make()

    def _fork(self, line_end: int, transit: int | None) -> int:
        """Make another starter; its pid. Raises: OSError."""
        ties = [self._starts] + ([self._guard.fileno()] if self._guard else [])
        pid = os.fork()
        if not pid:
            starter.become(
                Fittings(
                    id=self._setup.id,
                    mark=self._mark,
                    home=self._home,
                    line=line_end,
                    transit=self._transits[transit],
                    ties=ties,
                    ends=self._ends,
                    roll=self._roll,
                    limits=self._setup.limits,
                )
            )
        return pid

    def _refuse(self, order: Commanded, reason: str) -> None:
        """Answer for a command that no starter can be made for."""
        job = list(order.job)
        complain(f"job {job[0]}, command {job[1]}: {reason}")
        text, written = f"sysadmd: cannot start it: {reason}\n", 0
        line = None
        with suppress(OSError):
            log = output_files.make_log(job[0], job[1])
            if log is None:
                line = {"barred": job}
            else:
                written = relay.say(log, text)
                os.close(log)
        self._end(order, line or book.refusal(job, CANNOT_RUN, text, written))

    def _end(self, order: Commanded, line: book.Line) -> None:
        """Write down its last word; who waited for that is next."""
        self._write(line)
        self._orders.extend(self._ahead.ended(order))

    def _attend(self, serving: StarterLine, event: int) -> None:
        """Take down what it says, and hand over what it had no room for."""
        if event & select.POLLOUT:
            self._crew.say_on(serving)
        self._take_down(serving)
        if event & select.POLLHUP:
            self._crew.hang_up(serving)

    def _take_down(self, serving: StarterLine) -> None:
        # Of a short command, written together with its end.
        began = b""
        for line in serving.hear():
            command = serving.command
            if line.startswith(b'{"free"'):
                self._rest(serving)
            elif command is None:
                continue
            elif line.startswith(b'{"held"'):
                serving.held = command
            elif line.startswith(b'{"began"'):
                command.began = line
                began = line + b"\n"
            else:
                book.write(self._book.file, began + line + b"\n")
                began = b""
                self._let_go(serving, command, barred=line.startswith(b'{"barred"'))
        if began:
            book.write(self._book.file, began)
            # The end of one that is not long may come before that.
            self._tell_within(BEGINNINGS)

    def _let_go(self, serving: StarterLine, command: HandedOver, *, barred: bool) -> None:
        """The end of its command is in the book: who waits for that is next."""
        following = self._ahead.ended(command.order)
        if not following:
            # The daemon first: something else may wait for this.
            self._tell(NEWS)
        serving.command, serving.ended = None, (command.job, command.order.limit)
        for ordered in following:
            if self._orders:
                # These came before it.
                self._orders.append(ordered)
            else:
                # To another one, who has nothing to put away before.
                self._hand_over(ordered)
        serving.send(b"\n")
        if command.hangs:
            self._tell_hanging()
        if barred:
            output_files.forget_pipe(command.job, command.pipe)
            command.pipe = -1
        if serving.held is None:
            self._rest(serving, command)
        if following:
            self._tell_within(ENDS)
            self._get_ready()

    def _rest(self, serving: StarterLine, command: HandedOver | None = None) -> None:
        """It has done all that it had to do for this command."""
        served = command or serving.held
        serving.held = None
        if served is not None and served.pipe >= 0:
            os.close(served.pipe)
        self._crew.rest(serving, again=not self._draining)

    def _follow_starts(self) -> None:
        """Say which starts take long, and which do so no more."""
        changed = False
        now = time.monotonic()
        while self._fresh and self._fresh[0][0] <= now:
            _, serving, command = self._fresh.popleft()
            if serving.command is not command:
                continue
            hangs = not command.began
            if hangs:
                # Looked at again until it is through.
                self._fresh.append((now + HANGS, serving, command))
            changed |= command.hangs != hangs
            command.hangs = hangs
        if changed:
            self._tell_hanging()

    def _tell_hanging(self) -> None:
        jobs = [command.job for command in self._commands() if command.hangs]
        self._tell(book.encode({"hanging": jobs}))

    def _reap(self) -> None:
        """See to those that have ended; what there is to say of a command is said before it is
        reaped: until then the guard could do it. Starters that were stopped go on."""
        self._stopped.go_on(self._crew.pids)
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            if ended.si_pid not in self._orphans:
                # Of a starter that has died the command may be seen first.
                self._bury_starters()
            self._orphans.ended(ended)
            # A starter is reaped by now.
            with suppress(ChildProcessError):
                os.waitpid(ended.si_pid, 0)

    def _bury_starters(self) -> None:
        for gone in self._crew.dead():
            if gone.line.fileno() >= 0:
                self._take_down(gone)
            self._crew.bury(gone)
            if gone.ended is not None and gone.held is None:
                self._relays.want(*gone.ended)
            if gone.command is not None:
                if gone.command.hangs:
                    gone.command.hangs = False
                    self._tell_hanging()
                self._orphans.adopt(gone.command, gone.pid, self._crew.pids)
            elif gone.held is not None:
                self._orphans.serve(gone.held)

    def _write(self, line: book.Line) -> None:
        self._book.write(line)
        self._news = True
