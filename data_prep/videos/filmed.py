"""Sources whose rows may show videos: frames that were taken of them are pictures of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.decoding.work import Drawing
from data_prep.refusal import Flaw, quoted
from data_prep.sources.source import Found, Source
from data_prep.videos.films import Films
from data_prep.videos.names import frame_of


class Filmed(Source):
    """A source as it is, with the frames that were taken of its videos."""

    def __init__(self, source: Source, films: Films) -> None:
        self.name, self.format, self.why = source.name, source.format, source.why
        self._source, self._films = source, films

    def rows(self) -> Iterator[Found]:
        return self._source.rows()

    def facts(self) -> dict[str, Any]:
        return self._source.facts()

    def picture(self, path: str) -> Path | bytes | Drawing | Flaw:
        asked = frame_of(path)
        if asked is None:
            return self._source.picture(path)
        video, number = asked
        found = self._source.picture(video)
        kept = self._films.find(found) if isinstance(found, Path) else None
        if kept is None or number > len(kept.times):
            return Flaw("video_unreadable", f"{quoted(path)} was not taken", "name the video instead")
        return kept.frame(number)

    def picture_stamp(self, path: str) -> list[Any]:
        asked = frame_of(path)
        return self._source.picture_stamp(asked[0] if asked else path)
