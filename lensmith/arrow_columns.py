"""Arrow arrays of plain values, laid out and looked at by hand.

`pa.array` does the same, and imports pandas for it where that is installed, to ask whether the values are its
own: a third of a second and 40 MB for each process that writes a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa


def record_batch(records: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Records of the schema's columns, which hold strings, bytes (or views of them), int32, lists and structs
    of these; none is null. Raises OverflowError where a column's values need 2 GiB or more."""
    columns = [column(field.type, [record[field.name] for record in records]) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def column(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """An array of `kind`, one of those that `record_batch` takes. Raises TypeError for another."""
    if pa.types.is_string(kind):
        encoded = [text.encode() for text in values]
        return _varying(kind, encoded, pa.py_buffer(b"".join(encoded)))
    if pa.types.is_binary(kind):
        return _varying(kind, values, _side_by_side(values))
    if pa.types.is_int32(kind):
        return pa.Array.from_buffers(kind, len(values), [None, _int32s(values)])
    if pa.types.is_list(kind):
        inner = column(kind.value_type, [each for value in values for each in value])
        return pa.Array.from_buffers(kind, len(values), [None, _offsets(values)], children=[inner])
    if pa.types.is_struct(kind):
        inner = [column(field.type, [value[field.name] for value in values]) for field in kind]
        return pa.Array.from_buffers(kind, len(values), [None], children=inner)
    raise TypeError(f"no column of {kind} is written here")


def view(values: pa.Array, at: int) -> memoryview:
    """The bytes at `at` of a binary column without nulls, where they lie: `values[at]` is already a copy."""
    _, offsets, data = values.buffers()
    begin, end = memoryview(offsets).cast("i")[values.offset + at : values.offset + at + 2]
    return memoryview(data)[begin:end].cast("B")


def _varying(kind: pa.DataType, values: Sequence[bytes | memoryview], data: pa.Buffer) -> pa.Array:
    return pa.Array.from_buffers(kind, len(values), [None, _offsets(values), data])


def _side_by_side(values: Sequence[bytes | memoryview]) -> pa.Buffer:
    """The values in memory that Arrow keeps for the next batch: that of a joined string is new each time, and
    for images costs eight times the copying."""
    data = pa.allocate_buffer(sum(map(len, values)))
    into, at = memoryview(data).cast("B"), 0
    for value in values:
        into[at : at + len(value)] = value
        at += len(value)
    return data


def _offsets(values: Sequence[Sequence[Any] | memoryview]) -> pa.Buffer:
    """Where each value begins, and where the last ends."""
    ends = np.cumsum([0, *map(len, values)], dtype=np.int64)
    return _int32s(ends)


def _int32s(values: Sequence[int] | np.ndarray) -> pa.Buffer:
    wide = np.asarray(values, np.int64)
    narrow = wide.astype(np.int32)
    if not np.array_equal(wide, narrow):
        raise OverflowError("a number does not fit into 32 bits")
    return pa.py_buffer(narrow)
