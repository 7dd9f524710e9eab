"""Opening an archive by what it holds, not by its name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from data_prep.archives.archive import DAMAGE, REPACK, Archive, ArchiveLimits, Refused
from data_prep.archives.tar import TarArchive
from data_prep.archives.zip import ZipArchive
from data_prep.refusal import Flaw, quoted

_GZIP = b"\x1f\x8b"


@contextlib.contextmanager
def open_archive(path: Path, limits: ArchiveLimits) -> Iterator[Archive | Flaw]:
    """The archive at `path`, listed and checked; a Flaw where it is to be refused as a whole.

    Raises OSError where `path` cannot be read.
    """
    with path.open("rb") as stream:
        yield listed(stream, path.name, limits)


def listed(stream: BinaryIO, name: str, limits: ArchiveLimits) -> Archive | Flaw:
    """The archive that `stream` holds, which must stay open as long as it is read; a Flaw as above."""
    head = stream.read(4)
    stream.seek(0)
    if head.startswith(_GZIP):
        # Any order of reading but its own would unpack it from its beginning each time.
        what = f"{quoted(name)} is compressed as a whole: its files have no place to be read from"
        return Flaw("archive_member", what, "unpack it once (gunzip) and hand over the .tar, or pack a .zip")
    try:
        return (ZipArchive if head.startswith(b"PK") else TarArchive)(stream, limits)
    except Refused as error:
        return Flaw("archive_member", f"{quoted(name)}: {error.what}", error.mend)
    except DAMAGE as error:
        what = f"{quoted(name)} is not a whole zip or tar ({type(error).__name__})"
        return Flaw("archive_member", what, f"hand it over again, or {REPACK}")
