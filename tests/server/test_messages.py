"""Mistakes made on purpose with daemon and configuration: what is said, and what to do."""

from __future__ import annotations

import ast
import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from server.wire import addresses
from sysadmd.settings import Address
from tests.kit import QUIET, ROOT, Daemon, needs_root
from tests.kit.clock import Clocks
from tests.kit.daemon import sysadmd

# Of TEST-NET-3, which is nobody's. Source: RFC 5737.
FOREIGN = "203.0.113.1:12150"
# Words of machines.
RAW = ("[Errno", "_ssl.c", "[SSL", "Traceback", "Error(")


def plain(text: str) -> str:
    """What was said, in words alone and on one line."""
    assert not [word for word in RAW if word in text], text
    assert len(text.splitlines()) == 1, text
    return text


def refused(state: Path, *options: str) -> str:
    """What `serve` says when it can't run."""
    done = sysadmd("serve", "--state-dir", str(state), *options)
    assert done.returncode == 1, done
    return plain(done.stderr.splitlines()[-1])


# Runs a program as an account that owns nothing.
OTHER = ("setpriv", "--reuid", "65534", "--clear-groups")


def let_pass(directory: Path) -> None:
    """Have other accounts pass to there."""
    for part in (directory, *directory.parents):
        if part.stat().st_uid == os.geteuid():
            part.chmod(part.stat().st_mode | 0o055)


# Addresses.


def test_an_address_of_another_machine_is_said_to_be_none_of_this_one(tmp_path: Path) -> None:
    said = refused(tmp_path / "s", "--listen", FOREIGN)
    assert f"can't listen on {FOREIGN}: 203.0.113.1 is no address of this machine" in said
    assert "0.0.0.0:12150 for all" in said
    assert "stop what uses" not in said


def test_a_port_in_use_is_still_said_to_be_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert "stop what uses that port" in refused(tmp_path / "s", "--listen", address)
        assert addresses.why_not_here(Address(address)) == ""


def test_a_name_that_nobody_knows_is_no_address(tmp_path: Path) -> None:
    said = refused(tmp_path / "s", "--listen", "no-such-host.invalid:0")
    assert "no-such-host.invalid is no address, and no name" in said


@pytest.mark.parametrize(
    ("number", "address", "said"),
    [
        (errno.EACCES, "127.0.0.1:443", "ports below 1024 are root's"),
        (errno.EPERM, "127.0.0.1:12150", "does not let this account listen"),
        (errno.EADDRNOTAVAIL, "[2001:db8::1]:1", "or [::]:1 for all"),
        (errno.EAFNOSUPPORT, "[::1]:1", "has no IPv6; name an IPv4 address"),
        (errno.EINVAL, "[fe80::1]:1", "as in [fe80::1%em0]:1"),
        (errno.ENOBUFS, "127.0.0.1:1", "name another address"),
    ],
)
def test_each_refusal_of_an_address_has_its_words(number: int, address: str, said: str) -> None:
    assert said in plain(addresses.why(Address(address), OSError(number, os.strerror(number))))


def test_a_port_of_roots_is_said_to_be(tmp_path: Path) -> None:
    needs_root("setpriv")
    limit = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if limit.exists() and int(limit.read_text()) < 1024:
        pytest.skip("ports below 1024 are everybody's here")
    wrapper = ("setpriv", "--bounding-set", "-all")
    daemon = Daemon(tmp_path / "state", QUIET, listen="127.0.0.1:1", wrapper=wrapper)
    done = subprocess.run(daemon.command(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ports below 1024 are root's" in plain(done.stderr.splitlines()[-1])


# The state directory.


def file_in_the_way(base: Path) -> tuple[Path, str]:
    (base / "file").touch()
    return base / "file" / "a" / "b", f"{base}/file is a file, not a directory; move it away"


def file_in_its_place(base: Path) -> tuple[Path, str]:
    (base / "file").touch()
    return base / "file", f"{base}/file is a file, not a directory"


def link_to_nothing(base: Path) -> tuple[Path, str]:
    (base / "link").symlink_to("nowhere")
    return base / "link", f"{base}/link is a link to nowhere, which is not there"


def link_to_nothing_above(base: Path) -> tuple[Path, str]:
    (base / "link").symlink_to("nowhere")
    return base / "link" / "a" / "b", f"{base}/link is a link to nowhere"


def link_in_a_ring(base: Path) -> tuple[Path, str]:
    (base / "link").symlink_to("link")
    return base / "link" / "a", f"{base}/link is a link that leads to itself"


IMPOSSIBLE = [
    file_in_the_way,
    file_in_its_place,
    link_to_nothing,
    link_to_nothing_above,
    link_in_a_ring,
]


@pytest.mark.parametrize("make", IMPOSSIBLE)
def test_of_an_impossible_state_directory_the_part_is_named(
    tmp_path: Path, make: Callable[[Path], tuple[Path, str]]
) -> None:
    path, said = make(tmp_path)
    told = refused(path)
    assert said in told
    assert "or name another one with --state-dir" in told
    config = tmp_path / "c.toml"
    config.write_text(f'state_dir = "{path}"\n')
    (problem,) = check(config)
    assert problem.startswith(f"{config}: state_dir: {said}")


def test_where_the_kernel_takes_no_directories_that_is_said() -> None:
    if not Path("/proc/self").exists():
        pytest.skip("there is no /proc")
    needs_root()
    said = refused(Path("/proc/no-such/state"))
    assert "/proc/no-such can't be made, /proc takes no directories" in said


def test_what_our_account_may_not_make_or_enter_is_said(tmp_path: Path) -> None:
    needs_root("setpriv")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)
    let_pass(closed)
    state = closed / "a" / "state"

    def said() -> str:
        command = Daemon(tmp_path / "x").command()
        serve = [*command[: command.index("serve") + 1], "--state-dir", str(state)]
        done = subprocess.run([*OTHER, *serve], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        # In whichever order it says what else the account may not.
        return "\n".join(map(plain, done.stderr.splitlines()))

    (closed / "a").mkdir()
    assert f"{closed}/a/state is not there, and uid 65534 may not make it" in said()
    (closed / "a").rmdir()
    assert f"{closed}/a is not there, and uid 65534 may not make it in {closed}" in said()
    closed.chmod(0o700)
    assert f"{closed} can't be entered by uid 65534" in said()


# Certificate and key.


class Pair:
    """Certificate and key of our own, and a configuration that names them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate, self.key = directory / "cert.pem", directory / "key.pem"
        self.config = directory / "c.toml"
        self.config.write_text(
            f'[server]\ntls = {{ certificate = "{self.certificate}", key = "{self.key}" }}\n'
        )
        self.make()

    def make(self, name: str = "cert") -> None:
        """NAME.pem and its key: of `cert` key.pem, else NAME.key."""
        key = self.key if name == "cert" else self.directory / f"{name}.key"
        made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt")
        files = ("-nodes", "-subj", "/CN=x", "-keyout", str(key), "-out", f"{name}.pem")
        subprocess.run(
            [*made, "ec_paramgen_curve:P-256", *files, "-days", "2"],
            check=True,
            capture_output=True,
            cwd=self.directory,
        )


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def check(config: Path, **more: str) -> list[str]:
    """What `check-config` finds. more: environment."""
    done = sysadmd("check-config", "--config", str(config), **more)
    assert (done.returncode, done.stdout) == (2, ""), done
    return [plain(line) for line in done.stderr.splitlines()]


def no_key(pair: Pair) -> tuple[str, str]:
    pair.key.unlink()
    return "key", "is not there;"


def no_certificate(pair: Pair) -> tuple[str, str]:
    pair.certificate.unlink()
    return "certificate", "is not there;"


def key_links_to_nothing(pair: Pair) -> tuple[str, str]:
    pair.key.unlink()
    pair.key.symlink_to("gone")
    return "key", "is a link to gone, which is not there;"


def key_is_a_directory(pair: Pair) -> tuple[str, str]:
    pair.key.unlink()
    pair.key.mkdir()
    return "key", "is a directory, not a file;"


def certificate_is_empty(pair: Pair) -> tuple[str, str]:
    pair.certificate.write_text("")
    return "certificate", "is empty;"


def certificate_is_text(pair: Pair) -> tuple[str, str]:
    pair.certificate.write_text("hello\n")
    return "certificate", "is no PEM file;"


def certificate_is_der(pair: Pair) -> tuple[str, str]:
    command = ("openssl", "x509", "-in", "cert.pem", "-outform", "DER", "-out", "der")
    subprocess.run(command, check=True, capture_output=True, cwd=pair.directory)
    (pair.directory / "der").replace(pair.certificate)
    return "certificate", "is DER, not PEM; convert it: openssl x509"


def certificate_is_damaged(pair: Pair) -> tuple[str, str]:
    lines = pair.certificate.read_text().splitlines()
    pair.certificate.write_text("\n".join([lines[0], *lines[3:]]) + "\n")
    return "certificate", "is damaged: "


def key_is_damaged(pair: Pair) -> tuple[str, str]:
    lines = pair.key.read_text().splitlines()
    pair.key.write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    return "key", "is damaged: "


def key_of_another(pair: Pair) -> tuple[str, str]:
    pair.make("other")
    (pair.directory / "other.key").replace(pair.key)
    return "key", f"does not belong to the certificate {pair.certificate};"


def chain_in_the_wrong_order(pair: Pair) -> tuple[str, str]:
    pair.make("issuer")
    issuer = (pair.directory / "issuer.pem").read_text()
    pair.certificate.write_text(issuer + pair.certificate.read_text())
    return "certificate", f"has the certificate of the key {pair.key} in place 2; it is to be"


def key_is_encrypted(pair: Pair) -> tuple[str, str]:
    command = ("openssl", "pkey", "-aes256", "-passout", "pass:x", "-in", "key.pem")
    subprocess.run(
        [*command, "-out", "new"], check=True, capture_output=True, cwd=pair.directory
    )
    (pair.directory / "new").replace(pair.key)
    return "key", "is encrypted, and nobody is there to be asked"


FAULTS = [
    no_key,
    no_certificate,
    key_links_to_nothing,
    key_is_a_directory,
    certificate_is_empty,
    certificate_is_text,
    certificate_is_der,
    certificate_is_damaged,
    key_is_damaged,
    key_of_another,
    chain_in_the_wrong_order,
    key_is_encrypted,
]


@pytest.mark.parametrize("spoil", FAULTS)
def test_of_certificate_and_key_the_file_at_fault_is_named(
    pair: Pair, spoil: Callable[[Pair], tuple[str, str]]
) -> None:
    which, what = spoil(pair)
    path = pair.certificate if which == "certificate" else pair.key
    said = refused(pair.directory / "s", "--config", str(pair.config))
    assert f"the {which} {path} {what}" in said
    other = "key" if which == "certificate" else "certificate"
    # Of the other nothing is said, but where it matters for this one.
    assert said.startswith(f"sysadmd: the {which} ")
    assert f". the {other} " not in said
    (problem,) = check(pair.config)
    assert problem.startswith(f"{pair.config}: server.tls.{which}: {path} {what}")
    assert "allowed: a PEM file" in problem


def test_files_in_each_others_place_are_said_to_be(pair: Pair) -> None:
    shutil.copy(pair.key, pair.directory / "aside")
    pair.certificate.replace(pair.key)
    (pair.directory / "aside").replace(pair.certificate)
    first, second = check(pair.config)
    assert "server.tls.certificate: " in first
    assert "holds a private key; are the two files in each other's place?" in first
    assert "server.tls.key: " in second
    assert "holds a certificate; are" in second
    said = refused(pair.directory / "s", "--config", str(pair.config))
    assert f"the certificate {pair.certificate} holds a private key" in said
    assert f"the key {pair.key} holds a certificate" in said


def test_a_file_that_is_not_ours_to_read_is_said_to_be(pair: Pair) -> None:
    needs_root("setpriv")
    let_pass(pair.directory)
    pair.key.chmod(0o600)
    command = Daemon(pair.directory / "x").command()
    program = command[: command.index("serve")]
    done = subprocess.run(
        [*OTHER, *program, "check-config", "--config", str(pair.config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"server.tls.key: {pair.key} can't be read by uid 65534;" in plain(done.stderr)


def test_a_reload_names_the_file_at_fault_and_changes_nothing(pair: Pair) -> None:
    with Daemon(pair.directory / "s", QUIET + pair.config.read_text()) as daemon:
        pair.key.unlink()
        daemon.reload(f"the old configuration stays: the key {pair.key} is not there")
        daemon.config.unlink()
        daemon.reload(f"the old configuration stays: {daemon.config}: is not there")
        assert not [word for word in RAW if word in daemon.log.read_text()]


def test_a_damaged_key_of_our_own_is_told_in_words(tmp_path: Path) -> None:
    tls = tmp_path / "s" / "tls"
    tls.mkdir(mode=0o700, parents=True)
    (tls / "key.pem").write_text("not a key")
    said = refused(tmp_path / "s", "--listen", "127.0.0.1:0")
    assert "openssl req failed: " in said
    assert ":error:" not in said
    assert f"{tls}/key.pem" in said
    assert "move away what is damaged there" in said


# check-config.


def test_a_certificate_that_is_not_valid_now_is_a_problem(pair: Pair) -> None:
    for days, fault in ((10, "has expired on 20"), (-10, "is not valid before 20")):
        clocks = Clocks(pair.directory, days * 86400)
        (problem,) = check(pair.config, **clocks.environment)
        assert f"server.tls.certificate: {pair.certificate} {fault}" in problem


def test_accounts_and_groups_that_are_not_there_are_problems(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        '[auth]\nfull = ["root", "no-such-a"]\nlimited = ["@no-such-b"]\n'
        'pam_service = "no-such-c"\n'
        '[collectors.life_preserver]\nwriters = ["no-such-d", "4711", "@4711", "@no-such-e"]\n'
    )
    found = [problem.split(": ")[1:3] for problem in check(config)]
    assert [where for where, _ in found] == [
        "auth.pam_service",
        "auth.full[1]",
        "auth.limited[0]",
        "collectors.life_preserver.writers[0]",
        "collectors.life_preserver.writers[3]",
    ]
    assert found[1][1].startswith("this machine has no account 'no-such-a'; allowed")
    assert found[2][1].startswith("this machine has no group 'no-such-b'; allowed")


def test_all_problems_are_told_at_once_those_of_the_file_and_of_the_machine(
    pair: Pair,
) -> None:
    pair.key.unlink()
    pair.config.write_text(
        pair.config.read_text()
        + f'listen = ["127.0.0.1:0", "{FOREIGN}"]\nclient_ca = "{pair.directory}"\n'
        + "max_clients = 0\n[auth]\nfull = [7]\nlimited = ['@no-such']\n"
        + f"[bridge_client]\nkey = '{pair.key}'\ncafile = '{pair.config}'\n"
        + f"[bridge]\nlisten = ['{FOREIGN}']\n"
    )
    assert [problem.split(": ")[1] for problem in check(pair.config)] == [
        "server.max_clients",
        "auth.full[0]",
        "server.listen[1]",
        "server.tls.key",
        "server.client_ca",
        "auth.limited[0]",
        "bridge.listen[0]",
        "bridge_client.cafile",
        "bridge_client.key",
    ]
    done = sysadmd("check-config", "--file-only", "--config", str(pair.config))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2


def test_a_whole_configuration_is_ok_and_so_is_the_sample(pair: Pair) -> None:
    for config in (pair.config, ROOT / "sysadmd.toml.sample"):
        done = sysadmd("check-config", "--config", str(config))
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{config}: ok\n", "")


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(pair: Pair) -> None:
    pair.key.unlink()
    os.mkfifo(pair.key)
    (problem,) = check(pair.config)
    assert "is no regular file" in problem


def test_a_configuration_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "file").touch()
    for path, what in {
        tmp_path / "no": "is not there;",
        tmp_path / "a" / "b" / "no": f"is not there: there is no directory {tmp_path}/a;",
        tmp_path / "link": "is a link to gone, which is not there;",
        tmp_path: "is a directory, not a file;",
        tmp_path / "file" / "no": f"is not there: {tmp_path}/file is a file;",
    }.items():
        (problem,) = check(path)
        assert problem.startswith(f"{path}: {what}")
        assert sysadmd("serve", "--config", str(path)).stderr == f"{problem}\n"


def with_default(default: Path) -> subprocess.CompletedProcess[str]:
    """check-config where the default file is this one."""
    where = f"lambda: __import__('pathlib').Path({str(default)!r})"
    before = f"import sysadmd.machine; sysadmd.machine.default_config = {where}"
    command = Daemon(default.parent / "x", before=before).command()
    program = command[: command.index("serve")]
    return subprocess.run(
        [*program, "check-config"], capture_output=True, text=True, check=False
    )


def test_that_the_default_file_is_not_there_is_fine_and_said(tmp_path: Path) -> None:
    default = tmp_path / "default.toml"
    done = with_default(default)
    said = f"{default}: not there; the defaults hold: ok\n"
    assert (done.returncode, done.stdout) == (0, said)
    default.symlink_to("gone")
    done = with_default(default)
    assert done.returncode == 2
    assert f"{default}: is a link to gone" in plain(done.stderr)
    default.unlink()
    default.touch()
    assert with_default(default).stdout == f"{default}: ok\n"


# The kind.


def raw_uses(tree: ast.AST) -> list[int]:
    """Lines that tell people of an error of the system's as Python prints it."""
    found: list[int] = []
    for handler in ast.walk(tree):
        if not isinstance(handler, ast.ExceptHandler) or handler.name is None:
            continue
        caught = {
            node.id for node in ast.walk(handler.type or handler) if isinstance(node, ast.Name)
        }
        if not caught & {"OSError", "PermissionError", "NO_CERTIFICATE"}:
            continue
        for node in ast.walk(handler):
            told: list[ast.expr] = []
            if isinstance(node, ast.FormattedValue):
                told = [node.value]
            elif isinstance(node, ast.Call) and called(node) in ("str", *LEVELS):
                told = node.args
            found += [
                one.lineno
                for one in told
                if isinstance(one, ast.Name) and one.id == handler.name
            ]
    return found


LEVELS = ("debug", "info", "warning", "error", "critical")


def called(call: ast.Call) -> str:
    """The last part of what is called."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def test_no_error_of_the_system_is_told_as_python_prints_it() -> None:
    sample = "try: f()\nexcept OSError as e:\n  log.error('%s', e)\n  raise X(f'{e}') from e\n"
    assert raw_uses(ast.parse(sample)) == [3, 4]
    for room in ("server", "sysadmd"):
        for file in (ROOT / room).rglob("*.py"):
            if "ctl" not in file.parts:
                lines = raw_uses(ast.parse(file.read_text()))
                assert not lines, f"{file.relative_to(ROOT)}: {lines}; see machine.plainly"
