"""Keys that log in: public ones as text, proofs of the private one. No database, no socket.

A proof signs what it is for: a fixed text, who gives it, the key of the other side's TLS
certificate, and a nonce that the other side has made. So it is of no use to anybody else, nor
for anything else, nor again. Ed25519: RFC 8032. Public keys are PEM files of a SPKI, RFC 7468,
section 13; private ones PKCS #8, section 10.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Any, Final, Literal

from Crypto.PublicKey import ECC, RSA
from Crypto.Signature import eddsa

Kind = Literal["ed25519", "rsa"]
# Who proves something: one side's proof is never one of the other's.
Side = Literal["client", "server"]

# Bits of an RSA key: shorter ones are broken, longer ones cost strangers' attempts our time.
RSA_LEAST: Final = 2048
RSA_MOST: Final = 4096
# Public exponents of RSA keys: a long one costs strangers' attempts our time, too.
EXPONENTS: Final = frozenset((3, 17, 65537))
# Bytes of a public key's PEM text; one of RSA_MOST bits has 800.
PEM_SIZE: Final = 2048

_CONTEXT: Final = b"sysadmd key login v1"
# What stands in front of the 32 bytes of an Ed25519 key in its SPKI. Source: RFC 8410, 10.1.
_ED25519_SPKI: Final = bytes.fromhex("302a300506032b6570032100")
_RAW: Final = 32
_PEM: Final = re.compile(
    rb"\s*-----BEGIN PUBLIC KEY-----\s[A-Za-z0-9+/=\s]+-----END PUBLIC KEY-----\s*"
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """pem: as OpenSSL writes it. fingerprint: SHA-256 of the key (SPKI) in base64, as pins are.
    checksum: of the original, MD5 of the PEM text in base64: a name, and no proof of anything.
    """

    kind: Kind
    pem: bytes
    fingerprint: str

    @property
    def checksum(self) -> str:
        digest = hashlib.md5(self.pem, usedforsecurity=False).digest()
        return base64.b64encode(digest).decode()


def parse_public(pem: bytes) -> PublicKey:
    """Raises: ValueError saying what is wrong with it."""
    if b"PRIVATE KEY" in pem:
        raise ValueError(
            "it is a private key: give the public one, and make another pair, since this one"
            " has been told"
        )
    if len(pem) > PEM_SIZE or _PEM.fullmatch(pem) is None:
        raise ValueError("it is no PEM text of one public key (BEGIN PUBLIC KEY)")
    key = _imported(pem)
    if isinstance(key, RSA.RsaKey):
        if not RSA_LEAST <= key.size_in_bits() <= RSA_MOST:
            raise ValueError(
                f"an RSA key has {RSA_LEAST} to {RSA_MOST} bits; this one has"
                f" {key.size_in_bits()}"
            )
        if key.e not in EXPONENTS:
            raise ValueError("its public exponent is not one that RSA keys have (65537)")
        return PublicKey("rsa", key.export_key("PEM") + b"\n", _fingerprint(key))
    if key.curve != "Ed25519":
        raise ValueError("it must be an Ed25519 key, or the RSA key of an original client")
    written = key.export_key(format="PEM") + "\n"
    return PublicKey("ed25519", written.encode(), _fingerprint(key))


def stored(pem: bytes) -> PublicKey:
    """A key as `parse_public` has given it before, without the time that that takes.

    Raises: ValueError if that can't be.
    """
    spki = decode("".join(pem.decode("ascii").split("\n")[1:-2]))
    is_ed25519 = spki[:-_RAW] == _ED25519_SPKI
    fingerprint = base64.b64encode(hashlib.sha256(spki).digest()).decode()
    return PublicKey("ed25519" if is_ed25519 else "rsa", pem, fingerprint)


def as_raw(key: PublicKey) -> bytes:
    """The 32 bytes of an Ed25519 key. Source: RFC 8032, 5.1.5."""
    body = b"".join(key.pem.split(b"\n")[1:-2])
    return base64.b64decode(body)[len(_ED25519_SPKI) :]


def from_raw(raw: bytes) -> PublicKey:
    """The inverse. Raises: ValueError if it is no such key."""
    body = base64.b64encode(_ED25519_SPKI + raw)
    return parse_public(
        b"-----BEGIN PUBLIC KEY-----\n" + body + b"\n-----END PUBLIC KEY-----\n"
    )


def _imported(pem: bytes) -> RSA.RsaKey | ECC.EccKey:
    text = pem.decode("ascii")
    try:
        return ECC.import_key(text)
    except (ValueError, IndexError, TypeError):
        pass
    try:
        return RSA.import_key(text)
    except (ValueError, IndexError, TypeError) as error:
        raise ValueError("it is no Ed25519 and no RSA key that can be read") from error


def _fingerprint(key: RSA.RsaKey | ECC.EccKey) -> str:
    spki = key.export_key(format="DER")
    assert isinstance(spki, bytes)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


def as_text(pem: bytes) -> str:
    """A public key as requests have it: base64 of its PEM text."""
    return base64.b64encode(pem).decode()


def from_text(text: str) -> PublicKey:
    """The inverse. Raises: ValueError saying what is wrong with it."""
    return parse_public(decode(text))


def decode(text: str) -> bytes:
    """Base64, strictly. Raises: ValueError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("it is no base64") from error


class PrivateKey:
    """An Ed25519 key that can give proofs."""

    def __init__(self, key: ECC.EccKey) -> None:
        self._key = key

    @staticmethod
    def new() -> PrivateKey:
        return PrivateKey(ECC.generate(curve="Ed25519"))

    @staticmethod
    def parse(pem: bytes) -> PrivateKey:
        """Raises: ValueError saying what is wrong with it."""
        try:
            key = ECC.import_key(pem.decode("ascii"))
        except (ValueError, IndexError, TypeError) as error:
            raise ValueError("it is no PEM of a private key without a pass phrase") from error
        if not key.has_private() or key.curve != "Ed25519":
            raise ValueError("it is no private Ed25519 key; `sysadmctl key new` makes one")
        return PrivateKey(key)

    @property
    def pem(self) -> str:
        return self._key.export_key(format="PEM") + "\n"

    @property
    def public(self) -> PublicKey:
        pem: str = self._key.public_key().export_key(format="PEM")
        return parse_public(pem.encode() + b"\n")

    def sign(self, message: bytes) -> bytes:
        """64 bytes. message: begins with what it is for."""
        signature: bytes = eddsa.new(self._key, "rfc8032").sign(message)
        return signature

    def prove(self, side: Side, other: str, nonce: str) -> str:
        """In base64: this key is ours. other: the pin of whom it is proved to."""
        return base64.b64encode(self.sign(_signed(side, other, nonce))).decode()


def is_signed(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Has who holds this Ed25519 key signed the message?"""
    if key.kind != "ed25519":
        return False
    try:
        eddsa.new(eddsa.import_public_key(as_raw(key)), "rfc8032").verify(message, signature)
    except ValueError:
        return False
    return True


def is_proved(key: PublicKey, proof: bytes, side: Side, other: str, nonce: str) -> bool:
    """Has who holds this Ed25519 key given the proof?"""
    return is_signed(key, _signed(side, other, nonce), proof)


def _signed(side: Side, other: str, nonce: str) -> bytes:
    # None of the parts has a NUL in it.
    return b"\0".join((_CONTEXT, side.encode(), other.encode(), nonce.encode()))


def is_proved_raw(key: PublicKey, proof: bytes, text: str) -> bool:
    """Has who holds this RSA key signed the text as the original client does?

    PKCS #1 v1.5 of the text itself: no digest, and nothing that says what it is for. The whole
    block is compared with what it has to be, so that nothing in it can be made up (RFC 8017,
    9.2, of which DigestInfo is missing).
    """
    if key.kind != "rsa":
        return False
    rsa: Any = RSA.import_key(key.pem.decode("ascii"))
    size = (rsa.size_in_bits() + 7) // 8
    number = int.from_bytes(proof, "big")
    if len(proof) != size or number >= rsa.n:
        return False
    data = text.encode()
    wanted = b"\0\1" + b"\xff" * (size - len(data) - 3) + b"\0" + data
    return hmac.compare_digest(
        pow(number, int(rsa.e), int(rsa.n)).to_bytes(size, "big"), wanted
    )
