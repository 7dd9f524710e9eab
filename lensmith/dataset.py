"""The files of a dataset artifact: Parquet with images inside, as `datasets` reads it.

Columns: id, group (string); messages (string, see `sample.dump_messages`); images (list of structs
{bytes, path}, an Image feature to `datasets`), PNG, upright RGB; meta (string, JSON); source (string,
"file:line" of where the row was handed over).
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from lensmith.artifact import Artifact
from lensmith.errors import InputError, Problem
from lensmith.home import Home
from lensmith.sample import Sample, dump_messages, load_messages

Split = Literal["train", "validation"]
HELD_OUT_FILE = "data/held_out.parquet"
READS_LOG = "held_out_reads.jsonl"
_ROWS_A_GROUP = 64

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FEATURES = {
    "id": {"dtype": "string", "_type": "Value"},
    "group": {"dtype": "string", "_type": "Value"},
    "messages": {"dtype": "string", "_type": "Value"},
    "images": {"feature": {"_type": "Image"}, "_type": "List"},
    "meta": {"dtype": "string", "_type": "Value"},
    "source": {"dtype": "string", "_type": "Value"},
}
# `datasets` reads its feature types from this key of the Parquet schema's metadata.
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("messages", pa.string()),
        ("images", pa.list_(_IMAGE)),
        ("meta", pa.string()),
        ("source", pa.string()),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


@dataclass(frozen=True)
class Row:
    """A sample with its images as PNG bytes, in the order they stand in the messages."""

    sample: Sample
    images: tuple[bytes, ...]
    source: str


def split_file(split: Split) -> str:
    """Where a split's rows are inside a dataset artifact."""
    return f"data/{split}.parquet"


def write_rows(path: Path, rows: Iterable[Row]) -> int:
    """Write rows as Parquet, 64 to a row group so that memory stays small; the number written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with pq.ParquetWriter(path, SCHEMA) as writer:
        batch: list[dict[str, object]] = []
        for row in rows:
            batch.append(_encode(row))
            count += 1
            if len(batch) == _ROWS_A_GROUP:
                writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
                batch = []
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, SCHEMA))
    return count


def _encode(row: Row) -> dict[str, object]:
    paths = [image.path for image in row.sample.images]
    return {
        "id": row.sample.id,
        "group": row.sample.group,
        "messages": dump_messages(row.sample.messages),
        "images": [{"bytes": data, "path": path} for data, path in zip(row.images, paths, strict=True)],
        "meta": json.dumps(row.sample.meta, ensure_ascii=False, sort_keys=True),
        "source": row.source,
    }


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of one Parquet file, a row group in memory at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS_A_GROUP):
            for row in batch.to_pylist():
                yield Row(
                    Sample(row["id"], row["group"], load_messages(row["messages"]), json.loads(row["meta"])),
                    tuple(image["bytes"] for image in row["images"]),
                    row["source"],
                )


def read_split(dataset: Artifact, split: Split) -> Iterator[Row]:
    """The rows of a dataset artifact's split. The held-out rows cannot be reached from here."""
    if dataset.kind != "dataset":
        raise InputError(f"{dataset.short} is not a dataset")
    return read_rows(dataset.path / split_file(split))


def read_held_out(home: Home, held_out: Artifact, reason: str) -> Iterator[Row]:
    """The held-out rows; who reads them and why is appended to `<home>/held_out_reads.jsonl` first."""
    if held_out.kind != "held_out":
        raise InputError(f"{held_out.short} is not a held-out set")
    if not reason.strip():
        raise InputError(
            "the held-out rows are read for a stated reason only", [Problem("the reason is empty")]
        )
    entry = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "held_out": held_out.id,
        "reason": reason,
    }
    handle = os.open(home.root / READS_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(handle, (json.dumps(entry) + "\n").encode())
    finally:
        os.close(handle)
    return read_rows(held_out.path / HELD_OUT_FILE)
