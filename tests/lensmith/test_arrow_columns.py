"""Columns laid out by hand are those that pyarrow makes of the same values, to the byte of a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lensmith.arrow_columns import column, record_batch, view
from lensmith.row_file import IMAGE_SCHEMA, ROW_SCHEMA

ROOT = Path(__file__).resolve().parents[2]


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {name: f"{name} {number} \u00e4\U0001f600" * (number % 3) for name in ROW_SCHEMA.names}
        | {"images": list(range(number % 4)), "times": number}
        for number in range(count)
    ]


def images(count: int) -> list[dict[str, Any]]:
    return [
        {
            "digest": f"{number:064x}",
            "width": number,
            "height": -number,
            "fingerprint": bytes(number % 5),
            "image": {"bytes": b"\x89PNG" * number, "path": f"{number}.png"},
        }
        for number in range(count)
    ]


def file_of(made: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, made.schema) as writer:
        writer.write_batch(made)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("count", [0, 1, 2, 65])
@pytest.mark.parametrize(("make", "schema"), [(rows, ROW_SCHEMA), (images, IMAGE_SCHEMA)])
def test_the_file_is_the_one_that_pyarrow_writes(make: Any, schema: pa.Schema, count: int) -> None:
    records = make(count)
    mine = record_batch(records, schema)
    mine.validate(full=True)
    assert file_of(mine) == file_of(pa.RecordBatch.from_pylist(records, schema))


def test_a_view_is_written_as_the_bytes_it_shows() -> None:
    data = bytes(range(256))
    assert column(pa.binary(), [memoryview(data)[100:200]]).to_pylist() == [data[100:200]]


def test_bytes_are_looked_at_where_they_lie() -> None:
    values = column(pa.binary(), [b"one", b"", b"\xfftwo", b"three"])
    assert [view(values, at) for at in range(4)] == [b"one", b"", b"\xfftwo", b"three"]
    assert view(values.slice(1), 2) == b"three"
    assert np.frombuffer(view(values, 2), np.uint8).ctypes.data == values.buffers()[2].address + 3


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(OverflowError):
        column(pa.int32(), [1 << 31])
    with pytest.raises(TypeError, match="double"):
        column(pa.float64(), [1.0])


@pytest.mark.slow
def test_no_pandas_is_imported_to_write_a_split(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lensmith.row_file import RowFile, write_rows, Row;"
        "from lensmith.sample import Image, Message, Sample, Text;"
        "asked = Message('user', (Image('a.png', '00' * 32, (8, 9)), Text('Read.')));"
        "sample = Sample('a', 'g', (asked, Message('assistant', (Text('7'),))));"
        f"path = Path({str(tmp_path / 'train.arrow')!r}); write_rows(path, [Row(sample, (b'png',))]);"
        "assert RowFile(path)[0].images == (b'png',); assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
