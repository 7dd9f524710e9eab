"""Images in a zip or tar, where a folder of images is asked for."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data_prep.archives.archive import Archive, ArchiveLimits
from data_prep.archives.opening import listed
from data_prep.pictures import name_flaw
from data_prep.refusal import Flaw
from lensmith.errors import InputError, Problem


class Members:
    """The files below `folder` of an archive, "" for all; they are never unpacked."""

    def __init__(self, path: Path, archive: Archive, folder: str = "") -> None:
        self.path = path
        self.archive = archive
        self._folder = PurePosixPath(folder)

    def read(self, path: str) -> bytes | Flaw:
        """The bytes of the file at `path`; a Flaw names archive and file where it may not be read."""
        name = str(self._folder / path) if path else ""
        if name not in self.archive.refused and (flaw := name_flaw(path)):
            return flaw
        found = self.archive.read(name)
        return replace(found, what=f"{self.path.name}: {found.what}") if isinstance(found, Flaw) else found


def open_members(path: Path, folder: str = "") -> Members:
    """The files of the archive at `path`, which stays open as long as they are read.

    Raises InputError where the archive as a whole is refused: it is none, damaged, or a bomb.
    """
    stream = path.open("rb")
    found = listed(stream, path.name, ArchiveLimits())
    if isinstance(found, Flaw):
        stream.close()
        raise InputError(f"{path} cannot be used", [Problem(found.what, str(path), found.mend)])
    weakref.finalize(found, stream.close)
    return Members(path, found, folder)
