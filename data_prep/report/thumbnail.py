"""Small pictures that lie in the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from PIL.Image import Image

from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.work import Request
from data_prep.refusal import Flaw
from data_prep.sources.source import Source
from lensmith.images import ImageLimits, decode_image

SMALL = "data_prep.report.thumbnail:small"
_EDGE = 400


@dataclass(frozen=True)
class Thumbnail:
    """A small picture: a data address, and its width and height in pixels."""

    address: str
    width: int
    height: int


def thumbnail(image: Image) -> Thumbnail:
    """`image` within 400 x 400 pixels: PNG where it was that small already, else JPEG."""
    small = image.copy()
    stream = io.BytesIO()
    if max(image.size) <= _EDGE:
        small.save(stream, "PNG")
        kind = "png"
    else:
        small.thumbnail((_EDGE, _EDGE))
        small.save(stream, "JPEG", quality=82)
        kind = "jpeg"
    data = base64.b64encode(stream.getvalue()).decode()
    return Thumbnail(f"data:image/{kind};base64,{data}", small.width, small.height)


def small(data: bytes, limits: ImageLimits) -> Thumbnail:
    """What a worker makes of an encoded image. Raises BadImage."""
    return thumbnail(decode_image(data, limits))


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

    def thumbnails(self, source: int, paths: Iterable[str]) -> tuple[Thumbnail, ...]:
        """The pictures at `paths`; those that cannot be opened are left out."""
        found = [(path, self._sources[source].picture(path)) for path in paths]
        requests = [Request(path, each) for path, each in found if not isinstance(each, Flaw)]
        if not requests:
            return ()
        if self._pool is None:
            self._pool = self._open.enter_context(DecoderPool(self._limits, work=SMALL, workers=1))
        return tuple(each for each in self._pool.facts(requests) if isinstance(each, Thumbnail))
