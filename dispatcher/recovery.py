"""A daemon's first moments: what tables, books and keepers say of the one before it.

Fast, since nobody is served before it is through: of waiting jobs it reads the uids alone, and
a keeper that does not answer is left for later.
"""

from __future__ import annotations

import asyncio
import logging

from dispatcher import book, logs, records
from dispatcher.advance import Mover, lost
from dispatcher.board import Board, Running, limits_of
from dispatcher.identity import Identity
from dispatcher.keepers import KeeperPair
from dispatcher.processes import is_same_boot
from dispatcher.records import RUNNING
from dispatcher.tending import Tender
from sysadmd.errors import StoreFull
from sysadmd.journal import Transaction

log = logging.getLogger(__name__)


async def recover(board: Board, tender: Tender, mover: Mover) -> None:
    """Fill the board, take up the keepers, and work in what their books have.

    Raises: OSError if the state directory can't be used.
    """
    for name in ("jobs", "keeper"):
        (board.state_dir / name).mkdir(mode=0o700, exist_ok=True)
    await _part_from_another_state(board)
    _load_queues(board)
    db = board.store.reader
    positions = {
        keeper: (generation, position)
        for keeper, generation, position in db.execute("SELECT * FROM books")
    }
    await tender.find(positions)
    _load_commands(board)
    try:
        while board.wake.is_set():
            board.wake.clear()
            await mover.turn()
    except StoreFull:
        # Nothing is lost: the loop goes on with it when there is room.
        board.wake.set()


async def _part_from_another_state(board: Board) -> None:
    """After `state.db` was moved away, or an older one put back: part what was there from it.

    A keeper may still tell of jobs whose numbers this file has not given yet; they are passed
    over, and the logs are moved aside.
    """
    row = board.store.reader.execute(
        "SELECT seq FROM sqlite_sequence WHERE name = 'jobs'"
    ).fetchone()
    last = row[0] if row else 0
    foreign = [uid for uid in logs.uids(board.state_dir) if uid > last]
    if not foreign:
        return

    def pass_over(change: Transaction) -> None:
        change.db.execute("DELETE FROM sqlite_sequence WHERE name = 'jobs'")
        change.db.execute("INSERT INTO sqlite_sequence VALUES ('jobs', ?)", (max(foreign),))

    await board.store.write(pass_over)
    aside = logs.set_aside(board.state_dir, foreign)
    log.warning(
        "state.db knows nothing of %d jobs that have logs: it is another one than theirs. Their"
        " logs were moved to %s; what of them still runs goes on, but is not followed",
        len(foreign),
        aside,
    )


def _load_queues(board: Board) -> None:
    settings = board.settings
    board.queues = board.queues.configure(limits_of(settings))
    waiting: dict[str | None, list[int]] = {}
    running: dict[str | None, list[int]] = {}
    for uid, queue, state in board.store.reader.execute(
        "SELECT uid, queue, state FROM jobs WHERE state < 2 ORDER BY uid"
    ):
        (running if state == RUNNING else waiting).setdefault(queue, []).append(uid)
    for queue in waiting.keys() | running.keys():
        board.queues = board.queues.adopt(queue, waiting.get(queue, ()), running.get(queue, ()))
    for queue, (_, used) in records.queue_marks(board.store.reader).items():
        if used:
            board.used.add(queue)
    pause_as_written(board)


def pause_as_written(board: Board) -> None:
    """A queue is paused until it is resumed, over restarts and other configurations."""
    for queue, (paused, _) in records.queue_marks(board.store.reader).items():
        if paused and queue in board.queues.lanes:
            board.queues = board.queues.pause(queue, True)


def _load_commands(board: Board) -> None:
    """Running jobs, and for each what is known of its present command."""
    heard = asyncio.get_running_loop().time()
    rows = board.store.reader.execute(
        "SELECT uid, queue, n, deadline, boot, told, keeper, pid, start, next_at, began_at"
        " FROM commands JOIN jobs ON job = uid WHERE commands.state = ?",
        (RUNNING,),
    ).fetchall()
    for uid, queue, n, deadline, boot, told, keeper, pid, start, next_at, began_at in rows:
        identity = None if pid is None else Identity(pid, start, next_at, began_at)
        board.running[uid] = Running(uid, queue, n, deadline, identity, heard, told)
        if not is_same_boot(boot, board.boot_id) and not _any_lives(board):
            board.verdicts.append(lost(board, uid, n))
        elif keeper is None:
            board.unsent.append((uid, n))
        elif keeper not in board.pairs:
            # Nothing is left of it, not even its book.
            reader = book.BookReader(board.room, keeper, 1, 0)
            board.pairs[keeper] = KeeperPair(keeper, reader, settle=True, over=True)
    if board.running:
        board.busy.set()
    board.wake.set()


def _any_lives(board: Board) -> bool:
    """A living keeper or guard proves that the machine was not down."""
    return any(not pair.over for pair in board.pairs.values())
