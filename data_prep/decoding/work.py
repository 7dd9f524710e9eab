"""What is asked of the workers, and what it may cost."""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.images import BadImage, ImageLimits

# A document larger than this is not opened, in bytes.
MAX_DOCUMENT_BYTES = 1 << 30

# From the bytes of one file to what the caller wants to know of it: the annotation of what it gives says what
# is taken back from a worker, a dataclass or plain values.
# Raises BadImage where the image cannot be used. Must be importable by name and quick to import.
Work = Callable[[bytes, ImageLimits], Any]


def module_of(name: str) -> str:
    """The module of the function that `module:function` names."""
    return name.partition(":")[0]


def function_named(name: str) -> Callable[..., Any]:
    """The function that `module:function` names. Raises ImportError or AttributeError."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


class PoolBroken(RuntimeError):
    """The workers cannot work at all: a bug or a broken machine, never an image."""


@dataclass(frozen=True)
class Drawing:
    """A picture that the worker draws first: page or frame `number` of the document `file`.

    by: `module:function`, which takes the Drawing and ImageLimits, gives an encoded picture and raises
    BadImage. settings: what else it asks for, plain values.
    """

    by: str
    file: Path
    number: int
    settings: dict[str, Any]

    def read(self) -> bytes:
        """The document. Raises OSError, and BadImage where it is larger than MAX_DOCUMENT_BYTES."""
        return read_file(self.file, MAX_DOCUMENT_BYTES)


@dataclass(frozen=True)
class Request:
    """One image: its name for people, and its file (read by the worker), its bytes, or how it is drawn."""

    name: str
    source: Path | bytes | Drawing


@dataclass(frozen=True)
class Budget:
    """What one image may cost: CPU seconds, seconds by the clock, and bytes of memory above an idle worker.

    The memory default holds the worst that `ImageLimits` allows by default, 100 megapixels with
    transparency: Pillow keeps four bytes a pixel, and laying on white holds four such pictures at once.
    """

    cpu_seconds: float = 20.0
    wall_seconds: float = 120.0
    memory_bytes: int = 2_000_000_000


def read_file(path: Path, max_bytes: int) -> bytes:
    """A regular file's bytes. Raises OSError, and BadImage where it holds more than `max_bytes`."""
    # A pipe would block at open, and a device could change when it is read.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise FileNotFoundError(path)
        if facts.st_size > max_bytes:
            raise BadImage(f"the file has {facts.st_size:,} bytes, {max_bytes:,} are allowed")
        return stream.read()
