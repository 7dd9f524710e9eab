"""Qwen3-VL-4B, all weights trained, rows packed to 8,192 tokens, against bare TRL.

    python benchmarks/gpu/qwen3_vl_4b_full.py [--tiny] [--write]

Images of 256 to 1,024 tokens, random weights; tokens a second, MFU and peak memory of both sides. How these
differ is told in sides.py, what an MFU counts in flops.py. The last line is the result, JSON.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# In the place of this folder, whose names would hide others.
sys.path[:1] = [str(ROOT), str(ROOT / "scripts")]

from benchmarks.gpu.compare import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main("qwen3_vl_4b_full", "training all weights, against TRL"))
