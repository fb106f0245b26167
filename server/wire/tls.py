"""TLS: the self-signed certificate and the contexts. Certificates are made by openssl(1).

Who calls bounds the time (server/certificate.py): here are files and a program that may hang.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from server.wire import pem_files
from sysadmd.errors import CannotStart
from sysadmd.machine import host_name
from sysadmd.pins import file_pin
from sysadmd.settings import DoorSettings

log = logging.getLogger(__name__)

# Apple's limit for a server certificate is 398 days; 397 is within it for every client.
DAYS: Final = 397
# Renewed in its last third; s.
LAST_PART: Final = DAYS * 86400 / 3
# All that openssl is to know. With openssl.cnf beside it OpenSSL 1.1.1 makes twice what both
# ask for, and clients refuse that. No keyUsage: one without keyCertSign can't be verified by
# itself. Source: config(5), x509v3_config(5).
_REQUEST: Final = """\
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
commonName = sysadmd
[extensions]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
subjectAltName = {names}
"""
# Source: RFC 5280, 4.2.1.9; X.690: an object identifier, 3 bytes, 2.5.29.19.
_BASIC_CONSTRAINTS: Final = b"\x06\x03\x55\x1d\x13"
# What may be part of a name in DNS, and means nothing in that configuration.
_DNS_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate is valid. Unix time, s.

    serial: its number, which tells it from another that was made in the same second.
    """

    begins: int
    ends: int
    serial: str

    def holds(self, now: float) -> bool:
        return self.begins <= now < self.ends

    def fault(self, now: float, early: float) -> str | None:
        """What is wrong by this clock, as what is said of the certificate.

        early: how long before its end that is a fault, s.
        """
        if now < self.begins:
            return f"is not valid before {date(self.begins)}"
        if now >= self.ends:
            return f"has expired on {date(self.ends)}"
        return f"ends on {date(self.ends)}" if now >= self.ends - early else None


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate (chain) and its key as PEM files.

    validity: of the certificate when it was read, None if nobody could tell; which pair it is
    does not depend on it.
    """

    certificate: Path
    key: Path
    validity: Validity | None = field(compare=False)


def prepare(settings: DoorSettings, directory: Path) -> KeyPair:
    """The configured pair, or the self-signed one, made or renewed if that is due.

    Renewal keeps the key, so that a pin of the public key holds. Raises: CannotStart.
    """
    if settings.tls.certificate:
        certificate = Path(settings.tls.certificate)
        return KeyPair(certificate, Path(settings.tls.key), read_validity(certificate))
    directory.mkdir(mode=0o700, exist_ok=True)
    for left in directory.glob(f"{tempfile.gettempprefix()}*/"):
        # A start was killed in the middle.
        shutil.rmtree(left, ignore_errors=True)
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    if not key.exists():
        if certificate.exists():
            log.warning("%s is gone: a new one is made, pins do not hold any more", key)
        # A certificate of another key is of no use, whatever happens before the next is made.
        certificate.unlink(missing_ok=True)
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", out=key)
    validity = read_validity(certificate)
    fault = why_renew(validity)
    # Where there is no openssl nobody can read it, nor make another.
    can_make = _find_openssl() is not None
    is_bad = validity is None and can_make
    if fault is None and can_make and _is_malformed(certificate):
        fault = "has an extension twice, which clients refuse"
    if fault is not None or is_bad or not certificate.exists():
        _openssl(
            *("req", "-new", "-x509", "-sha256", "-days", str(DAYS), "-key", str(key)),
            out=certificate,
            config=_REQUEST.format(names=",".join(_names())),
        )
        if fault is not None:
            log.info("%s %s: another was made, of the same key", certificate, fault)
        validity = read_validity(certificate)
    return KeyPair(certificate, key, validity)


def why_renew(validity: Validity | None) -> str | None:
    """Why a self-signed certificate with these dates is to be renewed by now, if it is."""
    return None if validity is None else validity.fault(time.time(), LAST_PART)


def date(moment: float) -> str:
    """Unix time (s) for people."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))


class ServerContext(ssl.SSLContext):
    """What a server shows. pin: of its certificate's key, "" if that can't be read."""

    pin = ""


def context(pair: KeyPair, client_ca: str) -> ServerContext:
    """A server's context: TLS 1.2 or newer. Raises: CannotStart naming the file."""
    made = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # Connections live for months: tickets to resume a session are bytes and work for nothing,
    # and clients that read and write in two threads can trip over them as they come.
    made.num_tickets = 0
    # A write never has to wait for a read: the connection relies on it.
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION

    if found := pem_files.load(made, pair.certificate, pair.key):
        raise CannotStart(". ".join(_told(pair, fault) for fault in found))
    with contextlib.suppress(OSError, ValueError):
        made.pin = file_pin(pair.certificate)
    if client_ca:
        if what := pem_files.load_authorities(made, Path(client_ca)):
            raise CannotStart(
                f"server.client_ca {client_ca} {what}; needed is {pem_files.AUTHORITIES}"
            )
        made.verify_mode = ssl.CERT_OPTIONAL
    return made


def _told(pair: KeyPair, fault: pem_files.PemFault) -> str:
    path = pair.certificate if fault.which == "certificate" else pair.key
    return f"the {fault.which} {path} {fault.what}; needed is {pem_files.ALLOWED[fault.which]}"


def read_validity(certificate: Path) -> Validity | None:
    """Of the first certificate in the file; None if openssl can't read it, or is missing.

    Source: openssl-x509(1), `notBefore=Jan  1 00:00:00 2026 GMT` in a line, then `notAfter=`;
    `serial=1F…`.
    """
    program = _find_openssl()
    if program is None:
        return None
    try:
        # Opened by us: a file that does not answer would leave openssl behind.
        with certificate.open("rb") as file:
            done = subprocess.run(
                [program, "x509", "-noout", "-startdate", "-enddate", "-serial"],
                stdin=file,
                capture_output=True,
                check=True,
            )
        lines = done.stdout.decode("ascii").splitlines()
        told = dict(line.split("=", 1) for line in lines)
        begins, ends = (
            ssl.cert_time_to_seconds(told[end]) for end in ("notBefore", "notAfter")
        )
        return Validity(begins, ends, told["serial"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return None


def _is_malformed(certificate: Path) -> bool:
    """Was it made by OpenSSL 1.1.1, as this program once asked it to?"""
    try:
        der = ssl.PEM_cert_to_DER_cert(certificate.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False
    return der.count(_BASIC_CONSTRAINTS) > 1


def _names() -> list[str]:
    name = host_name()
    names = ["DNS:localhost", "IP:127.0.0.1", "IP:::1"]
    if name != "localhost" and _DNS_NAME.fullmatch(name):
        names.append(f"DNS:{name}")
    return names


def _openssl(*arguments: str, out: Path, config: str = "") -> None:
    """Have it make this file. config: what it reads instead of the system's openssl.cnf."""
    program = _find_openssl()
    if program is None:
        raise CannotStart(
            "openssl is missing: install it, or configure server.tls.certificate and .key"
        )
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        made = Path(scratch) / out.name
        if config:
            file = Path(scratch) / "openssl.cnf"
            file.write_text(config, encoding="ascii")
            arguments = (*arguments, "-config", str(file))
        done = subprocess.run(
            [program, *arguments, "-out", str(made)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise CannotStart(
                f"openssl {arguments[0]} failed: {_first_words(done.stderr)}; see that there is"
                f" room in {out.parent}, and move away what is damaged there: it is made anew,"
                " and after a new key clients log in again"
            )
        made.chmod(0o600)
        made.replace(out)


def _first_words(stderr: bytes) -> str:
    """What openssl says in words, without the stack of its errors, nor dots of its progress.

    Source: ERR_print_errors(3), `THREAD:error:CODE:LIBRARY:FUNCTION:REASON:FILE:LINE:…`.
    """
    lines = stderr.decode("utf-8", "replace").splitlines()
    words = [line.strip() for line in lines if ":error:" not in line and line.strip(" .+*-")]
    return words[0] if words else "it does not say why"


def _find_openssl() -> str | None:
    return shutil.which("openssl")


def shown_pin(sock: socket.socket) -> str:
    """The pin of the key that we have shown on this connection; "": there is none."""
    context = sock.context if isinstance(sock, ssl.SSLSocket) else None
    return context.pin if isinstance(context, ServerContext) else ""


def common_name(certificate: Mapping[str, Any] | None) -> str | None:
    """The subject's common name. certificate: as ssl.SSLSocket.getpeercert tells it."""
    subject = (certificate or {}).get("subject", ())
    for part in cast("tuple[tuple[tuple[str, str], ...], ...]", subject):
        for key, value in part:
            if key == "commonName":
                return value
    return None
