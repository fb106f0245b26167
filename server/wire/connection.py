"""One client's socket: TLS, WebSocket framing, bounded output. Knows no request and no event.

The socket is non-blocking and ours; `websockets` parses and frames (its Sans-I/O layer). What
a connection means is the business of its `peer`: it gets requests and texts, and hands out
output when the socket takes more. Nothing is queued per connection but replies, and reading
stops while those wait; a client that does not read costs a bounded amount of memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from server.wire import tls
from server.wire.edge import outer_edge
from server.wire.limits import (
    CLOSE_TIMEOUT,
    HTTP_REQUEST,
    LATE_FRAMES,
    LINGER,
    MEMBER_MESSAGE,
    OUTPUT_HIGH,
    PING_AFTER,
    READ_SIZE,
    READ_SLICE,
    SILENT_AFTER,
    SLICE,
    STRANGER_MESSAGE,
    STRANGER_OUTPUT_HIGH,
)
from server.wire.local import PlainSocket
from server.wire.messages import Messages, Refusal
from server.wire.parties import Caller, Owner, Peer, Phase
from server.wire.protocol import SEND_SIZE, text_frame
from server.wire.records import NO_ROOM_YET, NOTHING_YET, read
from server.wire.share import Part, Share
from sysadmd.machine import plainly

log = logging.getLogger(__name__)

_QUIET = logging.getLogger("server.wire.connection.websockets")
_QUIET.setLevel(logging.CRITICAL)


class Connection:
    """A client's connection from accept to its end."""

    # There are thousands, most of which wait: each is small.
    __slots__ = (
        *("address", "clock", "direct", "group", "local", "phase", "port", "relayed", "relays"),
        *("_deadline", "_due", "_file", "_finish", "_inbox", "_late_frames", "_loop"),
        *("_messages", "_owner", "_part", "_paused", "_peer", "_pinged", "_protocol"),
        *("_reading", "_received", "_replies", "_replies_size", "_reserved", "_rest", "_roomy"),
        *("_socket", "_taken", "_unparsed", "_writing"),
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
        sock: ssl.SSLSocket | PlainSocket,
        caller: Caller,
        handshake_timeout: float,
        owner: Owner,
        welcome: Callable[[Connection], Peer],
    ) -> None:
        """clock: what `tick` is told, and all that the peer's time is measured by."""
        self.address, self.port, self.group = caller.address, caller.port, caller.group
        self.local, self.relayed = caller.local, caller.relayed
        self.clock = clock
        self.phase = Phase.HANDSHAKE
        # Its peer passes messages on: those that have come are taken, and written, together.
        self.relays = False
        self._loop = loop
        self._socket = sock
        self._file = sock.fileno()
        self._owner = owner
        self._protocol = ServerProtocol(max_size=MEMBER_MESSAGE, logger=_QUIET)
        self._messages = Messages()
        self._unparsed = 0
        self._late_frames = 0
        self._inbox: list[str] = []
        self._replies: list[bytes] = []
        self._replies_size = 0
        self._rest: memoryview | None = None
        # What has been queued is to be written with the next turn of the loop.
        self._due = False
        # Takes bytes at once; None: something waits before them, or it is not open.
        self.direct: Callable[[bytes], int] | None = None
        # Somebody waits until there is room.
        self._roomy: asyncio.Event | None = None
        self._finish = False
        self._writing = False
        self._reading = True
        self._paused = False
        # What it holds in memory counts to this, and how much that was.
        self._part = Part(self._find_room, self.write)
        self._reserved = 0
        now = clock()
        self._deadline = now + handshake_timeout
        self._received = now
        self._taken = now
        self._pinged = False
        self._peer = welcome(self)

    def begin(self) -> None:
        """Read from here on."""
        self._loop.add_reader(self._file, self._readable)
        self._readable()

    # What a session calls.

    def admit(self, share: Share) -> None:
        """Its client has logged in; what it holds of the memory counts to this share now."""
        self._owner.known(self)
        self._move_to(share)

    def dismiss(self) -> None:
        """It has logged out, and counts as a stranger again."""
        self._owner.unknown(self)
        self._move_to(Share(None))

    @property
    def is_open(self) -> bool:
        """Frames can be sent."""
        return self.phase is Phase.OPEN

    def send(self, text: bytes) -> None:
        """Queue a reply (JSON text); it is written with all that is answered in this turn."""
        if self.phase is not Phase.OPEN:
            return
        self._queue(text_frame(text))
        if self._replies_size >= SEND_SIZE:
            self.write()
        elif not self._due:
            self._due = True
            self._loop.call_soon(self._write_due)

    def ping(self, said: bytes) -> None:
        """Send a ping with this in it behind all that was handed out; the peer's `pong` says
        when it has come back."""
        if self.phase is Phase.OPEN:
            self._protocol.send_ping(said)
            self._collect()
            self.write()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, behind what is being written."""
        if self.phase is Phase.OPEN:
            # The parser may have begun to close by itself, further on in what came.
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(code, reason[:120])
            self._begin_closing()
            self._collect()
            self.write()
        elif self.phase in (Phase.HANDSHAKE, Phase.HTTP):
            self.abort()

    def fail(self) -> None:
        """End it after a defect of ours, which its owner finds in the log."""
        if self.phase is Phase.OPEN:
            self.close(1011, "the server met a defect; see its log")
        else:
            self.abort()

    def abort(self) -> None:
        """End it at once."""
        if self.phase is Phase.GONE:
            return
        self.phase = Phase.GONE
        self.direct = None
        self._loop.remove_reader(self._file)
        self._loop.remove_writer(self._file)
        self._socket.close()
        self._replies.clear()
        self._rest = None
        self._find_room()
        self._move_to(Share(None))
        self._peer.lost()
        self._owner.gone(self)

    def hold(self, held: bool) -> None:
        """While held, nothing more is read or handed out: what came must be answered first."""
        released = self._paused and not held
        self._paused = held
        if released:
            self._hand_out()

    def certificate_subject(self) -> str | None:
        """The common name of the client's verified certificate, if it showed one."""
        return tls.common_name(self._socket.getpeercert())

    @property
    def pin(self) -> str:
        """The pin of the key that we have shown here, or proved to who was relayed; or ""."""
        return self.relayed.pin if self.relayed else tls.shown_pin(self._socket)

    async def room(self) -> None:
        """Return when what waits for the client is little enough to add a reply to it, and all
        that its account holds in memory."""
        while not self.has_room:
            self._roomy = roomy = self._roomy or asyncio.Event()
            if self._part.share.is_full:
                self._part.share.wait(self._find_room)
            await roomy.wait()

    @property
    def crowded(self) -> bool:
        """Its account holds so much that nothing is to be made ready for it; `write` is called
        when there is room again, if it was in vain."""
        return self._part.share.is_full

    def reserve(self, size: int) -> None:
        """So much is being made ready for `output`, or is: 0: nothing any more."""
        self._reserved = size
        self._weigh()

    @property
    def has_room(self) -> bool:
        """There is, or it is over."""
        if self.phase is not Phase.OPEN:
            return True
        return not (self._part.share.is_full or self.buffered > self._high)

    def _find_room(self) -> None:
        """There may be room now: who waits for it looks."""
        if self._roomy is not None:
            self._roomy.set()
            self._roomy = None

    def _move_to(self, share: Share) -> None:
        waited = self._part.move_to(share)
        self._find_room()
        self._weigh()
        if waited:
            # What waited for the other one may have room here.
            self._loop.call_soon(self.write)

    def _weigh(self) -> None:
        """Tell what is held by now: output, and what has come of a message."""
        if self.phase is Phase.GONE:
            held = 0
        else:
            held = self.buffered + self._unparsed + self._messages.size + self._reserved
        self._part.weigh(held)

    @property
    def waiting(self) -> bool:
        """Output waits for the client to take it."""
        return self._rest is not None or bool(self._replies)

    @property
    def buffered(self) -> int:
        """Bytes held for the client."""
        return self._replies_size + (len(self._rest) if self._rest is not None else 0)

    @outer_edge
    def tick(self, now: float) -> None:
        """Called every second: what is due by the clock."""
        if self.phase is not Phase.OPEN:
            if now >= self._deadline:
                self.abort()
            return
        self._peer.tick(now)
        if self.phase is not Phase.OPEN:
            return
        if now - max(self._received, self._taken) >= SILENT_AFTER:
            if self.waiting:
                self.close(4408, "output waits and nothing of it was taken for 60 s")
            else:
                self.close(1011, "no sign of life for 60 s")
        elif now - self._received >= PING_AFTER and not self._pinged:
            self._pinged = True
            self.ping(b"")

    # Reading.

    @outer_edge
    def _readable(self) -> None:
        try:
            if self.phase is Phase.HANDSHAKE:
                self._socket.do_handshake()
                self.phase = Phase.HTTP
            end = self._loop.time() + READ_SLICE
            while self._receive() and self._loop.time() < end:
                pass
        except NOTHING_YET:
            pass
        except ssl.SSLWantWriteError:
            self._loop.add_writer(self._file, self._readable_again)
        except OSError as error:
            log.debug("%s: connection lost (%s)", self.address, plainly(error))
            self.abort()

    @outer_edge
    def _readable_again(self) -> None:
        """A read had to wait until TLS could write."""
        self._loop.remove_writer(self._file)
        self._writing = False
        self._readable()
        if self.phase is Phase.OPEN:
            self.write()

    def _receive(self) -> bool:
        """Returns: there may be more that is to be read in this turn. Raises: OSError."""
        if not self._reading:
            return False
        data = read(self._socket, together=self.relays)
        self._received = self.clock()
        self._pinged = False
        if self.phase is Phase.LINGERING or self._finish:
            # Nothing that comes now matters.
            if data:
                self._look_again()
            else:
                self.abort()
            return False
        if data:
            self._protocol.receive_data(data)
            self._unparsed += len(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._unparsed = 0
                self._answer_http(event)
            elif isinstance(event, Frame):
                self._frame(event)
        self._after_parsing()
        self._weigh()
        if data:
            self._hand_out()
            self.write()
            self._look_again()
        else:
            self.abort()
        return self.relays and len(data) == READ_SIZE and self.phase is Phase.OPEN

    def _look_again(self) -> None:
        """Bytes that TLS has decrypted already do not wake the selector."""
        if self.phase is not Phase.GONE and self._socket.pending():
            self._loop.call_soon(self._pending)

    @outer_edge
    def _pending(self) -> None:
        if self.phase not in (Phase.GONE, Phase.HANDSHAKE):
            self._readable()

    def _after_parsing(self) -> None:
        self._collect()
        if self.phase is Phase.HTTP:
            if self._unparsed > HTTP_REQUEST:
                text = f"A request has at most {HTTP_REQUEST} bytes.\n"
                self._protocol.send_response(self._protocol.reject(431, text))
                self._collect()
                self._begin_closing()
            elif self._protocol.handshake_exc is not None:
                self._begin_closing()
        elif self.phase is Phase.OPEN:
            if self._protocol.state is not State.OPEN:
                self._begin_closing()
            elif not self._peer.member and self._unparsed > STRANGER_MESSAGE + 14:
                self.close(1009, "before login a message has at most 8 KiB")
            elif self._part.share.is_full and self._unparsed + self._messages.size > READ_SIZE:
                # Of those that do not come to their end none would make room for another.
                self.close(1013, "other connections of the account hold too much")
        elif self.phase is Phase.CLOSING and self._unparsed > READ_SIZE:
            # So long a message is not the goodbye that we wait for.
            self._finish = True

    @property
    def _is_high(self) -> bool:
        """More replies wait than are to."""
        return self._replies_size > self._high

    @property
    def _high(self) -> int:
        return OUTPUT_HIGH if self._peer.member else STRANGER_OUTPUT_HIGH

    def _answer_http(self, request: Request) -> None:
        response = self._peer.http(request, lambda: self._protocol.accept(request))
        if not self._protocol.eof_sent:
            self._protocol.send_response(response)
        else:
            # What came with the request is no frame: the library has ended it over that.
            if response.status_code == 101:
                response = self._protocol.reject(400, "What follows the upgrade is no frame.\n")
            self._queue(response.serialize())
        if self._protocol.state is State.OPEN:
            self.phase = Phase.OPEN
        else:
            self._begin_closing()

    def _frame(self, frame: Frame) -> None:
        self._unparsed -= min(self._unparsed, len(frame.data) + 6)
        if self.phase is not Phase.OPEN:
            self._late_frames += 1
            self._finish = self._finish or self._late_frames > LATE_FRAMES
            return
        if frame.opcode is Opcode.PONG and frame.data:
            self._peer.pong(bytes(frame.data))
        heard = self._messages.take(frame, member=self._peer.member)
        if isinstance(heard, Refusal):
            self.close(heard.code, heard.reason)
        elif heard is not None:
            self._unparsed = 0
            self._inbox.append(heard)

    @outer_edge
    def _hand_out(self) -> None:
        """Texts to the session, until it holds us or the replies pile up."""
        end = 0.0
        while self._inbox and self.phase is Phase.OPEN:
            if self._paused or self._is_high:
                break
            # The first has its turn in any case.
            if not end:
                end = self._loop.time() + SLICE
            elif self._loop.time() > end:
                self._loop.call_soon(self._hand_out)
                break
            self._peer.text(self._inbox.pop(0))
        self._set_reading(not (self._inbox or self._paused or self._is_high))

    def _set_reading(self, reading: bool) -> None:
        if reading == self._reading or self.phase is Phase.GONE:
            return
        self._reading = reading
        if reading:
            self._loop.add_reader(self._file, self._readable)
            # What came while nobody looked may lie decrypted in TLS.
            self._loop.call_soon(self._pending)
        else:
            self._loop.remove_reader(self._file)

    # Writing.

    def keep(self, data: memoryview) -> None:
        """Write this, which `direct` has not taken, before all else."""
        self.direct = None
        self._rest = data
        self.write()

    def took(self) -> None:
        """What went out directly of late was taken."""
        self._taken = self.clock()

    def _queue(self, data: bytes) -> None:
        self.direct = None
        self._replies.append(data)
        self._replies_size += len(data)
        self._weigh()

    def _collect(self) -> None:
        """What the protocol wants to say: handshake, pong, close; b"" is the end."""
        for data in self._protocol.data_to_send():
            if data:
                self._queue(data)
            else:
                self._finish = True

    def _write_due(self) -> None:
        self._due = False
        self.write()

    @outer_edge
    def write(self) -> None:
        """Write what the socket takes: replies, then the session's output, in portions."""
        while self.phase not in (Phase.GONE, Phase.HANDSHAKE, Phase.LINGERING):
            if self._rest is None:
                if self._replies:
                    self._rest = memoryview(b"".join(self._replies))
                    self._replies.clear()
                    self._replies_size = 0
                elif self._finish:
                    self._linger()
                    return
                else:
                    output = self._output()
                    if output is None:
                        self._wait_for_room(False)
                        if self.phase is Phase.OPEN:
                            self.direct = self._socket.send
                        if not self._reading:
                            # Whoever wrote the last of it; not here, it may be within a text.
                            self._loop.call_soon(self._hand_out)
                        return
                    self.direct = None
                    self._rest = memoryview(output)
            if not self._write_rest():
                return

    def _output(self) -> bytes | None:
        """What the session has to tell next, if there is room for it."""
        if self.phase is not Phase.OPEN:
            return None
        if self._part.share.is_full and not self._reserved:
            self._part.share.wait(self.write)
            # What comes just now is told all the same: those of an account that take nothing
            # keep no news from those that do.
            return self._peer.output(live=True)
        return self._peer.output()

    def _write_rest(self) -> bool:
        assert self._rest is not None
        try:
            sent = self._socket.send(self._rest[:SEND_SIZE])
        except NO_ROOM_YET:
            # TLS must see the same bytes again: the rest is kept as it is.
            self._weigh()
            self._wait_for_room(True)
            return False
        except OSError as error:
            log.debug("%s: connection lost (%s)", self.address, plainly(error))
            self.abort()
            return False
        self._taken = self.clock()
        self._rest = self._rest[sent:] if sent < len(self._rest) else None
        self._weigh()
        self._find_room()
        return True

    def _wait_for_room(self, wait: bool) -> None:
        if wait != self._writing and self.phase is not Phase.GONE:
            self._writing = wait
            if wait:
                self._loop.add_writer(self._file, self.write)
            else:
                self._loop.remove_writer(self._file)

    # Ending.

    def _begin_closing(self) -> None:
        self.phase = Phase.CLOSING
        self.direct = None
        self._deadline = self.clock() + CLOSE_TIMEOUT
        self._inbox.clear()
        self._set_reading(True)

    def _linger(self) -> None:
        """All is said: end our side, then read what is in flight, or the kernel would reset."""
        self.phase = Phase.LINGERING
        self._deadline = self.clock() + LINGER
        self._wait_for_room(False)
        with contextlib.suppress(OSError, ValueError):
            # Says close_notify, then wants to read the other side's: that is what we do next.
            self._socket.unwrap()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
