"""The same as train_small.py with a vocabulary of 151,936, as Qwen3-VL has it: what the output head costs.

    python benchmarks/train_vocab.py [--write]

The last line is the result, JSON.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.against_trl import main
from benchmarks.training import Task

TASK = Task("train_vocab", vocabulary=151_936, rows=48, epochs=2, step=16, batch=8, pack_length=1024)

if __name__ == "__main__":
    sys.exit(main(TASK, asked=4.0, tolerance=0.1, description="training a large vocabulary against TRL"))
