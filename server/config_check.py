"""What is wrong with a configuration on this machine: the files, accounts and addresses that it
names. Looks, as the account that it runs as, and changes nothing.

What has its default says nothing of this machine: the sample has all of them, for every system.
"""

from __future__ import annotations

import ssl
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from server.login.standing import unknown_members
from server.statedir import not_ours
from server.wire import addresses, pem_files, tls
from sysadmd.errors import BadRequest
from sysadmd.key_file import read_key
from sysadmd.machine import default_bridge_dir, default_state_dir
from sysadmd.path_faults import obstacle, unreadable
from sysadmd.settings import Address, AuthSettings, Settings, TlsSettings

_DEFAULTS: Final = Settings()
# Where a PAM service is configured: a file of its name, or a line in a file of all.
# Source: pam.conf(5) of Linux-PAM and of FreeBSD.
_PAM_DIRECTORIES: Final = ("/etc/pam.d", "/usr/local/etc/pam.d", "/usr/lib/pam.d")
_PAM_FILES: Final = ("/etc/pam.conf", "/usr/local/etc/pam.conf")


def problems(settings: Settings) -> list[str]:
    """All of them, each as `key.path: what is wrong; what is allowed`, in the file's order."""
    state = _directory(settings.state_dir, default_state_dir)
    bridge = _directory(settings.bridge.state_dir, default_bridge_dir)
    writers = settings.collectors.life_preserver.writers
    server, client = settings.server, settings.bridge_client
    return [
        *_state_dir("state_dir", settings.state_dir),
        *_listen("server.listen", server.listen, _DEFAULTS.server.listen),
        *_pair("server.tls", server.tls, state),
        *_authorities("server.client_ca", server.client_ca, state),
        *_auth(settings.auth),
        *_members("collectors.life_preserver.writers", writers, (), numbers=True),
        *_state_dir("bridge.state_dir", settings.bridge.state_dir),
        *_listen("bridge.listen", settings.bridge.listen, _DEFAULTS.bridge.listen),
        *_pair("bridge.tls", settings.bridge.tls, bridge),
        *_authorities("bridge_client.cafile", client.cafile, state),
        *_key("bridge_client.key", client.key, state),
    ]


def _directory(named: str, default: Callable[[], Path]) -> Path:
    """A service's working directory, from which its relative paths are."""
    return (Path(named) if named else default()).absolute()


def _state_dir(path: str, named: str) -> Iterator[str]:
    if not named:
        return
    directory = Path(named).absolute()
    what = obstacle(directory)
    if not what and directory.exists() and (owner := not_ours(directory.stat())):
        what = f"{directory} {owner}"
    if what:
        yield f"{path}: {what}; allowed: a directory that is there, or can be made"


def _listen(path: str, listen: Sequence[Address], default: Sequence[Address]) -> Iterator[str]:
    if listen == default:
        return
    for number, address in enumerate(listen):
        if what := addresses.why_not_here(address):
            yield f"{path}[{number}]: {what}; allowed: ADDRESS:PORT of this machine"


def _pair(path: str, named: TlsSettings, directory: Path) -> Iterator[str]:
    if not (named.certificate and named.key):
        # One alone is a mistake of the file; both empty: our own.
        return
    files = {"certificate": directory / named.certificate, "key": directory / named.key}
    certificate, key = files.values()
    found = [
        pem_files.PemFault(which, what)
        for which, file in zip(pem_files.ALLOWED, files.values(), strict=True)
        if (what := _no_file(file))
    ]
    if not found:
        found = pem_files.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)
    for fault in found:
        allowed = pem_files.ALLOWED[fault.which]
        yield f"{path}.{fault.which}: {files[fault.which]} {fault.what}; allowed: {allowed}"
    if any(fault.which == "certificate" for fault in found):
        return
    validity = tls.read_validity(certificate)
    if validity is not None and (wrong := validity.fault(time.time(), 0)):
        yield (
            f"{path}.certificate: {certificate} {wrong}; allowed: one that is valid now (is"
            " the clock right?)"
        )


def _authorities(path: str, named: str, directory: Path) -> Iterator[str]:
    if not named:
        return
    file = directory / named
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if what := _no_file(file) or pem_files.load_authorities(context, file):
        yield f"{path}: {file} {what}; allowed: {pem_files.AUTHORITIES}"


def _key(path: str, named: str, directory: Path) -> Iterator[str]:
    if not named:
        return
    try:
        read_key(directory / named)
    except BadRequest as error:
        yield f"{path}: {error}; allowed: the file of a private key"


def _no_file(file: Path) -> str:
    """Why nothing can be read there; a pipe that nobody writes to would be waited for."""
    try:
        mode = file.stat().st_mode
    except OSError as error:
        return unreadable(file, error)
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "is no regular file"


def _auth(auth: AuthSettings) -> Iterator[str]:
    default = _DEFAULTS.auth
    if auth.pam_service != default.pam_service and not _has_pam_service(auth.pam_service):
        yield (
            f'auth.pam_service: PAM has no service "{auth.pam_service}" here; allowed: the name'
            f" of a file in {_PAM_DIRECTORIES[0]}"
        )
    yield from _members("auth.full", auth.full, default.full)
    yield from _members("auth.limited", auth.limited, default.limited)


def _has_pam_service(name: str) -> bool:
    if any(Path(directory, name).exists() for directory in _PAM_DIRECTORIES):
        return True
    for file in map(Path, _PAM_FILES):
        try:
            lines = file.read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            continue
        except OSError:
            # Nobody can tell, so nothing is wrong.
            return True
        if any(line.split()[:1] == [name] for line in lines):
            return True
    return False


def _members(
    path: str, members: Sequence[str], default: Sequence[str], *, numbers: bool = False
) -> Iterator[str]:
    """numbers: those count, too, where nobody has a name for them."""
    if members == default:
        return
    for member, what in unknown_members(members).items():
        if not (numbers and member.removeprefix("@").isdecimal()):
            place = members.index(member)
            yield f"{path}[{place}]: {what}; allowed: accounts, and groups as @NAME"
