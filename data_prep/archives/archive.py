"""An archive that someone handed over: what it may hold, and what is wrong with what it holds."""

from __future__ import annotations

import struct
import tarfile
import unicodedata
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from data_prep.refusal import Flaw, quoted

REPACK = "pack the files again with an ordinary zip or tar program"
SPLIT = "hand it over in several archives, or unpack it into a folder"

# What the standard library raises on damaged archives: OSError for seeks to nowhere, NotImplementedError for
# entries of a zip that ask for a later version of it.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    NotImplementedError,
)


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold: files, bytes a file, bytes in all, and bytes for each byte of the archive."""

    max_members: int = 200_000
    max_member_bytes: int = 50_000_000
    max_total_bytes: int = 100_000_000_000
    max_ratio: int = 200


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name, with / between folders, and its size in bytes, as the archive says."""

    name: str
    size: int


class Refused(Exception):
    """The archive as a whole: what is wrong, and the mend."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend


class Listing:
    """Sorts what an archive holds into members and refused ones, and counts against the limits."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._times: Counter[str] = Counter()
        self._entries = 0
        self.total = 0
        self.members: dict[str, Member] = {}
        self.refused: dict[str, Flaw] = {}

    def add(self, raw: str, size: int, flaw: Flaw | None) -> str:
        """Note a member with the name `raw`; returns the name it is known by. Raises Refused."""
        self._entries += 1
        if self._entries > self._limits.max_members:
            raise Refused(f"more than {self._limits.max_members:,} files", SPLIT)
        flaw = name_flaw(raw) or flaw
        # ./a.png and a.png are one file.
        name = raw if flaw else str(PurePosixPath(raw))
        self._times[name] += 1
        if self._times[name] > 1:
            what = f"{quoted(name)} is in the archive more than once"
            flaw = Flaw("archive_member", what, "leave only the right one in it")
            self.members.pop(name, None)
        elif flaw is None and size > self._limits.max_member_bytes:
            flaw = _too_large(name, self._limits)
        if flaw is None:
            self.members[name] = Member(name, size)
            self.total += size
            if self.total > self._limits.max_total_bytes:
                raise Refused(f"more than {self._limits.max_total_bytes:,} bytes of files", SPLIT)
        else:
            self.refused[name] = flaw
        return name


class Archive(ABC):
    """An open archive. `members` may be read; `refused` holds a Flaw by name for each that may not."""

    def __init__(self, listing: Listing) -> None:
        self.members: Mapping[str, Member] = listing.members
        self.refused: Mapping[str, Flaw] = listing.refused

    def read(self, name: str) -> bytes | Flaw:
        """The bytes of the member `name`, whole; a Flaw where there is none, or it is damaged."""
        if name not in self.members:
            return self.refused.get(name) or _no_such(name)
        try:
            return self._read(self.members[name])
        except DAMAGE as error:
            return damaged(name, type(error).__name__)

    @abstractmethod
    def _read(self, member: Member) -> bytes | Flaw:
        """The bytes of a member; raises one of DAMAGE."""


def name_flaw(raw: str) -> Flaw | None:
    """What is wrong with a member's name, if anything."""
    mend = f"give files names below the archive's own folder, and {REPACK}"
    parts = PurePosixPath(raw)
    if not parts.parts or raw.endswith("/") or "\\" in raw or any(_is_control(each) for each in raw):
        return Flaw("archive_member", f"{quoted(raw)} is not a name with / between folders, in UTF-8", mend)
    if parts.is_absolute() or parts.parts[0][1:2] == ":":
        return Flaw("archive_member", f"{quoted(raw)} names an absolute place", mend)
    if ".." in parts.parts:
        return Flaw("archive_member", f"{quoted(raw)} climbs with ..", mend)
    return None


def _is_control(character: str) -> bool:
    # Cs: how Python shows bytes that are not UTF-8.
    return unicodedata.category(character) in ("Cc", "Cs")


def _too_large(name: str, limits: ArchiveLimits) -> Flaw:
    what = f"{quoted(name)} is larger than {limits.max_member_bytes:,} bytes"
    return Flaw("archive_member", what, "save it smaller, or leave it out")


def not_a_file(name: str, kind: str) -> Flaw:
    return Flaw(
        "archive_member", f"{quoted(name)} is {kind}, not a file", "put the file itself into the archive"
    )


def damaged(name: str, why: str) -> Flaw:
    return Flaw("archive_member", f"{quoted(name)} is damaged in the archive ({why})", REPACK)


def _no_such(name: str) -> Flaw:
    mend = "add the file, or correct the path"
    return Flaw("image_missing", f"there is no file {quoted(name)} in the archive", mend)
