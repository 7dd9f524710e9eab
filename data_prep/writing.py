"""The last step: the rows of a split into its files, every picture as upright RGB PNG, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.decoding.work import Request
from data_prep.engines.engine import Engine
from data_prep.picture_table import Picture
from data_prep.refusal import Flaw
from data_prep.seen import Seen
from data_prep.sight import STORE, reduce
from data_prep.sources.source import Source
from data_prep.split import SplitName
from data_prep.stated_sample import with_pictures
from data_prep.statistics import counts
from data_prep.stored_before import StoredBefore
from data_prep.workbook import Workbook
from lensmith.errors import InputError, Problem
from lensmith.progress import Progress
from lensmith.row_file import RowWriter


def write_split(
    book: Workbook,
    sources: Sequence[Source],
    split: SplitName,
    path: Path,
    engine: Engine,
    before: StoredBefore,
) -> None:
    """Write the taken rows of `split` to `path` and its images beside it; those that `before` has are copied.

    Raises InputError where a picture is no longer the one that was looked at.
    """
    with RowWriter(path) as writer:
        reduced = _write_images(book, sources, split, writer, engine, before)
        with Progress(f"{split} rows written", counts(book)[0].get(split, 0)) as progress:
            for row in book.readable(split=split):
                shown, sizes = book.pictures.shown_by(row.number), book.pictures.sizes_of(row.number)
                seen = [
                    each if size is None or isinstance(each, Flaw) else reduced[each.identity, size]
                    for each, size in zip(shown, sizes, strict=True)
                ]
                writer.put_row(with_pictures(row.sample, seen), row.times)
                progress.add()


def _write_images(
    book: Workbook,
    sources: Sequence[Source],
    split: SplitName,
    writer: RowWriter,
    engine: Engine,
    before: StoredBefore,
) -> dict[tuple[bytes, tuple[int, int]], Seen]:
    """Write every picture at each size that a row shows; gives the reduced ones by identity and size."""
    sizes = book.pictures.reduced_in(split)
    reduced: dict[tuple[bytes, tuple[int, int]], Seen] = {}

    def requests() -> Iterator[Request]:
        for picture, seen in book.pictures.first_shown(split):
            if before.find(seen) is not None:
                continue
            found = sources[picture.source].picture(picture.path)
            if isinstance(found, Flaw):
                raise _changed(picture)
            yield Request(picture.path, found)

    answers = iter(engine.look(STORE, requests()))
    with Progress(f"{split} pictures written", book.pictures.count_shown(split)) as progress:
        # Asked twice, and not kept waiting in memory while workers are behind: the answer is the same.
        for picture, seen in book.pictures.first_shown(split):
            stored = before.find(seen) or next(answers)
            if isinstance(stored, Flaw) or stored.digest != seen.identity.hex():
                raise _changed(picture)
            # In one order: the same rows make the same file.
            for size in sorted(sizes.get(seen.identity, {None}), key=lambda each: each or (0, 0)):
                image = stored if size is None else reduce(stored.png, size)
                writer.put_image(image)
                if size is not None:
                    reduced[seen.identity, size] = Seen(*size, b"", bytes.fromhex(image.digest))
            progress.add()
    return reduced


def _changed(picture: Picture) -> InputError:
    what = "is not the image that was checked"
    mend = "prepare again when nobody writes to it"
    return InputError("the data changed while it was read", [Problem(what, picture.path, mend)])
