"""The certificate that clients are shown: renewed in time, whatever the wall clock does.

The clock may be set while the daemon runs, and a daemon may run for longer than a certificate
is valid. So the dates are compared with the clock often, in memory. No socket here.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from server.wire import tls
from sysadmd.apart import in_time
from sysadmd.errors import CannotStart
from sysadmd.machine import plainly
from sysadmd.settings import DoorSettings, ServerSettings

log = logging.getLogger(__name__)

# How often the dates are looked at: so long may a wrong one be shown, once the clock is set; s.
LOOK: Final = 60.0
# After how many looks the own file is read anew, an hour: it may have been replaced.
LOOKS: Final = 60
# How long before its end a certificate is spoken of that others are to renew; s.
SOON: Final = 14 * 86400.0
# What making and loading one raises.
NO_CERTIFICATE: Final = (CannotStart, OSError, subprocess.SubprocessError)


async def load(settings: DoorSettings, directory: Path) -> tuple[tls.KeyPair, ssl.SSLContext]:
    """What is to be shown, made if that is due. Raises: one of NO_CERTIFICATE."""

    def work() -> tuple[tls.KeyPair, ssl.SSLContext]:
        pair = tls.prepare(settings, directory)
        client_ca = settings.client_ca if isinstance(settings, ServerSettings) else ""
        return pair, tls.context(pair, client_ca)

    return await in_time(work, "certificate")


class Certificate:
    """What is shown to who connects from now on: `pair`, as `context`."""

    def __init__(
        self,
        settings: Callable[[], DoorSettings],
        directory: Path,
        pair: tls.KeyPair,
        context: ssl.SSLContext,
    ) -> None:
        """directory: of the own one. pair, context: as loaded."""
        self._settings = settings
        self._directory = directory
        # Held by who looks after certificate and key.
        self.lock = asyncio.Lock()
        self._said = ""
        self._has_failed = False
        self.show(pair, context)

    def show(self, pair: tls.KeyPair, context: ssl.SSLContext) -> None:
        """Clients that are connected keep theirs."""
        self.pair = pair
        self.context = context
        self.look()

    @property
    def ends(self) -> int | None:
        """When it ends, s since 1970; None: nobody can tell."""
        validity = self.pair.validity
        return None if validity is None else validity.ends

    async def run(self) -> None:
        """Look at it until cancelled."""
        looks = 0
        while True:
            await asyncio.sleep(LOOK)
            looks += 1
            if not self._settings().tls.certificate and (
                looks % LOOKS == 0 or tls.why_renew(self.pair.validity)
            ):
                await self._renew()
            self.look()

    def look(self) -> None:
        """Say how it is, unless that is what was said last."""
        level, condition = self._condition(time.time())
        said = f"the certificate {self.pair.certificate} {condition}"
        if said != self._said:
            self._said = said
            log.log(level, "%s", said)

    def _condition(self, now: float) -> tuple[int, str]:
        validity = self.pair.validity
        if validity is None:
            return logging.WARNING, (
                "has dates that can't be read, so nobody will be told when it ends; is openssl"
                " installed?"
            )
        fault = validity.fault(now, SOON)
        if fault is None:
            return logging.INFO, f"is valid until {tls.date(validity.ends)}"
        is_wrong = not validity.holds(now)
        if self._settings().tls.certificate:
            doubt = "is the clock right? If it is, " if is_wrong else ""
            fault += f"; {doubt}renew it, then: service sysadmd reload"
        return logging.ERROR if is_wrong else logging.WARNING, fault

    async def _renew(self) -> None:
        """Read the own one, which is made anew if that is due."""
        async with self.lock:
            try:
                pair, context = await load(self._settings(), self._directory)
            except NO_CERTIFICATE as error:
                if not self._has_failed:
                    log.error("the certificate could not be renewed: %s", plainly(error))
                self._has_failed = True
                return
            self._has_failed = False
            # Each context is memory for as long as somebody is connected by it.
            if pair.validity != self.pair.validity:
                # What can't be told, or could not, may be the same.
                if pair.validity and self.pair.validity:
                    log.info("the certificate was renewed; new connections are shown it")
                self.show(pair, context)
