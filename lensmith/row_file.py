"""A split on disk: Arrow files, of rows and of the images they share, read at random without loading them.

`<split>.arrow` holds a row a record: id, group (string); messages (string, see `sample.dump_messages`);
images (list of places in the other file); tools, origin, meta (string, JSON); times (int32, how often
an epoch of training shows it). Where a row was handed over is not part of it: the same rows from another
file are the same split.
`<split>.images.arrow` holds each image once: digest (string, of its upright pixels), width, height (pixels),
fingerprint (binary, what finds near copies), image (struct {bytes, path}, an Image feature to
`datasets`: PNG, upright RGB). Many images go on in `<split>.images-1.arrow`, `-2` and so on, each a whole
file, so that a later dataset can share those in which nothing changed; places count through all of them.
Arrow's file format is mapped into memory: a row is found by its number and only its own bytes are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from lensmith.arrow_batches import BatchWriter, MappedBatches
from lensmith.arrow_columns import view
from lensmith.sample import Origin, Sample, dump_messages, load_messages
from lensmith.stored_image import StoredImage, StoredView

ROWS_A_BATCH = 256
IMAGES_A_BATCH = 64

_ROW_FEATURES = {
    **{name: {"dtype": "string", "_type": "Value"} for name in ("id", "group", "messages")},
    "images": {"feature": {"dtype": "int32", "_type": "Value"}, "_type": "List"},
    **{name: {"dtype": "string", "_type": "Value"} for name in ("tools", "origin", "meta")},
    "times": {"dtype": "int32", "_type": "Value"},
}
_IMAGE_FEATURES = {
    "digest": {"dtype": "string", "_type": "Value"},
    "width": {"dtype": "int32", "_type": "Value"},
    "height": {"dtype": "int32", "_type": "Value"},
    "fingerprint": {"dtype": "binary", "_type": "Value"},
    "image": {"_type": "Image"},
}


def _features(features: dict[str, Any]) -> dict[str, str]:
    # `datasets` reads its feature types from this key of an Arrow schema's metadata.
    return {"huggingface": json.dumps({"info": {"features": features}})}


ROW_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("messages", pa.string()),
        ("images", pa.list_(pa.int32())),
        ("tools", pa.string()),
        ("origin", pa.string()),
        ("meta", pa.string()),
        ("times", pa.int32()),
    ],
    metadata=_features(_ROW_FEATURES),
)
IMAGE_SCHEMA = pa.schema(
    [
        ("digest", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fingerprint", pa.binary()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ],
    metadata=_features(_IMAGE_FEATURES),
)


@dataclass(frozen=True)
class Row:
    """A sample with its images as PNG bytes, in the order they stand in the messages."""

    sample: Sample
    images: tuple[bytes, ...]


def images_file(path: Path, number: int = 0) -> Path:
    """Where the images of the rows at `path` are: the first file of them, or a further one."""
    return path.with_suffix(f".images-{number}.arrow" if number else ".images.arrow")


def images_files(path: Path) -> list[Path]:
    """All files of images of the rows at `path`, in their order."""
    return list(takewhile(Path.exists, (images_file(path, number) for number in count())))


class RowWriter:
    """Writes a split, a batch in memory at a time: first a row's images, each once, then the row.

    What is at `path` goes first: a file that is shared with an earlier split is not written into.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in (path, *images_files(path)):
            old.unlink(missing_ok=True)
        self._path = path
        self._rows = BatchWriter(path, ROW_SCHEMA, ROWS_A_BATCH)
        self._images: BatchWriter | None = None
        self._files = 0
        self._places: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()
        if not self._files:
            self._begin_images()
        self.end_images()

    def _begin_images(self) -> BatchWriter:
        self._images = BatchWriter(images_file(self._path, self._files), IMAGE_SCHEMA, IMAGES_A_BATCH)
        self._files += 1
        return self._images

    def end_images(self) -> None:
        """The next image begins a further file."""
        if self._images is not None:
            self._images.close()
            self._images = None

    def take_images(self, digests: Iterable[bytes]) -> None:
        """Somebody put the next file of images where `images_file` says: it has those of these pixels."""
        self.end_images()
        self._files += 1
        for digest in digests:
            self._places[digest] = len(self._places)

    def put_image(self, image: StoredImage | StoredView) -> None:
        """Keep an image, once."""
        key = bytes.fromhex(image.digest)
        if not key:
            raise ValueError("an image without the digest of its pixels cannot be told from another")
        if key in self._places:
            return
        self._places[key] = len(self._places)
        record = {
            "digest": image.digest,
            "width": image.width,
            "height": image.height,
            "fingerprint": image.fingerprint,
            "image": {"bytes": image.png, "path": f"{image.digest[:16]}.png"},
        }
        (self._images or self._begin_images()).add(record, len(image.png))

    def put_row(self, sample: Sample, times: int = 1) -> None:
        """Keep a row, whose images were all put before; an epoch of training shows it `times` times."""
        record = {
            "id": sample.id,
            "group": sample.group,
            "messages": dump_messages(sample.messages),
            "images": [self._places[bytes.fromhex(image.digest)] for image in sample.images],
            "tools": json.dumps(sample.tools, ensure_ascii=False) if sample.tools else "",
            "origin": "" if sample.origin == Origin() else json.dumps(asdict(sample.origin)),
            "meta": json.dumps(sample.meta, ensure_ascii=False, sort_keys=True),
            "times": times,
        }
        self._rows.add(record, len(record["messages"]))

    @property
    def rows(self) -> int:
        """Rows put so far."""
        return self._rows.count


class RowFile(Sequence[Row]):
    """A split's rows by number. Opening maps the files; nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = MappedBatches([path])
        self._images = MappedBatches(images_files(path) or [images_file(path)])

    def __reduce__(self) -> tuple[type[RowFile], tuple[Path]]:
        # Another process maps the files itself.
        return RowFile, (self.path,)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        if number < 0:
            number += len(self)
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        batch, at = self._rows.locate(number)
        sample = _sample(batch, at)
        places = batch.column(_COLUMN["images"])[at].as_py()
        return Row(sample, tuple(self.png(place) for place in places))

    def samples(self) -> Iterator[Sample]:
        """Every row's sample, without its pictures."""
        for batch in self._rows.batches:
            for at in range(batch.num_rows):
                yield _sample(batch, at)

    def epoch(self) -> list[int]:
        """The numbers of the rows that one epoch of training shows, those that are shown again at the end."""
        times = [each for (values,) in self.columns("times") for each in values.to_pylist()]
        rounds = range(max(times, default=0))
        return [number for turn in rounds for number, shown in enumerate(times) if shown > turn]

    def png(self, place: int) -> bytes:
        """The image at `place`, as PNG."""
        return bytes(_png(*self._images.locate(place)))

    def image(self, place: int) -> StoredView:
        """The image at `place`."""
        return _image(*self._images.locate(place))

    def images(self) -> Iterator[StoredView]:
        """Every image, once."""
        return (_image(batch, at) for batch in self._images.batches for at in range(batch.num_rows))

    def columns(self, *names: str) -> Iterator[tuple[pa.Array, ...]]:
        """Columns of the rows, a batch at a time."""
        return (tuple(batch.column(_COLUMN[name]) for name in names) for batch in self._rows.batches)

    def image_columns(self, *names: str) -> Iterator[tuple[pa.Array, ...]]:
        """Columns of the images, a batch at a time."""
        return (tuple(batch.column(_IMAGE_COLUMN[name]) for name in names) for batch in self._images.batches)


_COLUMN = {name: at for at, name in enumerate(ROW_SCHEMA.names)}
_IMAGE_COLUMN = {name: at for at, name in enumerate(IMAGE_SCHEMA.names)}
_IMAGE_FACTS = [_IMAGE_COLUMN[name] for name in ("digest", "width", "height", "fingerprint")]


def _image(batch: pa.RecordBatch, at: int) -> StoredView:
    digest, width, height, fingerprint = (batch.column(each)[at].as_py() for each in _IMAGE_FACTS)
    return StoredView(digest, width, height, _png(batch, at), fingerprint)


def _png(batch: pa.RecordBatch, at: int) -> memoryview:
    return view(batch.column(_IMAGE_COLUMN["image"]).field(0), at)


def _sample(batch: pa.RecordBatch, at: int) -> Sample:
    def text(name: str) -> str:
        return batch.column(_COLUMN[name])[at].as_py()

    tools, origin = text("tools"), text("origin")
    return Sample(
        text("id"),
        text("group"),
        load_messages(text("messages")),
        json.loads(text("meta")),
        tuple(json.loads(tools)) if tools else (),
        Origin(**json.loads(origin)) if origin else Origin(),
    )


def digests_in(file: Path) -> Iterator[bytes]:
    """What each image in one file of images shows, the digest of its pixels, by place."""
    for batch in MappedBatches([file]).batches:
        yield from map(bytes.fromhex, batch.column(_IMAGE_COLUMN["digest"]).to_pylist())


def pngs_in(file: Path) -> Iterator[memoryview]:
    """Each image in one file of images as PNG, where it lies."""
    for batch in MappedBatches([file]).batches:
        yield from (_png(batch, at) for at in range(batch.num_rows))


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write rows that are there whole; the number written. Every image states digest and size."""
    with RowWriter(path) as writer:
        for row in rows:
            for image, png in zip(row.sample.images, row.images, strict=True):
                writer.put_image(StoredImage(image.digest, *image.size, png))
            writer.put_row(row.sample)
        return writer.rows
