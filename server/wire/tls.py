"""TLS: the self-signed certificate and the contexts. Certificates are made by openssl(1)."""

from __future__ import annotations

import logging
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from sysadmd.errors import CannotStart
from sysadmd.machine import host_name
from sysadmd.settings import ServerSettings

log = logging.getLogger(__name__)

# Apple's limit for a server certificate is 398 days; 397 is within it for every client.
DAYS: Final = 397
# Renewed when no more than this part of its life is left.
LAST_PART: Final = 1 / 3


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate (chain) and its key as PEM files."""

    certificate: Path
    key: Path


def prepare(settings: ServerSettings, directory: Path) -> KeyPair:
    """The configured pair, or the self-signed one, made or renewed if that is due.

    Renewal keeps the key, so that a pin of the public key holds. Raises: CannotStart.
    """
    if settings.tls.certificate:
        return KeyPair(Path(settings.tls.certificate), Path(settings.tls.key))
    directory.mkdir(mode=0o700, exist_ok=True)
    for left in directory.glob(f"{tempfile.gettempprefix()}*/"):
        # A start was killed in the middle.
        shutil.rmtree(left, ignore_errors=True)
    pair = KeyPair(directory / "certificate.pem", directory / "key.pem")
    if not pair.key.exists():
        if pair.certificate.exists():
            log.warning("%s is gone: a new one is made, pins do not hold any more", pair.key)
        # A certificate of another key is of no use, whatever happens before the next is made.
        pair.certificate.unlink(missing_ok=True)
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", out=pair.key)
    if _renewal_due(pair.certificate):
        names = _names()
        _openssl(
            *("req", "-new", "-x509", "-sha256", "-days", str(DAYS), "-key", str(pair.key)),
            *("-subj", "/CN=sysadmd", "-addext", f"subjectAltName={','.join(names)}"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-addext", "extendedKeyUsage=serverAuth"),
            out=pair.certificate,
        )
    return pair


def renewal_due(settings: ServerSettings, directory: Path) -> bool:
    """Is the self-signed certificate in its last third?"""
    return not settings.tls.certificate and _renewal_due(directory / "certificate.pem")


def context(pair: KeyPair, client_ca: str) -> ssl.SSLContext:
    """A server's context: TLS 1.2 or newer. Raises: CannotStart naming the file."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # Connections live for months: tickets to resume a session are bytes and work for nothing,
    # and clients that read and write in two threads can trip over them as they come.
    made.num_tickets = 0
    # A write never has to wait for a read: the connection relies on it.
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION

    def refuse() -> str:
        # Without this OpenSSL asks on the terminal, and waits.
        raise CannotStart(
            f"the key {pair.key} is encrypted, and nobody is there to be asked for its pass"
            f" phrase; store it without one: openssl pkey -in {pair.key} -out NEW"
        )

    try:
        made.load_cert_chain(pair.certificate, pair.key, refuse)
    except (OSError, ssl.SSLError) as error:
        raise CannotStart(
            f"the certificate {pair.certificate} with key {pair.key} can't be loaded: {error};"
            " both must be PEM and belong together"
        ) from error
    if client_ca:
        try:
            made.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError) as error:
            raise CannotStart(
                f"server.client_ca {client_ca} can't be loaded: {error}"
            ) from error
        made.verify_mode = ssl.CERT_OPTIONAL
    return made


def _renewal_due(certificate: Path) -> bool:
    if not certificate.exists():
        return True
    program = _find_openssl()
    if program is None:
        return False
    left = str(round(DAYS * 86400 * LAST_PART))
    done = subprocess.run(
        [program, "x509", "-in", str(certificate), "-noout", "-checkend", left],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode != 0


def _names() -> list[str]:
    name = host_name()
    names = ["DNS:localhost", "IP:127.0.0.1", "IP:::1"]
    if (
        name
        and name != "localhost"
        and name.isascii()
        and name.isprintable()
        and "," not in name
    ):
        names.append(f"DNS:{name}")
    return names


def _openssl(*arguments: str, out: Path) -> None:
    program = _find_openssl()
    if program is None:
        raise CannotStart(
            "openssl is missing: install it, or configure server.tls.certificate and .key"
        )
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        made = Path(scratch) / out.name
        done = subprocess.run(
            [program, *arguments, "-out", str(made)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            text = done.stderr.decode("utf-8", "replace").strip()
            raise CannotStart(f"openssl {arguments[0]} failed: {text}")
        made.chmod(0o600)
        made.replace(out)


def _find_openssl() -> str | None:
    return shutil.which("openssl")


def common_name(certificate: Mapping[str, Any] | None) -> str | None:
    """The subject's common name. certificate: as ssl.SSLSocket.getpeercert tells it."""
    subject = (certificate or {}).get("subject", ())
    for part in cast("tuple[tuple[tuple[str, str], ...], ...]", subject):
        for key, value in part:
            if key == "commonName":
                return value
    return None
