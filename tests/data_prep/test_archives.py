"""Archives that someone built to do harm, each made for real."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.archives.archive import ArchiveLimits, Member
from data_prep.archives.opening import open_archive
from data_prep.refusal import Flaw

LIMITS = ArchiveLimits(max_members=50, max_member_bytes=2_000_000, max_total_bytes=30_000_000)


def tar_of(
    *members: tuple[tarfile.TarInfo | str, bytes], mode: str = "w", form: int = tarfile.PAX_FORMAT
) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, format=form) as tar:  # type: ignore[call-overload]
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if info.type == tarfile.REGTYPE:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def zip_of(*members: tuple[zipfile.ZipInfo | str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for member, data in members:
            archive.writestr(member, data)
    return stream.getvalue()


KINDS: dict[str, Callable[..., bytes]] = {
    "zip": zip_of,
    "tar": tar_of,
}


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., Any]:
    """Everything about an archive: its Flaw, or what may be read with its bytes, and what is refused."""

    def inner(data: bytes, limits: ArchiveLimits = LIMITS) -> Any:
        path = tmp_path / "handed-over.bin"
        path.write_bytes(data)
        with open_archive(path, limits) as archive:
            if isinstance(archive, Flaw):
                assert archive.code == "archive_member"
                assert archive.mend
                return archive
            for flaw in archive.refused.values():
                assert flaw.mend
            return {name: archive.read(name) for name in archive.members}, dict(archive.refused)

    return inner


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_archive(look: Callable[..., Any], kind: str, tmp_path: Path) -> None:
    files = {
        "labels.jsonl": b"{}",
        "images/a.png": b"a" * 70_000,
        "images/\u00e9 1.png": b"",
        "images/Bild\u202f3.png": b"x",
    }
    data = KINDS[kind](*files.items())
    assert look(data) == (files, {})
    path = tmp_path / "b.zip"
    path.write_bytes(data)
    with open_archive(path, LIMITS) as archive:
        assert not isinstance(archive, Flaw)
        assert archive.members["images/a.png"] == Member("images/a.png", 70_000)
        # In any order, and more than once.
        for name in [*reversed(files), *files]:
            assert archive.read(name) == files[name]
        missing = archive.read("images/b.png")
        assert isinstance(missing, Flaw)
        assert missing.code == "image_missing"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../a.png", "images/../../a.png", "C:/a.png", "images\\a.png", "a\nb.png", "..", "/"],
)
def test_names_that_lead_away(look: Callable[..., Any], kind: str, name: str) -> None:
    read, refused = look(KINDS[kind]((name, b"x"), ("good.png", b"y")))
    assert read == {"good.png": b"y"}
    assert list(refused) == [name]


def test_a_name_that_ends_early_is_seen_whole(look: Callable[..., Any]) -> None:
    # zipfile cuts names at a zero byte; others may not.
    data = zip_of(("good.pngX.exe", b"x")).replace(b"good.pngX", b"good.png\0")
    read, refused = look(data)
    assert read == {}
    assert list(refused) == ["good.png\0.exe"]


def test_links_and_devices_in_a_tar(look: Callable[..., Any]) -> None:
    members = []
    for name, kind_of_file in {
        "soft": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
        "pipe": tarfile.FIFOTYPE,
        "disk": tarfile.BLKTYPE,
        "tty": tarfile.CHRTYPE,
    }.items():
        info = tarfile.TarInfo(name)
        info.type = kind_of_file
        info.linkname = "/etc/passwd"
        members.append((info, b""))
    through = tarfile.TarInfo("soft/a.png")
    read, refused = look(tar_of(*members, (through, b"x")))
    # No link is ever followed: what is called soft/a.png is that member's own bytes.
    assert read == {"soft/a.png": b"x"}
    assert set(refused) == {"soft", "hard", "pipe", "disk", "tty"}
    assert all("a link" in refused[name].what for name in ("soft", "hard"))


def test_a_sparse_file_in_a_tar(look: Callable[..., Any]) -> None:
    info = tarfile.TarInfo("sparse.png")
    info.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "900000000000"}
    _, refused = look(tar_of((info, b"x"), form=tarfile.PAX_FORMAT), ArchiveLimits())
    assert "sparse" in refused["sparse.png"].what


@pytest.mark.parametrize(
    ("mode", "said"), [(0o120777, "a link"), (0o020666, "a device"), (0o010666, "a device")]
)
def test_links_and_devices_in_a_zip(look: Callable[..., Any], mode: int, said: str) -> None:
    info = zipfile.ZipInfo("soft.png")
    info.external_attr = mode << 16
    _, refused = look(zip_of((info, b"/etc/passwd")))
    assert said in refused["soft.png"].what


def test_an_encrypted_file_in_a_zip(look: Callable[..., Any]) -> None:
    data = bytearray(zip_of(("a.png", b"x"), ("b.png", b"y")))
    # The flag stands in the directory's entry and in the file's own header.
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    read, refused = look(bytes(data))
    assert "encrypted" in refused["a.png"].what
    assert read == {"b.png": b"y"}


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_without_a_bound(look: Callable[..., Any], packing: int) -> None:
    _, refused = look(zip_of(("a.png", b"x"), packing=packing))
    assert "unusual" in refused["a.png"].what


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_name_twice_means_none_of_them(look: Callable[..., Any], kind: str) -> None:
    with pytest.warns(UserWarning, match="Duplicate") if kind == "zip" else contextlib.nullcontext():
        data = KINDS[kind](("a.png", b"1"), ("b.png", b"x"), ("a.png", b"2"))
    read, refused = look(data)
    assert read == {"b.png": b"x"}
    assert "more than once" in refused["a.png"].what
    _, refused = look(KINDS[kind](("a.png", b"1"), ("./a.png", b"2"), ("a.png/", b"3")))
    assert "a.png" in refused


@pytest.mark.parametrize("kind", KINDS)
def test_too_large_too_many_too_much(look: Callable[..., Any], kind: str) -> None:
    noise = random.Random(1).randbytes(2_000_001)
    read, refused = look(KINDS[kind](("large.png", noise), ("fits.png", noise[1:])))
    assert list(read) == ["fits.png"]
    assert "2,000,000 bytes" in refused["large.png"].what
    many = KINDS[kind](*((f"{at}.png", b"") for at in range(51)))
    assert "more than 50 files" in look(many).what
    assert len(look(KINDS[kind](*((f"{at}.png", b"") for at in range(50))))[0]) == 50
    heavy = KINDS[kind](*((f"{at}.png", noise[1:]) for at in range(16)))
    assert "bytes" in look(heavy).what


def test_a_bomb_by_ratio_in_a_zip(look: Callable[..., Any]) -> None:
    wide = ArchiveLimits()
    _, refused = look(zip_of(("a.png", bytes(11_000_000))), wide)
    assert "times its size" in refused["a.png"].what
    assert look(zip_of(("a.png", bytes(9_000_000))), wide)[0] == {"a.png": bytes(9_000_000)}
    several = zip_of(*((f"{at}.png", bytes(9_000_000)) for at in range(4)))
    assert "times its size" in look(several, wide).what


def test_a_tar_that_is_compressed_is_refused_and_never_unpacked(look: Callable[..., Any]) -> None:
    info = tarfile.TarInfo("a.png")
    info.size = 40_000_000_000
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as stream:
        stream.write(info.tobuf())
        for _ in range(200):
            stream.write(bytes(1_000_000))
    tracemalloc.start()
    flaw = look(packed.getvalue(), ArchiveLimits())
    assert "compressed as a whole" in flaw.what
    assert "gunzip" in flaw.mend
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("kind_of_header", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_that_would_fill_the_memory(look: Callable[..., Any], kind_of_header: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type = kind_of_header
    info.size = 9_000_000
    flaw = look(info.tobuf() + bytes(9_000_000), ArchiveLimits())
    assert "header" in flaw.what


@pytest.mark.parametrize(
    ("kind_of_header", "words"), [(tarfile.REGTYPE, "less than no bytes"), (tarfile.XHDTYPE, "a header")]
)
def test_sizes_below_nothing(look: Callable[..., Any], kind_of_header: bytes, words: str) -> None:
    info = tarfile.TarInfo("x.png")
    info.type = kind_of_header
    header = bytearray(info.tobuf())
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    assert words in look(bytes(header) + bytes(10_240)).what


def test_files_of_a_zip_that_overlap(look: Callable[..., Any]) -> None:
    data = bytearray(zip_of(("a.png", b"x" * 100), ("b.png", b"x" * 100), packing=zipfile.ZIP_STORED))
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    struct.pack_into("<L", data, second + 42, 0)
    assert "overlap" in look(bytes(data)).what


def test_a_directory_too_long_to_be_read(look: Callable[..., Any]) -> None:
    data = bytearray(zip_of(("a.png", b"x")))
    end = data.index(b"PK\x05\x06")
    struct.pack_into("<L", data, end + 12, 51 * 256)
    assert "directory" in look(bytes(data)).what
    # The same in a zip64 record, to which the ordinary one defers.
    struct.pack_into("<L", data, end + 12, 0xFFFFFFFF)
    wide = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 1 << 40, 0)
    assert "directory" in look(bytes(data[:end]) + wide + bytes(data[end:])).what


def test_a_size_that_lies(look: Callable[..., Any]) -> None:
    data = bytearray(zip_of(("a.png", b"x" * 5000)))
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 24, 10)
    read, _ = look(bytes(data))
    # No more than was said is unpacked, and the checksum shows it.
    assert "damaged" in read["a.png"].what


@pytest.mark.parametrize("kind", KINDS)
def test_truncated(look: Callable[..., Any], kind: str) -> None:
    data = KINDS[kind](
        ("a.png", random.Random(2).randbytes(50_000)), ("b.png", random.Random(3).randbytes(50_000))
    )
    found = look(data[:60_000])
    if not isinstance(found, Flaw):
        read, _ = found
        assert isinstance(read["b.png"], Flaw)
    for junk in (b"", b"PK", b"\x1f\x8b", b"hello", b"PK\x03\x04" + bytes(100)):
        assert isinstance(look(junk), Flaw)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_refused_and_never_an_error(look: Callable[..., Any], kind: str) -> None:
    whole = KINDS[kind](*((f"images/{at}.png", random.Random(at).randbytes(300)) for at in range(6)))
    chance = random.Random(11)
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 3, 20))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        look(bytes(data[: chance.choice((len(data), chance.randrange(len(data))))]))
