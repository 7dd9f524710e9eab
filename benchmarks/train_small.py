"""LoRA on the demo's tiny model, mixed image sizes and answer lengths, against bare TRL SFTTrainer.

LoRA on the language model, vision and connector frozen; the written result has beside it `ratio_all`, with
LoRA on all linears.

    python benchmarks/train_small.py [--write]

Each side is a process of its own with one thread; what they share and how they differ is told in
`benchmarks/training.py`. Both must end at the same loss, within 0.1 nats an answer token (their rows come in
another order). The last line is the result, JSON.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.against_trl import main
from benchmarks.training import Task

TASK = Task(
    "train_small",
    vocabulary=0,
    rows=256,
    epochs=3,
    step=32,
    batch=16,
    pack_length=1024,
    adapted="language",
)

if __name__ == "__main__":
    sys.exit(
        main(
            TASK,
            asked=2.0,
            tolerance=0.1,
            description="training against TRL",
            beside=[replace(TASK, adapted="all")],
        )
    )
