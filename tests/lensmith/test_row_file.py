"""Rows and their images in Arrow files: what goes in comes out, by number, each image kept once."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from lensmith import arrow_batches
from lensmith.errors import IntegrityError
from lensmith.row_file import Row, RowFile, RowWriter, images_file, write_rows
from lensmith.sample import Image, Message, Origin, Sample, Text
from lensmith.stored_image import StoredView


def row(number: int, images: int = 1, first: int | None = None) -> Row:
    """A row with pictures of its own, counted from `first`."""
    start = number * 4 if first is None else first
    names = [f"{start + at:04x}" for at in range(images)]
    parts = (*(Image(f"{name}.png", name, (8, 9)) for name in names), Text("Lies das, bitte: é 漢 \0"))
    sample = Sample(
        f"row-{number}",
        f"group-{number % 3}",
        (Message("user", parts), Message("assistant", (Text('{"n": 1}'),))),
        {"desk": number, "nested": {"a": [1, None, "ü"]}},
        ({"name": "zoom", "parameters": {}},) if number % 2 else (),
        Origin(labeller="ada") if number % 2 else Origin(),
    )
    return Row(sample, tuple(b"\x89PNG" + name.encode() for name in names))


@pytest.mark.parametrize("count", [0, 1, 64, 65, 256, 300])
def test_rows_survive_the_disk(tmp_path: Path, count: int) -> None:
    rows = [row(number, images=number % 3) for number in range(count)]
    path = tmp_path / "deep" / "train.arrow"
    assert write_rows(path, iter(rows)) == count
    stored = RowFile(path)
    assert len(stored) == count
    assert list(stored) == rows
    assert stored[count // 2 :] == rows[count // 2 :]
    assert list(stored.samples()) == [each.sample for each in rows]


def test_by_number_from_both_ends_and_not_beyond(tmp_path: Path) -> None:
    rows = [row(number) for number in range(300)]
    write_rows(tmp_path / "train.arrow", rows)
    stored = RowFile(tmp_path / "train.arrow")
    for number in (299, 0, 255, 256, -1, -300):
        assert stored[number] == rows[number]
    for number in (300, -301):
        with pytest.raises(IndexError):
            stored[number]


def test_an_image_is_kept_once(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.arrow", [row(number, first=7) for number in range(500)])
    stored = RowFile(tmp_path / "train.arrow")
    assert list(stored.images()) == [StoredView("0007", 8, 9, memoryview(b"\x89PNG0007"))]
    assert stored[499].images == (b"\x89PNG0007",)


def test_batches_stay_small_whatever_the_images_weigh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow_batches, "BYTES_A_BATCH", 20)
    rows = [row(number, images=2) for number in range(40)]
    write_rows(tmp_path / "train.arrow", rows)
    stored = RowFile(tmp_path / "train.arrow")
    assert max(len(digests) for (digests,) in stored.image_columns("digest")) == 2
    assert list(stored) == rows


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_rows(tmp_path / f"{name}.arrow", (row(number) for number in range(70)))
    for find in (Path, images_file):
        one, two = (find(tmp_path / f"{name}.arrow").read_bytes() for name in ("one", "two"))
        assert one == two


def test_an_image_too_few_is_an_error(tmp_path: Path) -> None:
    good = row(1, images=2)
    with pytest.raises(ValueError, match="zip"):
        write_rows(tmp_path / "train.arrow", [Row(good.sample, good.images[:1])])


def test_an_image_without_digest_is_an_error(tmp_path: Path) -> None:
    unnamed = Message("user", (Image("a.png"),))
    with pytest.raises(ValueError, match="without the digest"):
        write_rows(tmp_path / "train.arrow", [Row(Sample("a", "g", (unnamed,)), (b"1",))])


def test_another_process_maps_the_files_itself(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.arrow", [row(number) for number in range(3)])
    sent = pickle.dumps(RowFile(tmp_path / "train.arrow"))
    assert len(sent) < 500
    assert pickle.loads(sent)[2] == row(2)


def test_half_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.arrow"
    write_rows(path, [row(number) for number in range(3)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(IntegrityError, match=r"train\.arrow is not a whole Arrow file"):
        RowFile(path)


def test_an_epoch_shows_repeats_far_apart(tmp_path: Path) -> None:
    with RowWriter(tmp_path / "train.arrow") as writer:
        for number, times in enumerate((2, 0, 1, 3)):
            writer.put_row(row(number, images=0).sample, times)
    assert RowFile(tmp_path / "train.arrow").epoch() == [0, 2, 3, 0, 3, 3]
