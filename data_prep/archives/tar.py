"""Tar archives, not compressed: each file in them has a place that it can be read from."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from data_prep.archives.archive import (
    DAMAGE,
    REPACK,
    Archive,
    ArchiveLimits,
    Listing,
    Member,
    Refused,
    damaged,
    name_flaw,
    not_a_file,
)
from data_prep.refusal import Flaw, quoted

# One read of tarfile's own beyond this is a header that wants to fill the memory.
_MAX_HEADER_BYTES = 1_000_000


class _Forgetful(tarfile.TarFile):
    # Every member that has been seen is kept here, which nothing needs.
    members: list[tarfile.TarInfo]


def _tar_files(stream: BinaryIO) -> Iterator[tarfile.TarInfo]:
    tar = _Forgetful(fileobj=cast(BinaryIO, _Bounded(stream)))
    while (info := tar.next()) is not None:
        tar.members = []
        if info.size < 0:
            # tarfile would go backwards, and round for ever (CVE-2025-8194).
            raise Refused("a file in it has less than no bytes", REPACK)
        if not info.isdir():
            yield info


def tar_members(path: Path) -> Iterator[tuple[tarfile.TarInfo, Flaw | None] | Flaw]:
    """What the tar at `path` holds, in its order, without a list of it in memory: each member, and why it
    may not be read. A Flaw alone comes last, where the archive cannot be read on.

    Limits on members and on their number are the caller's. Raises OSError where `path` cannot be read.
    """
    with path.open("rb") as stream:
        try:
            for info in _tar_files(stream):
                yield info, name_flaw(info.name) or _tar_flaw(info)
        except Refused as error:
            yield Flaw("archive_member", f"{quoted(path.name)}: {error.what}", error.mend)
        except DAMAGE as error:
            what = f"{quoted(path.name)} is damaged, or no tar ({type(error).__name__})"
            yield Flaw("archive_member", what, "copy it again, or make it again")


class TarArchive(Archive):
    """A tar. Raises Refused, or one of DAMAGE."""

    def __init__(self, stream: BinaryIO, limits: ArchiveLimits) -> None:
        self._stream = stream
        self._places: dict[str, int] = {}
        listing = Listing(limits)
        for info in _tar_files(stream):
            self._places[listing.add(info.name, info.size, _tar_flaw(info))] = info.offset_data
        super().__init__(listing)

    def _read(self, member: Member) -> bytes | Flaw:
        self._stream.seek(self._places[member.name])
        data = self._stream.read(member.size)
        return data if len(data) == member.size else damaged(member.name, "truncated")


def _tar_flaw(info: tarfile.TarInfo) -> Flaw | None:
    if info.issym() or info.islnk():
        return not_a_file(info.name, "a link")
    # Sparse files state sizes that no bytes in the archive stand for.
    if info.issparse():
        return not_a_file(info.name, "a sparse file")
    return None if info.isreg() else not_a_file(info.name, "a device or pipe")


class _Bounded:
    """A stream that `tarfile` reads headers from, none of them longer than any honest one."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.seek = stream.seek
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise Refused("a header in it is damaged or too long", REPACK)
        return self._stream.read(size)
