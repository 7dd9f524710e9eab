"""One side of a case, trained and measured."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmarks.gpu.case import Case
from benchmarks.gpu.flops import Counter, Mode
from benchmarks.gpu.forecast import planned_bytes
from benchmarks.gpu.sides import Side, make_trainer, prepare
from finetune.dry_run import base_of
from finetune.model import DTYPES
from lensmith.families.family import Tower

# Rows whose loss both sides tell before and after.
JUDGED = 4


class Watch(TrainerCallback):
    """The clock of the measured steps: stopped only when the device has done all that it was given."""

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.began = self.ended = 0.0
        self.tokens = 0

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == self.warm_up and not self.began:
            _wait()
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            self.tokens, self.began = state.num_input_tokens_seen, time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == state.max_steps:
            _wait()
            self.ended = time.perf_counter()
            self.tokens = state.num_input_tokens_seen - self.tokens


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes(device: torch.device) -> int:
    """The most memory since the measured steps began: of tensors on a GPU; without one, of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def run_side(case: Case, side: Side, tiny: bool, peak: float) -> dict[str, Any]:
    """Train as one side; `peak` is the GPU's FLOPs a second, which an MFU is a share of."""
    with tempfile.TemporaryDirectory(prefix="lensmith-gpu-") as folder:
        given = prepare(case, Path(folder), tiny)
        towers = given.recipe.train.towers
        modes: dict[Tower, Mode] = {
            "vision": towers.vision,
            "connector": towers.connector,
            "language": towers.language,
        }
        flops = Counter(given.model, given.recipe.model_family).step(given.costs, modes)
        trainer = make_trainer(side, given)
        planned = planned_bytes(given, trainer) if side == "ours" else None
        watch = Watch(case.warm_up)
        trainer.add_callback(watch)
        together, one_by_one = losses(trainer, case, range(JUDGED))
        trainer.train()
        after, _ = losses(trainer, case, range(JUDGED))
    seconds = watch.ended - watch.began
    every = sum(each.tokens for each in given.costs)
    # All rows are alike; the measured ones are known by their tokens.
    rate = watch.tokens / every / seconds
    base = base_of(trainer.model)  # pyright: ignore[reportArgumentType]
    ways = base.get_experts_implementation() if given.recipe.model_family.experts else {}
    return {
        "tokens_per_s": watch.tokens / seconds,
        "step_s": seconds / case.steps,
        "mfu": flops.weights * rate / peak,
        "mfu_with_attention": (flops.weights + flops.attention) * rate / peak,
        "flops_a_token": flops.weights / every,
        "peak_bytes": peak_bytes(base.device),
        **({"planned_bytes": planned} if planned else {}),
        "loss_before": together,
        "loss_one_by_one": one_by_one,
        "loss_after": after,
        "settings": {
            "dtype": str(next(base.parameters()).dtype),
            "autocast": bool(trainer.args.bf16),
            "checkpointing": bool(trainer.args.gradient_checkpointing),
            "rows_a_pass": trainer.args.per_device_train_batch_size,
            "passes_a_step": trainer.args.gradient_accumulation_steps,
            "tokens_a_step": round(watch.tokens / case.steps),
            **({"experts": ways.get("text_config")} if ways else {}),
        },
    }


def losses(trainer: Any, case: Case, rows: range) -> tuple[float, float]:
    """Nats an answer token of `rows`, by the trainer's collator and loss: in one batch, and one by one."""
    model = trainer.model.eval()
    whole, answers = _loss(trainer, model, case, list(rows))
    alone = [_loss(trainer, model, case, [row]) for row in rows]
    model.train()
    return float(whole), float(sum(loss * number for loss, number in alone)) / answers


def _loss(trainer: Any, model: Any, case: Case, rows: list[int]) -> tuple[Tensor, int]:
    batch = trainer.data_collator([trainer.train_dataset[row] for row in rows])
    answers = int((batch["labels"][:, 1:] >= 0).sum())
    device, dtype = next(model.parameters()).device, DTYPES[case.dtype]
    given = {name: each.to(device) if isinstance(each, Tensor) else each for name, each in batch.items()}
    with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        return trainer.compute_loss(model, given), answers
