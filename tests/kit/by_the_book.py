"""Another implementation of sealed messages, from docs/bridge.md: the standard library and
openssl(1). Slow, and not safe against who measures time; it takes seeds for all chance."""

from __future__ import annotations

import hashlib
import hmac
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

LABEL = b"sysadmd bridge channel v1"
SPKI = bytes.fromhex("302a300506032b6570032100")
PKCS8 = bytes.fromhex("302e020100300506032b657004220420")
P = 2**255 - 19


def x25519(scalar: bytes, point: bytes) -> bytes:
    """RFC 7748, 5."""
    k = int.from_bytes(scalar, "little") & ~7 & (2**254 - 1) | 2**254
    x1 = int.from_bytes(point, "little") & (2**255 - 1)
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb = d * a % P, c * b % P
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        aa, bb = a * a % P, b * b % P
        e = aa - bb
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def hkdf(secret: bytes, salt: bytes, size: int) -> bytes:
    """RFC 5869 with SHA-256."""
    key = hmac.digest(salt, secret, "sha256")
    done, block, count = b"", b"", 0
    while len(done) < size:
        count += 1
        block = hmac.digest(key, block + LABEL + bytes((count,)), "sha256")
        done += block
    return done[:size]


def chacha20(key: bytes, counter: int, nonce: bytes, data: bytes) -> bytes:
    """RFC 8439, 2.4."""

    def turn(v: int, by: int) -> int:
        return (v << by | v >> 32 - by) & 0xFFFFFFFF

    done = b""
    for at in range(0, len(data), 64):
        first = struct.unpack(
            "<16I", b"expand 32-byte k" + key + struct.pack("<I", counter) + nonce
        )
        counter += 1
        s = list(first)
        for number in range(80):
            q = number % 8
            a, b, c, d = (
                (q, 4 + q, 8 + q, 12 + q)
                if q < 4
                else (q - 4, 4 + (q - 3) % 4, 8 + (q - 2) % 4, 12 + (q - 1) % 4)
            )
            for x, y, z, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                s[x] = s[x] + s[y] & 0xFFFFFFFF
                s[z] = turn(s[z] ^ s[x], by)
        stream = struct.pack(
            "<16I", *(x + y & 0xFFFFFFFF for x, y in zip(s, first, strict=True))
        )
        done += bytes(x ^ y for x, y in zip(data[at : at + 64], stream, strict=False))
    return done


def seal(key: bytes, number: int, content: bytes, head: bytes) -> bytes:
    """RFC 8439, 2.8: what was sealed, and its tag."""
    nonce = number.to_bytes(12, "big")
    sealed = chacha20(key, 1, nonce, content)
    once = chacha20(key, 0, nonce, bytes(32))
    r = int.from_bytes(once[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    message = b"".join(part + bytes(-len(part) % 16) for part in (head, sealed))
    message += struct.pack("<QQ", len(head), len(sealed))
    total = 0
    for at in range(0, len(message), 16):
        block = int.from_bytes(message[at : at + 16] + b"\1", "little")
        total = (total + block) * r % (2**130 - 5)
    tag = total + int.from_bytes(once[16:], "little")
    return sealed + (tag % 2**128).to_bytes(16, "little")


@dataclass(frozen=True)
class Identity:
    """An Ed25519 key from its seed, used by openssl(1)."""

    seed: bytes

    def _run(self, *arguments: str, data: bytes = b"") -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            key, message = Path(folder, "key"), Path(folder, "message")
            key.write_bytes(PKCS8 + self.seed)
            message.write_bytes(data)
            words = [w.format(key=key, message=message) for w in arguments]
            return subprocess.run(["openssl", *words], check=True, capture_output=True).stdout

    @property
    def raw(self) -> bytes:
        words = ("pkey", "-inform", "DER", "-in", "{key}", "-pubout", "-outform", "DER")
        return self._run(*words).removeprefix(SPKI)

    @property
    def fingerprint(self) -> bytes:
        return hashlib.sha256(SPKI + self.raw).digest()

    def sign(self, message: bytes) -> bytes:
        words = ("pkeyutl", "-sign", "-keyform", "DER", "-inkey", "{key}", "-rawin")
        return self._run(*words, "-in", "{message}", data=message)


@dataclass(frozen=True)
class Exchange:
    """All that two ends say to each other until the channel is open."""

    client: Identity
    server: Identity
    client_ephemeral: bytes
    server_ephemeral: bytes

    @property
    def hello(self) -> bytes:
        return b"\1" + x25519(self.client_ephemeral, (9).to_bytes(32, "little"))

    @property
    def _head(self) -> bytes:
        return b"\2" + x25519(self.server_ephemeral, (9).to_bytes(32, "little"))

    @property
    def transcript(self) -> bytes:
        said = LABEL + self.server.fingerprint + self.hello + self._head[1:]
        return hashlib.sha256(said).digest()

    def keys(self) -> list[bytes]:
        shared = x25519(self.client_ephemeral, self._head[1:])
        assert shared == x25519(self.server_ephemeral, self.hello[1:])
        made = hkdf(shared, self.transcript, 128)
        return [made[at : at + 32] for at in range(0, 128, 32)]

    @property
    def welcome(self) -> bytes:
        signature = self.server.sign(LABEL + b"\0server\0" + self.transcript)
        return self._head + seal(self.keys()[0], 0, self.server.raw + signature, self._head)

    @property
    def proof(self) -> bytes:
        signature = self.client.sign(LABEL + b"\0client\0" + self.transcript)
        return b"\3" + seal(self.keys()[1], 0, self.client.raw + signature, b"\3")

    def record(self, side: str, number: int, content: bytes) -> bytes:
        head = b"\4" + number.to_bytes(8, "big")
        key = self.keys()[2 if side == "client" else 3]
        return head + seal(key, number, content, head)
