"""Where training goes on from: the last whole checkpoint, agreed on by all processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from finetune import checkpoint as checkpoints
from finetune.examiner import Examiner
from finetune.finite import check_finite
from finetune.launcher import Launcher
from finetune.run import METRICS
from lensmith.errors import InputError, Problem
from lensmith.home import Home


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint that training goes on from."""

    path: Path
    manifest: checkpoints.Manifest


@contextlib.contextmanager
def alone(home: Home, key: str) -> Iterator[None]:
    """Wait, as the first process, until no other training of this run is left; the others join later.

    One whose launcher was killed may still be saving its last step.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    with home.locked(f"steps-{key}"):
        yield


def resume_point(work: Path, launcher: Launcher, state: PartialState) -> ResumePoint | None:
    """The last whole checkpoint in `work`, the same for every process; half ones are removed.

    Raises InputError where it was made by another number of processes, ZeRO stage, or with FSDP2 or without:
    optimizer state and random numbers are kept a process; it could only be gone on from as if from scratch.
    """
    choice: list[str | None] = [None]
    if state.is_main_process:
        found = checkpoints.all_whole(work)
        checkpoints.discard_others(work, [folder for folder, _ in found])
        (work / METRICS).unlink(missing_ok=True)
        choice = [found[-1][0].name if found else None]
    broadcast_object_list(choice)
    if choice[0] is None:
        return None
    path = work / choice[0]
    manifest = checkpoints.read_whole(path)
    if manifest is None:
        raise InputError(
            f"process {state.process_index} cannot read {path}",
            [Problem("the first process can", mend="--home must be a directory that all machines share")],
        )
    made = (manifest.processes, manifest.zero_stage, manifest.fsdp)
    if made != (launcher.processes, launcher.zero_stage, launcher.fsdp) and not manifest.finished:
        raise InputError(
            f"the checkpoint after step {manifest.step} cannot be gone on from with this launcher",
            [
                Problem(
                    f"made by {made[0]} processes with {manifest.division}; {launcher.path.name} starts "
                    f"{launcher.processes} with {launcher.division}",
                    str(path),
                    "use the launcher it was made with, or remove it to begin again",
                )
            ],
        )
    return ResumePoint(path, manifest)


class Sealer(TrainerCallback):
    """Makes each saved checkpoint whole with its manifest, then removes those that are not kept.

    keep_last: as in the recipe. examiner: whose scores belong to the checkpoint, and whose best one stays.
    """

    def __init__(self, work: Path, launcher: Launcher, keep_last: int, examiner: Examiner | None) -> None:
        self.work = work
        self.launcher = launcher
        self.keep_last = keep_last
        self.examiner = examiner

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Wait for every process to have written its part, then seal it.

        Raises InputError, in all of them, for weights that are no numbers: the last whole checkpoint stays.
        """
        PartialState().wait_for_everyone()
        check_finite(checkpoints.folder_of(self.work, state.global_step))
        if not state.is_world_process_zero:
            return
        examiner, step = self.examiner, state.global_step
        checkpoints.seal(
            checkpoints.folder_of(self.work, step),
            step,
            state.max_steps,
            self.launcher.processes,
            self.launcher.zero_stage,
            examiner.scores if examiner else (),
            examiner.over if examiner else False,
            self.launcher.fsdp,
        )
        kept = set(checkpoints.sealed_steps(self.work)[-self.keep_last :])
        if examiner and examiner.kept_step is not None:
            kept.add(examiner.kept_step)
        checkpoints.discard_others(self.work, [checkpoints.folder_of(self.work, each) for each in kept])
