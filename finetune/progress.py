"""What a training tells while it runs: a bar, a live metrics file, and a stop where the loss is no number."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.live import write_progress
from finetune.run import METRICS, metrics
from lensmith.errors import InputError, Problem


class Progress(TrainerCallback):
    """Draws a bar where stderr is a terminal, keeps `progress.txt`, and lets `metrics.jsonl` grow.

    The live metrics file has the run's lines, each with the seconds since this process began to train.
    """

    def __init__(self, work: Path, every: int) -> None:
        self.work = work
        self.every = every
        self.bar: tqdm | None = None
        self.began = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the bar at the step that training goes on from."""
        self.began = time.monotonic()
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="train", disable=None)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """After each step. Raises InputError where loss or gradient is not finite; all processes see it."""
        if logs is None or "loss" not in logs:
            return
        check_finite(state.global_step, logs)
        if not state.is_world_process_zero:
            return
        write_progress(self.work, state.global_step, state.max_steps)
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)
            self.bar.set_postfix(loss=f"{logs['loss']:.4f}", refresh=False)
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            line = metrics(state.log_history, self.every)[-1]
            seconds = round(time.monotonic() - self.began, 3)
            with (self.work / METRICS).open("a") as file:
                file.write(json.dumps({**line, "seconds": seconds}, sort_keys=True) + "\n")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


def check_finite(step: int, logs: Mapping[str, float]) -> None:
    """Raise InputError where the step's loss or gradient norm is NaN or infinite."""
    for name in ("loss", "grad_norm"):
        if name in logs and not math.isfinite(logs[name]):
            raise InputError(
                f"training broke down at step {step}",
                [
                    Problem(
                        f"the {name} is {logs[name]}",
                        f"step {step}",
                        "lower train.learning_rate, or look for broken rows with lensmith preview",
                    )
                ],
            )
