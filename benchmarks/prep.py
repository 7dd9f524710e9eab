"""1,000 files checked, near-duplicates found and a manifest written, against a plain `datasets.map`.

    python benchmarks/prep.py [--files 1000] [--rounds 2] [--folder FOLDER] [--write]

The files are made first (see pictures.py): JPEG, PNG and WebP of 1 to 2.5 megapixels, 2% of them corrupt or
repeated. Ours is what `lensmith inspect FOLDER --manifest FILE` calls, with two workers. The baseline is what
one writes without it: `datasets.map(num_proc=2)` over a function that decodes with Pillow and takes
imagehash's phash and a SHA-256 of the pixels, then all pairs of the hashes in numpy. Each run is a process of
its own; its clock starts after the imports and includes the start of the workers. The two run alternately,
the median counts. Checked besides the time, ours by its manifest: both sides refuse exactly the corrupt files
and agree on the size of all others; ours finds every planted copy, and no pair that was not planted; equal
digests of the baseline are planted ones. The last line is the result, JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import pictures, result  # noqa: E402
from benchmarks.tree import peak_while  # noqa: E402

RESULT = Path(__file__).parent / "results" / "prep.json"
WORKERS = 2
# Bits of 64, as is usual with imagehash.
NEAR_BITS = 6
SAMPLE = 12

# One file as either side sees it: (width, height, digest), or None where it is refused.
Seen = tuple[int, int, str] | None


def ours(files: Path, out: Path, names: list[str]) -> dict[str, Any]:
    from data_prep.inspection.given import open_paths
    from data_prep.inspection.inspection import inspect, write_manifest

    started = time.perf_counter()
    write_manifest(inspect(open_paths([files]), WORKERS), out / "ours.jsonl")
    seconds = time.perf_counter() - started
    lines = {line["file"]: line for line in map(json.loads, (out / "ours.jsonl").read_text().splitlines())}
    seen: list[Seen] = [
        None if line["code"] else (line["width"], line["height"], line["digest"])
        for line in (lines[name] for name in names)
    ]
    places = {name: number for number, name in enumerate(names)}
    pairs = [[places[line["copy_of"]], places[name]] for name, line in lines.items() if line["copy_of"]]
    return {"seconds": seconds, "seen": seen, "pairs": pairs}


def manifest(path: Path, names: list[str], seen: list[Seen], pairs: np.ndarray) -> None:
    """One line a file: what it is and of which file it is a copy."""
    copy_of = {int(second): names[int(first)] for first, second in pairs[::-1]}
    with path.open("w") as stream:
        for number, (name, each) in enumerate(zip(names, seen, strict=True)):
            line: dict[str, Any] = {"file": name, "copy_of": copy_of.get(number)}
            line |= (
                {"refused": True}
                if each is None
                else dict(zip(("width", "height", "digest"), each, strict=True))
            )
            stream.write(json.dumps(line) + "\n")


def by_hand(row: dict[str, str]) -> dict[str, Any]:
    """What the baseline does with a file."""
    import imagehash

    try:
        with Image.open(row["path"]) as image:
            image.load()
            picture = image.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        return {"width": 0, "height": 0, "phash": "", "digest": ""}
    state = hashlib.sha256(f"{picture.width}x{picture.height}".encode())
    state.update(picture.tobytes())
    return {
        "width": picture.width,
        "height": picture.height,
        "phash": str(imagehash.phash(picture)),
        "digest": state.hexdigest(),
    }


def baseline(files: Path, out: Path, names: list[str]) -> dict[str, Any]:
    import datasets
    import imagehash

    del imagehash
    datasets.disable_progress_bars()
    started = time.perf_counter()
    table = datasets.Dataset.from_dict({"path": [str(files / name) for name in names]})
    rows = table.map(by_hand, num_proc=WORKERS).to_list()
    seen: list[Seen] = [
        (row["width"], row["height"], row["digest"]) if row["digest"] else None for row in rows
    ]
    kept = np.array([number for number, row in enumerate(rows) if row["digest"]])
    hashes = np.array([int(rows[number]["phash"], 16) for number in kept], np.uint64)
    near = np.argwhere(np.triu(np.bitwise_count(hashes[:, None] ^ hashes[None]) <= NEAR_BITS, 1))
    pairs = kept[near]
    manifest(out / "baseline.jsonl", names, seen, pairs)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "seen": seen, "pairs": pairs.tolist()}


def by_format(files: Path, names: list[str]) -> dict[str, dict[str, float]]:
    """Files a second on one core, by format, over the first few of each."""
    from data_prep.facts import look
    from lensmith.images import ImageLimits

    rates: dict[str, dict[str, float]] = {}
    for suffix in pictures.SUFFIX.values():
        chosen = [files / name for name in names if name.endswith(suffix)][: 4 * SAMPLE : 4]
        sides: dict[str, Callable[[Path], Any]] = {
            "ours": lambda path: look(path.read_bytes(), ImageLimits()),
            "baseline": lambda path: by_hand({"path": str(path)}),
        }
        rates[suffix[1:]] = {}
        for side, work in sides.items():
            work(chosen[0])
            started = time.process_time()
            for path in chosen:
                work(path)
            rates[suffix[1:]][side] = round(len(chosen) / (time.process_time() - started), 1)
    return rates


def faults(planted: pictures.Planted, names: list[str], ran: dict[str, dict[str, Any]]) -> list[str]:
    """What either side got wrong, in words."""
    found = []
    corrupt = set(planted.corrupt)
    for side, one in ran.items():
        refused = {name for name, each in zip(names, one["seen"], strict=True) if each is None}
        found += [f"{side} takes {name}, which is corrupt" for name in sorted(corrupt - refused)]
        found += [f"{side} refuses {name}, which is whole" for name in sorted(refused - corrupt)]
    for name, left, right in zip(names, ran["ours"]["seen"], ran["baseline"]["seen"], strict=True):
        if left and right and left[:2] != right[:2]:
            found.append(f"{name} has {left[:2]} pixels for ours and {right[:2]} for the baseline")
    copies = {(first, second) for first, second in planted.copies}
    pairs = {(names[first], names[second]) for first, second in ran["ours"]["pairs"]}
    found += [f"ours misses that {second} is a copy of {first}" for first, second in sorted(copies - pairs)]
    found += [f"ours takes {second} for a copy of {first}" for first, second in sorted(pairs - copies)]
    by_digest: dict[str, list[str]] = {}
    for name, each in zip(names, ran["baseline"]["seen"], strict=True):
        if each:
            by_digest.setdefault(each[2], []).append(name)
    equal = {pair for same in by_digest.values() for pair in itertools.combinations(same, 2)}
    if equal != set(planted.exact):
        found.append(
            f"the baseline's equal digests are {sorted(equal)}, planted were {sorted(planted.exact)}"
        )
    return found


def measured(side: str, given: argparse.Namespace, files: Path) -> tuple[dict[str, Any], float]:
    """The side's figures, from a process of its own, and the peak memory of its process tree in MB."""
    with tempfile.TemporaryDirectory() as out:
        caches = {"HF_HOME": out, "HF_HUB_OFFLINE": "1", "TMPDIR": out}
        environment = result.one_thread(**caches)
        argv = [sys.executable, __file__, "--side", side, "--folder", str(files), "--files", str(given.files)]
        with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as process:
            said, peak = peak_while(process)
        if process.returncode:
            raise SystemExit(f"{side} ended with code {process.returncode}")
        return json.loads(said.splitlines()[-1]), peak


def run(given: argparse.Namespace, files: Path) -> int:
    planted = pictures.make(files, given.files)
    names = sorted(path.name for path in files.iterdir())
    if given.side:
        sides = {"ours": ours, "baseline": baseline}
        if given.side == "formats":
            said: dict[str, Any] = by_format(files, [name for name in names if name in planted.whole])
        else:
            said = sides[given.side](files, Path(os.environ["TMPDIR"]), names)
            used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
            # With the imports: what other programs on the machine take does not count here.
            said["cpu_s"] = sum(each.ru_utime + each.ru_stime for each in used)
        print(json.dumps(said))
        return 0
    seconds: dict[str, list[float]] = {"ours": [], "baseline": []}
    peaks: dict[str, list[float]] = {"ours": [], "baseline": []}
    ran: dict[str, dict[str, Any]] = {}
    for round_ in range(given.rounds):
        for side in list(seconds)[:: -1 if round_ % 2 else 1]:
            ran[side], peak = measured(side, given, files)
            seconds[side].append(ran[side]["seconds"])
            peaks[side].append(peak)
            print(
                f"{side}: {ran[side]['seconds']:.2f} s, {ran[side]['cpu_s']:.1f} CPU s, {peak:.0f} MB",
                file=sys.stderr,
            )
    wrong = faults(planted, names, ran)
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    rates, _ = measured("formats", given, files)
    for kind, each in rates.items():
        print(f"{kind}: {each['ours']} against {each['baseline']} a second on one core", file=sys.stderr)
    took = {side: statistics.median(each) for side, each in seconds.items()}
    line = {
        "name": "prep",
        "ratio": round(took["baseline"] / took["ours"], 1),
        "ours": round(len(names) / took["ours"], 1),
        "baseline": round(len(names) / took["baseline"], 1),
        "unit": "images/s",
        "ours_peak_mb": round(max(peaks["ours"])),
        "baseline_peak_mb": round(max(peaks["baseline"])),
        "caught": len(planted.corrupt) + len(planted.copies) - sum("ours" in each for each in wrong),
        "planted": len(planted.corrupt) + len(planted.copies),
    }
    if given.write:
        facts = {
            "files": len(names),
            "mix": {f"{kind} {content}": share for kind, content, share in pictures.MIX},
            "megapixels": pictures.MEGAPIXELS,
            "megabytes": round(sum(path.stat().st_size for path in files.iterdir()) / 1e6),
            "seconds": {side: [round(each, 2) for each in runs] for side, runs in seconds.items()},
            "cpu_seconds": {side: round(each["cpu_s"], 1) for side, each in ran.items()},
            "a_core_by_format": rates,
        }
        result.write(RESULT, line, ("datasets", "imagehash", "isal", "numpy", "pillow"), facts)
    print(json.dumps(line))
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="files checked and compared, ours and by hand")
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2, help="runs of each side")
    parser.add_argument("--folder", type=Path, help="where the files are made, or were made before")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    parser.add_argument("--side", choices=("ours", "baseline", "formats"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        return run(given, given.folder or Path(made) / "files")


if __name__ == "__main__":
    sys.exit(main())
