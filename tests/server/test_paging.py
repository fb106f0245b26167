"""Lists longer than a frame come in pages, and who reads them sees all of it."""

import json
from pathlib import Path
from typing import Any

from server.classes.paging import MAX_ENTRIES
from server.wire.protocol import FRAME_LIMIT
from tests.kit import QUIET, Client, Daemon, wait_for
from tests.kit.daemon import sysadmd


def pages(client: Client, name: str, action: str, key: str) -> list[Any]:
    """What each page has under `key`; every one fits into a frame."""
    found: list[Any] = []
    args = {"action": action}
    while True:
        frame = client.ask_raw("rpc", name, args)
        assert frame["name"] == "response", frame
        assert len(json.dumps(frame, ensure_ascii=False).encode()) <= FRAME_LIMIT
        found.append(frame["args"][key])
        if "next" not in frame["args"]:
            return found
        args = {**args, "after": frame["args"]["next"]}


def test_more_tokens_than_a_reply_holds_are_all_listed(tmp_path: Path) -> None:
    names = [f"{number:064}" for number in range(MAX_ENTRIES + 5)]
    with Daemon(tmp_path / "state", QUIET) as daemon:
        with daemon.client() as client:
            for number, name in enumerate(names):
                args = {"action": "add", "name": name, "role": "read"}
                body = {"namespace": "rpc", "name": "tokens", "id": str(number), "args": args}
                client.socket.send(json.dumps(body))
            assert {client.receive()["name"] for _ in names} == {"response"}
            listed = pages(client, "tokens", "list", "tokens")
            assert len(listed) > 1
            assert [token["name"] for page in listed for token in page] == names
        assert shown(daemon) == names
    assert shown(daemon) == names


def shown(daemon: Daemon) -> list[str]:
    """The names that `sysadmd token list` prints."""
    done = sysadmd("token", "list", "--json", "--state-dir", str(daemon.state_dir))
    return [json.loads(line)["name"] for line in done.stdout.splitlines()]


def test_jobs_of_the_longest_names_are_all_listed(daemon: Daemon) -> None:
    ids = [f"{number:04}".ljust(256, "\N{BEETLE}") for number in range(MAX_ENTRIES)]
    with daemon.client() as client:
        client.ask("rpc", "dispatcher", {"action": "pause", "queue": "pkg_queue"})
        for number, id in enumerate(ids):
            job = {"id": id, "commands": ["true"], "queue": "pkg_queue"}
            args = {"action": "submit", "job": job}
            body = {"namespace": "rpc", "name": "dispatcher", "id": str(number), "args": args}
            client.socket.send(json.dumps(body))
        assert {client.receive()["name"] for _ in ids} == {"response"}
        listed = pages(client, "dispatcher", "list", "jobs")
        assert [id for page in listed for id in page["pkg_queue"]] == ids


def test_more_jobs_than_a_reply_names_are_refused_together(daemon: Daemon) -> None:
    ids = [f"{number:04}".ljust(200, "x") for number in range(3000)]
    with daemon.client() as client:
        for args in (
            {"action": "run", **{id: list[str]() for id in ids}},
            {"action": "kill", "job_id": ids},
        ):
            refused = client.ask_raw("rpc", "dispatcher", args)
            assert refused["args"]["code"] == 400, refused["args"]
            assert "fewer" in refused["args"]["detail"]
        assert client.ask("rpc", "dispatcher", {"action": "history"}) == {"jobs": []}
        few = {id: list[str]() for id in ids[:2000]}
        assert len(client.ask("rpc", "dispatcher", {"action": "run", **few})["started"]) == 2000


def test_an_answer_longer_than_a_frame_becomes_an_error_and_is_logged_once(
    tmp_path: Path,
) -> None:
    # No class makes one; a limit that is lower lets `list` do it.
    before = "import server.session; server.session.FRAME_LIMIT = 1024"
    with Daemon(tmp_path / "state", QUIET, before=before) as daemon, daemon.client() as client:
        client.ask("rpc", "dispatcher", {"action": "pause", "queue": "pkg_queue"})
        for id in ("a", "b"):
            job = {"id": id * 250, "commands": ["true " + "x" * 500], "queue": "pkg_queue"}
            client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
        for _ in range(2):
            frame = client.ask_raw("rpc", "dispatcher", {"action": "list"})
            assert frame["namespace"] == "rpc"
            assert frame["args"]["code"] == 400
            assert "limit" in frame["args"]["detail"]
        few = client.ask("rpc", "dispatcher", {"action": "list", "limit": 1})
        assert few["next"]
        wait_for(lambda: "longer than a frame" in daemon.log.read_text())
        assert daemon.log.read_text().count("longer than a frame") == 1


def test_half_a_character_of_a_running_command_comes_with_its_rest(daemon: Daemon) -> None:
    script = r"printf 'a\303'; while [ ! -e go ]; do sleep 0.02; done; printf '\251'"
    job = {"id": "j", "commands": [["sh", "-c", script]], "cwd": str(daemon.state_dir)}
    with daemon.client() as client:
        client.ask("rpc", "dispatcher", {"action": "submit", "job": job})

        def portion(offset: int, **more: int) -> dict[str, Any]:
            args = {"action": "log", "job_id": "j", "offset": offset, **more}
            reply: dict[str, Any] = client.ask("rpc", "dispatcher", args)
            return reply

        wait_for(lambda: portion(0)["size"] == 2)
        assert (portion(0)["text"], portion(0)["next"]) == ("a", 1)
        assert (portion(1)["text"], portion(1)["next"]) == ("", 1)
        (daemon.state_dir / "go").touch()
        wait_for(lambda: portion(1)["complete"])
        assert portion(1)["text"] == "é"
        # Who asks for less than a character goes on all the same.
        assert portion(1, limit=1)["next"] == 2
