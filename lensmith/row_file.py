"""A split on disk: two Arrow files, rows and the images they share, read at random without loading them.

`<split>.arrow` holds a row a record: id, group (string); messages (string, see `sample.dump_messages`);
images (list of places in the other file); tools, origin, meta (string, JSON); times (int32, how often
an epoch of training shows it). Where a row was handed over is not part of it: the same rows from another
file are the same split.
`<split>.images.arrow` holds each image once: digest (string, of its upright pixels), width, height (pixels),
fingerprint (binary, what finds near copies), image (struct {bytes, path}, an Image feature to
`datasets`: PNG, upright RGB).
Arrow's file format is mapped into memory: a row is found by its number and only its own bytes are read.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from lensmith.arrow_columns import record_batch, view
from lensmith.errors import IntegrityError, Problem
from lensmith.sample import Origin, Sample, dump_messages, load_messages
from lensmith.stored_image import StoredImage, StoredView

ROWS_A_BATCH = 256
IMAGES_A_BATCH = 64
# A batch of binary values is addressed with 32 bits: it stays far below 2 GiB whatever its images weigh.
BYTES_A_BATCH = 64 << 20

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


def images_file(path: Path) -> Path:
    """Where the images of the rows at `path` are."""
    return path.with_suffix(".images.arrow")


class RowWriter:
    """Writes a split, a batch in memory at a time: first a row's images, each once, then the row."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = _Table(path, ROW_SCHEMA, ROWS_A_BATCH)
        self._images = _Table(images_file(path), IMAGE_SCHEMA, IMAGES_A_BATCH)
        self._places: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()
        self._images.close()

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
        self._images.add(record, len(image.png))

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


class _Table:
    """An Arrow file that is written batch by batch."""

    def __init__(self, path: Path, schema: pa.Schema, records: int) -> None:
        self._schema = schema
        self._records = records
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema)
        self._batch: list[dict[str, Any]] = []
        self._bytes = 0
        self.count = 0

    def add(self, record: dict[str, Any], size: int) -> None:
        if self._batch and self._bytes + size > BYTES_A_BATCH:
            self._flush()
        self._batch.append(record)
        self._bytes += size
        self.count += 1
        if len(self._batch) == self._records:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_batch(record_batch(self._batch, self._schema))
        self._batch = []
        self._bytes = 0

    def close(self) -> None:
        if self._batch:
            self._flush()
        self._writer.close()
        self._sink.close()


class _Batches:
    """The batches of a mapped Arrow file, and which of them holds a record."""

    def __init__(self, path: Path) -> None:
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            self.batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        except pa.ArrowInvalid as error:
            raise IntegrityError(
                f"{path} is not a whole Arrow file", [Problem(str(error), mend="prepare the data again")]
            ) from error
        self.ends = list(accumulate(batch.num_rows for batch in self.batches))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def locate(self, number: int) -> tuple[pa.RecordBatch, int]:
        at = bisect_right(self.ends, number)
        return self.batches[at], number - (self.ends[at - 1] if at else 0)


class RowFile(Sequence[Row]):
    """A split's rows by number. Opening maps the files; nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = _Batches(path)
        self._images = _Batches(images_file(path))

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


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write rows that are there whole; the number written. Every image states digest and size."""
    with RowWriter(path) as writer:
        for row in rows:
            for image, png in zip(row.sample.images, row.images, strict=True):
                writer.put_image(StoredImage(image.digest, *image.size, png))
            writer.put_row(row.sample)
        return writer.rows
