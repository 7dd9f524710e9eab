"""The pictures of the taken rows as one mapped file, with an exam's before them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from data_prep.judging import judge_rows
from data_prep.seen import Seen
from data_prep.similar.search import Fingerprints
from data_prep.sources.source import Found
from data_prep.thumbnails import ThumbnailFile
from data_prep.workbook import Workbook
from lensmith.sample import Image, Message, Sample, Text
from tests.data_prep.similar.pictures import encoded


def thumbnail(number: int) -> bytes:
    return np.random.default_rng(number).integers(0, 256, (64, 64), np.uint8).tobytes()


def printed(number: int, detailed: Collection[int]) -> bytes:
    return thumbnail(number) + (detail(number) if number in detailed else b"")


def fill(book: Workbook, *rows: tuple[int, ...], detailed: Collection[int] = ()) -> None:
    """Take one row for each tuple: the numbers of the pictures it shows, all rows of one group."""
    found = []
    for at, numbers in enumerate(rows):
        images = [Image(f"{number}.png") for number in numbers]
        asked = Message("user", (*images, Text(f"Question {at}?")))
        sample = Sample(f"row-{at}", "group", (asked, Message("assistant", (Text("1"),))))
        found.append(Found(f"labels.jsonl:{at + 1}", f"row-{at}", sample))
    book.add(0, 0, found)
    book.pictures.saw(
        (each.number, Seen(100 + number, 50, b"", number.to_bytes(32, "big"), printed(number, detailed)))
        for each in book.pictures.unseen(10_000, 0)
        for number in [int(each.path.removesuffix(".png"))]
    )
    judge_rows(book, {})


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Workbook]:
    with Workbook(tmp_path / "workbook.sqlite") as book:
        yield book


def detail(number: int) -> bytes:
    """As a fingerprint has one behind its thumbnail: a JPEG."""
    return encoded(PIL.Image.new("L", (192, 192), number), "JPEG")


def greys(pictures: Fingerprints) -> list[int | None]:
    """The grey of each picture's detail, None where it has none."""
    assert pictures.details is not None
    found: list[int | None] = [None] * len(pictures)
    for place in np.flatnonzero(pictures.details.has(np.arange(len(pictures)))).tolist():
        found[place] = int(pictures.details.take(np.array([place]))[0, 0, 0])
    return found


def hung(thumbnails: ThumbnailFile) -> list[tuple[int, bytes]]:
    """Width and thumbnail of every picture."""
    pictures = thumbnails.pictures
    return [
        (int(width), each.tobytes())
        for (width, _), each in zip(pictures.sizes, pictures.thumbnails, strict=True)
    ]


def expected(*numbers: int) -> list[tuple[int, bytes]]:
    return [(100 + number, thumbnail(number)) for number in numbers]


def test_every_picture_hangs_once_by_its_first_row(book: Workbook, tmp_path: Path) -> None:
    fill(book, (7,), (3, 7), (5, 3), (3,))
    thumbnails = ThumbnailFile(book, tmp_path / "thumbnails", 2)
    assert hung(thumbnails) == expected(7, 3, 5)
    assert list(zip(thumbnails.rows.tolist(), thumbnails.places.tolist(), strict=True)) == [
        (0, 0), (1, 1), (1, 0), (2, 2), (2, 1), (3, 1),
    ]  # fmt: skip
    assert thumbnails.identity(1) == (3).to_bytes(32, "big")


def test_exams_of_several_sizes_hang_before_them_in_turn(book: Workbook, tmp_path: Path) -> None:
    fill(book, (7,), (3,))
    thumbnails = ThumbnailFile(book, tmp_path / "thumbnails", 3)
    for numbers in ([11, 12, 13], [], [14]):
        sizes = np.array([(100 + number, 50) for number in numbers], np.int32).reshape(-1, 2)
        both = thumbnails.behind(sizes, map(thumbnail, numbers))
        assert both.sizes[:, 0].tolist() == [100 + number for number in [*numbers, 7, 3]]
        assert [each.tobytes() for each in both.thumbnails] == [thumbnail(each) for each in [*numbers, 7, 3]]
    assert hung(thumbnails) == expected(7, 3)


def test_details_go_with_their_pictures(book: Workbook, tmp_path: Path) -> None:
    fill(book, (7,), (30, 8), (5, 30), (60,), detailed=(30, 5, 60))
    thumbnails = ThumbnailFile(book, tmp_path / "thumbnails", 3)
    assert greys(thumbnails.pictures) == [None, 30, None, 5, 60]
    for numbers in ([11, 12, 13], [], [14]):
        sizes = np.full((len(numbers), 2), 50, np.int32)
        both = thumbnails.behind(sizes, [printed(number, (11, 13, 14)) for number in numbers])
        exam = [number if number != 12 else None for number in numbers]
        assert greys(both) == [*exam, None, 30, None, 5, 60]
    thumbnails.leave_out([0, 2])
    assert greys(thumbnails.pictures) == [30, None, 60]


def test_what_only_refused_rows_show_is_taken_down(book: Workbook, tmp_path: Path) -> None:
    fill(book, (0,), (1, 2), (2,), *((number,) for number in range(3, 3000)))
    thumbnails = ThumbnailFile(book, tmp_path / "thumbnails", 1)
    thumbnails.leave_out([0, 1, 4])
    assert hung(thumbnails) == expected(2, 3, *range(5, 3000))
    assert thumbnails.rows[:3].tolist() == [2, 3, 5]
    assert thumbnails.places[:3].tolist() == [0, 1, 2]
    assert thumbnails.identity(2) == (5).to_bytes(32, "big")
    thumbnails.leave_out(range(5000))
    assert hung(thumbnails) == []


def test_no_row_shows_a_picture(book: Workbook, tmp_path: Path) -> None:
    assert hung(ThumbnailFile(book, tmp_path / "thumbnails", 0)) == []


def test_thumbnails_are_not_held_in_memory(book: Workbook, tmp_path: Path) -> None:
    fill(book, *((number,) for number in range(4000)))
    tracemalloc.start()
    thumbnails = ThumbnailFile(book, tmp_path / "thumbnails", 2000)
    both = thumbnails.behind(np.full((2000, 2), 64, np.int32), map(thumbnail, range(2000)))
    thumbnails.leave_out(range(0, 4000, 2))
    assert len(thumbnails.pictures) == 2000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 24 MB of thumbnails; a batch of 1,024 is 4 MB.
    assert len(both) == 6000
    assert peak < 7_000_000
