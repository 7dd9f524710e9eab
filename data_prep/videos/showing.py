"""Rows that show videos, with the frames that were taken of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.work import Budget, Drawing, Request
from data_prep.pictures import file_to_read
from data_prep.refusal import Flaw, quoted
from data_prep.sources.fetched import is_address
from data_prep.sources.source import Found, Source
from data_prep.videos.films import Films, Kept
from data_prep.videos.names import frame_path
from lensmith.errors import InputError, Problem
from lensmith.images import ImageLimits
from lensmith.sample import Image, Part, Sample, Video

# Ten minutes of 1080p video, decoded twice on one core.
BUDGET = Budget(cpu_seconds=300.0, wall_seconds=900.0)
_PLAIN = "save it as MP4 (H.264), or cut it into shorter clips"


@dataclass(frozen=True)
class Showing:
    """Takes frames of the videos that rows show; films None: the recipe takes no videos."""

    films: Films | None
    limits: ImageLimits
    budget: Budget = BUDGET

    def shown(self, source: Source, rows: Sequence[Found]) -> list[Found]:
        """`rows` of a source with frames in their videos, or a flaw for each video that has none.

        Raises InputError where videos are to be sampled and OpenCV is missing.
        """
        paths = dict.fromkeys(each.path for found in rows if found.sample for each in found.sample.videos)
        taken = dict(self._taken(source, list(paths))) if paths else {}
        return [self._with_frames(found, taken) for found in rows]

    def _with_frames(self, found: Found, taken: dict[str, Kept | Flaw]) -> Found:
        if found.sample is None or not found.sample.videos:
            return found
        films = [taken[each.path] for each in found.sample.videos]
        flaws = tuple(dict.fromkeys(each for each in films if isinstance(each, Flaw)))
        return replace(found, sample=_with_films(found.sample, taken), flaws=(*found.flaws, *flaws))

    def _taken(self, source: Source, paths: Sequence[str]) -> Iterator[tuple[str, Kept | Flaw]]:
        """What is kept of each video, which is sampled where nothing is."""
        if self.films is None:
            mend = "leave the row out, or ask for data.video in the recipe: frames are taken of videos then"
            for path in paths:
                yield path, Flaw("video_unwanted", f"{quoted(path)} is a video", mend)
            return
        waiting: list[tuple[str, Path]] = []
        for path in paths:
            file = _file(source, path, self.films.settings.max_bytes)
            if isinstance(file, Flaw):
                yield path, file
            elif kept := self.films.find(file):
                yield path, kept
            else:
                waiting.append((path, file))
        if waiting:
            yield from self._sampled(self.films, waiting)

    def _sampled(
        self, films: Films, waiting: Sequence[tuple[str, Path]]
    ) -> Iterator[tuple[str, Kept | Flaw]]:
        try:
            from data_prep.videos.sampling import SAMPLE, TAKE
        except ModuleNotFoundError as error:
            problem = Problem(f"{error.name} is not installed", mend="install lensmith[video]")
            raise InputError("videos need another library", [problem]) from error
        settings = films.settings.model_dump(mode="json")
        requests = [Request(path, Drawing(SAMPLE, file, 1, settings)) for path, file in waiting]
        with DecoderPool(self.limits, work=TAKE, budget=self.budget) as pool:
            for (path, file), film in zip(waiting, pool.facts(requests), strict=True):
                if not isinstance(film, Flaw):
                    yield path, films.keep(file, film)
                elif film.code == "image_unsafe":
                    most = (
                        f"{self.budget.cpu_seconds:g} seconds or {self.budget.memory_bytes // 1_000_000:,} MB"
                    )
                    what = f"{quoted(path)}: opening it takes more than {most}, or crashes what opens it"
                    yield path, Flaw("video_unsafe", what, _PLAIN)
                else:
                    yield path, _unreadable(film.what, _PLAIN)


def _file(source: Source, path: str, most: int) -> Path | Flaw:
    """The file of a video, of at most `most` bytes, which was not opened."""
    if is_address(path):
        return _unreadable(f"{quoted(path)} is an address", "download it and give the path of the file")
    found = source.picture(path)
    if isinstance(found, Flaw):
        return _unreadable(found.what.replace("image path", "path"), found.mend)
    if not isinstance(found, Path):
        return _unreadable(f"{quoted(path)} lies in an archive or a document", "unpack it first")
    facts = file_to_read(found, path, ImageLimits(max_bytes=most))
    if isinstance(facts, Flaw):
        return _unreadable(facts.what, facts.mend.replace("max_image_bytes", "video.max_bytes"))
    return found


def _unreadable(what: str, mend: str) -> Flaw:
    return Flaw("video_unreadable", what, mend)


def _with_films(sample: Sample, taken: dict[str, Kept | Flaw]) -> Sample:
    def shown(part: Part) -> Part:
        film = taken[part.path] if isinstance(part, Video) else None
        if not isinstance(part, Video) or not isinstance(film, Kept):
            return part
        frames = tuple(Image(frame_path(part.path, number)) for number in range(1, len(film.times) + 1))
        seconds = tuple(each / 1000 for each in film.times)
        return replace(part, frames=frames, seconds=seconds, duration=film.duration / 1000)

    messages = tuple(
        replace(message, parts=tuple(shown(part) for part in message.parts)) for message in sample.messages
    )
    return replace(sample, messages=messages)
