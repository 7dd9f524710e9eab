"""Preparing again after 1% of the pictures have changed: what is done again, and the time against the first.

    python benchmarks/again.py [--files 1000] [--folder FOLDER] [--write]

The files are those of prep.py (see pictures.py), each the picture of one row. They are prepared, 1% of them
are replaced by other pictures of the same kind, and they are prepared again in the same home; then the same
rows in a home that knows nothing, for the id, which must be the same. Each is a process of its own. Counted
are the pictures that workers open, to look at them and to store them; `share` is what is looked at of all.
Time is counted in CPU seconds of all processes, imports included, since other programs may run beside it;
`cpu_share` is that of preparing again of the first time. It is more than 1%: pictures that changed are
decoded and encoded, the files that have them are written, all others are read once, labels are judged anew
and the report is drawn. By 20 and 196 of these rows, none of them changed: 2.3 ms a row (1.1% of the 205 ms
of its first time; 1.2 of them SHA-256 of 2.1 MB), and 0.9 s whatever their number, most of it imports. The
last line is the result, JSON; the command fails where more is looked at than has changed, or the ids
differ.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import many, pictures, result  # noqa: E402

RESULT = Path(__file__).parent / "results" / "again.json"
CHANGED = 0.01


def side(folder: Path, home: str) -> dict[str, Any]:
    """Prepare the folder's rows in a home; how long it took and what the workers opened."""
    from data_prep.decoding.work import Request
    from data_prep.engines.local import LocalEngine
    from data_prep.prepare import prepare
    from data_prep.sight import SEE, STORE
    from lensmith.home import Home

    opened: Counter[str] = Counter()
    look = LocalEngine.look

    def counting(self: LocalEngine, work: str, requests: Iterable[Request]) -> Iterator[Any]:
        for answer in look(self, work, requests):
            opened[work] += 1
            yield answer

    LocalEngine.look = counting
    started = time.perf_counter()
    prepared = prepare(many.recipe(folder, ["data.max_bad=0.05"]), Home(folder / home))
    seconds = time.perf_counter() - started
    rows = sum(prepared.dataset.body["rows"].values())
    ids = [prepared.dataset.id, prepared.held_out.id]
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    # With the imports: what other programs on the machine take does not count here.
    cpu = sum(each.ru_utime + each.ru_stime for each in used)
    counts = {"looked": opened[SEE], "stored": opened[STORE], "rows": rows}
    return {"seconds": seconds, "cpu_s": round(cpu, 2), **counts, "ids": ids}


def make(folder: Path, files: int) -> list[str]:
    """The files and a row for each; the names of those that are whole."""
    planted = pictures.make(folder / "images", files)
    # Copies and broken files are refused each time: they are prep.py's matter.
    whole = sorted(planted.whole)
    with (folder / "labels.jsonl").open("w") as stream:
        for number, name in enumerate(whole):
            asked = [{"type": "image", "path": f"images/{name}"}, {"type": "text", "text": "Read the form."}]
            answer = json.dumps({"account": f"{number:06d}"})
            messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            stream.write(json.dumps({"id": name, "group": name, "messages": messages}) + "\n")
    return whole


def change(folder: Path, names: list[str]) -> int:
    """Put another picture into every hundredth file; how many."""
    changed = names[:: round(1 / CHANGED)]
    kinds = {suffix: kind for kind, suffix in pictures.SUFFIX.items()}
    for number, name in enumerate(changed):
        chance = np.random.default_rng([20261123, number])
        path = folder / "images" / name
        path.write_bytes(pictures.encode(pictures.photo(chance), kinds[path.suffix], 85))
    return len(changed)


def run(given: argparse.Namespace, folder: Path) -> int:
    def measured(home: str) -> dict[str, Any]:
        found = result.last_line([__file__, "--side", home, "--folder", str(folder)], result.one_thread())
        print(home, {key: value for key, value in found.items() if key != "ids"}, file=sys.stderr)
        return found

    names = make(folder, given.files)
    for home in ("home", "fresh"):
        shutil.rmtree(folder / home, ignore_errors=True)
    first = measured("home")
    changed = change(folder, names)
    again, fresh = measured("home"), measured("fresh")
    line = {
        "name": "again",
        "share": round(again["looked"] / first["looked"], 4),
        "changed": changed,
        "looked_at_again": again["looked"],
        "stored_again": again["stored"],
        "rows": again["rows"],
        "first_s": round(first["seconds"], 1),
        "again_s": round(again["seconds"], 1),
        "first_cpu_s": first["cpu_s"],
        "again_cpu_s": again["cpu_s"],
        "cpu_share": round(again["cpu_s"] / first["cpu_s"], 4),
        "same_ids": again["ids"] == fresh["ids"],
    }
    if given.write:
        facts = {"looked_at_first": first["looked"], "stored_first": first["stored"], "workers": 2}
        result.write(RESULT, line, ("numpy", "pillow", "pyarrow"), facts)
    print(json.dumps(line))
    return 0 if line["same_ids"] and again["looked"] == changed else 1


def main() -> int:
    parser = argparse.ArgumentParser(description="preparing again after 1% has changed")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where files and homes are made and stay")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(side(given.folder, given.side)))
        return 0
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
        return run(given, given.folder)
    with tempfile.TemporaryDirectory() as made:
        return run(given, Path(made))


if __name__ == "__main__":
    sys.exit(main())
