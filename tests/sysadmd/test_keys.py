"""Public keys as text, and proofs of private ones, against openssl(1) where that can be."""

import base64
import hashlib
import subprocess
from pathlib import Path

import pytest
from Crypto.PublicKey import RSA
from hypothesis import given
from hypothesis import strategies as st

from sysadmd.keys import (
    PrivateKey,
    PublicKey,
    as_text,
    from_text,
    is_proved,
    is_proved_raw,
    parse_public,
)
from tests.kit.rsa_keys import RsaKey

KEY = PrivateKey.new()
NONCE, PIN = "nonce", "pin"


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *arguments], input=data, check=True, capture_output=True)
    return done.stdout


@pytest.fixture(scope="module")
def rsa(tmp_path_factory: pytest.TempPathFactory) -> RsaKey:
    return RsaKey(tmp_path_factory.mktemp("rsa"))


def test_a_key_is_known_by_the_hash_of_its_spki(rsa: RsaKey) -> None:
    for pem in (KEY.public.pem, rsa.public):
        der = openssl("pkey", "-pubin", "-pubout", "-outform", "DER", data=pem)
        digest = base64.b64encode(hashlib.sha256(der).digest()).decode()
        key = parse_public(pem)
        assert key.fingerprint == digest
        assert from_text(as_text(pem)) == key
        # The same key is the same key, however its text is wrapped.
        assert parse_public(pem.replace(b"\n", b"\r\n")).fingerprint == digest
    assert PrivateKey.parse(KEY.pem.encode()).public == KEY.public
    assert (
        PrivateKey.parse(openssl("genpkey", "-algorithm", "ED25519")).public.kind == "ed25519"
    )


def test_the_checksum_is_that_of_the_original(rsa: RsaKey) -> None:
    assert parse_public(rsa.public).checksum == (
        base64.b64encode(openssl("md5", "-binary", data=rsa.public)).decode()
    )


@given(st.data())
def test_a_proof_is_good_for_what_it_was_made_for_and_nothing_else(data: st.DataObject) -> None:
    proof = base64.b64decode(KEY.prove("client", PIN, NONCE))
    public = KEY.public
    assert is_proved(public, proof, "client", PIN, NONCE)
    assert not is_proved(public, proof, "server", PIN, NONCE)
    assert not is_proved(PrivateKey.new().public, proof, "client", PIN, NONCE)
    other = data.draw(st.text(max_size=40))
    if other != PIN:
        assert not is_proved(public, proof, "client", other, NONCE)
    if other != NONCE:
        assert not is_proved(public, proof, "client", PIN, other)
    at = data.draw(st.integers(0, len(proof) * 8 - 1))
    changed = bytearray(proof)
    changed[at // 8] ^= 1 << at % 8
    assert not is_proved(public, bytes(changed), "client", PIN, NONCE)
    assert not is_proved(public, data.draw(st.binary(max_size=100)), "client", PIN, NONCE)


def test_the_original_s_form_is_that_of_openssl(rsa: RsaKey) -> None:
    key = parse_public(rsa.public)
    proof = base64.b64decode(rsa.sign("some text"))
    assert is_proved_raw(key, proof, "some text")
    assert not is_proved_raw(key, proof, "some texts")
    assert not is_proved_raw(key, proof[1:], "some text")
    assert not is_proved_raw(key, b"\0" + proof, "some text")
    assert not is_proved_raw(KEY.public, proof, "some text")
    assert not is_proved(key, proof, "client", PIN, "some text")


@given(st.binary(max_size=600))
def test_no_bytes_are_a_proof(data: bytes) -> None:
    assert not is_proved_raw(_RSA, data, "some text")


def test_blocks_that_are_padded_otherwise_are_none(rsa: RsaKey) -> None:
    key = parse_public(rsa.public)
    size = 256
    text = b"some text"
    good = b"\0\1" + b"\xff" * (size - len(text) - 3) + b"\0" + text
    assert is_proved_raw(key, rsa.raw(good), text.decode())
    for block in (
        # Block type 2; short padding with rubbish behind; a hole in the padding; none at all.
        b"\0\2" + good[2:],
        b"\0\1" + b"\xff" * 8 + b"\0" + text + bytes(size - len(text) - 11),
        good[:20] + b"\0" + good[21:],
        text.rjust(size, b"\0"),
    ):
        assert not is_proved_raw(key, rsa.raw(block), text.decode())
    assert not is_proved_raw(key, bytes(size), text.decode())
    assert not is_proved_raw(key, (1).to_bytes(size, "big"), text.decode())


def test_what_is_no_public_key_is_said(tmp_path: Path, rsa: RsaKey) -> None:
    curve = openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout")
    p256 = openssl("pkey", "-pubout", data=curve)
    for pem, said in (
        (KEY.pem.encode(), "it is a private key"),
        (b"", "it is no PEM text"),
        (rsa.public + rsa.public, "it is no PEM text"),
        (b"x" * 5000, "it is no PEM text"),
        (KEY.public.pem.replace(b"MCow", b"AAAA"), "no Ed25519 and no RSA key"),
        (RsaKey(tmp_path, 1024).public, "2048 to 4096 bits; this one has 1024"),
        (p256, "it must be an Ed25519 key"),
        (RSA.construct((2**2047 + 1, 2**31 + 11)).export_key(), "its public exponent"),
    ):
        with pytest.raises(ValueError, match=said):
            parse_public(pem)
    for pem in (curve, KEY.public.pem, b"", b"\xff"):
        with pytest.raises(ValueError, match=r"no private Ed25519|no PEM of a private"):
            PrivateKey.parse(pem)
    with pytest.raises(ValueError, match="it is no base64"):
        from_text("*")


@given(st.binary(max_size=300))
def test_any_text_is_a_key_or_a_sentence(data: bytes) -> None:
    framed = b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(data) + b"\n"
    for pem in (data, framed + b"-----END PUBLIC KEY-----\n"):
        try:
            key = parse_public(pem)
        except ValueError as error:
            assert str(error).startswith(("it ", "an RSA", "its "))
        else:
            assert key.kind in ("ed25519", "rsa")


def _rsa_of_the_test() -> PublicKey:
    # Its factors are of no interest: nothing is signed by it.
    return parse_public(RSA.construct((2**2047 + 1, 65537)).export_key() + b"\n")


_RSA = _rsa_of_the_test()
