"""Pins: servers known by the SHA-256 of their public key. No socket."""

from __future__ import annotations

import base64
import hashlib
import ssl
from pathlib import Path
from typing import Any


def key_pin(certificate: bytes) -> str:
    """The SHA-256 of a certificate's public key (SPKI) in base64. certificate: DER.

    Raises: ValueError if it is none. Source: RFC 5280, 4.1; RFC 7469, 2.4.
    """
    from Crypto.Util.asn1 import DerSequence

    try:
        signed: Any = DerSequence().decode(certificate)
        fields: Any = DerSequence().decode(signed[0])
        # Version (left out in version 1), serial, algorithm, issuer, validity, subject, key.
        versioned = isinstance(fields[0], bytes) and fields[0][:1] == b"\xa0"
        key: bytes = fields[6 if versioned else 5]
        return base64.b64encode(hashlib.sha256(key).digest()).decode()
    except (IndexError, TypeError) as error:
        raise ValueError(f"not a certificate: {error}") from error


def file_pin(path: Path) -> str:
    """The pin of the first certificate in a PEM file. Raises: OSError, ValueError."""
    _, begin, rest = path.read_text("utf-8", "replace").partition(ssl.PEM_HEADER)
    body, end, _ = rest.partition(ssl.PEM_FOOTER)
    if not end:
        raise ValueError(f"{path} has no certificate in it")
    return key_pin(ssl.PEM_cert_to_DER_cert(f"{begin}{body}{end}\n"))
