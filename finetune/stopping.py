"""A training that is told to stop: all its processes agree at a step boundary, and save there."""

from __future__ import annotations

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune.in_step import any_process
from lensmith.errors import StoppedEarly
from lensmith.signals import Noted


class Stopper(TrainerCallback):
    """Ends the training after the step in which any of its processes was told to; the step is saved.

    noted: of this process. step: the step that training began from; later the one that it stopped after.
    """

    def __init__(self, noted: Noted, step: int) -> None:
        self.noted = noted
        self.step = step
        self.stopped = False

    def agree(self) -> bool:
        """Whether any process was told to stop. All of them must ask; all get the same answer."""
        return any_process(self.noted.told)

    def check(self) -> None:
        """For the time before the first step: raise StoppedEarly, in all processes, where one was told."""
        self.stopped = self.agree()
        self.raise_if_stopped()

    def raise_if_stopped(self) -> None:
        """Raise StoppedEarly where the training was ended before its time."""
        if self.stopped:
            raise StoppedEarly(
                f"stopped at step {self.step}: all that was learned is saved; "
                "the same command, given again, goes on"
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Save and end where a process was told to stop. After the last step there is nothing to stop."""
        if state.global_step < state.max_steps and self.agree():
            self.stopped, self.step = True, state.global_step
            control.should_save = control.should_training_stop = True
