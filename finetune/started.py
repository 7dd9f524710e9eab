"""What the launcher really started, held against what its config states."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers.training_args
from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from trl.trainer.sft_config import SFTConfig

from finetune.fsdp import check_divided
from finetune.launcher import Launcher
from finetune.trainer import AnswerTrainer
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.recipe import Recipe

if TYPE_CHECKING:
    from deepspeed.runtime.engine import DeepSpeedEngine


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
    if problems and launcher.fsdp:
        problems.append(
            Problem("where accelerate finds no GPU it leaves FSDP out", mend="run lensmith doctor")
        )
    if problems:
        command = f"accelerate launch --config_file {launcher.path} scripts/train.py RECIPE"
        problems.append(Problem("start it with exactly the recipe's launcher", mend=command))
        raise IntegrityError(f"this is not what {launcher.path} describes", problems)


def check_dtype(recipe: Recipe, launcher: Launcher) -> None:
    """Raise InputError where transformers would not train in the recipe's dtype on this machine.

    It asks for a GPU that computes in bfloat16 wherever it is not told that none is used; under DeepSpeed,
    which chooses the device itself, it cannot be told.
    """
    none_used = launcher.cpu and launcher.zero_stage == 0
    if recipe.train.dtype != "bfloat16" or none_used:
        return
    if transformers.training_args.is_torch_bf16_gpu_available():  # pyright: ignore[reportPrivateImportUsage]
        return
    if launcher.cpu:
        what = "transformers trains in bfloat16 under DeepSpeed on GPUs alone"
        mend = "set train.dtype to float32; or, where there are GPUs, use_cpu to false in the launcher config"
    else:
        what, mend = "no GPU of this machine computes in bfloat16", "set train.dtype to float32"
    summary = f"{launcher.path} cannot train in bfloat16 here"
    raise InputError(summary, [Problem(what, "train.dtype", mend)])


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
    """What really ran: the class around the model, its ZeRO stage (0 without DeepSpeed) and what it offloads,
    device, processes; with FSDP2 the share of the weights that this process held.

    Raises IntegrityError where the model was not divided by FSDP2 as the launcher states, or not run by the
    DeepSpeed stage that it states, or not with what it offloads.
    """
    engine, found = trainer.model_wrapped, (0, False, False)
    if engine is None:
        raise TypeError("a trainer without a model")
    divided = {}
    if launcher.fsdp:
        divided["share"] = round(check_divided(engine, launcher.processes, launcher.path), 4)
    else:
        check_undivided(engine, launcher.path)
    if launcher.zero_stage:
        # Imported only where it is used: it takes seconds.
        from deepspeed.runtime.engine import DeepSpeedEngine

        if isinstance(engine, DeepSpeedEngine):
            found = _deepspeed_facts(engine)
    stated = (launcher.zero_stage, launcher.offload_optimizer, launcher.offload_parameters)
    names = ("ZeRO stage", "optimizer in host memory", "parameters in host memory")
    problems = [
        Problem(f"{ran} ran, {launcher.path} says {said}", name)
        for name, ran, said in zip(names, found, stated, strict=True)
        if ran != said
    ]
    if problems:
        raise IntegrityError("this is not what the launcher config describes", problems)
    return {
        "class": type(engine).__name__,
        "zero_stage": found[0],
        "offload": [name for name, on in zip(("optimizer", "parameters"), found[1:], strict=True) if on],
        "device": str(trainer.accelerator.device),
        "processes": trainer.accelerator.num_processes,
        "machines": launcher.machines,
        **divided,
    }


def check_undivided(model: nn.Module, path: Path) -> None:
    """Raise IntegrityError where FSDP divided the model: the launcher config at `path` says nothing of it."""
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (FSDPModule, FullyShardedDataParallel))
    ]
    if found:
        problem = Problem(
            "ACCELERATE_USE_FSDP is set, or an option of accelerate launch", found[0] or "model"
        )
        raise IntegrityError(f"FSDP divided the model, which {path} does not say", [problem])


def _deepspeed_facts(engine: DeepSpeedEngine) -> tuple[int, bool, bool]:
    """ZeRO stage, and whether its optimizer and its parameters lie in host memory, on an engine that ran."""
    from deepspeed.runtime.zero.offload_config import OffloadDeviceEnum

    parameters = engine.zero_offload_param()
    return (
        engine.zero_optimization_stage(),
        engine.zero_cpu_offload(),
        parameters is not None and parameters.device == OffloadDeviceEnum.cpu,
    )
