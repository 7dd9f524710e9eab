"""Evaluation during training: real answers to the same validation rows, judged as the exam judges them."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.checkpoint import add_scores, folder_of
from finetune.documents import attend_whole
from finetune.evaluation.metrics import judge, metric_values
from finetune.greedy import end_ids, greedy
from finetune.in_step import InStep
from finetune.launcher import read_launcher
from finetune.live import note_evaluation
from finetune.model import DTYPES, load_processor
from finetune.scores import Scored, best_of, is_over
from lensmith.artifact import Artifact
from lensmith.dataset import read_split
from lensmith.exam import proof_rows
from lensmith.recipe import Recipe
from lensmith.report import TITLES, MetricName
from lensmith.signals import Noted


class NoMoreGain(Exception):
    """The training is over before its next step: the last evaluations brought no gain."""


class Examiner(TrainerCallback):
    """Asks the model `train.evaluate.rows` validation rows at its steps; the processes share the rows.

    scores: of all evaluations so far, those before a resume included. over: no gain in `patience` of them,
    so that training ends. Random numbers and gradients are not touched: losses are those of a training
    without it. Told to stop while it asks, it leaves the evaluation out, and makes it up after the resume.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Artifact,
        source: Path,
        work: Path,
        noted: Noted,
        scores: Sequence[Scored],
    ) -> None:
        self.settings = recipe.train.evaluate
        self.metric: MetricName = self.settings.task_metric(recipe.data.answer)
        self.recipe = recipe
        self.source = source
        self.work = work
        self.noted = noted
        self.scores = list(scores)
        state = PartialState()
        chosen = proof_rows(read_split(dataset, "validation"), self.settings.rows)
        self.number = len(chosen)
        self.rows = chosen[state.process_index :: state.num_processes]
        # Asked by a process that waits for others; None where each holds all weights.
        divided = read_launcher(recipe.train.launcher).divides_weights
        self.filler = chosen[0] if divided else None
        self.processor = load_processor(source, recipe.pixel_budget, recipe.train.new_tokens)

    @property
    def over(self) -> bool:
        """Whether the last evaluations brought no gain, as often as the recipe waits for one."""
        return is_over(self.scores, self.metric, self.settings.patience)

    @property
    def kept_step(self) -> int | None:
        """The step whose weights the run would have; None where those are the last one's."""
        best = best_of(self.scores, self.metric)
        return best.step if best is not None and self.settings.keep_best else None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make up for what a stop has left out. Raises NoMoreGain where that ends the training."""
        if not self._due(state):
            return
        # Not to be left out again: after the next step the model is another.
        self._examine(kwargs["model"], state, breakable=False)
        if state.is_world_process_zero:
            add_scores(folder_of(self.work, state.global_step), self.scores, self.over)
        if self.over:
            raise NoMoreGain

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate where it is due; the best so far is saved, and training ends where it gains no more."""
        # After the last step nothing is left to stop: only the evaluation would have to be made up.
        breakable = state.global_step < state.max_steps
        if not self._due(state) or not self._examine(kwargs["model"], state, breakable):
            return
        if self.over:
            control.should_training_stop = True
        if self.over or self.kept_step == state.global_step:
            control.should_save = True

    def _due(self, state: TrainerState) -> bool:
        step = state.global_step
        at = step and (step % self.settings.every == 0 or step == state.max_steps)
        return bool(at) and all(each.step != step for each in self.scores)

    def _examine(self, model: nn.Module, state: TrainerState, breakable: bool) -> bool:
        """Evaluate the model as it is; False where a process was told to stop before it had all answers."""
        began = time.monotonic()
        # Judged rows of all processes; None stands for one that was told to stop.
        tallies: list[tuple[int, ...] | None] = gather_object(self._tallies(model, breakable))
        if None in tallies:
            return False
        sums = np.sum(np.array(tallies, dtype=float), axis=0)
        value = round(float(metric_values(sums)[self.metric]), 6)
        self.scores.append(Scored(step=state.global_step, value=value, rows=self.number))
        if state.is_world_process_zero:
            best = " (the best so far)" if best_of(self.scores, self.metric) == self.scores[-1] else ""
            line = f"step {state.global_step}: {TITLES[self.metric].lower()} {value:.4f}{best}"
            line += f", {self.number} validation rows, {time.monotonic() - began:.1f} s"
            note_evaluation(self.work, line)
            print(f"  {line}", file=sys.stderr, flush=True)
        return True

    def _tallies(self, model: nn.Module, breakable: bool) -> list[tuple[int, ...] | None]:
        rendering, answer = self.recipe.rendering, self.recipe.data.answer
        labels = {row.sample.id: rendering.said(row.sample.messages[-1]) for row in self.rows}
        tallies: list[tuple[int, ...] | None] = []

        def breaks() -> bool:
            return breakable and self.noted.told

        in_step = None
        if self.filler is not None:
            in_step = InStep(model, self.filler, DTYPES[self.recipe.train.dtype], breaks)
        with _asked(model, self.recipe) as bare:
            asked = greedy(
                bare,
                self.processor,
                rendering,
                self.rows,
                end_ids(self.source, bare),
                self.recipe.serve.max_new_tokens,
                in_step=in_step,
            )
            for row in asked:
                if in_step is None and breaks():
                    return [None]
                judged = judge(row.row, row.group, labels[row.row], rendering.spoken(row.answer_text), answer)
                tallies.append(tuple(int(each) for each in judged.tally))
        return [None] if in_step is not None and in_step.broken else tallies


@contextlib.contextmanager
def _asked(model: nn.Module, recipe: Recipe) -> Iterator[PreTrainedModel]:
    """The model in training as one that answers; all of its state is put back."""
    bare = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(bare, PreTrainedModel):
        raise TypeError(f"{type(bare).__name__} is not a model of transformers")
    training, generation = bare.training, bare.generation_config
    device, dtype = bare.device.type, DTYPES[recipe.train.dtype]
    whole = attend_whole(bare) if recipe.train.pack_length else contextlib.nullcontext()
    bare.eval()
    try:
        with torch.random.fork_rng(), whole, torch.autocast(device, dtype, enabled=dtype != torch.float32):
            yield bare
    finally:
        bare.generation_config = generation
        bare.train(training)
