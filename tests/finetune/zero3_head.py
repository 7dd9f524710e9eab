"""Run by torchrun on two processes: the answer loss under ZeRO-3, the head in pieces. Writes what it found.

python -m torch.distributed.run --nproc-per-node 2 tests/finetune/zero3_head.py OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from finetune.answer_loss import teach_answers_only
from finetune.collate import COLUMN, Collator
from finetune.ending import leave
from finetune.operators import leave_out_collectives
from lensmith.large_imports import QuickExit
from tests.finetune.tiny_models import VOCABULARY, qwen3_vl, row

# Six answer tokens and twelve, of which five are scored at a time: two pieces, and three.
ROWS = [row(1, 9, 5, ((4, 6),)), row(2, 4, 1, ((2, 2),))], [row(3, 20, 12, ((2, 2), (4, 4)))]
LOGITS = 5 * VOCABULARY
CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {"stage": 3},
    "zero_allow_untested_optimizer": True,
}


def main(out: Path) -> None:
    """Write this process's loss, number of head calls and gradient of the head."""
    # Here, for the test that reads this file's rows needs none of it.
    import deepspeed
    from deepspeed.utils import safe_get_full_grad

    # Before DeepSpeed is there: it would take the weights apart while they are made.
    model = qwen3_vl()
    head, calls = model.get_output_embeddings(), []
    head.register_forward_hook(lambda *given: calls.append(len(given[2])))
    teach_answers_only(model, LOGITS)
    leave_out_collectives()
    deepspeed.init_distributed("gloo", verbose=False)
    rank = torch.distributed.get_rank()
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=torch.optim.SGD(model.parameters(), 0.0), config=CONFIG
    )
    given = Collator(0)([{COLUMN: each} for each in ROWS[rank]])
    labels = given.pop("labels")
    loss, _, _ = engine(**given, answer_labels=labels)
    engine.backward(loss)
    slope = safe_get_full_grad(head.weight)
    found = {"loss": float(loss.detach()), "calls": len(calls), "gradient": slope.flatten().tolist()}
    (out / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave(QuickExit(), 0)
