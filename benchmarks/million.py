"""A million rows prepared on one machine: rows a second, and the most memory that it took.

    python benchmarks/million.py [--rows 1000000] [--pictures 2000] [--folder FOLDER] [--write]

The rows are made first (see many.py): conversations over small pictures, each shown by several hundred rows.
Then they are prepared as `lensmith prepare` does, checks, near copies, splits, proof and report included, in
a process of its own; memory is that of it and all its workers together (see tree.py), and every row must be
in the dataset or its exam. The last line is the result, JSON. The command fails where a row is lost or the
peak is 1 GB or more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import many, result  # noqa: E402
from benchmarks.tree import peak_while  # noqa: E402

RESULT = Path(__file__).parent / "results" / "million.json"
MOST_MB = 1000


def side(folder: Path) -> dict[str, Any]:
    """Prepare the folder's rows; what came of them."""
    from data_prep.prepare import prepare
    from lensmith.home import Home

    started = time.perf_counter()
    prepared = prepare(many.recipe(folder), Home(folder / "home"))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "rows": sum(prepared.dataset.body["rows"].values())}


def measured(folder: Path) -> tuple[dict[str, Any], float]:
    """What the preparing process said, and the peak memory of its tree in MB."""
    argv = [sys.executable, __file__, "--side", "prepare", "--folder", str(folder)]
    with subprocess.Popen(argv, env=result.one_thread(), stdout=subprocess.PIPE, text=True) as process:
        said, peak = peak_while(process)
    if process.returncode:
        raise SystemExit(f"preparing ended with code {process.returncode}")
    return json.loads(said.splitlines()[-1]), peak


def run(given: argparse.Namespace, folder: Path) -> int:
    many.make(folder, given.rows, given.pictures)
    prepared, peak = measured(folder)
    made = [path for path in folder.joinpath("home").rglob("*") if path.is_file()]
    line = {
        "name": "million",
        "ours": round(given.rows / prepared["seconds"]),
        "unit": "rows/s",
        "rows": given.rows,
        "taken": prepared["rows"],
        "seconds": round(prepared["seconds"]),
        "ours_peak_mb": round(peak),
    }
    if given.write:
        facts = {
            "pictures": given.pictures,
            "labels_mb": round(folder.joinpath("labels.jsonl").stat().st_size / 1e6),
            "home_mb": round(sum(path.stat().st_size for path in made) / 1e6),
        }
        result.write(RESULT, line, ("numpy", "pillow", "pyarrow", "pydantic"), facts)
    print(json.dumps(line))
    return 0 if prepared["rows"] == given.rows and peak < MOST_MB else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="many rows prepared")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="where rows and home are made and stay")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    parser.add_argument("--side", choices=("prepare",), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(side(given.folder)))
        return 0
    if given.folder:
        return run(given, given.folder)
    with tempfile.TemporaryDirectory() as made:
        return run(given, Path(made))


if __name__ == "__main__":
    sys.exit(main())
