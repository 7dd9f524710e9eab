"""The tracker (Weights & Biases): told how training goes, never a reason for it to fail."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.examiner import Examiner
from finetune.run import metrics
from lensmith.recipe import Recipe

if TYPE_CHECKING:
    import wandb

# Seconds to wait for the service before going on offline, and at the end for what is not sent yet.
PATIENCE_S = 30.0


class Tracker(TrainerCallback):
    """Sends the metrics lines to wandb; `status` says in which mode, why if not the recipe's, and when it was
    lost: from then on nothing is sent."""

    def __init__(self, recipe: Recipe, key: str, folder: Path, examiner: Examiner | None = None) -> None:
        self.recipe = recipe
        self.key = key
        self.folder = folder
        self.examiner = examiner
        self.status: str = recipe.train.wandb
        self.run: wandb.Run | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the run on the first process; offline where the service cannot be reached."""
        if not state.is_world_process_zero or self.recipe.train.wandb == "disabled":
            return
        try:
            self.run = self._open(self.recipe.train.wandb)
        except Exception as error:
            self.status = f"offline: {_in_short(error)}"
            print(f"  the tracker cannot be reached: training goes on, {self.status}", file=sys.stderr)
            self._try(state.global_step, self._open_offline)

    def _try(self, step: int, tell: Callable[[], None]) -> None:
        """Let go of the run where it cannot be told: the training goes on without it."""
        try:
            tell()
        # Beside wandb's errors its client gives those of its socket to the service, and some of no class of
        # theirs; where the service failed, taking it down exits.
        except (Exception, SystemExit) as error:
            self.run = None
            self.status += f"; lost at step {step}: {_in_short(error)}"
            print(f"  the tracker is lost: training goes on without it, {self.status}", file=sys.stderr)

    def _open_offline(self) -> None:
        import wandb

        # The service still holds the run that it could not open.
        wandb.teardown()
        self.run = self._open("offline")

    def _open(self, mode: str) -> wandb.Run:
        # Imported where a tracker is asked for: a training without one leaves it out.
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        return wandb.init(
            project=self.recipe.train.wandb_project,
            name=f"{self.recipe.release.name}-{self.key[:12]}",
            # Offline runs cannot be gone on from: each part is a run of its own, in the key's group.
            id=self.key[:24] if mode == "online" else None,
            resume="allow" if mode == "online" else None,
            group=self.key[:24],
            dir=self.folder,
            mode=mode,  # pyright: ignore[reportArgumentType]
            config=self.recipe.train.model_dump(mode="json", exclude={"launcher"}),
            settings=wandb.Settings(
                init_timeout=PATIENCE_S, finish_timeout=PATIENCE_S, silent=True, console="off"
            ),
        )

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Send the newest metrics line when it is due."""
        every = self.recipe.train.log_every
        due = state.global_step % every == 0 or state.global_step == state.max_steps
        if (run := self.run) is not None and logs is not None and "loss" in logs and due:
            line = metrics(state.log_history, every)[-1]
            self._try(state.global_step, lambda: run.log(line, step=state.global_step))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Send what an evaluation at this step came to."""
        if (run := self.run) is None or (examiner := self.examiner) is None or not examiner.scores:
            return
        last = examiner.scores[-1]
        if last.step == state.global_step:
            line = {f"validation/{examiner.metric}": last.value}
            self._try(last.step, lambda: run.log(line, step=last.step))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the run."""
        if self.run is not None:
            self._try(state.global_step, self.run.finish)


def _in_short(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
