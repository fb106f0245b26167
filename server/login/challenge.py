"""What has to be signed to log in by a key. Pure but for chance."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

# How long a text may be signed, from when it was given; s. Source: the original's reference.
WINDOW: Final = 30.0


@dataclass(frozen=True, slots=True)
class Challenge:
    """text: chance, for one connection and one attempt. until: by the connection's clock."""

    text: str
    until: float

    @staticmethod
    def new(now: float) -> Challenge:
        return Challenge(secrets.token_urlsafe(32), now + WINDOW)
