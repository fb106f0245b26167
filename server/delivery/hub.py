"""Live events to everybody who keeps up: one frame per form, in a bounded ring. No socket.

Subscribers that want the same bytes (same dialect, extension and systems) form a channel. An
event becomes one JSON text and one frame per channel, kept in the channel's ring. Subscribers
hold a position in the ring; who falls out of it goes on from the journal.

What is new is told in a pass over the channel's recipients. For nearly all of them it is the
same bytes, before which nothing waits: these go to their sockets from here, one call for each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from server.delivery.frames import Form, Renderer
from server.wire.protocol import SEND_SIZE
from sysadmd import journal
from sysadmd.events import SYSTEMS
from sysadmd.journal import Event, Place, parse_place
from sysadmd.store import Store

# Bytes of frames that a channel keeps for its subscribers. A client slower than this is served
# from the journal. There are at most 28 channels: 2 dialects, with extension or not, 7 sets.
RING_SIZE: Final = 512 * 1024
# What a frame costs beside its bytes: a dialect that lacks an event keeps an empty one.
FRAME_COST: Final = 256
# No ring holds more frames than this; of a commit with more events the first are not rendered.
MOST_FRAMES: Final = RING_SIZE // FRAME_COST
# The longest that events are rendered, or told, before the loop looks at its sockets again; s.
SLICE: Final = 0.001
# Recipients that are told between two looks at the clock.
_BATCH: Final = 32
# Turns of the loop between a commit and its telling: those who waited for the commit need them
# to answer, and who asked should hear the reply before the event.
REPLY_TURNS: Final = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as bytes on the wire."""

    place: str
    data: bytes


class Way(Protocol):
    """The way to a client.

    direct: takes bytes at once, and says how many; None: something waits before them, or it is
    not open. keep: what `direct` did not take goes out before all else.
    """

    @property
    def direct(self) -> Callable[[bytes], int] | None: ...
    def keep(self, data: memoryview) -> None: ...


class Recipient:
    """Who hears what a channel tells.

    index: of the next frame that it is given, place: of the event before that, which a pass
    moves on. APART, before any: it has a word of its own between the events, and is asked for
    them. tell: there are new frames, and they were not given to it.
    """

    APART: Final = -(2**62)
    __slots__ = ("index", "place", "tell", "way")

    def __init__(self, way: Way, tell: Callable[[], object]) -> None:
        self.way = way
        self.tell = tell
        self.index = self.APART
        self.place = ""


class Channel:
    """The live frames of one form, newest last; and who is to be told of new ones."""

    def __init__(self, form: Form, prev: str) -> None:
        self.form = form
        # The cursor of the newest event of these systems; the index behind the newest frame.
        self.prev = prev
        self.end = 0
        # Up to where all were told, or are being told.
        self.told = 0
        # When the last pass was over that gave bytes directly, by the loop's clock.
        self.told_at = 0.0
        # Up to so many events of these systems, from the first of all, none is rendered.
        self.passes = 0
        self.recipients: dict[Recipient, None] = {}
        self._frames: deque[Frame] = deque()
        self._size = 0
        # The join of the frames behind one position: all who keep up ask for the same.
        self._joined: tuple[int, int, bytes] = (0, 0, b"")

    def add(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._size += len(frame.data) + FRAME_COST
        self.end += 1
        while self._size > RING_SIZE and len(self._frames) > 1:
            self._size -= len(self._frames.popleft().data) + FRAME_COST

    def skip(self) -> None:
        """Pass over an event: who has not had it reads it in the journal."""
        self._frames.clear()
        self._size = 0
        self.end += 1

    @property
    def start(self) -> int:
        """The index of the oldest frame that is still here."""
        return self.end - len(self._frames)

    def since(self, index: int) -> tuple[bytes, str]:
        """Frames from `index` on, joined, and the place of the last; start <= index < end."""
        if self._joined[:2] != (index, self.end):
            skip = index - self.start
            data = b"".join(f.data for i, f in enumerate(self._frames) if i >= skip)
            self._joined = (index, self.end, data)
        return self._joined[2], self._frames[-1].place

    def tell_all(self) -> Generator[None, None, bool]:
        """A pass: give what is new to all who follow; looks up now and then.

        Returns: it has bytes for them; of what the dialect lacks there are none.
        """
        start, end = self.told, self.end
        self.told = end
        # What is not in the ring any more is read in the journal.
        data, place = self.since(start) if self.start <= start else (b"", "")
        same = bool(place) and len(data) <= SEND_SIZE
        recipients = list(self.recipients)
        for at in range(0, len(recipients), _BATCH):
            for recipient in recipients[at : at + _BATCH]:
                send = recipient.way.direct
                if recipient.index != start or send is None or not same:
                    recipient.tell()
                    continue
                recipient.index, recipient.place = end, place
                taken = 0
                try:
                    if not data or (taken := send(data)) == len(data):
                        continue
                except OSError:
                    # No room, or its end: whoever keeps the rest finds out.
                    pass
                recipient.way.keep(memoryview(data)[taken:])
            yield
        return same and bool(data)


class Hub:
    """Takes committed events in order and hands them to the channels, a slice at a time."""

    def __init__(self, store: Store, renderer: Renderer) -> None:
        self._store = store
        self._renderer = renderer
        self._loop = asyncio.get_running_loop()
        # Committed and not told yet.
        self._untold: deque[Event] = deque()
        self._slicing = self._flushing = False
        # The passes that are under way.
        self._passes: Iterator[None] = iter(())
        self._channels: dict[Form, Channel] = {}
        # The newest event that has been told; readers of the journal go no further.
        self.head: Place = journal.head(store.reader)

    def channel(self, form: Form, place: Place, prev: str) -> Channel:
        """The channel of a form, made when it is first wanted.

        place, prev: where who wants it is. It may know what retention has taken already.
        """
        channel = self._channels.get(form)
        if channel is None:
            systems = form.systems
            if place.count(systems) != self.head.count(systems):
                last = journal.last_before(self._store.reader, systems, self.head.seq)
                prev = journal.format_cursor(self._store.epoch, str(last)) if last else ""
            channel = self._channels[form] = Channel(form, prev)
        return channel

    def publish(self, events: Sequence[Event]) -> None:
        """Tell committed events; called in the journal's order."""
        self._untold += events
        if len(self._untold) > MOST_FRAMES:
            self._pass_over()
        if not self._slicing:
            self._tell_some()

    def _pass_over(self) -> None:
        """Of more events than a ring can hold, no channel is told the first."""
        newest = parse_place(self._untold[-1].place)
        for channel in self._channels.values():
            channel.passes = newest.count(channel.form.systems) - MOST_FRAMES

    def _tell_some(self) -> None:
        """Tell what one slice of time allows, and go on in another turn of the loop."""
        end = self._loop.time() + SLICE
        channels = [each for each in self._channels.values() if each.recipients]
        if len(channels) < len(self._channels):
            self._channels = {each.form: each for each in channels}
        while self._untold:
            event = self._untold.popleft()
            place = parse_place(event.place)
            for channel in channels:
                if event.system in channel.form.systems:
                    self._tell(channel, event, place)
            self.head = place
            if channels and self._loop.time() >= end:
                break
        self._slicing = bool(self._untold)
        if self._slicing:
            self._loop.call_soon(self._store.soundly, self._tell_some)
        if channels and not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._store.soundly, self._flush, REPLY_TURNS)

    def _tell(self, channel: Channel, event: Event, place: Place) -> None:
        form = channel.form
        if place.count(form.systems) <= channel.passes:
            channel.skip()
        else:
            channel.add(Frame(event.place, self._renderer.frame(event, form, channel.prev)))
        channel.prev = journal.format_cursor(self._store.epoch, event.place)

    def telling(self) -> bool:
        """Events have been published that subscribers are not told of yet."""
        return self._flushing

    def _flush(self, turns: int) -> None:
        if turns:
            self._loop.call_soon(self._store.soundly, self._flush, turns - 1)
            return
        self._passes = self._tell_all()
        self._go_on()

    def _tell_all(self) -> Iterator[None]:
        for channel in tuple(self._channels.values()):
            if channel.told < channel.end and (yield from channel.tell_all()):
                channel.told_at = self._loop.time()

    def _go_on(self) -> None:
        """Tell for one slice of time; the rest in another turn of the loop."""
        end = self._loop.time() + SLICE
        for _ in self._passes:
            if self._loop.time() >= end:
                self._loop.call_soon(self._store.soundly, self._go_on)
                return
        # What has been made meanwhile waits for the same.
        self._flushing = any(each.told < each.end for each in self._channels.values())
        if self._flushing:
            self._loop.call_soon(self._store.soundly, self._flush, REPLY_TURNS)


def system_numbers(names: Sequence[str]) -> frozenset[int]:
    """The numbers of systems. Raises: ValueError for an unknown name."""
    return frozenset(SYSTEMS.index(name) for name in names)
