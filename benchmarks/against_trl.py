"""One side of a training benchmark run and measured, and both compared: see training.py for what they are."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks import result
from benchmarks.training import CPU_PRODUCTS, ENVIRONMENT, PACKAGES, ROOT, Task, baseline, make_rows, ours


def final_loss(model: Any, encoder: Any, rows: Sequence[Any]) -> float:
    """Nats an answer token over all rows, one by one, by transformers' own forward pass."""
    import torch

    total, answers = 0.0, 0
    base = model.get_base_model().eval()
    base.set_attn_implementation("sdpa")
    with torch.no_grad():
        for row in rows:
            encoded = encoder.encode(row)
            taught = int((encoded.labels >= 0).sum())
            given = {name: each[None] for name, each in encoded.tokens.items()}
            keep = torch.arange(len(encoded.labels) - taught - 1, len(encoded.labels) - 1)
            logits = base(**given, **encoded.images, logits_to_keep=keep).logits[0]
            total += float(
                torch.nn.functional.cross_entropy(logits, encoded.labels[-taught:], reduction="sum")
            )
            answers += taught
    return total / answers


def run_side(side: str, task: Task) -> dict[str, Any]:
    """Train as one side: its speed, CPU seconds, peak memory of the process in MB, what was learned."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        trainer, model, encoder, first = (ours if side == "ours" else baseline)(task, folder)
        started, used = time.perf_counter(), time.process_time()
        first()
        trainer.train()
        seconds, used = time.perf_counter() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    arguments = trainer.args
    return {
        "samples_per_s": task.rows * task.epochs / seconds,
        "cpu_s": used,
        "peak_mb": peak,
        "loss": final_loss(model, encoder, make_rows(min(task.rows, 48))),
        "settings": {
            "dtype": str(next(model.parameters()).dtype),
            "attention": "sdpa",
            "frozen_products": CPU_PRODUCTS if side == "ours" else "torch",
            "threads": torch.get_num_threads(),
            "rows_a_pass": arguments.per_device_train_batch_size,
            "passes_a_step": arguments.gradient_accumulation_steps,
            "sampling": str(arguments.train_sampling_strategy),
        },
    }


def compare(task: Task, tolerance: float) -> dict[str, dict[str, Any]]:
    """Run both sides: what `run_side` gives of each. Raises SystemExit where they learned differently."""
    script = [str(ROOT / "benchmarks" / f"{task.name}.py")]
    given = ["--rows", str(task.rows), "--epochs", str(task.epochs), "--adapted", task.adapted]
    found = {
        side: result.last_line([*script, *given, "--side", side], result.one_thread(**ENVIRONMENT))
        for side in ("baseline", "ours")
    }
    for side, each in found.items():
        print(f"{side}, {task.adapted}: loss {each['loss']:.4f}, {each['settings']}", file=sys.stderr)
    apart = abs(found["ours"]["loss"] - found["baseline"]["loss"])
    if apart > tolerance:
        raise SystemExit(f"the final losses are {apart:.3f} nats apart, {tolerance} is allowed")
    return found


def ratio(found: dict[str, dict[str, Any]]) -> float:
    return round(found["ours"]["samples_per_s"] / found["baseline"]["samples_per_s"], 1)


def main(task: Task, asked: float, tolerance: float, description: str, beside: Sequence[Task] = ()) -> int:
    """Run both sides, compare what they learned, print and perhaps write the result.

    asked: the ratio that issue 4 asks for. tolerance: of the final losses, in nats an answer token. beside:
    tasks whose ratio is written beside the first one's.
    """
    parser = argparse.ArgumentParser(description=description)
    path = ROOT / "benchmarks" / "results" / f"{task.name}.json"
    parser.add_argument("--write", action="store_true", help=f"write {path.relative_to(ROOT)}")
    parser.add_argument("--rows", type=int, default=task.rows)
    parser.add_argument("--epochs", type=int, default=task.epochs)
    parser.add_argument(
        "--adapted", choices=("all", "language"), default=task.adapted, help=argparse.SUPPRESS
    )
    parser.add_argument("--side", choices=("ours", "baseline"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    task = replace(task, rows=given.rows, epochs=given.epochs, adapted=given.adapted)
    if given.side:
        print(json.dumps(run_side(given.side, task)))
        return 0
    found = compare(task, tolerance)
    asked_beside = beside if given.write else ()
    others = [compare(replace(each, rows=task.rows, epochs=task.epochs), tolerance) for each in asked_beside]
    line = {
        "name": task.name,
        "ratio": ratio(found),
        "ours": round(found["ours"]["samples_per_s"], 2),
        "baseline": round(found["baseline"]["samples_per_s"], 2),
        "unit": "samples/s",
        "ours_peak_mb": round(found["ours"]["peak_mb"]),
        "baseline_peak_mb": round(found["baseline"]["peak_mb"]),
        **{f"ratio_{each.adapted}": ratio(other) for each, other in zip(asked_beside, others, strict=True)},
    }
    if given.write:
        facts = {
            "asked_ratio": asked,
            "adapted": task.adapted,
            "loss": {side: round(each["loss"], 4) for side, each in found.items()},
            "loss_tolerance": tolerance,
            "settings": {side: each["settings"] for side, each in found.items()},
        }
        result.write(path, line, PACKAGES, facts)
    print(json.dumps(line))
    return 0
