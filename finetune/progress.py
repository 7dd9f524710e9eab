"""What a training tells while it runs: a bar and a live metrics file."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.live import write_progress
from finetune.run import METRICS, metrics


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
        """After each step."""
        if logs is None or "loss" not in logs or not state.is_world_process_zero:
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
