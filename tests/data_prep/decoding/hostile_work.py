"""Work that behaves as an image says: what a hostile file would make a decoder do."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import signal
import stat
import struct
import sys
from pathlib import Path
from typing import Any

from data_prep.seen import Seen
from lensmith.images import BadImage, ImageLimits

_kept: list[bytearray] = []


def _say(message: bytes) -> None:
    """Write a message of one's own making to the pool, as a file that took the worker over would."""
    for each in Path("/proc/self/fd").iterdir():
        try:
            flags = fcntl.fcntl(int(each.name), fcntl.F_GETFL)
            if flags & os.O_ACCMODE == os.O_WRONLY and stat.S_ISFIFO(os.fstat(int(each.name)).st_mode):
                os.write(int(each.name), struct.pack("<Q", len(message)) + message)
        except OSError:
            continue


def lie(data: bytes, limits: ImageLimits) -> Seen:
    """Give something else than is promised."""
    return data.decode()  # pyright: ignore[reportReturnType]


def obey(data: bytes, limits: ImageLimits) -> Any:
    """Do what the bytes tell."""
    word, _, rest = data.decode().partition(" ")
    match word:
        case "segfault":
            ctypes.string_at(0)
        case "spin":
            while True:
                pass
        case "sleep":
            # As native code would: nothing of Python runs meanwhile.
            ctypes.CDLL(None).sleep(int(rest))
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "allocate":
            return len(bytearray(int(rest)))
        case "leak":
            _kept.append(bytearray(int(rest)))
        case "exit":
            os._exit(int(rest))
        case "shout":
            os.write(1, b"noise on the wire" * 100)
            os.write(2, b"noise in the terminal")
        case "bad":
            raise BadImage(rest)
        case "bug":
            raise KeyError(rest)
        case "large":
            return b"x" * int(rest)
        case "once":
            # Dies in a worker that has done others: the second judgement, alone, must clear it.
            if _kept:
                os.abort()
        case "keep":
            _kept.append(bytearray(1))
        case "hash":
            hashlib.sha256(bytes(int(rest))).digest()
        case "forge":
            _say(bytes.fromhex(rest))
        case "modules":
            return sorted({name.partition(".")[0] for name in sys.modules})
        case "pid":
            return os.getpid()
    return data.decode()
