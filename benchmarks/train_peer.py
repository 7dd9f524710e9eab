"""LoRA on the language model of the demo's tiny model, against LLaMA-Factory in an environment of its own.

    python benchmarks/train_peer.py [--write] [--pairs 5]

The first call makes the environment below .cache/peer from benchmarks/peer_requirements.txt (about 2 GB).
Both train the same weights on the same pictures and answers: rows an optimizer step, epochs, float32, sdpa,
one thread, LoRA's rank and linears, and rate are equal; `benchmarks/peer.py` has the peer's other settings.
Their runs alternate, and the ratio is the median of the pairs' ratios. What is compared is samples by second
of CPU time of the process: with one thread that is its speed on a core of its own, whatever else the machine
does. By the wall's clock the same is written beside it, as `ratio_wall` and in `pairs`.

Start-up counts for neither. The peer's seconds are those of its trainer's own `train_runtime`: loading and
tokenizing lie before it. Ours begin a little earlier and end a little later: they hold the pass that keeps
what frozen towers make of pictures, the encoding of rows, and what a trainer does before its clock starts.

Then the peer's tokenized rows are held against ours token for token, its adapter's weights by name and shape,
and both adapters' losses are measured by the same code on the same rows: they must be within 0.1 nats an
answer token (their rows come in another order, their adapters start at other random numbers). Its template
teaches one token more a row, the line break after an answer. The last line is the result, JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import peer, peer_environment, result
from benchmarks.against_trl import final_loss, run_side
from benchmarks.training import ENVIRONMENT, PACKAGES, ROOT, Task, make_model, make_rows

TASK = Task(
    "train_peer", vocabulary=0, rows=256, epochs=3, step=32, batch=16, pack_length=1024, adapted="language"
)
TOLERANCE = 0.1


def make_base(task: Task, folder: Path) -> None:
    """The untaught weights that both train, as a checkpoint directory."""
    from tiny_base import checkpoint

    processor = checkpoint.make_processor()
    checkpoint.save(
        folder, checkpoint.make_model(checkpoint.make_config(checkpoint.DEMO, processor), 0), processor
    )


def judge(task: Task, work: Path, trained: Path) -> dict[str, Any]:
    """What the peer learned, measured as ours is. Raises SystemExit where it learned something else."""
    from datasets import DatasetDict
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    model, encoder = make_model(task)
    theirs = load_file(trained / "adapter_model.safetensors")
    ours = get_peft_model_state_dict(model)
    peer.same_adapter(*({name: tuple(each.shape) for name, each in side.items()} for side in (ours, theirs)))
    rows = [encoder.encode(row) for row in make_rows(task.rows)]
    taught = peer.same_rows(
        [(row.tokens["input_ids"].tolist(), row.labels.tolist()) for row in rows],
        DatasetDict.load_from_disk(str(work / "tokenized"))["train"].to_list(),
        encoder.tokenizer.encode("\n"),
    )
    set_peft_model_state_dict(model, theirs)
    return {
        "loss": final_loss(model, encoder, make_rows(min(task.rows, 48))),
        "answer_tokens": taught,
        "trainable": model.get_nb_trainable_parameters()[0],
    }


def speeds(
    task: Task, ours: Sequence[Mapping[str, Any]], theirs: Sequence[peer.Run]
) -> list[tuple[float, float]]:
    """Samples by CPU second of every pair, ours first."""
    samples = task.rows * task.epochs
    return [(samples / a["cpu_s"], samples / b.cpu_s) for a, b in zip(ours, theirs, strict=True)]


def walls(ours: Sequence[Mapping[str, Any]], theirs: Sequence[peer.Run]) -> list[tuple[float, float]]:
    """Samples by second of every pair, ours first."""
    return [(a["samples_per_s"], b.samples_per_s) for a, b in zip(ours, theirs, strict=True)]


def _told(pair: tuple[float, float]) -> str:
    return "ours {:.2f}, the peer {:.2f}".format(*pair)


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the pairs' ratios: other work on the machine slows both runs of a pair."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


def check(ours: Mapping[str, Any], runs: Sequence[peer.Run], judged: Mapping[str, Any]) -> None:
    """Raises SystemExit where both did not train the same number of weights to the same loss."""
    trained = {run.trainable for run in runs}
    if trained != {judged["trainable"]}:
        raise SystemExit(f"the peer says that it trains {trained} weights, ours are {judged['trainable']}")
    apart = abs(ours["loss"] - judged["loss"])
    if apart > TOLERANCE:
        raise SystemExit(f"the final losses are {apart:.3f} nats apart, {TOLERANCE} is allowed")


def compare(task: Task, pairs: int, python: Path, work: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run everything: the line, and the facts for the written result."""
    script = str(ROOT / "benchmarks" / "train_peer.py")
    given = [script, "--rows", str(task.rows), "--epochs", str(task.epochs), "--work", str(work)]

    def child(side: str) -> dict[str, Any]:
        return result.last_line([*given, "--side", side], result.one_thread(**ENVIRONMENT))

    child("base")
    peer.write_rows(task, work / "rows")
    ours: list[dict[str, Any]] = []
    theirs: list[peer.Run] = []
    for pair in range(pairs):
        for first in (pair % 2 == 0, pair % 2 != 0):
            if first:
                ours.append(child("ours"))
            else:
                theirs.append(peer.train(python, task, work, work / f"peer{pair}"))
        print(
            f"pair {pair + 1}, samples a CPU second: {_told(speeds(task, ours, theirs)[-1])}", file=sys.stderr
        )
        print(f"pair {pair + 1}, samples a second: {_told(walls(ours, theirs)[-1])}", file=sys.stderr)
    judged = child("judge")
    check(ours[0], theirs, judged)
    mine, other = zip(*speeds(task, ours, theirs), strict=True)
    line = {
        "name": task.name,
        "ratio": round(ratio_of(mine, other), 1),
        "ours": round(statistics.median(mine), 2),
        "baseline": round(statistics.median(other), 2),
        "unit": "samples/CPU s",
        "ours_peak_mb": round(max(each["peak_mb"] for each in ours)),
        "baseline_peak_mb": round(max(each.peak_mb for each in theirs)),
        "ours_loss": round(ours[0]["loss"], 4),
        "baseline_loss": round(judged["loss"], 4),
        "ratio_wall": round(ratio_of(*zip(*walls(ours, theirs), strict=True)), 1),
        "samples": task.rows * task.epochs,
        "baseline_versions": peer_environment.versions(python),
    }
    facts = {
        "pairs": {
            unit: [[round(each, 2) for each in pair] for pair in measured]
            for unit, measured in (
                ("samples/CPU s", speeds(task, ours, theirs)),
                ("samples/s", walls(ours, theirs)),
            )
        },
        "adapted": task.adapted,
        "trainable": judged["trainable"],
        "answer_tokens": judged["answer_tokens"],
        "loss_tolerance": TOLERANCE,
        "settings": {
            "baseline": {
                name: value
                for name, value in peer.settings(task, work, work).items()
                if not str(value).startswith(str(work))
            },
            "ours": ours[0]["settings"],
        },
    }
    return line, facts


def main() -> int:
    parser = argparse.ArgumentParser(description="training against LLaMA-Factory")
    path = ROOT / "benchmarks" / "results" / f"{TASK.name}.json"
    parser.add_argument("--write", action="store_true", help=f"write {path.relative_to(ROOT)}")
    parser.add_argument("--rows", type=int, default=TASK.rows)
    parser.add_argument("--epochs", type=int, default=TASK.epochs)
    parser.add_argument("--pairs", type=int, default=5, help="of runs, one of each side")
    parser.add_argument("--side", choices=("base", "ours", "judge"), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    task = replace(TASK, rows=given.rows, epochs=given.epochs)
    if given.side == "base":
        make_base(task, given.work / "base")
        print("{}")
    elif given.side == "ours":
        print(json.dumps(run_side("ours", task)))
    elif given.side == "judge":
        print(json.dumps(judge(task, given.work, given.work / "peer0" / "trained")))
    else:
        python = peer_environment.make(ROOT / ".cache" / "peer")
        with tempfile.TemporaryDirectory() as work:
            line, facts = compare(task, given.pairs, python, Path(work))
        for side, settings in facts["settings"].items():
            print(f"{side}: {settings}", file=sys.stderr)
        if given.write:
            result.write(path, line, PACKAGES, facts)
        print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
