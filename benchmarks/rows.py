"""Rows read at random from a split as Lensmith keeps it, against Parquet with row groups of 100.

    python benchmarks/rows.py [--rows 2000] [--write]

Both files hold the same rows: a conversation and its image, a PNG of 100 to 300 KB, as printed pages are.
Ours is `RowFile[number]`: the sample as objects and the image's bytes. The baseline reads the row group that
holds the row with pyarrow, mapped, and takes the row out of it as plain Python values. Each side runs in a
process of its own with one thread, its file in the page cache; ours reads each row ten times, the baseline a
sample. The two run alternately, the median counts, and rows that both read must have the same bytes. In
the peaks, pages that are mapped from the file count as memory. The last line is the result, JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import result  # noqa: E402

RESULT = Path(__file__).parent / "results" / "rows.json"
GROUP = 100
ROUNDS = 3
IMAGE_BYTES = 200_000
# Rows both sides read; ours goes on.
COMPARED = 300


def make(folder: Path, count: int) -> None:
    """The same rows in both containers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lensmith.row_file import Row, write_rows
    from lensmith.sample import Image, Message, Sample, Text, dump_messages

    chance = np.random.default_rng(11)
    rows, records = [], []
    for number in range(count):
        # Neither container looks into an image: bytes that do not compress stand for a PNG.
        data = chance.bytes(int(IMAGE_BYTES * chance.uniform(0.5, 1.5)))
        image = Image(f"{number}.png", digest=hashlib.sha256(data).hexdigest(), size=(640, 480))
        answer = json.dumps({"account": f"{number:06d}", "amount": f"{number / 7:.2f}"})
        asked = Message("user", (image, Text("Read the form. Answer with JSON only.")))
        sample = Sample(f"r{number}", "g", (asked, Message("assistant", (Text(answer),))))
        rows.append(Row(sample, (data,)))
        record = {"id": sample.id, "messages": dump_messages(sample.messages), "image": data}
        records.append(record)
    write_rows(folder / "rows.arrow", rows)
    pq.write_table(pa.Table.from_pylist(records), folder / "rows.parquet", row_group_size=GROUP)


def ours(folder: Path) -> tuple[int, Callable[[int], bytes]]:
    """Number of rows, and the way to read one."""
    from lensmith.row_file import RowFile

    rows = RowFile(folder / "rows.arrow")
    return len(rows), lambda number: rows[number].images[0]


def baseline(folder: Path) -> tuple[int, Callable[[int], bytes]]:
    """Number of rows, and the way to read one."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(folder / "rows.parquet", memory_map=True)

    def read(number: int) -> bytes:
        group = file.read_row_group(number // GROUP, use_threads=False)
        return group.slice(number % GROUP, 1).to_pylist()[0]["image"]

    return file.metadata.num_rows, read


def side(name: str, folder: Path) -> dict[str, Any]:
    """Rows a second, read at random, and digests of the first ones."""
    count, read = {"ours": ours, "baseline": baseline}[name](folder)
    order = np.random.default_rng(3).integers(count, size=10 * count if name == "ours" else COMPARED).tolist()
    digests = [hashlib.sha256(read(number)).hexdigest() for number in order[:COMPARED]]
    started = time.perf_counter()
    for number in order:
        read(number)
    seconds = time.perf_counter() - started
    return {
        "rate": len(order) / seconds,
        "digests": digests,
        "order": order[:COMPARED],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measured(name: str, folder: Path, count: int) -> dict[str, Any]:
    """The side's figures, from a process of its own."""
    argv = [__file__, "--side", name, "--folder", str(folder), "--rows", str(count)]
    return result.last_line(argv, result.one_thread())


def main() -> int:
    parser = argparse.ArgumentParser(description="rows read at random")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    parser.add_argument("--side", choices=("make", "ours", "baseline"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side == "make":
        make(given.folder, given.rows)
        print("{}")
        return 0
    if given.side:
        print(json.dumps(side(given.side, given.folder)))
        return 0
    ran: dict[str, list[dict[str, Any]]] = {"ours": [], "baseline": []}
    with tempfile.TemporaryDirectory() as made:
        # In a process of its own: its memory must not count as that of the sides.
        measured("make", Path(made), given.rows)
        for round_ in range(ROUNDS):
            for name in list(ran)[:: -1 if round_ % 2 else 1]:
                ran[name].append(measured(name, Path(made), given.rows))
    read = {name: dict(zip(each[0]["order"], each[0]["digests"], strict=True)) for name, each in ran.items()}
    both = read["ours"].keys() & read["baseline"].keys()
    if not both or any(read["ours"][number] != read["baseline"][number] for number in both):
        print("the two sides read other bytes", file=sys.stderr)
        return 1
    rate = {name: statistics.median(each["rate"] for each in runs) for name, runs in ran.items()}
    line = {
        "name": "rows",
        "ratio": round(rate["ours"] / rate["baseline"], 1),
        "ours": round(rate["ours"]),
        "baseline": round(rate["baseline"], 1),
        "unit": "rows/s",
        "ours_peak_mb": round(max(each["peak_mb"] for each in ran["ours"])),
        "baseline_peak_mb": round(max(each["peak_mb"] for each in ran["baseline"])),
    }
    if given.write:
        facts = {
            "threads": 1,
            "rows": given.rows,
            "image_bytes": IMAGE_BYTES,
            "rates": {name: [round(each["rate"], 1) for each in runs] for name, runs in ran.items()},
        }
        result.write(RESULT, line, ("pyarrow",), facts)
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
