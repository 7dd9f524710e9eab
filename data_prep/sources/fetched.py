"""Sources whose rows may name images by an address on the web."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.addresses import Network
from data_prep.decoding.work import Drawing
from data_prep.download import Downloader, DownloadPolicy
from data_prep.refusal import Flaw, quoted
from data_prep.sources.source import Found, Source
from lensmith.data_settings import Data

# Networks inside that are fetched from: none. No recipe reaches this; tests put their own server here.
INSIDE: tuple[Network, ...] = ()


def downloader(data: Data, folder: Path) -> Downloader:
    """Fetches what the recipe allows into `folder`, into a part of it for the recipe's limits.

    What cannot be used under these limits is dropped, so that who mends it need not wait: no recipe of other
    limits, which may have taken it, loses it by that.
    """
    own = folder / f"{data.max_image_bytes}-bytes-{data.max_image_pixels}-pixels"
    policy = DownloadPolicy(
        frozenset(data.download.hosts),
        schemes=("http", "https") if data.download.http else ("https",),
        networks=INSIDE,
        max_bytes=data.max_image_bytes,
        total_seconds=data.download.seconds,
    )
    return Downloader(policy, own)


def is_address(path: str) -> bool:
    """Whether an image is named by an address that could be fetched."""
    return path.lower().startswith(("http://", "https://"))


class Fetched(Source):
    """A source as it is, but for images that are named by address: those are fetched, once.

    May be asked for pictures by several threads. What cannot be fetched is not asked for again in this run.
    """

    def __init__(self, source: Source, downloads: Downloader) -> None:
        self.name, self.format, self.why = source.name, source.format, source.why
        self._source = source
        self._downloads = downloads
        self._refused: dict[str, Flaw] = {}

    def rows(self) -> Iterator[Found]:
        return self._source.rows()

    def facts(self) -> dict[str, Any]:
        return self._source.facts()

    def picture(self, path: str) -> Path | bytes | Drawing | Flaw:
        if not is_address(path):
            return self._source.picture(path)
        if path in self._refused:
            return self._refused[path]
        found = self._downloads.fetch(path)
        if isinstance(found, Flaw):
            self._refused[path] = found
            return found
        return found.path

    def picture_stamp(self, path: str) -> list[Any]:
        # What was fetched once is what the address stands for.
        return [] if is_address(path) else self._source.picture_stamp(path)

    def drop(self, path: str) -> None:
        """Keep no copy of a picture that cannot be used: whoever mends it must not wait."""
        self._downloads.forget(path)
        self._refused[path] = Flaw("image_download", f"{quoted(path)} cannot be used", "mend it there")
