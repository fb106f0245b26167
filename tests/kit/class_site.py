"""A daemon with stand-ins for a class's tools, and a client who asks the class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tests.kit.client import Client
from tests.kit.daemon import Daemon
from tests.kit.replay import Tools


@dataclass(frozen=True, slots=True)
class ClassSite:
    """NAME: of the class, behind sysadm/."""

    NAME: ClassVar[str]
    daemon: Daemon
    client: Client
    tools: Tools

    def ask(self, action: str, **args: object) -> Any:
        """The value of its reply."""
        found = self.client.ask("sysadm", self.NAME, {"action": action, **args})
        assert set(found) == {action}
        return found[action]

    def refused(self, action: str, **args: object) -> tuple[int, str]:
        """Code and detail of its error."""
        frame = self.client.ask_raw("sysadm", self.NAME, {"action": action, **args})
        assert frame["name"] == "error", frame
        return frame["args"]["code"], frame["args"]["detail"]

    def history(self) -> list[dict[str, Any]]:
        """Jobs that have finished, the newest first."""
        reply = self.client.ask("rpc", "dispatcher", {"action": "history"})
        found: list[dict[str, Any]] = reply["jobs"]
        return found


def subscribe(client: Client, since: str = "now") -> None:
    """To the events of jobs, with cursors."""
    client.ask("events", "subscribe", {"systems": ["dispatcher"], "since": since})
