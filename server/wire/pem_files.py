"""Files of certificates and keys: loaded into a context, or what is wrong with each of them."""

from __future__ import annotations

import re
import ssl
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from sysadmd.machine import plainly
from sysadmd.path_faults import unreadable

Which = Literal["certificate", "key"]

# What each is to be, behind what it is.
ALLOWED: Final[dict[Which, str]] = {
    "certificate": "a PEM file with the certificate, and behind it those of its issuers",
    "key": "a PEM file with the certificate's private key, without a pass phrase",
}
AUTHORITIES: Final = "a PEM file with certificates of authorities"
_LABEL: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\s*", re.DOTALL
)
# What DER begins with: a SEQUENCE of more than 127 bytes. Source: X.690, 8.1.
_DER: Final = (b"\x30\x81", b"\x30\x82")
_CONVERT: Final[dict[Which, str]] = {"certificate": "x509", "key": "pkey"}
# Certificates of a chain that are tried with the key; more are no chain.
_LONGEST: Final = 16


@dataclass(frozen=True, slots=True)
class PemFault:
    """What is wrong with one of the two files, as what is said of it."""

    which: Which
    what: str


class _PassPhraseWanted(Exception):
    """OpenSSL would ask for one."""


def load(context: ssl.SSLContext, certificate: Path, key: Path) -> list[PemFault]:
    """Have a context show this pair. What is wrong with it; nothing: it is shown.

    Reads them, which may hang.
    """
    try:
        _load(context, certificate, key)
    except _PassPhraseWanted:
        return [
            PemFault(
                "key",
                "is encrypted, and nobody is there to be asked for its pass phrase; store it"
                f" without one: openssl pkey -in {key} -out NEW",
            )
        ]
    except OSError as error:
        # An ssl.SSLError is one, and names no file.
        return _apart(certificate, key) or [_together(certificate, key, error)]
    return []


def load_authorities(context: ssl.SSLContext, path: Path) -> str:
    """Have a context trust these authorities. What is wrong with the file; empty: nothing."""
    try:
        context.load_verify_locations(path)
    except OSError as error:
        data = _read(path)
        what = data if isinstance(data, str) else _content_fault("certificate", path, data)
        return what or f"is damaged: {plainly(error)}"
    return ""


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Raises: OSError, _PassPhraseWanted."""

    def refuse() -> str:
        # Without this OpenSSL asks on the terminal, and waits.
        raise _PassPhraseWanted

    context.load_cert_chain(certificate, key, refuse)


def _apart(certificate: Path, key: Path) -> list[PemFault]:
    """What is wrong with each of them, whatever the other is."""
    files: tuple[tuple[Which, Path], ...] = (("certificate", certificate), ("key", key))
    found: list[PemFault] = []
    for which, path in files:
        data = _read(path)
        what = data if isinstance(data, str) else _content_fault(which, path, data)
        if what:
            found.append(PemFault(which, what))
    return found


def _read(path: Path) -> bytes | str:
    """Its content, or why it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        return unreadable(path, error)


def _content_fault(which: Which, path: Path, data: bytes) -> str:
    if not data.strip():
        return "is empty"
    labels = [label.decode() for label in _LABEL.findall(data)]
    if any(label.endswith(_ENDING[which]) for label in labels):
        return ""
    other: Which = "key" if which == "certificate" else "certificate"
    if any(label.endswith(_ENDING[other]) for label in labels):
        holds = {"key": "a private key", "certificate": "a certificate"}[other]
        return f"holds {holds}; are the two files in each other's place?"
    if labels:
        return f"holds no {which}, but: {', '.join(dict.fromkeys(labels))}"
    if data.startswith(_DER):
        return (
            "is DER, not PEM; convert it: openssl"
            f" {_CONVERT[which]} -inform DER -in {path} -out NEW"
        )
    return "is no PEM file"


_ENDING: Final[dict[Which, str]] = {"certificate": "CERTIFICATE", "key": "PRIVATE KEY"}


def _together(certificate: Path, key: Path, error: OSError) -> PemFault:
    """What is wrong with a pair of which each has the look of what it is to be."""
    reason = getattr(error, "reason", None) or ""
    if "MISMATCH" in reason:
        if (place := _place_in_chain(certificate, key)) > 1:
            return PemFault(
                "certificate",
                f"has the certificate of the key {key} in place {place}; it is to be the first,"
                " and behind it those of its issuers",
            )
        return PemFault("key", f"does not belong to the certificate {certificate}")
    if reason.endswith(("TOO_SMALL", "TOO_WEAK")):
        # A key of 1024 bits, a signature by SHA-1.
        return PemFault(
            "certificate", f"is too weak for OpenSSL ({plainly(error)}); have another one made"
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certificate)
    except OSError as damage:
        return PemFault("certificate", f"is damaged: {plainly(damage)}")
    return PemFault("key", f"is damaged: {plainly(error)}")


def _place_in_chain(certificate: Path, key: Path) -> int:
    """Which of a file's certificates the key belongs to, from 1; 0: none."""
    with suppress(OSError), tempfile.TemporaryDirectory() as scratch:
        one = Path(scratch) / "one.pem"
        chain = _CERTIFICATE.findall(certificate.read_bytes())
        for place, text in enumerate(chain[:_LONGEST], 1):
            one.write_bytes(text)
            with suppress(OSError):
                _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), one, key)
                return place
    return 0
