"""docs/bridge.md does what it says: its walk-through is gone, its vectors are computed."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from Crypto.PublicKey import ECC

from sysadmd.keys import PrivateKey, as_raw
from sysadmd.sealed import Answering, Calling
from tests.kit import DEADLINE, ROOT, wait_for
from tests.kit.by_the_book import Exchange, Identity
from tests.kit.daemon import MAIN, QUIET

DOCUMENT = (ROOT / "docs" / "bridge.md").read_text()
BLOCK = re.compile(r"^```sh (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VECTORS = re.compile(r"^```vectors\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORT = re.compile(r"sysadmd bridge ready on wss://127.0.0.1:(\d+)")


class Machines:
    """Three machines on this one: each has a home, and what the system has, below that."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.words = {"PIN": "", "ID": ""}
        self.address = ""
        bin = root / "bin"
        bin.mkdir()
        python = shlex.quote(sys.executable)
        for name, code in (
            ("sysadmd", f"exec {python} {MAIN}"),
            ("sysadmctl", f"exec {python} -c 'from sysadmd.ctl import main; main()'"),
        ):
            file = bin / name
            file.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT}; export PYTHONPATH\n{code} "$@"\n')
            file.chmod(0o755)

    def home(self, machine: str) -> Path:
        path = self.root / machine
        path.mkdir(exist_ok=True)
        return path

    def run(self, machine: str, script: str) -> str:
        """A block of the document; what it prints. What it begins with & goes on."""
        home = self.home(machine)
        for place in ("/var/db/sysadmd", "/etc/sysadmd"):
            script = script.replace(place, f"{home}{place}")
        script = script.replace("--listen 0.0.0.0:12149", "--listen 127.0.0.1:0")
        script = script.replace("bridge.example.org:12149", self.address)
        # The document's daemons have the machine's default places.
        script = re.sub(r"^(sysadmd \w.*) &$", rf"\1 > {home}/out 2>&1 &\n", script, flags=re.M)
        if script.startswith("sysadmd bridge "):
            first, _, rest = script.partition("&\n")
            wait = f"until grep -q ready {home}/out; do sleep 0.05; done\n"
            script = f"{first}&\n{wait}{rest}"
        if "bridge_key.pem" in script:
            wait = f"until [ -s {home}/var/db/sysadmd/bridge_key.pem ]; do sleep 0.05; done\n"
            script = script.replace("sysadmctl key show", wait + "sysadmctl key show")
        done = subprocess.run(
            ["sh", "-euc", script],
            cwd=home,
            env=self.environment(machine),
            input="y\n",
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, (script, done.stdout, done.stderr)
        return done.stdout

    def environment(self, machine: str) -> dict[str, str]:
        home = self.home(machine)
        away = {"XDG_CONFIG_HOME", "SYSADMCTL_TOKEN"}
        kept = {key: value for key, value in os.environ.items() if key not in away}
        return {
            **kept,
            **self.words,
            "HOME": str(home),
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "SYSADMD_STATE_DIR": f"{home}/var/db/sysadmd" if machine == "web1" else "",
            "SYSADMD_BRIDGE_STATE_DIR": f"{home}/var/db/sysadmd-bridge",
            "SYSADMD_CONFIG": f"{home}/etc/sysadmd/sysadmd.toml",
        }

    def carry(self, file: str, source: str, *machines: str) -> None:
        for machine in machines:
            text = (self.home(source) / file).read_text()
            (self.home(machine) / file).write_text(text)

    def end(self) -> None:
        """End the daemons."""
        for lock in self.root.glob("*/var/db/*/lock"):
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(lock.read_text()), signal.SIGTERM)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path)
    yield made
    made.end()


def test_the_walk_through_leads_to_a_tail(machines: Machines) -> None:
    blocks = iter(BLOCK.findall(DOCUMENT))

    def step(machine: str) -> str:
        where, script = next(blocks)
        assert where == machine
        return machines.run(machine, script)

    for machine in ("bridge", "web1"):
        folder = machines.home(machine) / "etc" / "sysadmd"
        folder.mkdir(parents=True)
        (folder / "sysadmd.toml").write_text(QUIET)
    identity = dict(line.split() for line in step("bridge").splitlines())
    assert identity["type"] == "bridge"
    machines.words["PIN"] = identity["pin"]
    found = PORT.search((machines.home("bridge") / "out").read_text())
    assert found is not None
    machines.address = f"127.0.0.1:{found[1]}"
    step("web1")
    step("you")
    machines.carry("alice.pub", "you", "web1", "bridge")
    machines.carry("web1.pub", "web1", "bridge")
    step("web1")
    step("bridge")
    log = machines.home("web1") / "out"
    wait_for(lambda: ": at the bridge wss" in log.read_text(), "web1 at the bridge")
    listed = step("you").splitlines()[-1].split()
    machines.words["ID"] = listed[0]
    wait_for(lambda: listed[0] in log.read_text())
    machines.run("you", "sysadmctl --server $ID run true")
    where, script = next(blocks)
    told = machines.run(where, script.rstrip() + " --count 3\n")
    assert "finished: succeeded" in told
    assert next(blocks, None) is None


def test_the_vectors_are_what_both_implementations_say() -> None:
    found = VECTORS.search(DOCUMENT)
    assert found is not None
    book = Exchange(Identity(b"c" * 32), Identity(b"s" * 32), b"x" * 32, b"y" * 32)
    asked, said = b"\0GET / HTTP/1.1\r\n", (b"\1\0\0\0\0", b"\2")
    client = PrivateKey(ECC.construct(curve="Ed25519", seed=b"c" * 32))
    server = PrivateKey(ECC.construct(curve="Ed25519", seed=b"s" * 32))
    calling = Calling(
        client,
        server.public.fingerprint,
        ECC.construct(curve="Curve25519", seed=b"x" * 32),
    )
    answering = Answering(
        server, calling.hello, ECC.construct(curve="Curve25519", seed=b"y" * 32)
    )
    proof, ours = calling.finish(answering.welcome)
    _, theirs = answering.finish(proof)
    values = {
        "server key": (book.server.raw, as_raw(server.public)),
        "client key": (book.client.raw, as_raw(client.public)),
        "server fingerprint": (book.server.fingerprint,),
        "hello": (book.hello, calling.hello),
        "T": (book.transcript,),
        **{f"K{number}": (key,) for number, key in enumerate(book.keys(), 1)},
        "welcome": (book.welcome, answering.welcome),
        "proof": (book.proof, proof),
        "client's record 0": (book.record("client", 0, asked), ours.seal(asked)),
        "server's record 0": (book.record("server", 0, said[0]), theirs.seal(said[0])),
        "server's record 1": (book.record("server", 1, said[1]), theirs.seal(said[1])),
    }
    lines = [line.split(" = ") for line in found[1].splitlines()]
    assert [name for name, _ in lines] == list(values)
    for name, text in lines:
        assert {bytes.fromhex(text)} == set(values[name]), name
