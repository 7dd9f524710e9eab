"""An image as a dataset keeps it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StoredImage:
    """An image as a split keeps it: PNG bytes, size in pixels, digest of the pixels, fingerprint."""

    digest: str
    width: int
    height: int
    png: bytes
    fingerprint: bytes = b""


@dataclass(frozen=True)
class StoredView:
    """The same of one in a split's file: `png` is a view of that file, which stays mapped with it."""

    digest: str
    width: int
    height: int
    png: memoryview
    fingerprint: bytes = b""
