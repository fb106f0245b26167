"""A client's messages, put together from its frames, as far as they may go. No socket."""

from __future__ import annotations

from dataclasses import dataclass

from websockets.frames import Frame, Opcode

from server.wire.limits import FRAGMENTS, STRANGER_FRAMES, STRANGER_MESSAGE


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the connection is to be closed: code and reason of the close frame."""

    code: int
    reason: str


class Messages:
    """The message that is coming, and how many frames came without a login."""

    def __init__(self) -> None:
        # Of a message which is not whole, and how many bytes that is.
        self._begun = bytearray()
        self.size = 0
        self._fragments = 0
        self._strange_frames = 0

    def take(self, frame: Frame, *, member: bool) -> str | Refusal | None:
        """The text that this frame completes; None: there is none yet, or it is no text's.

        member: the client is logged in.
        """
        self._strange_frames = 0 if member else self._strange_frames + 1
        if self._strange_frames > STRANGER_FRAMES:
            return Refusal(4401, f"log in first; {STRANGER_FRAMES} frames came without")
        if frame.opcode is Opcode.BINARY:
            return Refusal(1003, "only text frames are understood")
        if frame.opcode not in (Opcode.TEXT, Opcode.CONT):
            return None
        if frame.fin and not self._fragments:
            # Nearly all are.
            data, frame.data = bytes(frame.data), b""
            if not member and len(data) > STRANGER_MESSAGE:
                return Refusal(1009, "before login a message has at most 8 KiB")
            return _text(data)
        self._begun += frame.data
        self.size = len(self._begun)
        # The parser keeps the frame until the next one comes.
        frame.data = b""
        self._fragments += 1
        if not member and len(self._begun) > STRANGER_MESSAGE:
            return Refusal(1009, "before login a message has at most 8 KiB")
        if self._fragments > FRAGMENTS:
            return Refusal(1009, f"a message has at most {FRAGMENTS} fragments")
        return self._whole() if frame.fin else None

    def _whole(self) -> str | Refusal:
        message = bytes(self._begun)
        self._begun.clear()
        self._fragments = self.size = 0
        return _text(message)


def _text(message: bytes) -> str | Refusal:
    try:
        return message.decode()
    except UnicodeDecodeError:
        return Refusal(1007, "a text frame must be UTF-8")
