"""Tokens of 100,000 rows: counted from image sizes and texts, against the processor that decides.

    python benchmarks/plan.py [--rows 100000] [--sample 200] [--write]

Both sides get the same rows: a conversation and its images, one to three a row, of the sizes that scans and
phone photographs have, under a budget of 1,280 tokens an image. Ours is `RowEncoder.count`. The baseline
renders the conversation with the same template and runs transformers' own processor on text and pictures; the
pictures are made before the clock starts, nothing is read or decoded. It runs on a sample of the rows, its
time is scaled to all of them: it would take more than an hour. On the sample both must say the same number of
tokens, row by row. Each side runs in a process of its own with one thread. The last line is the result, JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from benchmarks import result  # noqa: E402

RESULT = Path(__file__).parent / "results" / "plan.json"
TOKENS = (4, 1280)
PAPER = [(1240, 1754), (1654, 2339), (960, 1280), (1280, 960), (3024, 4032), (640, 480), (800, 300)]
QUESTIONS = [
    "Read the form.",
    "Which account is paid, when, and how much? Answer with JSON only.",
    "Copy the table row by row; leave empty what is empty. Keep leading zeros and the currency.",
]


def rows(number: int) -> tuple[list[Any], list[list[tuple[int, int]]]]:
    """Samples and the sizes of their images, (width, height) in pixels; the same ones at every call."""
    from lensmith.sample import Image, Message, Sample, Text

    rng = np.random.default_rng(7)
    samples, sizes = [], []
    for at in range(number):
        count = int(rng.choice([1, 1, 1, 2, 3]))
        shapes = [PAPER[int(each)] for each in rng.integers(len(PAPER), size=count)]
        # Cropped by hand: no two have quite the same size.
        sizes.append([(int(w * rng.uniform(0.8, 1)), int(h * rng.uniform(0.8, 1))) for w, h in shapes])
        answer = json.dumps({"account": f"{at:06d}", "amount": f"{at / 7:.2f}"})
        images = tuple(Image(f"{at}-{place}.png") for place in range(count))
        asked = Message("user", (*images, Text(QUESTIONS[at % len(QUESTIONS)])))
        samples.append(Sample(f"r{at}", "g", (asked, Message("assistant", (Text(answer),)))))
    return samples, sizes


def encoder_and_grid() -> tuple[Any, Any]:
    from tiny_base.checkpoint import PATCH, make_processor

    from finetune.rows import RowEncoder
    from lensmith import families
    from lensmith.rendering import Rendering
    from lensmith.tokens import ImageGrid, PixelBudget

    area = (2 * PATCH) ** 2
    processor = make_processor()
    bounds = processor.image_processor.size
    bounds["shortest_edge"], bounds["longest_edge"] = TOKENS[0] * area, TOKENS[1] * area
    processor.tokenizer.model_max_length = 1 << 20
    encoder = RowEncoder(
        processor, Rendering(families.get("qwen3_vl")), [processor.tokenizer.eos_token_id], 1 << 20
    )
    return encoder, ImageGrid(2 * PATCH, 1, PixelBudget(TOKENS[0] * area, TOKENS[1] * area))


def ours(number: int, sample: int) -> dict[str, Any]:
    samples, sizes = rows(number)
    encoder, grid = encoder_and_grid()
    encoder.count(samples[:10], sizes[:10], grid)
    started = time.perf_counter()
    counts = encoder.count(samples, sizes, grid)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "totals": counts.sum(axis=1)[:sample].tolist()}


def baseline(number: int, sample: int) -> dict[str, Any]:
    from PIL import Image

    from finetune.prompts import render_text

    samples, sizes = rows(sample)
    encoder, _ = encoder_and_grid()
    processor = encoder.processor
    noise = np.random.default_rng(1).integers(0, 255, (4100, 3100, 3), dtype=np.uint8)
    seconds, totals = 0.0, []
    for at, (row, shapes) in enumerate([(samples[0], sizes[0]), *zip(samples, sizes, strict=True)]):
        pictures = [Image.fromarray(noise[:height, :width]) for width, height in shapes]
        started = time.perf_counter()
        text = render_text(processor, encoder.rendering, row, answered=True)
        length = len(processor(text=[text], images=pictures)["input_ids"][0])
        # The first call is warm-up; the line break behind the end-of-turn is not taught.
        if at:
            seconds += time.perf_counter() - started
            totals.append(length - 1)
    return {"seconds": seconds * number / sample, "totals": totals, "measured_s": seconds}


def measured(side: str, number: int, sample: int) -> dict[str, Any]:
    """The side's figures, from a process of its own."""
    argv = [__file__, "--side", side, "--rows", str(number), "--sample", str(sample)]
    return result.last_line(argv, result.one_thread(TOKENIZERS_PARALLELISM="false"))


def main() -> int:
    parser = argparse.ArgumentParser(description="tokens of many rows, counted and processed")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=200, help="rows that the processor is run on")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    parser.add_argument("--side", choices=("ours", "baseline"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        said = (ours if given.side == "ours" else baseline)(given.rows, given.sample)
        said["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(said))
        return 0
    counted, processed = (measured(side, given.rows, given.sample) for side in ("ours", "baseline"))
    if counted["totals"] != processed["totals"]:
        print("the counts differ from the processor's", file=sys.stderr)
        return 1
    print(
        f"{given.sample} rows took the processor {processed['measured_s']:.1f} s, "
        f"scaled to {given.rows:,} rows; all {given.sample} counts are equal",
        file=sys.stderr,
    )
    line = {
        "name": "plan",
        "ratio": round(processed["seconds"] / counted["seconds"], 1),
        "ours": round(counted["seconds"], 2),
        "baseline": round(processed["seconds"], 1),
        "unit": f"s for {given.rows:,} rows",
        "ours_peak_mb": round(counted["peak_mb"]),
        "baseline_peak_mb": round(processed["peak_mb"]),
    }
    if given.write:
        packages = ("numpy", "pillow", "tokenizers", "torch", "torchvision", "transformers")
        said = f"the processor on {given.sample} rows, scaled; counts equal on all of them"
        result.write(RESULT, line, packages, {"threads": 1, "baseline_is": said})
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
