"""Zip archives."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from typing import BinaryIO

from data_prep.archives.archive import (
    REPACK,
    SPLIT,
    Archive,
    ArchiveLimits,
    Listing,
    Member,
    Refused,
    not_a_file,
)
from data_prep.refusal import Flaw, quoted

# Below this much content no archive is called a bomb for its ratio: empty pages pack very well.
_RATIO_FROM_BYTES = 10_000_000
# A zip's directory has 46 bytes an entry, its name and some extras; a longer one is no list of images.
_DIRECTORY_BYTES_A_MEMBER = 256
_ZIP_END, _ZIP64_END = b"PK\x05\x06", b"PK\x06\x06"


class ZipArchive(Archive):
    """A zip. Raises Refused, or one of DAMAGE."""

    def __init__(self, stream: BinaryIO, limits: ArchiveLimits) -> None:
        _check_directory(stream, limits)
        self._zip = zipfile.ZipFile(stream)
        infos = self._zip.infolist()
        listing = Listing(limits)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            if info.is_dir() and not info.file_size:
                continue
            self._infos[listing.add(info.orig_filename, info.file_size, _zip_flaw(info, limits))] = info
        _check_overlaps(infos, self._zip.start_dir)
        packed = sum(info.compress_size for info in infos)
        if listing.total > max(_RATIO_FROM_BYTES, limits.max_ratio * packed):
            raise Refused(f"unpacks to more than {limits.max_ratio} times its size", REPACK)
        super().__init__(listing)

    def _read(self, member: Member) -> bytes:
        with self._zip.open(self._infos[member.name]) as stream:
            # zipfile stops at the size that the directory states, which was checked.
            return stream.read()


def _zip_flaw(info: zipfile.ZipInfo, limits: ArchiveLimits) -> Flaw | None:
    name = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return not_a_file(name, "a link")
    if kind not in (0, stat.S_IFREG):
        return not_a_file(name, "a device")
    if info.flag_bits & 0x1:
        return Flaw("archive_member", f"{quoted(name)} is encrypted", "pack it without a password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python unpacks bzip2 and LZMA without a bound on what one read gives.
        what = f"{quoted(name)} is packed by an unusual method ({info.compress_type})"
        return Flaw("archive_member", what, "pack it with the usual one (deflate)")
    if info.file_size > max(_RATIO_FROM_BYTES, limits.max_ratio * info.compress_size):
        what = f"{quoted(name)} unpacks to more than {limits.max_ratio} times its size"
        return Flaw("archive_member", what, "check that it is an image, or leave it out")
    return None


def _check_directory(stream: BinaryIO, limits: ArchiveLimits) -> None:
    """Refuse a directory too long to be read into memory. Raises Refused."""
    stream.seek(0, io.SEEK_END)
    length = stream.tell()
    # The end record has 22 bytes and a comment of up to 65,535; the zip64 one stands before it.
    stream.seek(max(0, length - (1 << 17)))
    tail = stream.read()
    stream.seek(0)
    sizes = []
    at = tail.rfind(_ZIP_END)
    if at >= 0 and len(tail) >= at + 22:
        (size,) = struct.unpack_from("<L", tail, at + 12)
        # All ones: see the zip64 record.
        if size != 0xFFFFFFFF:
            sizes.append(size)
    at = tail.rfind(_ZIP64_END)
    if at >= 0 and len(tail) >= at + 48:
        sizes.append(struct.unpack_from("<Q", tail, at + 40)[0])
    if any(size > limits.max_members * _DIRECTORY_BYTES_A_MEMBER for size in sizes):
        raise Refused(f"its directory is too long for {limits.max_members:,} files", SPLIT)


def _check_overlaps(infos: list[zipfile.ZipInfo], directory_at: int) -> None:
    """Refuse members that share bytes: so a small file is unpacked a million times. Raises Refused."""
    if not infos:
        return
    ordered = sorted(infos, key=lambda info: info.header_offset)
    ends = [info.header_offset + 30 + info.compress_size for info in ordered]
    starts = [*(info.header_offset for info in ordered[1:]), directory_at]
    if any(end > start for end, start in zip(ends, starts, strict=True)):
        raise Refused("files in it overlap", REPACK)
