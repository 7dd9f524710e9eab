"""Merging and proving a model that is not held, against PEFT, which merges it only.

    python benchmarks/merge_proof.py [--case dense|double] [--write]

The checkpoint and adapters of `merge_case.py`, merged and proven two ways: one adapter, and two of them
combined by TIES (density 0.5, weights 0.7 and 0.5). "proof" is the proof's part on the weights, of a model
too large to be held (`finetune.proving.large`), without the digests that both read anyhow: every byte that
no training reached, and of what was merged a sample (`finetune.proving.sample`). "imports" imports what
that does, and ends: PEFT, by whose own layers it computes, takes most of the memory. "baseline" is PEFT's
merge of the one adapter, and "ours" our merge and its proof together. Each is a process of its own with its
imports inside the clock, what it wrote on the disk; memory is the peak of the process tree. --folder names
another disk; it takes twice the checkpoint. The last line is the result, JSON; the command fails where a
proof does, where both take longer than PEFT, or where a proof takes more memory beside its imports than the
bound below, which does not grow with the model.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from benchmarks import result, tree  # noqa: E402
from benchmarks.merge import baseline as by_peft  # noqa: E402
from benchmarks.merge_case import CASES, make_case, open_case, open_runs  # noqa: E402
from lensmith.large_imports import no_collection  # noqa: E402
from lensmith.left_out import UNUSED, leave_out  # noqa: E402

RESULTS = Path(__file__).parent / "results"
# MB beside the imports.
MORE_MB = 150.0
WAYS = ("lora", "ties")
DENSITY, WEIGHTS = 0.5, (0.7, 0.5)


def merge(folder: Path, way: str) -> dict[str, object]:
    """Write the merged weights."""
    from finetune.combination import Combination
    from finetune.merging.weights import write_combined, write_merged

    case, run = open_case(folder)
    places = folder / "base", case.family
    if way == "lora":
        write_merged(*places, run, folder / "merged", folder / "work")
    else:
        combination = Combination(method="ties", weights=WEIGHTS, density=DENSITY, seed=None)
        adapters = [each.path for each in open_runs(folder)]
        write_combined(*places, adapters, combination, folder / "merged", folder / "work")
    return {}


def imports(folder: Path, way: str) -> dict[str, object]:
    """What the proof imports, as it does."""
    leave_out(*UNUSED)
    with no_collection():
        import finetune.proving.definition
        import finetune.proving.large  # noqa: F401
    return {}


def proof(folder: Path, way: str) -> dict[str, object]:
    """What the proof says of them."""
    imports(folder, way)
    from finetune.combination import Combination
    from finetune.proving.definition import combined_definition, lora_definition
    from finetune.proving.large import sampled_part
    from finetune.proving.regions import read_regions

    case, run = open_case(folder)
    stored, merged = read_regions(folder / "base"), read_regions(folder / "merged")
    if way == "lora":
        definition = lora_definition(folder / "base", run.path, case.family, stored, None)
    else:
        combination = Combination(method="ties", weights=WEIGHTS, density=DENSITY, seed=None)
        adapters = [each.path for each in open_runs(folder)]
        definition = combined_definition(folder / "base", adapters, case.family, stored, combination)
    part = sampled_part(stored, merged, definition, case.family, "0" * 64)
    if part.findings:
        raise SystemExit("\n".join(part.findings))
    return {name: part.facts[name] for name in ("matrices", "sampled", "bit_equal", "changed")}


def baseline(folder: Path, way: str) -> dict[str, object]:
    """PEFT's merge of the one adapter."""
    target = folder / "baseline"
    target.mkdir()
    by_peft(folder, target)
    return {}


OURS = ("merge", "proof", "imports")
SIDES = {"merge": merge, "proof": proof, "imports": imports, "baseline": baseline}


class Side(TypedDict):
    """What was measured of a side, and what it found."""

    seconds: float
    peak_mb: int
    load: float
    found: dict[str, object]


def measure(side: str, way: str, folder: Path) -> Side:
    """Seconds and peak memory of a side, and what it found."""
    os.sync()
    argv = [sys.executable, __file__, "--side", side, "--way", way, "--folder", str(folder)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    started = time.monotonic()
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
    said, peak = tree.peak_while(process)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv)
    shown: Side = {
        "seconds": round(time.monotonic() - started, 2),
        "peak_mb": round(peak),
        "load": round(os.getloadavg()[0], 1),
        "found": json.loads(said.splitlines()[-1]),
    }
    print(way, side, json.dumps(shown), file=sys.stderr)
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description="the merge proof's time and memory")
    parser.add_argument("--case", choices=("dense", "double"), default="dense")
    parser.add_argument("--folder", type=Path, help="where the files lie (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/merge_proof_CASE.json")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        says = SIDES[given.side](given.folder, given.way)
        os.sync()
        print(json.dumps(says))
        return 0
    found: dict[str, dict[str, Side]] = {}
    with tempfile.TemporaryDirectory(prefix="lensmith-proof-", dir=given.folder) as made:
        folder = Path(made)
        size, tensors = make_case(CASES[given.case], folder, adapters=len(WEIGHTS))
        for way in WAYS:
            (folder / "merged").mkdir()
            found[way] = {side: measure(side, way, folder) for side in OURS}
            for left in ("merged", "work"):
                shutil.rmtree(folder / left, ignore_errors=True)
        peft = measure("baseline", WAYS[0], folder)
    one = found[WAYS[0]]
    seconds = one["merge"]["seconds"] + one["proof"]["seconds"]
    ratio = round(peft["seconds"] / seconds, 2)
    line: dict[str, object] = {
        "name": f"merge_proof_{given.case}",
        "ratio": ratio,
        "ours": round(seconds, 2),
        "baseline": peft["seconds"],
        "unit": "s",
        "ours_peak_mb": max(one[side]["peak_mb"] for side in ("merge", "proof")),
        "baseline_peak_mb": peft["peak_mb"],
    }
    for way, sides in found.items():
        line |= {f"{way}_{side}": sides[side]["seconds"] for side in ("merge", "proof")}
        line |= {f"{way}_{side}_peak_mb": sides[side]["peak_mb"] for side in OURS}
    if given.write:
        facts = {"gb": round(size / 1e9, 2), "tensors": tensors, "ways": found, "peft": peft}
        path = RESULTS / f"merge_proof_{given.case}.json"
        result.write(path, line, ("torch", "transformers", "peft", "safetensors"), facts)
    print(json.dumps(line))
    more = max(sides["proof"]["peak_mb"] - sides["imports"]["peak_mb"] for sides in found.values())
    return 0 if more <= MORE_MB and ratio > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
