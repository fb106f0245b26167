"""What has to be signed to log in by a key, and who has signed it. Pure but for chance."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from server.login.keys import Key
from sysadmd import keys

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


def signer(registered: Iterable[Key], signature: bytes, text: str) -> Key | None:
    """Who of them has signed the text as the original client does: its RSA keys are tried one
    after the other, since it does not say which one it has."""
    return next(
        (key for key in registered if keys.is_proved_raw(key.public, signature, text)), None
    )
