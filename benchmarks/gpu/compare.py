"""A case run on both sides and compared: what each of the commands does."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import result
from benchmarks.gpu import machine
from benchmarks.gpu.case import CASES, Case

ROOT = Path(__file__).resolve().parents[2]
SIDES = ("baseline", "ours")
# Nats an answer token by which the sides' first losses may differ, and rows in one batch from rows alone.
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.05}
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

Found = dict[str, dict[str, Any]]


def main(name: str, description: str, argv: list[str] | None = None) -> int:
    """Run the case of this name on both sides; the last line is the result, JSON.

    On a GPU each side is a process of its own. Raises SystemExit with all that the machine lacks, or where
    the sides do not compute the same.
    """
    path = ROOT / "benchmarks" / "results" / f"gpu_{name}.json"
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--tiny", action="store_true", help="the same code on a CPU: checked, not measured")
    parser.add_argument("--write", action="store_true", help=f"write {path.relative_to(ROOT)}")
    parser.add_argument("--checkpointing", action="store_true", help="on both sides, for a smaller GPU")
    parser.add_argument("--peak", type=float, help="dense bfloat16 TFLOP/s of a GPU that is not known here")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.tiny and given.write:
        parser.error("--tiny measures nothing: a result is of a GPU")
    machine.check(given.tiny, given.peak)
    case = CASES[name].tiny() if given.tiny else CASES[name]
    case = replace(case, checkpointing=given.checkpointing)
    if given.side:
        print(json.dumps(_side(case, given.side, given.tiny, given.peak)))
        return 0
    if given.tiny:
        found = {side: _side(case, side, True, given.peak) for side in SIDES}
    else:
        again = ["--checkpointing"] if given.checkpointing else []
        again += ["--peak", str(given.peak)] if given.peak else []
        script = str(Path(__file__).parent / f"{name}.py")
        environment = {**os.environ, **ENVIRONMENT}
        found = {side: result.last_line([script, *again, "--side", side], environment) for side in SIDES}
    for side, each in found.items():
        print(f"{side}: {json.dumps(each)}", file=sys.stderr)
    check(case, found)
    line = line_of(case, found)
    if given.tiny:
        # Of a CPU they would say nothing.
        line = {name: each for name, each in line.items() if name not in ("asked", "met")} | {"tiny": True}
    if given.write:
        path.write_text(json.dumps({**line, **machine.around(), "sides": found}, indent=2) + "\n")
    print(json.dumps(line))
    return 0


def check(case: Case, found: Found) -> None:
    """Raise SystemExit where the sides computed different losses, or the same rows together and alone did, or
    a side has not learned, or the experts were computed in another way than they should be."""
    tolerance = TOLERANCES[case.dtype]
    ours, theirs = found["ours"], found["baseline"]
    problems: list[str] = []
    if (apart := abs(ours["loss_before"] - theirs["loss_before"])) > tolerance:
        problems.append(f"the sides' first losses are {apart:.4g} nats apart, {tolerance} is allowed")
    for side, each in found.items():
        if (apart := abs(each["loss_before"] - each["loss_one_by_one"])) > tolerance:
            problems.append(f"{side}: rows together and alone are {apart:.4g} nats apart")
        if not each["loss_after"] < each["loss_before"]:
            problems.append(f"{side}: the loss did not fall, {each['loss_before']} to {each['loss_after']}")
    if case.against == "eager":
        ways = {side: each["settings"]["experts"] for side, each in found.items()}
        if ways != {"baseline": "eager", "ours": "grouped_mm"}:
            problems.append(f"the experts ran otherwise: {ways}")
    if problems:
        raise SystemExit("\n".join(problems))


def line_of(case: Case, found: Found) -> dict[str, Any]:
    """The result, and what issue 4 asks for."""
    ours, theirs = found["ours"], found["baseline"]
    ratio = ours["tokens_per_s"] / theirs["tokens_per_s"]
    memory = ours["peak_bytes"] / theirs["peak_bytes"]
    asked = {
        "mfu": (case.mfu, ours["mfu"], ">="),
        "ratio": (case.ratio, ratio, ">="),
        "memory": (case.memory, memory, "<="),
    }
    met = {
        name: value >= bound if sign == ">=" else value <= bound
        for name, (bound, value, sign) in asked.items()
        if bound is not None
    }
    return {
        "name": f"gpu_{case.name}",
        "ratio": round(ratio, 2),
        "ours": round(ours["tokens_per_s"]),
        "baseline": round(theirs["tokens_per_s"]),
        "unit": "tokens/s",
        "ours_peak_mb": round(ours["peak_bytes"] / 1e6),
        "baseline_peak_mb": round(theirs["peak_bytes"] / 1e6),
        "planned_peak_mb": round(ours["planned_bytes"] / 1e6),
        "mfu": round(ours["mfu"], 4),
        "baseline_mfu": round(theirs["mfu"], 4),
        "mfu_with_attention": round(ours["mfu_with_attention"], 4),
        "memory": round(memory, 3),
        "asked": {name: bound for name, (bound, _, _) in asked.items() if bound is not None},
        "met": met,
    }


def _side(case: Case, side: Any, tiny: bool, peak: float | None) -> dict[str, Any]:
    # Imported here: what is missing is told before.
    import torch

    from benchmarks.gpu.measure import run_side

    if tiny:
        # Of no machine: a share of a TFLOP/s.
        return run_side(case, side, True, 1e12)
    known = machine.peak_of(torch.cuda.get_device_name())
    flops = peak * 1e12 if peak else known
    if flops is None:
        raise SystemExit("the GPU's peak is not known: --peak TFLOPS")
    return run_side(case, side, False, flops)
