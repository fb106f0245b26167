"""Failed logins by address: who is blocked, and for how long. No clock, no socket, no wire."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from typing import Final

from sysadmd.settings import AuthSettings

# Addresses remembered. Beyond it the one whose failure is longest ago is forgotten: a flood
# from ever new addresses costs bounded memory and unblocks nobody who still tries.
ADDRESSES: Final = 10_000


class Guesses:
    """Counts failures in a sliding window. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        # (time, hash of the account's name): a name may be long.
        self._failures: OrderedDict[str, deque[tuple[float, int]]] = OrderedDict()
        self._blocked: OrderedDict[str, float] = OrderedDict()
        # Passwords that are being checked.
        self._checking: Counter[str] = Counter()
        # Since the start, for metrics.
        self.failures = 0
        self.blocks = 0

    def __len__(self) -> int:
        """Addresses that something is remembered of."""
        return len(self._failures) + len(self._blocked) + len(self._checking)

    def blocked_for(self, address: str, now: float) -> float:
        """Seconds until this address may try a password again; 0: now."""
        end = self._blocked.get(address)
        if end is None:
            return 0.0
        if end <= now:
            del self._blocked[address]
            return 0.0
        return end - now

    def begin(self, address: str, now: float, settings: AuthSettings) -> bool:
        """May a password be checked? Then `end` follows, after the outcome.

        What is being checked counts as failed: many at once are not more than one by one.
        """
        open_guesses = self._checking[address] + self._recent(address, now, settings)
        if self.blocked_for(address, now) or open_guesses >= settings.failures:
            return False
        self._checking[address] += 1
        return True

    def end(self, address: str) -> None:
        """A check is over."""
        self._checking[address] -= 1
        if not self._checking[address]:
            del self._checking[address]

    def failed(self, address: str, name: str, now: float, settings: AuthSettings) -> bool:
        """Count a failure; True: it blocks the address."""
        self.failures += 1
        failures = self._failures.setdefault(address, deque())
        self._failures.move_to_end(address)
        failures.append((now, hash(name)))
        blocked = self._recent(address, now, settings) >= settings.failures
        if blocked:
            self.blocks += 1
            del self._failures[address]
            self._blocked[address] = now + settings.block_time
            self._blocked.move_to_end(address)
        for table in (self._failures, self._blocked):
            if len(table) > ADDRESSES:
                table.popitem(last=False)
        return blocked

    def blocked(self, now: float) -> Iterator[tuple[str, float]]:
        """Who is blocked, and for how many seconds more."""
        for address, end in self._blocked.items():
            if end > now:
                yield address, end - now

    def unblock(self, address: str) -> None:
        """Take passwords from there again, as if there had been none before."""
        self._blocked.pop(address, None)
        self._failures.pop(address, None)

    def succeeded(self, address: str, name: str) -> None:
        """A right password forgives the failures of its account: not those of another one."""
        failures = self._failures.get(address, deque[tuple[float, int]]())
        left = deque(failure for failure in failures if failure[1] != hash(name))
        if left:
            self._failures[address] = left
        else:
            self._failures.pop(address, None)

    def _recent(self, address: str, now: float, settings: AuthSettings) -> int:
        """Failures in the window; older ones are forgotten."""
        failures = self._failures.get(address)
        if failures is None:
            return 0
        while failures and failures[0][0] <= now - settings.failure_window:
            failures.popleft()
        return len(failures)
