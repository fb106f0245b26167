"""Messages that two peers seal for each other, whoever relays them: handshake and records.

Pure: bytes in, bytes out. Both ends have Ed25519 keys. The client knows whom it calls by the
fingerprint of his key, the server learns who has called. Whatever was changed, left out,
repeated or moved on the way is `SealBroken`, and then the channel is of no use any more.

Source: docs/bridge.md, "End to end", has every byte. The exchange is SIGMA-I (Krawczyk, 2003)
with X25519 (RFC 7748), HKDF (RFC 5869) and ChaCha20-Poly1305 (RFC 8439).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any, Final

from Crypto.Cipher import ChaCha20_Poly1305
from Crypto.Hash import SHA256
from Crypto.Protocol import DH
from Crypto.Protocol.KDF import HKDF
from Crypto.PublicKey import ECC

from sysadmd.keys import PrivateKey, PublicKey, Side, as_raw, from_raw, is_signed

# The first byte of a message.
HELLO: Final = b"\1"
WELCOME: Final = b"\2"
PROOF: Final = b"\3"
RECORD: Final = b"\4"
# Before a channel is open: why there will be none, in UTF-8. Nobody vouches for it.
REFUSED: Final = b"\5"

_LABEL: Final = b"sysadmd bridge channel v1"
_KEY: Final = 32
_SIGNATURE: Final = 64
_TAG: Final = 16
_NUMBER: Final = 8


class SealBroken(Exception):
    """A message is not what the other end has to send next."""


class Calling:
    """The client's end of a handshake: say `hello`, then `finish` with what comes back."""

    def __init__(
        self, key: PrivateKey, server: str, ephemeral: ECC.EccKey | None = None
    ) -> None:
        """server: the fingerprint of the key of who is called. ephemeral: chance, if None."""
        self._key = key
        self._server = server
        self._ephemeral = ephemeral or _new_ephemeral()
        self.hello = HELLO + _raw(self._ephemeral)

    def finish(self, welcome: bytes) -> tuple[bytes, SealedChannel]:
        """The proof that is to be sent, and what is open then. Raises: SealBroken."""
        head = welcome[: 1 + _KEY]
        if head[:1] != WELCOME:
            raise SealBroken("the server does not answer as one that knows how to be called")
        secrets = _agree(self._ephemeral, head[1:], self._server, self.hello + head[1:])
        server, signature = _opened_identity(secrets.welcome, welcome[len(head) :], head)
        if server.fingerprint != self._server:
            raise SealBroken("another server has answered than the one that was called")
        if not is_signed(server, _signed("server", secrets.transcript), signature):
            raise SealBroken("who has answered does not hold the server's key")
        proof = PROOF + _sealed_identity(secrets, "client", self._key, PROOF)
        return proof, SealedChannel(secrets.from_client, secrets.from_server)


class Answering:
    """The server's end: send `welcome`, then `finish` with what comes back."""

    def __init__(
        self, key: PrivateKey, hello: bytes, ephemeral: ECC.EccKey | None = None
    ) -> None:
        """Raises: SealBroken."""
        if hello[:1] != HELLO:
            raise SealBroken("a call begins with a hello")
        own = ephemeral or _new_ephemeral()
        head = WELCOME + _raw(own)
        self._secrets = _agree(own, hello[1:], key.public.fingerprint, hello + head[1:])
        self.welcome = head + _sealed_identity(self._secrets, "server", key, head)

    def finish(self, proof: bytes) -> tuple[PublicKey, SealedChannel]:
        """Whose key the client's is, and what is open then. Raises: SealBroken."""
        if proof[:1] != PROOF:
            raise SealBroken("a call goes on with a proof")
        secrets = self._secrets
        client, signature = _opened_identity(secrets.proof, proof[1:], PROOF)
        if not is_signed(client, _signed("client", secrets.transcript), signature):
            raise SealBroken("who calls does not hold the key that he names")
        return client, SealedChannel(secrets.from_server, secrets.from_client)


class SealedChannel:
    """Records from here to there, and back, each numbered in its direction from 0."""

    def __init__(self, own: bytes, others: bytes) -> None:
        self._own = own
        self._others = others
        self._sent = 0
        self._received = 0

    def seal(self, content: bytes) -> bytes:
        """The record that carries this."""
        head = RECORD + self._sent.to_bytes(_NUMBER, "big")
        sealed = _seal(self._own, self._sent, content, head)
        self._sent += 1
        return head + sealed

    def open(self, record: bytes) -> bytes:
        """What the next record carries. Raises: SealBroken."""
        head = record[: 1 + _NUMBER]
        if head[:1] != RECORD or len(head) < 1 + _NUMBER:
            raise SealBroken("something came that is no record")
        number = int.from_bytes(head[1:], "big")
        if number != self._received:
            what = "again, or late" if number < self._received else "and some are missing"
            raise SealBroken(f"record {number} came where {self._received} is due, {what}")
        content = _open(self._others, number, record[len(head) :], head)
        self._received += 1
        return content


@dataclass(frozen=True, slots=True)
class _Secrets:
    """What both have seen, and keys. welcome, proof: for the two identities."""

    transcript: bytes
    welcome: bytes
    proof: bytes
    from_client: bytes
    from_server: bytes


def _agree(own: ECC.EccKey, other: bytes, server: str, said: bytes) -> _Secrets:
    """server: the fingerprint of its key. said: hello, and the server's ephemeral key.

    Raises: SealBroken.
    """
    try:
        fingerprint = base64.b64decode(server, validate=True)
        public = DH.import_x25519_public_key(other)
        shared: bytes = DH.key_agreement(eph_priv=own, eph_pub=public, kdf=bytes)
    except ValueError as error:
        raise SealBroken("the key for the exchange, or the server's id, is none") from error
    digest = hashlib.sha256(_LABEL + fingerprint + said).digest()
    keys: Any = HKDF(shared, _KEY, digest, SHA256, num_keys=4, context=_LABEL)
    return _Secrets(digest, *keys)


def _new_ephemeral() -> ECC.EccKey:
    return ECC.generate(curve="Curve25519")


def _raw(key: ECC.EccKey) -> bytes:
    raw = key.public_key().export_key(format="raw")
    assert isinstance(raw, bytes)
    return raw


def _signed(side: Side, transcript: bytes) -> bytes:
    return b"\0".join((_LABEL, side.encode(), transcript))


def _sealed_identity(secrets: _Secrets, side: Side, key: PrivateKey, head: bytes) -> bytes:
    """Who is at this end, and that it holds the key; head: what stands in front of it."""
    content = as_raw(key.public) + key.sign(_signed(side, secrets.transcript))
    return _seal(secrets.welcome if side == "server" else secrets.proof, 0, content, head)


def _opened_identity(secret: bytes, sealed: bytes, head: bytes) -> tuple[PublicKey, bytes]:
    """A key, and a signature that is still to be checked. Raises: SealBroken."""
    content = _open(secret, 0, sealed, head)
    if len(content) != _KEY + _SIGNATURE:
        raise SealBroken("a key and a signature are due")
    try:
        return from_raw(content[:_KEY]), content[_KEY:]
    except ValueError as error:
        raise SealBroken(f"the key is none: {error}") from error


def _cipher(secret: bytes, number: int, head: bytes) -> Any:
    nonce = number.to_bytes(12, "big")
    cipher = ChaCha20_Poly1305.new(key=secret, nonce=nonce)
    cipher.update(head)
    return cipher


def _seal(secret: bytes, number: int, content: bytes, head: bytes) -> bytes:
    sealed, tag = _cipher(secret, number, head).encrypt_and_digest(content)
    return bytes(sealed + tag)


def _open(secret: bytes, number: int, sealed: bytes, head: bytes) -> bytes:
    """Raises: SealBroken."""
    try:
        content: bytes = _cipher(secret, number, head).decrypt_and_verify(
            sealed[:-_TAG], sealed[-_TAG:]
        )
    except ValueError as error:
        raise SealBroken("a message was changed, or is not for this channel") from error
    return content
