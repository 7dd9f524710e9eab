"""Messages between the pool and its workers: a length of eight bytes, then MessagePack.

A worker opens hostile files. Should one take it over, it can still only answer with values: MessagePack is
checked against the type that is expected, and never run as a pickle would be.
"""

from __future__ import annotations

import enum
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from data_prep.decoding.work import Budget, Drawing
from lensmith.images import ImageLimits

# Where the worker notes which image it is at, for whoever finds it dead: a number of 8 bytes, -1 for none.
AT = struct.Struct("<q")
NOT_YET = -1

_LENGTH = struct.Struct("<Q")
Expected = TypeVar("Expected")


class Answer(enum.IntEnum):
    """How the work on an image ended; only DONE comes with a result, the others with words."""

    DONE = 0
    REFUSED = 1
    MISSING = 2
    NO_MEMORY = 3
    FAILED = 4


@dataclass(frozen=True)
class Wired:
    """A picture on its way to a worker: itself, or its file (bytes: a name need not be UTF-8), or how it is
    drawn from that file: (by, number, settings)."""

    data: bytes = b""
    file: bytes | None = None
    drawn: tuple[str, int, dict[str, Any]] | None = None

    @classmethod
    def of(cls, source: Path | bytes | Drawing) -> Wired:
        """The picture that a request names."""
        match source:
            case bytes():
                return cls(source)
            case Path():
                return cls(file=os.fsencode(source))
            case Drawing():
                return cls(file=os.fsencode(source.file), drawn=(source.by, source.number, source.settings))

    @property
    def source(self) -> Path | bytes | Drawing:
        """The inverse of `of`."""
        if self.file is None:
            return self.data
        path = Path(os.fsdecode(self.file))
        if self.drawn is None:
            return path
        by, number, settings = self.drawn
        return Drawing(by, path, number, settings)


# What goes to a worker: first what an image may be and cost, then batches: the work, and (number, picture).
Terms = tuple[ImageLimits, Budget]
Batch = tuple[str, list[tuple[int, Wired]]]
# What comes back: why it cannot start, or what became of images.
Heard = str | list[tuple[int, Answer, Any]]


def pack(message: Any) -> bytes:
    """A message as it goes through a pipe. Raises TypeError for what is neither plain nor a dataclass."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


def receive(stream: BinaryIO, expected: type[Expected]) -> Expected:
    """The next message of a blocking stream. Raises EOFError when the other side has closed it."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    body = stream.read(length)
    if len(body) < length:
        raise EOFError
    return msgspec.msgpack.decode(body, type=expected)


def take_whole(received: bytearray) -> list[Heard]:
    """The whole messages at the head of `received`, which are removed from it.

    Raises msgspec.MsgspecError for what no worker of ours says.
    """
    messages: list[Heard] = []
    start = 0
    while len(received) - start >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(received, start)
        end = start + _LENGTH.size + length
        if len(received) < end:
            break
        # A copy: a view that an error keeps alive would forbid to shorten the buffer.
        messages.append(_HEARD.decode(bytes(received[start + _LENGTH.size : end])))
        start = end
    del received[:start]
    return messages


_HEARD: msgspec.msgpack.Decoder[Heard] = msgspec.msgpack.Decoder(Heard)
