"""Sealed messages: what is opened is what was sealed, in order, or it is noticed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from Crypto.PublicKey import ECC
from hypothesis import given
from hypothesis import strategies as st

from sysadmd.keys import PrivateKey, as_raw, from_raw
from sysadmd.sealed import Answering, Calling, SealBroken, SealedChannel
from tests.kit.by_the_book import Exchange, Identity

CLIENT = PrivateKey(ECC.construct(curve="Ed25519", seed=b"c" * 32))
SERVER = PrivateKey(ECC.construct(curve="Ed25519", seed=b"s" * 32))
OTHER = PrivateKey(ECC.construct(curve="Ed25519", seed=b"o" * 32))
NAME = SERVER.public.fingerprint


def ephemeral(text: bytes) -> ECC.EccKey:
    return ECC.construct(curve="Curve25519", seed=text * 32)


def opened() -> tuple[SealedChannel, SealedChannel]:
    """The client's end, and the server's."""
    call = Calling(CLIENT, NAME, ephemeral(b"x"))
    answer = Answering(SERVER, call.hello, ephemeral(b"y"))
    proof, ours = call.finish(answer.welcome)
    client, theirs = answer.finish(proof)
    assert client == CLIENT.public
    return ours, theirs


def test_both_ends_open_what_the_other_has_sealed() -> None:
    ours, theirs = opened()
    for number in range(3):
        asked, told = b"ask %d" % number, b"tell %d" % number
        record = ours.seal(asked)
        assert asked not in record
        assert theirs.open(record) == asked
        assert ours.open(theirs.seal(told)) == told


def test_the_bytes_are_those_of_other_implementations() -> None:
    call = Calling(CLIENT, NAME, ephemeral(b"x"))
    answer = Answering(SERVER, call.hello, ephemeral(b"y"))
    proof, ours = call.finish(answer.welcome)
    _, theirs = answer.finish(proof)
    seeds = (Identity(b"c" * 32), Identity(b"s" * 32), b"x" * 32, b"y" * 32)
    book = Exchange(*seeds)
    assert call.hello == book.hello
    assert answer.welcome == book.welcome
    assert proof == book.proof
    for number in range(2):
        text = b"%d" % number * 100
        assert ours.seal(text) == book.record("client", number, text)
        assert theirs.seal(text) == book.record("server", number, text)


@given(st.data())
def test_a_changed_handshake_opens_nothing(data: st.DataObject) -> None:
    change = data.draw(changes(), "change")
    step = data.draw(st.sampled_from(("hello", "welcome", "proof")), "step")
    call = Calling(CLIENT, NAME)
    with pytest.raises(SealBroken):
        hello = change(call.hello) if step == "hello" else call.hello
        answer = Answering(SERVER, hello)
        welcome = change(answer.welcome) if step == "welcome" else answer.welcome
        proof, _ = call.finish(welcome)
        answer.finish(change(proof))


def changes() -> st.SearchStrategy[Callable[[bytes], bytes]]:
    """What somebody between may do to a message."""

    def flip(at: int, bit: int) -> Callable[[bytes], bytes]:
        def change(message: bytes) -> bytes:
            place = at % len(message)
            return (
                message[:place] + bytes((message[place] ^ (1 << bit),)) + message[place + 1 :]
            )

        return change

    def cut(size: int) -> Callable[[bytes], bytes]:
        return lambda message: message[: size % len(message)]

    def add(more: bytes) -> Callable[[bytes], bytes]:
        return lambda message: message + more

    return (
        st.builds(flip, st.integers(0, 200), st.integers(0, 7))
        | st.builds(cut, st.integers(0, 200))
        | st.builds(add, st.binary(min_size=1, max_size=40))
    )


@given(changes())
def test_a_changed_record_is_not_opened(change: Callable[[bytes], bytes]) -> None:
    ours, theirs = CHANNELS
    record = SealedChannel.seal(ours, b"a command")
    with pytest.raises(SealBroken):
        theirs.open(change(record))
    assert theirs.open(record) == b"a command"


CHANNELS = opened()


@given(st.permutations(range(4)), st.integers(1, 4), st.booleans())
def test_records_that_were_moved_left_out_or_repeated_are_noticed(
    order: list[int], kept: int, again: bool
) -> None:
    ours, theirs = SealedChannel(b"a" * 32, b"b" * 32), SealedChannel(b"b" * 32, b"a" * 32)
    records = [ours.seal(b"%d" % number) for number in range(4)]
    came = order[:kept] + (order[:1] if again else [])
    shown: list[int] = []
    with pytest.raises(SealBroken):
        for number in came:
            shown.append(int(theirs.open(records[number])))
        assert came == list(range(len(came)))
        raise SealBroken("all in order")
    # What was shown before is true.
    assert shown == list(range(len(shown)))


def test_nobody_but_the_named_server_can_answer() -> None:
    call = Calling(CLIENT, NAME)
    with pytest.raises(SealBroken):
        call.finish(Answering(OTHER, call.hello).welcome)


def test_a_call_to_one_server_is_of_no_use_at_another() -> None:
    call = Calling(CLIENT, OTHER.public.fingerprint)
    there = Answering(OTHER, call.hello)
    proof, _ = call.finish(there.welcome)
    with pytest.raises(SealBroken):
        Answering(SERVER, call.hello).finish(proof)


def test_what_one_end_has_sealed_is_not_taken_for_the_others() -> None:
    ours, theirs = opened()
    with pytest.raises(SealBroken):
        ours.open(ours.seal(b"mirror"))
    with pytest.raises(SealBroken):
        theirs.open(theirs.seal(b"mirror"))


def test_a_record_of_another_channel_is_not_opened() -> None:
    one, other = Calling(CLIENT, NAME), Calling(CLIENT, NAME)
    answer, second = Answering(SERVER, one.hello), Answering(SERVER, other.hello)
    _, ours = one.finish(answer.welcome)
    proof, _ = other.finish(second.welcome)
    _, theirs = second.finish(proof)
    with pytest.raises(SealBroken):
        theirs.open(ours.seal(b"for the other"))


@pytest.mark.parametrize(
    "point",
    [
        bytes(32),
        (1).to_bytes(32, "little"),
        (2**255 - 20).to_bytes(32, "little"),
        (2**255 - 19).to_bytes(32, "little"),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    ],
)
def test_a_point_that_would_give_away_the_secret_is_refused(point: bytes) -> None:
    with pytest.raises(SealBroken):
        Answering(SERVER, b"\1" + point)


@pytest.mark.parametrize("message", [b"", b"\1", b"\2", b"\1" + b"x" * 31, b"\4" * 40])
def test_what_is_no_message_is_said_to_be_none(message: bytes) -> None:
    call = Calling(CLIENT, NAME)
    answer = Answering(SERVER, call.hello)
    ours, _ = opened()
    for take in (
        lambda: Answering(SERVER, message),
        lambda: call.finish(message),
        lambda: answer.finish(message),
        lambda: ours.open(message),
    ):
        with pytest.raises(SealBroken):
            take()


def test_a_raw_key_is_the_same_key() -> None:
    assert from_raw(as_raw(CLIENT.public)) == CLIENT.public
    with pytest.raises(ValueError, match="read"):
        from_raw(b"\xff" * 32)
