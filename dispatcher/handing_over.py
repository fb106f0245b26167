"""What a keeper is told of a committed turn: what to start, now or later, and what is over."""

from __future__ import annotations

from dispatcher.keepers import Link
from dispatcher.queue import Queues
from dispatcher.site import environment
from dispatcher.steps import Outcome, Start


def hand_over(link: Link, outcome: Outcome, queues: Queues, limit: int) -> None:
    """Tell it, and remember what it was given. queues: as they are now; limit: of a command's
    log, bytes."""
    cut = [uid for uid in outcome.cut if uid in link.given]
    if cut:
        # What it can't know.
        link.send({"over": cut})
    link.given.difference_update(uid for _, uid in outcome.finished)
    link.given.difference_update(outcome.returned)
    for start in outcome.starts:
        link.send({"start": [start.uid, start.n], **_order(start, limit)})
    for start in outcome.lent:
        room = queues.lanes[start.queue].limit
        lent = {"lend": [start.uid, start.n], "room": room, "mark": start.mark}
        link.send({**lent, **_order(start, limit)})
    link.given.update(start.uid for start in (*outcome.starts, *outcome.lent))


def _order(start: Start, limit: int) -> dict[str, object]:
    return {
        "argv": start.argv,
        "env": environment(start.env),
        "cwd": start.cwd,
        "limit": limit,
        "lane": start.queue or "",
        "last": start.last,
        **({"channel": start.channel} if start.channel else {}),
    }
