"""A client that costs next to nothing, for measuring, and for what no proper client does."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
from pathlib import Path
from typing import Any


class RawClient:
    """A WebSocket client over TLS that cuts frames apart and does nothing else with them."""

    def __init__(
        self, state_dir: Path, source: str = "127.0.0.1", receives: int | None = None
    ) -> None:
        """receives: bytes that the system takes for a client that does not read."""
        endpoint = json.loads((state_dir / "endpoint.json").read_text())
        host, port = endpoint["url"].removeprefix("wss://").rsplit(":", 1)
        context = ssl.create_default_context(cafile=endpoint["certificate"])
        plain = socket.socket()
        if receives is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        plain.bind((source, 0))
        plain.connect((host, int(port)))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname=host)
        self._buffer = bytearray()
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, _, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        assert b" 101 " in head, head
        self._buffer = bytearray(rest)
        self.token_file = Path(endpoint["token_file"])

    @classmethod
    def of(cls, sock: ssl.SSLSocket) -> RawClient:
        """A client on a socket that is past any handshake."""
        client = cls.__new__(cls)
        client.socket = sock
        client._buffer = bytearray()
        return client

    def log_in(self) -> RawClient:
        """Log in with the admin token; returns itself."""
        token = self.token_file.read_text().strip()
        self.send("rpc", "auth_token", {"token": token})
        assert b'"response"' in self.frame()
        return self

    def send(self, namespace: str, name: str, args: object) -> None:
        """A request; its id is `b`."""
        body = {"namespace": namespace, "name": name, "id": "b", "args": args}
        self.send_text(json.dumps(body).encode())

    def send_text(self, payload: bytes, times: int = 1) -> None:
        """A text frame, or so many alike in one write."""
        size = len(payload)
        head = bytes((0x81,))
        if size < 126:
            head += bytes((0x80 | size,))
        elif size < 65536:
            head += b"\xfe" + size.to_bytes(2, "big")
        else:
            head += b"\xff" + size.to_bytes(8, "big")
        # A mask of zeros is a mask.
        self.socket.sendall((head + b"\0\0\0\0" + payload) * times)

    def frame(self) -> bytes:
        """The payload of the next text frame; pings are passed over."""
        while True:
            found = self._cut()
            if found is None:
                self._receive()
            elif found[0] & 15 == 1:
                return found[1]

    def ask(self, namespace: str, name: str, args: object) -> Any:
        """A request, and the args of its reply; events in between are dropped."""
        self.send(namespace, name, args)
        while True:
            frame = json.loads(self.frame())
            if frame["id"] == "b":
                assert frame["name"] == "response", frame
                return frame["args"]

    def count_frames(self, count: int) -> int:
        """Take `count` text frames as fast as they can be cut; returns their bytes."""
        seen = total = 0
        buffer = self._buffer
        while seen < count:
            at, end = 0, len(buffer)
            while end - at >= 2 and seen < count:
                size, head = buffer[at + 1], 2
                if size == 126:
                    size, head = int.from_bytes(buffer[at + 2 : at + 4], "big"), 4
                elif size == 127:
                    size, head = int.from_bytes(buffer[at + 2 : at + 10], "big"), 10
                if end - at < head + size:
                    break
                seen += buffer[at] & 15 == 1
                total += head + size
                at += head + size
            del buffer[:at]
            if seen < count:
                buffer += self.socket.recv(262144)
        return total

    def _cut(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, head = buffer[1], 2
        if size == 126:
            size, head = int.from_bytes(buffer[2:4], "big"), 4
        elif size == 127:
            size, head = int.from_bytes(buffer[2:10], "big"), 10
        if len(buffer) < head + size:
            return None
        opcode, payload = buffer[0], bytes(buffer[head : head + size])
        del buffer[: head + size]
        return opcode, payload

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the daemon closed the connection")
        self._buffer += data

    def close(self) -> None:
        """Hang up without a word."""
        self.socket.close()


def is_over(sock: socket.socket) -> bool:
    """The other side has ended the connection."""
    try:
        while sock.recv(65536):
            pass
    except (ConnectionError, ssl.SSLError):
        return True
    return True
