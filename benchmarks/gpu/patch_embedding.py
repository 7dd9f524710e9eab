"""Qwen3-VL's patch embedding as the convolution of its class, and as the matrix product that is the same.

    python benchmarks/gpu/patch_embedding.py [--tiny] [--write]

A pack of 8,192 image tokens' patches, forward and backward to its weights, in bfloat16: milliseconds of both.
The product is what training on a GPU computes (finetune/patches.py). The last line is the result, JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# In the place of this folder, whose names would hide others.
sys.path[:1] = [str(ROOT), str(ROOT / "scripts")]

from benchmarks.gpu import machine  # noqa: E402

NAME = "gpu_patch_embedding"
RESULT = ROOT / "benchmarks" / "results" / f"{NAME}.json"
# Qwen3-VL-8B's: two frames of 16 x 16 pixels, four patches a token.
HIDDEN, KERNEL, PATCHES = 1152, (2, 16, 16), 4 * 8192
ROUNDS = 20
# Of the largest value, by which the two may differ: rounding.
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.02}


def run(tiny: bool) -> dict[str, Any]:
    """Both forms, timed. Raises SystemExit where they are not the same."""
    import torch
    from torch import nn

    from finetune.patches import embed_by_products

    dtype = torch.float32 if tiny else torch.bfloat16
    device = torch.device("cpu" if tiny else "cuda")
    torch.manual_seed(0)
    with torch.device(device):
        convolution = nn.Conv3d(3, HIDDEN, KERNEL, stride=KERNEL).to(dtype)
        patches = torch.randn(64 if tiny else PATCHES, 3, *KERNEL).to(dtype)

    def once() -> Any:
        convolution.zero_grad()
        out = convolution(patches)
        out.sum().backward()
        return out.detach()

    def timed() -> float:
        once()
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(2 if tiny else ROUNDS):
            once()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / (2 if tiny else ROUNDS) * 1e3

    theirs, slid = timed(), once()
    if not embed_by_products(nn.Sequential(convolution)):
        raise SystemExit("the convolution is not over single patches")
    ours, product = timed(), once()
    apart = float((slid - product).abs().max() / slid.abs().max())
    allowed = TOLERANCES[str(dtype).removeprefix("torch.")]
    if not apart <= allowed:
        raise SystemExit(f"the two differ by {apart:.2g} of the largest value, {allowed} is allowed")
    return {
        "name": NAME,
        "ratio": round(theirs / ours, 2),
        "ours": round(ours, 3),
        "baseline": round(theirs, 3),
        "unit": "ms, the baseline is the convolution",
        "apart": apart,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="the patch embedding as a product")
    parser.add_argument("--tiny", action="store_true", help="the same code on a CPU: checked, not measured")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    given = parser.parse_args(argv)
    if given.tiny and given.write:
        parser.error("--tiny measures nothing: a result is of a GPU")
    # Of a peak nothing is asked here.
    machine.check(given.tiny, 1.0)
    line = run(given.tiny)
    if given.write:
        RESULT.write_text(json.dumps({**line, **machine.around()}, indent=2) + "\n")
    print(json.dumps({**line, "tiny": True} if given.tiny else line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
