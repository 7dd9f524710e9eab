"""Arrow files as batches of records: written one batch in memory at a time, mapped to be read at random."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from lensmith.arrow_columns import record_batch
from lensmith.errors import IntegrityError, Problem

# A batch of binary values is addressed with 32 bits: it stays far below 2 GiB whatever its images weigh.
BYTES_A_BATCH = 64 << 20


class BatchWriter:
    """A new Arrow file at `path`; a batch has at most so many `records`."""

    def __init__(self, path: Path, schema: pa.Schema, records: int) -> None:
        self._schema = schema
        self._records = records
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, schema)
        self._batch: list[dict[str, Any]] = []
        self._bytes = 0
        self.count = 0

    def add(self, record: dict[str, Any], size: int) -> None:
        """Write a record, which takes about `size` bytes."""
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
        """End the file."""
        if self._batch:
            self._flush()
        self._writer.close()
        self._sink.close()


class MappedBatches:
    """The batches of mapped Arrow files, one after the other, and which of them holds a record.

    Raises IntegrityError where a file is not whole.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.batches = [batch for path in paths for batch in _batches(path)]
        self.ends = list(accumulate(batch.num_rows for batch in self.batches))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def locate(self, number: int) -> tuple[pa.RecordBatch, int]:
        """The batch with a record, and the record's number within it."""
        at = bisect_right(self.ends, number)
        return self.batches[at], number - (self.ends[at - 1] if at else 0)


def _batches(path: Path) -> list[pa.RecordBatch]:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        return [reader.get_batch(number) for number in range(reader.num_record_batches)]
    except pa.ArrowInvalid as error:
        raise IntegrityError(
            f"{path} is not a whole Arrow file", [Problem(str(error), mend="prepare the data again")]
        ) from error
