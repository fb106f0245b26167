"""A bridge with real servers at it, and clients that reach them over it alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

from sysadmd.client import Target
from sysadmd.key_file import make_key, read_key
from sysadmd.keys import PrivateKey, as_text
from tests.kit.bridge import Bridge
from tests.kit.ctl import Ctl
from tests.kit.daemon import QUIET, Daemon
from tests.kit.waiting import wait_for


class Bridged:
    """A bridge, and what a test puts at it; ended with it.

    Servers and clients are known by their names; each has a key of its own in a file.
    """

    def __init__(self, directory: Path, before: str = "") -> None:
        """before: Python to run first in the bridge's process."""
        self.directory = directory
        self.bridge = Bridge(directory / "bridge", before=before)
        self.servers: dict[str, Daemon] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.bridge)
        # It comes back where it was.
        self.bridge.listen = self.bridge.address
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def key_file(self, name: str) -> Path:
        """The file of a client's key, or a server's."""
        return self.directory / f"{name}.key"

    def key(self, name: str) -> PrivateKey:
        """A client's key, or a server's; made when it is first asked for."""
        path = self.key_file(name)
        return read_key(path) if path.exists() else make_key(path)

    def id(self, server: str) -> str:
        """What a server is called at the bridge."""
        return self.key(server).public.fingerprint

    def settings(self, name: str) -> str:
        """What a server's configuration has for the bridge."""
        certificate = self.bridge.state_dir / "tls" / "certificate.pem"
        return (
            f'{QUIET}[bridge_client]\nurl = "{self.bridge.url}"\ncafile = "{certificate}"\n'
            f'key = "{self.key_file(name)}"\n'
        )

    def server(
        self, name: str, clients: Iterable[str] = (), more: str = "", before: str = ""
    ) -> Daemon:
        """A server at the bridge, which these clients may call as root."""
        self.bridge.let_in(self.key(name), "server", name)
        directory = self.directory / name
        daemon = Daemon(directory, self.settings(name) + more, before=before)
        self.servers[name] = daemon
        self._stack.enter_context(daemon)
        for client in clients:
            self.register(name, client)
        self.until_there(name)
        return daemon

    def until_there(self, name: str, times: int = 1) -> None:
        """Wait until a server has been at the bridge so often."""
        log = self.servers[name].log
        wait_for(lambda: log.read_text().count(": at the bridge ") >= times, name)

    def register(self, server: str, client: str, user: str = "root") -> None:
        """Have a server accept a client's key."""
        args = {
            "action": "register_ssl_cert",
            "pub_key": as_text(self.key(client).public.pem),
            "nickname": client,
            "user": user,
        }
        with self.servers[server].local() as admin:
            admin.ask("rpc", "settings", args)

    def revoke(self, server: str, client: str) -> None:
        """Have it accept that no more."""
        args = {
            "action": "revoke_ssl_cert",
            "fingerprint": self.key(client).public.fingerprint,
        }
        with self.servers[server].local() as admin:
            admin.ask("rpc", "settings", args)

    def let_in(self, *clients: str) -> None:
        """Have the bridge let clients in."""
        for name in clients:
            self.bridge.let_in(self.key(name), "client", name)

    def target(self, client: str, server: str) -> Target:
        """A server as a client reaches it."""
        return Target(
            self.bridge.url,
            cafile=self.bridge.state_dir / "tls" / "certificate.pem",
            key=self.key_file(client),
            server=self.id(server),
        )

    def ctl(self, client: str, server: str | None = None) -> Ctl:
        """`sysadmctl` over the bridge."""
        named: Sequence[str] = () if server is None else ("--server", self.id(server))
        certificate = self.bridge.state_dir / "tls" / "certificate.pem"
        return Ctl(
            self.directory,
            *("--bridge", self.bridge.url, "--cafile", str(certificate)),
            *("--key", str(self.key_file(client)), *named),
        )
