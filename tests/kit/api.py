"""The examples of docs/api.md, asked of a running daemon with stand-ins for the tools.

A fenced block `json request CLASS` holds `args`; `json reply`, `json error`, `json pending` and
`json finished` behind it hold `args` of what came of it. What differs from run to run is
compared by its form alone.

`python -m tests.kit.api` writes what came into the document: read the difference.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.kit.client import Client
from tests.kit.daemon import QUIET, ROOT, Daemon
from tests.kit.replay import Served, Tools

DOCUMENT: Final = ROOT / "docs" / "api.md"
_BLOCK: Final = re.compile(
    r"```json (request \S+|reply|error|pending|finished)\n(.*?)```", re.S
)
# Where the document has the server of a file, and what is there.
MIRROR: Final = "http://mirror.example"
ISO: Final = "/FreeBSD-15.0-RELEASE-amd64-disc1.iso"
CONF: Final = "Components src world kernel\nServerName update.FreeBSD.org\n"
_FORMS: Final = (
    (re.compile(r"\{[0-9a-f]{8}-[0-9a-f-]{27}\}"), "{9c079421-ace9-4b6e-8870-d023b48f4c49}"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "2026-11-29T14:38:17.042Z"),
    (re.compile(r'(?<=")1[0-9]{9}(?=")'), "1796049497"),
    (re.compile(r"http://(localhost|127\.0\.0\.1):\d+"), MIRROR),
    (re.compile(r"(?<![\w:/])/[\w./-]*/(?=(pkg|freebsd-update|vm|shutdown)\b)"), ""),
    (re.compile(r"/[\w./-]*/vm_dir/"), "/vm/"),
)
_BETWEEN: Final = "\x1f"


@dataclass(frozen=True, slots=True)
class Example:
    """A block of the document. kind: what stands behind ```json; place: of its text."""

    kind: str
    text: str
    place: tuple[int, int]

    @property
    def value(self) -> Any:
        """What it says."""
        return json.loads(self.text)


def examples(document: str) -> list[Example]:
    """All, in order."""
    return [Example(m[1], m[2], m.span(2)) for m in _BLOCK.finditer(document)]


def form(value: Any) -> Any:
    """What does not differ from run to run."""
    text = json.dumps(value)
    for pattern, instead in _FORMS:
        text = pattern.sub(instead, text)
    return json.loads(text)


def _columns(*values: str) -> str:
    return _BETWEEN.join(values) + "\n"


def prepare(tools: Tools) -> None:
    """The tools, and what they say."""
    for name in ("pkg", "freebsd-update", "fetch", "vm", "shutdown"):
        tools.install(name)
    played: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("install-from-repository", ("install",)),
        ("remove-recursive", ("delete",)),
        ("lock", ("lock",)),
        ("unlock", ("unlock",)),
        ("update-force", ("update",)),
        ("upgrade-check", ("upgrade", "-n")),
        ("upgrade", ("upgrade", "-y")),
        ("audit-raw-json", ("audit",)),
        ("autoremove", ("autoremove",)),
    )
    for case, when in played:
        tools.play("pkg", case, when=when, speed=None)
    package = ("keepme", "1.0", "misc/keepme", "Kept for a test", "ports@FreeBSD.org")
    more = ("https://example.org", "/usr/local", "FreeBSD:14:*", "2048", "FreeBSD-ports")
    tools.say("pkg", _columns(*package, *more, "0", "0", "1796049497"), when=("query",))
    tools.say("pkg", _columns(*package, *more), when=("rquery",))
    libraries = (("libalpha", "1.2", "devel/libalpha"), ("libbeta", "0.9", "devel/libbeta"))
    text = "".join(
        _columns(*one, "A library", "ports@FreeBSD.org", *more, "1", "0", "1796049497")
        for one in libraries
    )
    tools.say("pkg", text, when=("query", "-i", "-x"))
    tools.say("pkg", "misc\nwww\nmisc\n", when=("query", "%C"))
    tools.say("pkg", "", rc=1, when=("query", "FreeBSD-runtime"))
    tools.say("pkg", "FreeBSD-ports\nFreeBSD-ports-kmods\n", when=("repositories",))
    for column, value in (("%do", "devel/libalpha"), ("%L", "BSD2CLAUSE"), ("%Fp", "/bin/x")):
        text = _columns("keepme", value)
        tools.say("pkg", text, when=("query", f"%n{_BETWEEN}{column}"))
    for column in ("%B", "%b"):
        tools.say("pkg", "", when=("query", f"%n{_BETWEEN}{column}"))
    tools.play("freebsd-update", "fetch-updates", when=("fetch",), speed=None)
    tools.play("freebsd-update", "fetch-install-none", when=("install",), speed=None)
    tools.play("fetch", "piped", speed=None)
    rows = (
        "NAME    DATASTORE  LOADER     CPU  MEMORY  VNC  AUTO     STATE\n"
        "alpine  default    grub       1    512M    -    No       Stopped\n"
        "build   default    bhyveload  4    8G      -    Yes [1]  Running (2341)\n"
    )
    tools.say("vm", rows, when=("list",))
    disk = "  virtual-disk\n    number: 0\n    bytes-size: 21474836480 (20.000G)\n"
    tools.say("vm", disk, when=("info",))
    tools.say("vm", "", when=("start",))
    tools.say("vm", "vm-bhyve: Bhyve virtual machine management v1.6\n", when=("version",))
    tools.say("vm", "/usr/local/sbin/vm: ERROR: guest is not running\n", rc=1, when=("stop",))
    (tools.folder / "update.conf").write_text(CONF)


@contextlib.contextmanager
def stage(folder: Path) -> Generator[Callable[[list[Example]], list[Any]]]:
    """A daemon; what it makes of the document's examples, in order: None for a request."""
    tools = Tools(folder / "tools")
    prepare(tools)
    config = f"""{QUIET}
[classes]
pkg = "{tools.folder}/pkg"
freebsd_update = "{tools.folder}/freebsd-update"
update_conf = "{tools.folder}/update.conf"
shutdown = "{tools.folder}/shutdown"
vm = "{tools.folder}/vm"
"""
    with (
        Daemon(folder / "state", config) as daemon,
        daemon.client() as client,
        Served({ISO: 3_000_000}) as served,
    ):
        client.ask("events", "subscribe", "dispatcher")

        def play(blocks: list[Example]) -> list[Any]:
            return list(_play(client, served, blocks))

        yield play


def _play(client: Client, served: Served, blocks: list[Example]) -> Iterator[Any]:
    reply: dict[str, Any] = {}
    events: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        if block.kind.startswith("request"):
            namespace, name = block.kind.split()[1].split("/")
            args = json.loads(block.text.replace(MIRROR, served.url("")))
            reply = client.ask_raw(namespace, name, args)
            following = [one.kind for one in blocks[number + 1 : number + 4]]
            queued = re.search("(proc_id|queueid|checkingfor|rebooting)", json.dumps(reply))
            events = client.until(_is_end) if queued else []
            assert following[:1] in (["reply"], ["error"]), f"{block.text} has no reply"
            yield None
        elif block.kind in ("reply", "error"):
            expected = "response" if block.kind == "reply" else "error"
            assert reply["name"] == expected, reply
            yield form(reply["args"])
        else:
            yield form(_short(events[0 if block.kind == "pending" else -1]["args"]))


def _is_end(event: dict[str, Any]) -> bool:
    return bool(event["args"]["state"] == "finished")


def _short(args: dict[str, Any]) -> dict[str, Any]:
    """Without the details, which are those of every job, and the output."""
    kept = {key: value for key, value in args.items() if key != "process_details"}
    return {key: "..." if key.endswith("_log") and kept[key] else kept[key] for key in kept}


def main() -> None:
    """Write what comes into the document."""
    document = DOCUMENT.read_text()
    blocks = examples(document)
    with tempfile.TemporaryDirectory() as folder, stage(Path(folder)) as play:
        results = play(blocks)
    for block, result in reversed(list(zip(blocks, results, strict=True))):
        if result is not None:
            start, end = block.place
            text = json.dumps(result, indent=1)
            # Short ones on a line.
            flat = json.dumps(result)
            shown = flat if len(flat) <= 96 else text
            document = document[:start] + shown + "\n" + document[end:]
    DOCUMENT.write_text(document)


if __name__ == "__main__":
    main()
