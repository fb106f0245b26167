"""Places for clients, shared out by account and not by who comes first. No socket, no wire.

What server.max_clients allows is for everybody; a tenth of it is for the role `full` alone, and
of the rest nobody takes more than is left to others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from server.login.roles import Login, Role
from sysadmd.errors import SysadmdError

# Of max_clients, what only the role `full` can take; at least one place.
KEPT_FREE: Final = 0.1


class Crowded(SysadmdError):
    """The account has as many connections as it may have now; others need the rest."""

    code = "crowded"


class Places:
    """Who is logged in over the network, by account."""

    def __init__(self, most: Callable[[], int]) -> None:
        """most: server.max_clients, as it is now."""
        self._most = most
        # Of those with the role `full`, and of the others.
        self._full = 0
        self._taken: Counter[str] = Counter()

    @property
    def are_taken(self) -> bool:
        """There is no place left, whoever comes."""
        return self._full + self._taken.total() >= self._most()

    def check(self, account: str, role: Role) -> None:
        """May there be another connection of this account? Raises: Crowded."""
        if self.are_taken:
            raise Crowded("there are server.max_clients clients; try again later")
        if role is Role.FULL:
            return
        most, own = self._most(), self._taken[account]
        free = most - max(1, int(most * KEPT_FREE)) - self._taken.total()
        # As many as are free for others: whoever is alone has half of them, and each further
        # account finds room, however many connections those before it have.
        if own >= max(1, free) or (free <= 0 and most > 1):
            raise Crowded(
                f"{account!r} has {own} connections and can't have more now: the other places"
                " of server.max_clients are for other accounts; close some, or ask for a higher"
                " limit"
            )

    def take(self, login: Login) -> None:
        """A place for another connection of this login. Raises: Crowded."""
        self.check(login.account, login.role)
        if login.role is Role.FULL:
            self._full += 1
        else:
            self._taken[login.account] += 1

    def give_back(self, login: Login) -> None:
        """One of them has ended, or logged out."""
        if login.role is Role.FULL:
            self._full -= 1
            return
        self._taken[login.account] -= 1
        if not self._taken[login.account]:
            del self._taken[login.account]
