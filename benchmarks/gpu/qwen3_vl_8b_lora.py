"""Qwen3-VL-8B, LoRA on all linears, rows packed to 8,192 tokens, against bare TRL.

    python benchmarks/gpu/qwen3_vl_8b_lora.py [--tiny] [--write]

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
    sys.exit(main("qwen3_vl_8b_lora", "LoRA on packs, against TRL"))
