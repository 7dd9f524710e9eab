"""Small pictures of what was handed over, within 400 x 400 pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Self

from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.work import Request
from data_prep.refusal import Flaw
from data_prep.sources.source import Source
from lensmith.images import ImageLimits, decode_image
from lensmith.page import Picture, picture

SMALL = "data_prep.report.thumbnail:small"
EDGE = 400


def small(data: bytes, limits: ImageLimits) -> Picture:
    """What a worker makes of an encoded image. Raises BadImage."""
    return picture(decode_image(data, limits), EDGE)


class Gallery:
    """Pictures of sources as they were handed over, opened by a worker, never in this process.

    A context manager; the worker starts with the first picture.
    """

    def __init__(self, sources: Sequence[Source], limits: ImageLimits) -> None:
        self._sources = sources
        self._limits = limits
        self._open = ExitStack()
        self._pool: DecoderPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def thumbnails(self, source: int, paths: Iterable[str]) -> tuple[Picture, ...]:
        """The pictures at `paths`; those that cannot be opened are left out."""
        found = [(path, self._sources[source].picture(path)) for path in paths]
        requests = [Request(path, each) for path, each in found if not isinstance(each, Flaw)]
        if not requests:
            return ()
        if self._pool is None:
            self._pool = self._open.enter_context(DecoderPool(self._limits, work=SMALL, workers=1))
        return tuple(each for each in self._pool.facts(requests) if isinstance(each, Picture))
