"""Both ends of a certificate's validity, by a clock that is wrong or set meanwhile."""

import os
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from server.wire.tls import DAYS
from tests.kit import QUIET, Daemon, wait_for
from tests.kit.clock import Clocks

DAY = 86400
# At each look a file gets a byte.
STEPPED = """from server import certificate
certificate.LOOK = 0.05
def look(self, look=certificate.Certificate.look):
    look(self)
    with open({looks!r}, "ab") as looks:
        looks.write(b".")
certificate.Certificate.look = look"""


class Stepped(Daemon):
    """A daemon whose clock can be set, and which looks at its certificate all the time."""

    def __init__(self, directory: Path, offset: int, config: str = QUIET) -> None:
        self.clocks, self._looks = Clocks(directory, offset), directory / "looks"
        before = STEPPED.format(looks=str(self._looks))
        env = self.clocks.environment
        super().__init__(directory / "state", config, env=env, before=before)

    def wait_for_looks(self) -> None:
        """Until it has had every occasion to say something twice."""
        enough = self._looks.stat().st_size + 5
        wait_for(lambda: self._looks.stat().st_size >= enough, "some looks")

    def wait_for_line(self, text: str, count: int = 1) -> None:
        wait_for(lambda: len(lines(self, text)) >= count, text)


def lines(daemon: Daemon, text: str) -> list[str]:
    return [line for line in daemon.log.read_text().splitlines() if text in line]


def own_key(daemon: Daemon) -> bytes:
    return (daemon.state_dir / "tls/key.pem").read_bytes()


def make_pair(directory: Path, days: int) -> str:
    """A certificate that is valid from now on, and what configures it."""
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    files = ("-nodes", "-subj", "/CN=x", "-keyout", "key.pem", "-out", "cert.pem")
    command = [*made, *files, "-days", str(days)]
    subprocess.run(command, check=True, capture_output=True, cwd=directory)
    names = f'certificate = "{directory}/cert.pem", key = "{directory}/key.pem"'
    return f"{QUIET}[server]\ntls = {{ {names} }}\n"


def test_the_own_certificate_has_each_extension_once_and_strict_clients_take_it(
    daemon: Daemon,
) -> None:
    certificate = daemon.state_dir / "tls/certificate.pem"
    command = ["openssl", "x509", "-noout", "-text", "-in", str(certificate)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = [line.split(":")[0].strip() for line in told.splitlines() if "X509v3" in line]
    assert sorted(found) == [
        "X509v3 Basic Constraints",
        "X509v3 Extended Key Usage",
        "X509v3 Subject Alternative Name",
        "X509v3 Subject Key Identifier",
        "X509v3 extensions",
    ]
    strict = daemon.context
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("localhost", "127.0.0.1", "::1"):
        with daemon.plain_socket() as plain, strict.wrap_socket(plain, server_hostname=name):
            pass


def test_a_malformed_certificate_is_made_anew_of_the_same_key(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "state", QUIET)
    daemon.start().stop()
    tls, key = daemon.state_dir / "tls", own_key(daemon)
    made = ("openssl", "req", "-new", "-x509", "-key", str(tls / "key.pem"), "-days", str(DAYS))
    # OpenSSL 1.1.1 has the first of these twice, as openssl.cnf asks for it, too. Later ones
    # have not: there the same bytes in another place do.
    twice = ("-addext", "basicConstraints=critical,CA:FALSE")
    bytes_ = ("-addext", "1.2.3.4=DER:06:03:55:1d:13")
    to = ("-subj", "/CN=sysadmd", "-out", str(tls / "certificate.pem"))
    subprocess.run([*made, *twice, *bytes_, *to], check=True, capture_output=True)
    with daemon, daemon.client() as client:
        assert client.ask("rpc", "identify")["type"] == "server"
        assert len(lines(daemon, "has an extension twice")) == 1
        daemon.reload()
        assert len(lines(daemon, "has an extension twice")) == 1
    assert own_key(daemon) == key


# Not valid yet by the true clock, expired, in its last third.
WRONG = [2 * DAY, -400 * DAY, -300 * DAY]


@pytest.mark.parametrize("offset", WRONG)
def test_a_certificate_made_by_a_wrong_clock_is_made_anew_at_the_next_start(
    tmp_path: Path, offset: int
) -> None:
    clocks = Clocks(tmp_path, offset)
    daemon = Daemon(tmp_path / "state", QUIET, env=clocks.environment)
    daemon.start().stop()
    key = own_key(daemon)
    clocks.set(0)
    for _ in range(2):
        with daemon, daemon.client() as client:
            assert client.ask("rpc", "identify")["type"] == "server"
    assert own_key(daemon) == key
    assert len(lines(daemon, "another was made")) == 1


@pytest.mark.parametrize("offset", WRONG)
def test_a_certificate_made_by_a_wrong_clock_is_made_anew_once_that_is_set(
    tmp_path: Path, offset: int
) -> None:
    with Stepped(tmp_path, offset) as daemon:
        key = own_key(daemon)
        daemon.wait_for_looks()
        assert not lines(daemon, "was renewed")
        daemon.clocks.set(0)
        daemon.wait_for_line("was renewed")
        with daemon.client() as client:
            assert client.ask("rpc", "identify")["type"] == "server"
        daemon.wait_for_looks()
        assert len(lines(daemon, "was renewed")) == 1
        assert own_key(daemon) == key


def test_a_certificate_that_expires_is_made_anew_and_again_if_the_clock_was_wrong(
    tmp_path: Path,
) -> None:
    with Stepped(tmp_path, 0) as daemon:
        daemon.clocks.set((DAYS + 1) * DAY)
        daemon.wait_for_line("was renewed")
        host, port = daemon.address.rsplit(":", 1)
        trusted = str(daemon.state_dir / "tls/certificate.pem")
        for days, is_right in ((0, False), (DAYS + 1, True)):
            done = subprocess.run(
                [
                    *("openssl", "s_client", "-connect", f"{host}:{port}", "-CAfile", trusted),
                    *("-verify_return_error", "-attime", str(round(time.time()) + days * DAY)),
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
            assert (done.returncode == 0) is is_right
        daemon.clocks.set(0)
        daemon.wait_for_line("was renewed", 2)
        with daemon.client() as client:
            assert client.ask("rpc", "identify")["type"] == "server"


def test_a_renewal_that_fails_is_said_once_and_tried_again(tmp_path: Path) -> None:
    broken, program = tmp_path / "broken", tmp_path / "programs/openssl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\n[ "$1" = req ] && [ -e {broken} ] && exit 1\n'
        f'exec {shutil.which("openssl")} "$@"\n'
    )
    program.chmod(0o755)
    daemon = Stepped(tmp_path, 0)
    daemon.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    with daemon:
        broken.touch()
        daemon.clocks.set((DAYS + 1) * DAY)
        daemon.wait_for_line("could not be renewed")
        daemon.wait_for_looks()
        assert len(lines(daemon, "could not be renewed")) == 1
        assert len(lines(daemon, "has expired on")) == 1
        broken.unlink()
        daemon.wait_for_line("was renewed")


def test_what_is_wrong_with_a_configured_certificate_is_said_at_each_change(
    tmp_path: Path,
) -> None:
    config = make_pair(tmp_path, DAYS)
    certificate = (tmp_path / "cert.pem").read_bytes()
    said = {
        DAYS - 10: ("WARNING", " ends on "),
        DAYS + 1: ("ERROR", " has expired on "),
        -2: ("ERROR", " is not valid before "),
        0: ("INFO", " is valid until "),
    }
    first, *rest = said
    with Stepped(tmp_path, first * DAY, config) as daemon:
        daemon.wait_for_looks()
        for days in rest:
            daemon.clocks.set(days * DAY)
            daemon.wait_for_line(said[days][1])
            daemon.wait_for_looks()
    about = lines(daemon, f"{tmp_path}/cert.pem")
    for line, (level, text) in zip(about, said.values(), strict=True):
        assert level.casefold() in line.casefold()
        assert text in line
        assert ("service sysadmd reload" in line) is (level != "INFO")
        assert ("is the clock right?" in line) is (level == "ERROR")
    assert (tmp_path / "cert.pem").read_bytes() == certificate


def test_a_configured_certificate_that_was_renewed_is_in_order_with_a_reload(
    tmp_path: Path,
) -> None:
    config = make_pair(tmp_path, 10)
    with Daemon(tmp_path / "state", config) as daemon:
        assert len(lines(daemon, " ends on ")) == 1
        daemon.reload()
        assert len(lines(daemon, " ends on ")) == 1
        make_pair(tmp_path, 20)
        daemon.reload()
        assert lines(daemon, " is valid until ")


@pytest.mark.parametrize("script", ["", "echo notBefore=yesterday", "exit 1"])
def test_dates_that_openssl_does_not_tell_are_said_and_stop_nobody(
    tmp_path: Path, script: str
) -> None:
    config = make_pair(tmp_path, DAYS)
    programs = tmp_path / "programs"
    programs.mkdir()
    if script:
        (programs / "openssl").write_text(f"#!/bin/sh\n{script}\n")
        (programs / "openssl").chmod(0o755)
    with Daemon(tmp_path / "state", config, env={"PATH": str(programs)}) as daemon:
        assert len(lines(daemon, "dates that can't be read")) == 1
        daemon.reload()
        assert len(lines(daemon, "dates that can't be read")) == 1


def test_without_openssl_the_own_certificate_stays(tmp_path: Path) -> None:
    Daemon(tmp_path / "state", QUIET).start().stop()
    bare = tmp_path / "bare"
    bare.mkdir()
    with (
        Daemon(tmp_path / "state", QUIET, env={"PATH": str(bare)}) as daemon,
        daemon.client() as client,
    ):
        assert client.ask("rpc", "identify")["type"] == "server"
        assert len(lines(daemon, "dates that can't be read")) == 1


def test_an_own_certificate_that_was_replaced_is_shown_within_the_hour(tmp_path: Path) -> None:
    hour = "from server import certificate; certificate.LOOK, certificate.LOOKS = 0.05, 2"
    with Daemon(tmp_path / "state", QUIET, before=hour) as daemon:
        tls, other = daemon.state_dir / "tls", tmp_path / "other.pem"
        # The dates are the same where it is made fast enough.
        made = (
            "openssl",
            "req",
            "-new",
            "-x509",
            "-key",
            str(tls / "key.pem"),
            "-days",
            str(DAYS),
        )
        names = ("-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1")
        subprocess.run([*made, *names, "-out", str(other)], check=True, capture_output=True)
        text = other.read_text()
        other.replace(tls / "certificate.pem")
        wait_for(lambda: bool(lines(daemon, "was renewed")), "the one that was put there")
        with (
            daemon.plain_socket() as plain,
            daemon.context.wrap_socket(plain, server_hostname="127.0.0.1") as sock,
        ):
            assert sock.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(text)
