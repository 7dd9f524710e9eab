"""Sources whose images are files in a folder, or in an archive in place of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep.pictures import locate
from data_prep.refusal import Flaw
from data_prep.sources.members import Members, open_members
from data_prep.sources.source import Source
from lensmith.files import digest_file, digest_json


class FolderSource(Source):
    """A source whose image paths are relative to `root`, which they may not leave.

    `root` may be a zip or tar, or a folder within one. Raises InputError where that cannot be used.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        archive = next((each for each in (self.root, *self.root.parents) if each.is_file()), None)
        self.members: Members | None = None
        if archive is not None:
            self.members = open_members(archive, self.root.relative_to(archive).as_posix())

    def picture(self, path: str) -> Path | bytes | Flaw:
        return locate(self.root, path) if self.members is None else self.members.read(path)

    def picture_stamp(self, path: str) -> list[Any]:
        return file_stamp(locate(self.root, path) if self.members is None else self.members.path)


def file_stamp(target: Path | Flaw) -> list[Any]:
    """Size in bytes and time of change in nanoseconds of a file; [] where there is none."""
    try:
        facts = None if isinstance(target, Flaw) else target.stat()
    except OSError:
        facts = None
    return [] if facts is None else [facts.st_size, facts.st_mtime_ns]


def file_facts(path: Path) -> dict[str, Any]:
    """`Source.facts` of one file."""
    return {"sha256": digest_file(path), "bytes": path.stat().st_size}


def files_facts(files: Mapping[str, Path]) -> dict[str, Any]:
    """`Source.facts` of several files: the SHA-256 of one, or of the names and digests of more."""
    digests = {name: digest_file(path) for name, path in files.items()}
    sha256 = next(iter(digests.values())) if len(digests) == 1 else digest_json(digests)
    size = sum(path.stat().st_size for path in files.values())
    return {"sha256": sha256, "bytes": size, "files": len(digests)}
