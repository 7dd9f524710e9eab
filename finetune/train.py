"""Fine-tuning: the program that every process runs under `accelerate launch`. Read it top to bottom."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors import safe_open
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    set_seed,
)
from trl.trainer.sft_config import SFTConfig

from finetune import checkpoint as checkpoints
from finetune.adapter import choose_trained
from finetune.collate import Collator, training_rows
from finetune.disk import space_left
from finetune.documents import PackCollator, attend_per_document, rope_positions
from finetune.encoder import count_rows, row_encoder
from finetune.launcher import Launcher, check_method, read_launcher
from finetune.lora import check_saved
from finetune.model import DTYPES, load_model, load_skeleton
from finetune.packing import PackPlan, image_work, plan_run
from finetune.progress import Progress
from finetune.resume import Sealer, resume_point
from finetune.room import memory_left
from finetune.rows import Positions, RowEncoder
from finetune.run import Outcome, run_key, seal_run
from finetune.shared import check_shared
from finetune.tracker import Tracker
from finetune.trainer import AnswerTrainer
from lensmith.artifact import Artifact
from lensmith.base import checkpoint_path, template_digest
from lensmith.counting import Counts
from lensmith.dataset import read_split
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.home import Home
from lensmith.recipe import Recipe
from lensmith.tokens import read_grid

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def train_process(recipe: Recipe, home: Home, base: Artifact, dataset: Artifact) -> None:
    """Train as one of the launcher's processes; the first one writes the run artifact.

    Goes on from the last whole checkpoint of the same key, and ends as if it had never stopped: weights,
    optimizer, schedule, random numbers and row order are restored. Returns at once where the run is there.
    Raises InputError for what the recipe, data, launcher or machine make impossible (a row that is too long,
    LoRA targets that match nothing, a loss that is no number, no space or memory left), IntegrityError where
    the launcher started something else than it states.
    """
    key = run_key(recipe, base, dataset)
    if home.find("run", key) is not None:
        return
    began = time.time()
    source, work = checkpoint_path(base), home.work_path(key)
    with memory_left(recipe.train), space_left(home.root):
        work.mkdir(parents=True, exist_ok=True)
        # Counted before the processes join: ZeRO-3 would partition even a model without memory.
        bare = load_skeleton(source)
        shape = choose_trained(load_skeleton(source), recipe)
        launcher = read_launcher(recipe.train.launcher)
        check_method(launcher, recipe)
        # By the environment first: processes that nobody started cannot be joined.
        check_started(launcher, int(os.environ.get("WORLD_SIZE", "1")), launcher.zero_stage)
        arguments = training_arguments(recipe, launcher, work)
        state = PartialState()
        check_started(launcher, state.num_processes, zero_stage(arguments))
        check_batch(launcher, arguments)
        if launcher.machines > 1:
            check_shared(work, state)

        encoder = row_encoder(recipe, source)
        counts = count_rows(recipe, dataset, source, encoder, state)
        packs = pack_rows(recipe, launcher, dataset, source, bare, counts, arguments)
        start = resume_point(work, launcher, state)
        record: dict[str, Any] = {}
        if start is None or start.manifest.step < start.manifest.steps:
            trainer, tracker = make_trainer(recipe, key, home, source, arguments, encoder, dataset, packs)
            trainer.train(resume_from_checkpoint=str(start.path) if start else None)
            record.update(engine=engine_facts(trainer, launcher), wandb=tracker.status)
            record["resumed_at"] = start.manifest.step if start else 0
        state.wait_for_everyone()
        if state.is_main_process:
            last = checkpoints.last_whole(work)
            if last is None or last[1].step < last[1].steps:
                raise IntegrityError(f"training ended without a whole last checkpoint in {work}")
            check_weights(last[0])
            check_saved(last[0], shape.model)
            record.update(seconds=round(time.time() - began, 1), ended=time.time())
            outcome = Outcome(shape.adapted, shape.parameters, template_digest(source))
            seal_run(recipe, home, base, dataset, last[0], outcome, record)
        state.wait_for_everyone()


def training_arguments(recipe: Recipe, launcher: Launcher, work: Path) -> SFTConfig:
    """The trainer's settings; making them joins this process with the launcher's others."""
    train = recipe.train
    return SFTConfig(
        output_dir=str(work),
        seed=train.seed,
        data_seed=train.seed,
        num_train_epochs=train.epochs,
        max_steps=train.max_steps or -1,
        per_device_train_batch_size=train.batch_size,
        gradient_accumulation_steps=train.gradient_accumulation,
        learning_rate=train.learning_rate,
        lr_scheduler_type=SCHEDULES[train.schedule],
        warmup_steps=train.warmup,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        gradient_checkpointing=train.gradient_checkpointing,
        bf16=train.dtype == "bfloat16",
        # With DeepSpeed its own accelerator decides, and accelerate's CPU switch would turn it off.
        use_cpu=launcher.cpu and launcher.zero_stage == 0,
        # Unless told, accelerate's processes do not find each other where DeepSpeed runs without a GPU.
        ddp_backend="gloo" if launcher.cpu and launcher.processes > 1 else None,
        dataloader_pin_memory=not launcher.cpu,
        # On a CPU workers would take the cores the model needs; encoded rows are kept in memory.
        dataloader_num_workers=0 if launcher.cpu else 4,
        dataloader_persistent_workers=not launcher.cpu,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        # No loss but the answers'.
        router_aux_loss_coef=0.0,
        # A loss averaged over several steps could not be told exactly by a run that was resumed between them.
        logging_steps=1,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="non_padding",
        save_strategy="steps",
        save_steps=train.save_every,
        disable_tqdm=True,
        report_to="none",
    )


@dataclass(frozen=True)
class Packed:
    """What a packed training has beside the recipe: its packs, and how rows get their positions."""

    plan: PackPlan
    positions: Positions


def pack_rows(
    recipe: Recipe,
    launcher: Launcher,
    dataset: Artifact,
    source: Path,
    bare: PreTrainedModel,
    counts: Counts,
    arguments: SFTConfig,
) -> Packed | None:
    """Plan the packs where the recipe asks for them, and let `arguments` take one a forward pass.

    `bare` is the base's skeleton, `counts` what `count_rows` gives. None for rows that are padded.
    """
    if not recipe.train.pack_length:
        return None
    shown = read_split(dataset, "train").epoch()
    patches = read_grid(source, recipe.model_family, recipe.pixel_budget).patches_a_token
    plan = plan_run(recipe, launcher, counts, shown, image_work(bare, recipe.model_family, patches))
    arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps = 1, plan.passes
    # Nothing in a pack is padding; the trainer would look for a mask.
    arguments.include_num_input_tokens_seen = "all"
    return Packed(plan, rope_positions(bare))


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


def make_trainer(
    recipe: Recipe,
    key: str,
    home: Home,
    source: Path,
    arguments: SFTConfig,
    encoder: RowEncoder,
    dataset: Artifact,
    packs: Packed | None,
) -> tuple[AnswerTrainer, Tracker]:
    """The trainer over the chosen towers, with our collator and callbacks."""
    train, work = recipe.train, home.work_path(key)
    stage = zero_stage(arguments)
    # Weights trained in bfloat16 need a float32 master copy: DeepSpeed keeps one, torch's autocast does not.
    master = train.method == "full" and stage == 0
    model = load_model(source, torch.float32 if master else DTYPES[train.dtype])
    model.config.use_cache = False
    if packs is not None:
        attend_per_document(model)
    # After loading, which draws random numbers or not by ZeRO stage: the adapter starts the same everywhere.
    set_seed(train.seed)
    trained = choose_trained(model, recipe, half_adapter=stage == 3)
    tracker = Tracker(recipe, key, home.root)
    trainer = AnswerTrainer(
        recipe,
        model=trained.model,
        args=arguments,
        train_dataset=training_rows(dataset, encoder, packs.positions if packs else None),
        data_collator=PackCollator() if packs else Collator(encoder.pad_id, recipe.model_family.numbers),
        packs=packs.plan if packs else None,
        processing_class=encoder.processor,
        callbacks=[Progress(work, train.log_every), tracker],
    )
    # It would print every step; progress and metrics have their own places.
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Sealer(work, stage, trainer.accelerator.num_processes))
    return trainer, tracker


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


def check_weights(folder: Path) -> None:
    """Raise InputError where a trained weight in the checkpoint is not a finite number."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118  (a safetensors file is not iterable)
                if not bool(file.get_tensor(name).isfinite().all()):
                    raise InputError(
                        "training broke down at its last step",
                        [Problem("holds NaN or infinite values", name, "lower train.learning_rate")],
                    )
