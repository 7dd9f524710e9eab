"""Frames that were taken of videos, kept as pictures by what the video's file holds. Safe to delete."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lensmith.files import digest_file, digest_json
from lensmith.film import Film
from lensmith.provenance import package_versions
from lensmith.video_settings import VideoSampling

_FILM = "film.json"
# Another decoder may give other pixels.
_PACKAGES = ("opencv-python-headless", "pillow")
_SHAPE = 1


@dataclass(frozen=True)
class Kept:
    """A film on disk: its folder, and times and duration as in `Film`."""

    folder: Path
    times: tuple[int, ...]
    duration: int

    def frame(self, number: int) -> Path:
        """The file of a frame, counted from 1."""
        return self.folder / f"{number:04d}.png"


class Films:
    """`<home>/cache/videos`: a folder a film, for one way of sampling."""

    def __init__(self, root: Path, settings: VideoSampling) -> None:
        self.settings = settings
        self._root = root
        versions = package_versions(_PACKAGES)
        self._way = digest_json([_SHAPE, settings.model_dump(mode="json"), versions])[:16]
        self._known: dict[tuple[Path, int, int], Kept] = {}

    def find(self, video: Path) -> Kept | None:
        """What is kept of a video; None where nothing is, or there is no such file."""
        try:
            facts = video.stat()
        except OSError:
            return None
        stamp = (video, facts.st_size, facts.st_mtime_ns)
        if stamp not in self._known:
            kept = self._read(self._folder(video))
            if kept is None:
                return None
            self._known[stamp] = kept
        return self._known[stamp]

    def keep(self, video: Path, film: Film) -> Kept:
        """Keep a film of a video. A folder is whole or absent."""
        folder = self._folder(video)
        self._root.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=self._root))
        kept = Kept(partial, film.times, film.duration)
        for number, frame in enumerate(film.frames, start=1):
            kept.frame(number).write_bytes(frame)
        (partial / _FILM).write_text(json.dumps({"times": film.times, "duration": film.duration}))
        try:
            partial.rename(folder)
        except OSError:
            # Another process has kept the same.
            shutil.rmtree(partial)
            if not folder.is_dir():
                raise
        return Kept(folder, film.times, film.duration)

    def _folder(self, video: Path) -> Path:
        return self._root / f"{digest_file(video)[:32]}-{self._way}"

    def _read(self, folder: Path) -> Kept | None:
        try:
            told = json.loads((folder / _FILM).read_bytes())
        except FileNotFoundError:
            return None
        return Kept(folder, tuple(told["times"]), told["duration"])
