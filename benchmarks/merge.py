"""Merging at the speed of the disk: against PEFT's merge_and_unload and save_pretrained, and a plain copy.

    python benchmarks/merge.py [--case dense|double|fused|apart] [--rounds 1] [--write]

A checkpoint in bfloat16 of real shapes with random weights, in four shards, and an adapter of rank 16 on
every linear layer and routed expert, made by `merge_case.py`. "ours" is `lensmith merge` without digests and
proof, which imports and leaves as that does (while it makes the digests, `lensmith merge` imports torch and
asks it whether it multiplies as numpy did); "baseline" PEFT, which loads the model, merges and saves it;
"copy" the same bytes copied by the kernel. Each side is a process of its own with its imports inside the
clock, and what it wrote is on the disk (fsync) before the clock stops. Processor seconds, of all cores, say
the same where the machine or its disk is shared. Memory is the peak of the process tree, pages of mapped
files included. With several rounds the best of each side counts. --folder names another disk; it takes twice
the checkpoint. The last line is the result, JSON; the command fails outside the bounds below.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from benchmarks import result, tree  # noqa: E402
from benchmarks.merge_case import CASES, make_case, open_case  # noqa: E402
from lensmith.large_imports import QuickExit, no_collection  # noqa: E402

RESULTS = Path(__file__).parent / "results"
# At least so many times as fast as PEFT, at most so many times a copy's seconds, at most so many MB.
FASTER, OF_A_COPY, PEAK_MB = 5.0, 1.5, 500.0
SIDES = ("ours", "baseline", "copy")
_READ = 16 << 20


def ours(folder: Path, target: Path) -> None:
    """The merge as `lensmith merge` does it."""
    with no_collection():
        from finetune.merging.weights import write_merged

    case, run = open_case(folder)
    write_merged(folder / "base", case.family, run, target, folder / "work")


def baseline(folder: Path, target: Path) -> None:
    """PEFT's own, as its users write it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    from finetune.peft_names import named_in_full

    _, run = open_case(folder)
    base = AutoModelForImageTextToText.from_pretrained(folder / "base", dtype=torch.bfloat16)
    # Without it PEFT cannot load an adapter of GLM-4.6V's experts that it has saved itself.
    with named_in_full(base):
        adapted = PeftModel.from_pretrained(base, run.path)
    merged = adapted.merge_and_unload(safe_merge=False)
    merged.save_pretrained(target, max_shard_size="1100MB")


def copy(folder: Path, target: Path) -> None:
    """The base's shards, copied by the kernel."""
    for path in (folder / "base").glob("*.safetensors"):
        shutil.copyfile(path, target / path.name)


def run_side(side: str, folder: Path, target: Path) -> None:
    """One side, and what it wrote forced to the disk."""
    {"ours": ours, "baseline": baseline, "copy": copy}[side](folder, target)
    for path in target.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _touch_memory() -> None:
    """Use half of what is free, and give it back: the first use of a page of a virtual machine costs several
    times as much as the next, and a side that comes behind another would find its pages used."""
    count = psutil.virtual_memory().available // 2
    with mmap.mmap(-1, count) as memory:
        for at in range(0, count, mmap.PAGESIZE):
            memory[at] = 1


def measure(side: str, case: str, folder: Path) -> dict[str, float]:
    """Seconds and peak memory of a side; its output is deleted."""
    # None of what went before may still be on its way to the disk, and all have read the base before.
    os.sync()
    _touch_memory()
    for path in (folder / "base").glob("*.safetensors"):
        with path.open("rb", buffering=0) as stream:
            while stream.read(_READ):
                pass
    target = folder / side
    target.mkdir()
    argv = [sys.executable, __file__, "--case", case, "--side", side, "--folder", str(folder)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
    _, peak = tree.peak_while(process)
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    written = sum(path.stat().st_size for path in target.iterdir())
    shutil.rmtree(target)
    # A merge that goes on with what it finds there has nothing to do.
    shutil.rmtree(folder / "work", ignore_errors=True)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv)
    shown = {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "peak_mb": round(peak),
        "gb": round(written / 1e9, 2),
        "load": round(os.getloadavg()[0], 1),
    }
    print(side, json.dumps(shown), file=sys.stderr)
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description="merging against PEFT and against a copy")
    parser.add_argument("--case", choices=CASES, default="dense")
    parser.add_argument("--rounds", type=int, default=1, help="the best of so many counts")
    parser.add_argument(
        "--only", choices=SIDES, action="append", help="only this side (repeatable); no result"
    )
    parser.add_argument("--folder", type=Path, help="where the files lie (default: a temporary one)")
    parser.add_argument(
        "--write", action="store_true", help=f"write {RESULTS.relative_to(ROOT)}/merge_CASE.json"
    )
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        leave = QuickExit()
        run_side(given.side, given.folder, given.folder / given.side)
        if given.side == "ours":
            leave.exit(0)
        return 0
    with tempfile.TemporaryDirectory(prefix="lensmith-merge-", dir=given.folder) as made:
        folder = Path(made)
        size, tensors = make_case(CASES[given.case], folder)
        rounds = [
            {side: measure(side, given.case, folder) for side in given.only or SIDES}
            for _ in range(given.rounds)
        ]
    if given.only:
        return 0
    best = {side: min((each[side] for each in rounds), key=lambda found: found["seconds"]) for side in SIDES}
    seconds = {side: best[side]["seconds"] for side in SIDES}
    line = {
        "name": f"merge_{given.case}",
        "ratio": round(seconds["baseline"] / seconds["ours"], 2),
        "ours": seconds["ours"],
        "baseline": seconds["baseline"],
        "unit": "s",
        "ours_peak_mb": max(each["ours"]["peak_mb"] for each in rounds),
        "baseline_peak_mb": best["baseline"]["peak_mb"],
        "cpu_ratio": round(best["baseline"]["cpu_seconds"] / best["ours"]["cpu_seconds"], 2),
        "of_a_copy": round(seconds["ours"] / seconds["copy"], 2),
    }
    facts = {"gb": round(size / 1e9, 2), "tensors": tensors, "rounds": rounds}
    if given.write:
        packages = ("torch", "transformers", "peft", "safetensors")
        result.write(RESULTS / f"merge_{given.case}.json", line, packages, facts)
    print(json.dumps(line))
    good = line["ratio"] >= FASTER and line["of_a_copy"] <= OF_A_COPY and line["ours_peak_mb"] <= PEAK_MB
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
