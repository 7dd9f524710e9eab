"""The last step: the rows of a split into its files, every picture as upright RGB PNG, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.decoding.work import Request
from data_prep.engines.engine import Engine
from data_prep.reducing import changed, opened
from data_prep.refusal import Flaw
from data_prep.sight import STORE
from data_prep.sources.source import Source
from data_prep.split import SplitName
from data_prep.stated_sample import with_pictures
from data_prep.statistics import counts
from data_prep.stored_before import StoredBefore
from data_prep.workbook import Workbook
from data_prep.written import Written
from lensmith.progress import Progress
from lensmith.row_file import RowWriter


def write_split(
    book: Workbook,
    sources: Sequence[Source],
    split: SplitName,
    path: Path,
    engine: Engine,
    before: StoredBefore,
) -> Written:
    """Write the taken rows of `split` to `path` and its images beside it; those that `before` has are copied.

    What is given back was read from the disk. Raises InputError where a picture is no longer the one that was
    looked at.
    """
    while True:
        with RowWriter(path) as writer:
            _write_images(book, sources, split, writer, engine, before)
            with Progress(f"{split} rows written", counts(book)[0].get(split, 0)) as progress:
                for row in book.readable(split=split):
                    shown, reduced = book.pictures.shown_by(row.number), book.pictures.reduced_by(row.number)
                    seen = [small or each for each, small in zip(shown, reduced, strict=True)]
                    writer.put_row(with_pictures(row.sample, seen), row.times)
                    progress.add()
        # Copies are digested where they lie now, not before: once, for this and for the proof.
        written = Written.read_back(path)
        if not before.drop_spoiled(written):
            return written


def _write_images(
    book: Workbook,
    sources: Sequence[Source],
    split: SplitName,
    writer: RowWriter,
    engine: Engine,
    before: StoredBefore,
) -> None:
    """Write every picture at each size that a row shows."""
    sizes = book.pictures.reduced_in(split)

    def requests() -> Iterator[Request]:
        for picture, seen in book.pictures.first_shown(split):
            if None in sizes.get(seen.identity, {None}) and before.find(seen) is None:
                yield Request(picture.path, opened(sources, picture))

    answers = iter(engine.look(STORE, requests()))
    with Progress(f"{split} pictures written", book.pictures.count_shown(split)) as progress:
        for picture, seen in book.pictures.first_shown(split):
            # In one order: the same rows make the same file.
            for size in sorted(sizes.get(seen.identity, {None}), key=lambda each: each or (0, 0)):
                if size is None:
                    # Asked twice, and not kept in memory while workers are behind: the answer is the same.
                    image = before.find(seen) or next(answers)
                    if isinstance(image, Flaw) or image.digest != seen.identity.hex():
                        raise changed(picture)
                else:
                    image = book.pictures.reduced(seen.identity, size)
                writer.put_image(image)
            progress.add()
