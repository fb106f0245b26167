"""What waits for a peer of a bridge: in order by sender, within bounds, and nobody starves."""

from __future__ import annotations

from collections import deque
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from server.bridge.outbox import OF_ALL, OF_SENDER, Outbox

SENDERS = tuple("abcdefghij")
KIB = 1024


class Model(RuleBasedStateMachine):
    """Queues as plain ones; turns as how often others were taken from since."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox()
        self.waiting: dict[str, deque[bytes]] = {}
        self.passed: dict[str, list[str]] = {}

    def held(self, sender: str) -> int:
        return sum(map(len, self.waiting.get(sender, ())))

    @property
    def size(self) -> int:
        return sum(map(self.held, self.waiting))

    @rule(
        sender=st.sampled_from(SENDERS),
        kib=st.sampled_from((0, 1, 20, 100, 512)),
        count=st.integers(1, 60),
    )
    def put(self, sender: str, kib: int, count: int) -> None:
        for number in range(count):
            message = sender.encode() + bytes((number,)) + bytes(kib * KIB)
            held = self.held(sender) + len(message)
            senders = len(self.waiting.keys() | {sender})
            fits = self.size + len(message) <= OF_ALL or held <= OF_ALL / senders
            assert self.outbox.put(sender, message) == (fits and held <= OF_SENDER)
            if not fits or held > OF_SENDER:
                return
            self.waiting.setdefault(sender, deque()).append(message)
            self.passed.setdefault(sender, [])

    @rule(most=st.sampled_from((0, 1, 64 * KIB, 1024 * KIB)))
    def take(self, most: int) -> None:
        before = self.size
        taken = self.outbox.take(most)
        for message in taken:
            sender = chr(message[0])
            assert message == self.waiting[sender].popleft(), "out of order"
            for other, passed in self.passed.items():
                if other != sender:
                    passed.append(sender)
                    assert len(passed) == len(set(passed)), f"{other} starves"
            self.passed[sender].clear()
            if not self.waiting[sender]:
                del self.waiting[sender], self.passed[sender]
        size = sum(map(len, taken))
        assert size >= most or size == before
        assert size - len(taken[-1]) < most if taken else not most or not before

    @invariant()
    def is_bounded(self) -> None:
        assert self.outbox.size == self.size
        assert len(self.outbox) == len(self.waiting)
        assert all(self.held(sender) <= OF_SENDER for sender in self.waiting)
        assert self.size <= OF_ALL * sum(1 / n for n in range(1, len(self.waiting) + 1))


TestOutbox = cast("Any", Model).TestCase
TestOutbox.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_who_sends_what_he_can_keeps_out_nobody() -> None:
    outbox = Outbox()
    record = bytes(22 * KIB)
    for number in range(10):
        while outbox.put(f"hog {number}", record):
            pass
    # A sealed stream's window, in full.
    assert all(outbox.put("polite", record) for _ in range(16))
    for _ in range(16):
        assert len(outbox.take(11 * len(record))) == 11
