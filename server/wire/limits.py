"""What one connection may take of time, memory and the loop."""

from typing import Final

# Read, and worked at, in one turn of the loop: it never spends long on one client. 4 KiB may be
# 700 pings, which cost some 10 us each.
READ_SIZE: Final = 4 * 1024
SLICE: Final = 0.001
# How long the socket of one whose messages are passed on is read on in a turn; s.
READ_SLICE: Final = 0.0005
# Messages above these close the connection (1009): before login, and after.
STRANGER_MESSAGE: Final = 8 * 1024
MEMBER_MESSAGE: Final = 1024 * 1024
# Of the HTTP request: a browser sends all cookies of the host, whatever their port.
HTTP_REQUEST: Final = 16 * 1024
# Frames of any kind before login, which takes two: a flood has to pay for handshakes.
STRANGER_FRAMES: Final = 256
# Frames behind our goodbye that are parsed to find the client's.
LATE_FRAMES: Final = 256
# Fragments of a message: empty ones cost us time and the sender next to nothing.
FRAGMENTS: Final = 1024
# Replies that wait for the socket. Above, reading stops until the client has taken them.
OUTPUT_HIGH: Final = 256 * 1024
STRANGER_OUTPUT_HIGH: Final = 16 * 1024
# After this long without receiving anything a ping is sent; s.
PING_AFTER: Final = 20.0
# With neither a byte in nor a byte taken for this long the client is gone; s.
SILENT_AFTER: Final = 60.0
# How long a closing handshake, and then the last bytes in flight, may take; s.
CLOSE_TIMEOUT: Final = 5.0
LINGER: Final = 2.0
