"""Pictures without labels, in a folder or an archive: what teams have first."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.sources.folder import FolderSource
from data_prep.sources.source import Found
from lensmith.files import digest_json
from lensmith.sample import Image, Message, Sample

# What people take for a picture. Those that cannot be opened are refused by name, not overlooked.
ENDINGS = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".avif",
        ".jxl",
        ".jp2",
        ".svg",
    )
)


class PictureFolder(FolderSource):
    """Every picture below a folder or in an archive, by its ending: a row each, without an answer."""

    format = "pictures"

    def __init__(self, root: Path) -> None:
        """Raises InputError for an archive that cannot be read."""
        super().__init__(root)
        self.name = root.name

    @cached_property
    def names(self) -> list[str]:
        """Their paths from the root, in order; hidden files and what a Mac adds to an archive are none."""
        found = _files_below(self.root) if self.members is None else self.members.archive.members
        return sorted(name for name in found if _is_picture(PurePosixPath(name)))

    def rows(self) -> Iterator[Found]:
        for name in self.names:
            yield Found(name, name, Sample(name, name, (Message("user", (Image(name),)),)))

    def facts(self) -> dict[str, Any]:
        return {"sha256": digest_json(self.names), "bytes": 0}


def _is_picture(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in ENDINGS and not hidden


def _files_below(root: Path) -> Iterable[str]:
    """Links to folders are not followed: they could lead round in a circle."""
    for folder, _, files in os.walk(root):
        below = Path(folder).relative_to(root)
        yield from ((below / name).as_posix() for name in files)
