"""The class that docs/writing-a-class.md shows, in a running daemon."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from tests.kit.daemon import QUIET, ROOT, Daemon

EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_the_example_is_a_class(tmp_path: Path) -> None:
    (text,) = EXAMPLE.findall((ROOT / "docs" / "writing-a-class.md").read_text())
    (tmp_path / "archive.py").write_text(text)
    before = (
        f"sys.path.append({str(tmp_path)!r}); import server.job_classes.all as all, archive;"
        " all.CLASSES = (*all.CLASSES, archive.CLASS)"
    )
    files = tmp_path / "files"
    files.mkdir()
    for number in range(20):
        (files / str(number)).write_text("something")
    with Daemon(tmp_path / "state", QUIET, before=before) as daemon, daemon.client() as client:
        assert client.ask("rpc", "query")["sysadm/archive"] == "read/write"
        version = client.ask("sysadm", "archive", {"action": "version"})["version"]
        assert "tar" in version["version"]
        client.ask("events", "subscribe", "dispatcher")
        args = {"action": "archive", "directory": str(files), "file": str(tmp_path / "a.tar")}
        reply = client.ask("sysadm", "archive", args)["archive"]
        events = client.until(lambda event: event["args"]["state"] == "finished")
        assert {event["args"]["event_system"] for event in events} == {"sysadm/archive"}
        end = events[-1]["args"]
        assert end["process_id"] == reply["proc_id"]
        assert end["files"] == 21
        assert end["progress"]["percent"] == 100
        assert "./7\n" in end["archive_log"]
        with tarfile.open(tmp_path / "a.tar") as made:
            assert len(made.getnames()) == 21
        refused = client.ask_raw("sysadm", "archive", {**args, "directory": "-C"})
        assert refused["args"]["code"] == 400
