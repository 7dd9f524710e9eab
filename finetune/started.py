"""What the launcher really started, held against what its config states."""

from __future__ import annotations

from typing import Any

from trl.trainer.sft_config import SFTConfig

from finetune.launcher import Launcher
from finetune.trainer import AnswerTrainer
from lensmith.errors import InputError, IntegrityError, Problem


def zero_stage(arguments: SFTConfig) -> int:
    """DeepSpeed's ZeRO stage that this process was started with, 0 without DeepSpeed."""
    return arguments.deepspeed_plugin.zero_stage if arguments.deepspeed_plugin else 0


def check_started(launcher: Launcher, processes: int, zero_stage: int) -> None:
    """Raise IntegrityError where accelerate started other than the launcher config says."""
    found = {"processes": processes, "ZeRO stage": zero_stage}
    stated = {"processes": launcher.processes, "ZeRO stage": launcher.zero_stage}
    problems = [
        Problem(f"{found[name]} started, the launcher config says {stated[name]}", name)
        for name in stated
        if found[name] != stated[name]
    ]
    if problems:
        command = f"accelerate launch --config_file {launcher.path} scripts/train.py RECIPE"
        problems.append(Problem("start it with exactly the recipe's launcher", mend=command))
        raise IntegrityError(f"this is not what {launcher.path} describes", problems)


def check_batch(launcher: Launcher, arguments: SFTConfig) -> None:
    """Raise InputError where this process would split its model over several GPUs (torch's DataParallel).

    Each of them would take `train.batch_size` rows: a multiple of the global batch that the run's key says.
    """
    rows = arguments.per_device_train_batch_size
    if arguments.train_batch_size != rows:
        mend = f"set CUDA_VISIBLE_DEVICES=0 or use a launcher of {arguments.n_gpu} processes"
        raise InputError(
            f"{launcher.path} starts one process, which sees {arguments.n_gpu} GPUs",
            [Problem(f"{arguments.train_batch_size} rows at a time, not {rows}", "train.batch_size", mend)],
        )


def engine_facts(trainer: AnswerTrainer, launcher: Launcher) -> dict[str, Any]:
    """What really ran: the class around the model, its ZeRO stage (0 without DeepSpeed), device, processes.

    Raises IntegrityError where the model was not run by the DeepSpeed stage that the launcher states.
    """
    engine, stage = trainer.model_wrapped, 0
    if launcher.zero_stage:
        # Imported only where it is used: it takes seconds.
        from deepspeed.runtime.engine import DeepSpeedEngine

        stage = engine.zero_optimization_stage() if isinstance(engine, DeepSpeedEngine) else 0
    if stage != launcher.zero_stage:
        raise IntegrityError(f"trained with ZeRO stage {stage}, {launcher.path} says {launcher.zero_stage}")
    return {
        "class": type(engine).__name__,
        "zero_stage": stage,
        "device": str(trainer.accelerator.device),
        "processes": trainer.accelerator.num_processes,
        "machines": launcher.machines,
    }
