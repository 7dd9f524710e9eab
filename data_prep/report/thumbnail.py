"""Small pictures of what was handed over, within 400 x 400 pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.work import Drawing, Request, read_file
from data_prep.pictures import file_to_read
from data_prep.refusal import Flaw
from data_prep.report.thumbnail_cache import ThumbnailCache
from data_prep.sources.source import Source
from lensmith.images import BadImage, ImageLimits, decode_image, decode_stored
from lensmith.page import Picture, picture
from lensmith.sample import Image

SMALL = "data_prep.report.thumbnail:small"
EDGE = 400


def small(data: bytes, limits: ImageLimits) -> Picture:
    """What a worker makes of an encoded image. Raises BadImage."""
    return picture(decode_image(data, limits), EDGE)


class Gallery:
    """The pictures of a page: as they were handed over, opened by a worker, never in this process; and as a
    split keeps them, which are our own. Those of earlier pages are kept in `cache`, a file.

    A context manager; the worker starts with the first picture that no page showed.
    """

    def __init__(self, sources: Sequence[Source], limits: ImageLimits, cache: Path) -> None:
        self._sources = sources
        self._limits = limits
        self._open = ExitStack()
        self._shown = self._open.enter_context(ThumbnailCache(cache, limits))
        self._pool: DecoderPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def thumbnails(self, source: int, paths: Iterable[str]) -> tuple[Picture, ...]:
        """The pictures at `paths`; those that cannot be opened are left out."""
        found = [(path, self._sources[source].picture(path)) for path in paths]
        asked = [
            (Request(path, each), self._digest(path, each))
            for path, each in found
            if not isinstance(each, Flaw)
        ]
        known = [digest and self._shown.find(digest) for _, digest in asked]
        new = [each for each, picture in zip(asked, known, strict=True) if picture is None]
        made = iter(self._opened(new) if new else ())
        pictures = [next(made) if each is None else each for each in known]
        return tuple(each for each in pictures if isinstance(each, Picture))

    def stored(self, image: Image, png: bytes) -> Picture:
        """A picture of a split, whose PNG was proven to show what `image` states."""
        digest = bytes.fromhex(image.digest)
        known = self._shown.find(digest)
        if known is None:
            known = picture(decode_stored(png), EDGE)
            self._shown.keep(digest, known)
        return known

    def _opened(self, asked: list[tuple[Request, bytes | None]]) -> Iterator[Picture | Flaw]:
        if self._pool is None:
            self._pool = self._open.enter_context(DecoderPool(self._limits, work=SMALL, workers=1))
        for (_, digest), made in zip(asked, self._pool.facts(each for each, _ in asked), strict=True):
            if digest and isinstance(made, Picture):
                self._shown.keep(digest, made)
            yield made

    def _digest(self, path: str, opened: Path | bytes | Drawing) -> bytes | None:
        """SHA-256 of a picture's file; None of one that is drawn, and where a worker is to say what it is."""
        if isinstance(opened, Drawing):
            return None
        if isinstance(opened, Path):
            if isinstance(file_to_read(opened, path, self._limits), Flaw):
                return None
            try:
                opened = read_file(opened, self._limits.max_bytes)
            except (OSError, BadImage):
                return None
        return hashlib.sha256(opened).digest()
