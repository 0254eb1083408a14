"""What the pool and its workers say to each other. Standard library only: both sides import it.

Frames on a worker's socket are a length (4 bytes, big-endian) and that many bytes of JSON. On the nursery's socket,
where file descriptors travel too, a frame is one letter and a process id.
"""

import json
import socket
import struct
from dataclasses import dataclass
from typing import Any

ORDER = struct.Struct("!ci")
"""An order to the nursery: a letter and a process id."""

FORK, KILL = b"f", b"k"

_LENGTH = struct.Struct("!I")


@dataclass(frozen=True)
class Task:
    """An answer to compare with the accepted forms of its gold; equal tasks have equal outcomes."""

    answer: str
    golds: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What a worker found: a verdict's status and reason, and the seconds it took."""

    status: str
    reason: str = ""
    seconds: float = 0.0


def pack(message: dict[str, Any]) -> bytes:
    """A message as one frame; any text survives, lone surrogates too."""
    body = json.dumps(message).encode("ascii")
    return _LENGTH.pack(len(body)) + body


def unpack(received: bytearray) -> dict[str, Any] | None:
    """Take the first whole message off what was received; None while there is none."""
    if len(received) < _LENGTH.size:
        return None
    end = _LENGTH.size + _LENGTH.unpack_from(received)[0]
    if len(received) < end:
        return None
    message = json.loads(received[_LENGTH.size : end])
    del received[:end]
    return message


def receive(connection: socket.socket, received: bytearray) -> dict[str, Any] | None:
    """Wait for the next message; None when the other side has gone."""
    while (message := unpack(received)) is None:
        try:
            chunk = connection.recv(1 << 16)
        except ConnectionError:
            return None
        if not chunk:
            return None
        received += chunk
    return message
