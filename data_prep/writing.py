"""The last step: the rows of a split into its files, every picture as upright RGB PNG, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from data_prep.decoding.work import Request
from data_prep.engines.engine import Engine
from data_prep.picture_table import Picture
from data_prep.reducing import changed, opened
from data_prep.refusal import Flaw
from data_prep.seen import Seen
from data_prep.shards import plan_shards
from data_prep.sight import STORE
from data_prep.sources.source import Source
from data_prep.split import SplitName
from data_prep.stated_sample import with_pictures
from data_prep.statistics import counts
from data_prep.stored_before import StoredBefore
from data_prep.workbook import Workbook
from data_prep.written import Written
from lensmith.progress import Progress
from lensmith.row_file import RowWriter, images_file
from lensmith.stored_image import StoredImage, StoredView


def write_split(
    book: Workbook,
    sources: Sequence[Source],
    split: SplitName,
    path: Path,
    engine: Engine,
    before: StoredBefore,
) -> Written:
    """Write the taken rows of `split` to `path` and its images beside it; those that `before` has are shared
    with it where a whole file of them is the same, and copied otherwise.

    What is given back was read from the disk. Raises InputError where a picture is no longer the one that was
    looked at.
    """
    images = _Images(book, sources, split, engine, before)
    while True:
        with RowWriter(path) as writer:
            images.write(writer, path)
            with Progress(f"{split} rows written", counts(book)[0].get(split, 0)) as progress:
                for row in book.readable(split=split):
                    shown, reduced = book.pictures.shown_by(row.number), book.pictures.reduced_by(row.number)
                    seen = [small or each for each, small in zip(shown, reduced, strict=True)]
                    writer.put_row(with_pictures(row.sample, seen), row.times)
                    progress.add()
        # What was taken over is digested where it lies now: once, for this and for the proof.
        written = before.read_back(path)
        if written is not None:
            return written


@dataclass(frozen=True)
class _Wanted:
    """A picture as the split keeps it: digest of its pixels, its size, whether it is reduced to that."""

    picture: Picture
    seen: Seen
    identity: bytes
    size: tuple[int, int]
    reduced: bool


class _Images:
    """The pictures of a split, each at every size that a row shows it at."""

    def __init__(
        self,
        book: Workbook,
        sources: Sequence[Source],
        split: SplitName,
        engine: Engine,
        before: StoredBefore,
    ) -> None:
        self._book, self._sources, self._split = book, sources, split
        self._engine, self._before = engine, before
        self._sizes = book.pictures.reduced_in(split)

    def _wanted(self) -> Iterator[_Wanted]:
        """In one order, each once: the same rows make the same files."""
        reduced: set[bytes] = set()
        for picture, seen in self._book.pictures.first_shown(self._split):
            sizes = self._sizes.get(seen.identity, {None})
            for size in sorted(sizes, key=lambda each: each or (0, 0)):
                if size is None:
                    if seen.identity not in reduced:
                        yield _Wanted(picture, seen, seen.identity, (seen.width, seen.height), False)
                    continue
                identity = self._book.pictures.reduced_identity(seen.identity, size)
                if identity not in reduced:
                    reduced.add(identity)
                    yield _Wanted(picture, seen, identity, size, True)

    def write(self, writer: RowWriter, path: Path) -> None:
        """Write those of the split at `path` that are in no file which could be shared."""
        count, pixels = self._book.pictures.count_shown(self._split)
        sizes = ((each.identity, each.size[0] * each.size[1]) for each in self._wanted())
        shards = plan_shards(sizes, pixels)
        shared = [self._before.link(shard.key, images_file(path, at)) for at, shard in enumerate(shards)]

        def requests() -> Iterator[Request]:
            wanted = self._wanted()
            for shard, is_shared in zip(shards, shared, strict=True):
                for each in islice(wanted, shard.pictures):
                    if not is_shared and not each.reduced and self._before.find(each.seen) is None:
                        yield Request(each.picture.path, opened(self._sources, each.picture))

        answers = iter(self._engine.look(STORE, requests()))
        wanted = self._wanted()
        with Progress(f"{self._split} pictures written", count) as progress:
            for shard, is_shared in zip(shards, shared, strict=True):
                here = islice(wanted, shard.pictures)
                if is_shared:
                    writer.take_images(each.identity for each in here)
                    progress.add(shard.pictures)
                    continue
                for each in here:
                    writer.put_image(self._stored(each, answers))
                    progress.add()
                writer.end_images()

    def _stored(self, wanted: _Wanted, answers: Iterator[StoredImage | Flaw]) -> StoredImage | StoredView:
        if wanted.reduced:
            return self._book.pictures.reduced(wanted.seen.identity, wanted.size)
        # Asked twice, and not kept in memory while workers are behind: the answer is the same.
        image = self._before.find(wanted.seen) or next(answers)
        if isinstance(image, Flaw) or image.digest != wanted.identity.hex():
            raise changed(wanted.picture)
        return image
