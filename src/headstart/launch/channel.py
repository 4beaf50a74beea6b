"""JSON lines over a socket, between a sweep and the process that starts its jobs."""

import json
import socket
from typing import Any


class Channel:
    """One end.

    Args:
        end: the socket, whose owner this becomes.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._pending = b""

    def fileno(self) -> int:
        """For :mod:`select`."""
        return self._end.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message.

        Raises:
            ConnectionError: nobody reads any more.
        """
        self._end.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """Wait for something and return the messages that are complete; None when the other end is closed."""
        try:
            data = self._end.recv(1 << 20)
        except ConnectionError:
            return None
        if not data:
            return None
        *lines, self._pending = (self._pending + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """Close this end."""
        self._end.close()
