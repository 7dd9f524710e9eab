"""The recipe's training settings in the trainer's own words."""

from __future__ import annotations

from pathlib import Path

from trl.trainer.sft_config import SFTConfig

from finetune.launcher import Launcher
from lensmith.recipe import Recipe

SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def checkpointing(every: int) -> dict[str, bool | int]:
    """How transformers is told to recompute one of `every` blocks."""
    return {"use_reentrant": False, "every_n_layers": every}


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
        gradient_checkpointing=train.recomputed > 0,
        gradient_checkpointing_kwargs=checkpointing(train.recomputed) if train.recomputed else None,
        bf16=train.dtype == "bfloat16",
        # With DeepSpeed its own accelerator decides, and accelerate's CPU switch would turn it off.
        use_cpu=launcher.cpu and launcher.zero_stage == 0,
        # Unless told, accelerate's processes do not find each other where DeepSpeed runs without a GPU.
        ddp_backend="gloo" if launcher.cpu and launcher.processes > 1 else None,
        ddp_timeout=train.collective_timeout,
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
        # FSDP2 would keep whole gradients until a step's last pass.
        accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": launcher.fsdp}},
        save_strategy="steps",
        save_steps=train.save_every,
        disable_tqdm=True,
        report_to="none",
    )
