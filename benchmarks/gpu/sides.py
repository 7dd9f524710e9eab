"""The two trainers that a case compares: the one that recipes run, and the baseline.

Both get the same weights, the same rows and pictures in memory, LoRA on the same linears (or all weights), as
many rows an optimizer step, dtype, attention kernels (sdpa), workers that encode ahead, optimizer, rate and
gradient checkpointing. Ours packs. Bare TRL is its SFTTrainer with its own collator for images: dynamic
padding, rows of like length together. Against `eager` the baseline is ours, its experts one after the other.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from datasets import Dataset
from PIL import Image as Picture
from transformers import PreTrainedModel, PrinterCallback, set_seed
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from benchmarks.gpu.case import Case
from benchmarks.gpu.flops import Cost
from benchmarks.gpu.model import budget, grid, make_config, make_model, make_processor
from benchmarks.gpu.rows import make_rows
from benchmarks.training import ROOT
from finetune.adapter import choose_trained
from finetune.arguments import training_arguments
from finetune.collate import EncodedRows, training_rows
from finetune.documents import PackCollator, attend_per_document, rope_positions
from finetune.experts import group_experts
from finetune.launcher import Launcher, read_launcher
from finetune.packing import image_work, plan_run
from finetune.patches import embed_by_products
from finetune.rows import RowEncoder
from finetune.trainer import AnswerTrainer
from lensmith.recipe import Recipe, load_recipe

Side = Literal["ours", "baseline"]


@dataclass(frozen=True)
class Prepared:
    """What both sides are made of. counts: int64 [rows, 3], of text, images and answer; costs: the same."""

    case: Case
    recipe: Recipe
    launcher: Launcher
    arguments: SFTConfig
    config: Any
    model: Any
    encoder: RowEncoder
    rows: Any
    counts: Any
    costs: list[Cost]

    def bare(self) -> PreTrainedModel:
        """The model without memory."""
        return make_model(self.case, self.config, torch.device("meta"))


def make_recipe(case: Case, folder: Path, tiny: bool) -> Recipe:
    """The recipe that trains the case; its paths name nothing that is read but the launcher config."""
    mode = "adapt" if case.method == "lora" else "train"
    pixels = budget(case)
    content = {
        "version": 1,
        "family": case.size.family,
        "base": {"path": str(folder)},
        "data": {"source": str(folder), "answer": "text", "split": {"seed": 17}},
        "pixels": {"min_pixels": pixels.min_pixels, "max_pixels": pixels.max_pixels},
        "train": {
            "method": case.method,
            "towers": dict.fromkeys(("vision", "connector", "language"), mode),
            "launcher": str(ROOT / f"recipes/accelerate/{'cpu' if tiny else 'one_gpu'}.yaml"),
            "dtype": case.dtype,
            "max_steps": case.warm_up + case.steps,
            "batch_size": case.step,
            "pack_length": case.pack_length,
            "max_length": case.pack_length,
            "gradient_checkpointing": case.checkpointing,
            "learning_rate": case.learning_rate,
            "schedule": "constant",
            "warmup": 0.0,
            "wandb": "disabled",
        },
        "serve": {"max_model_len": case.pack_length, "max_new_tokens": 16},
        "release": {"name": "throughput", "intended_use": "Measuring throughput."},
        "gates": str(ROOT / "recipes/gates/default.yaml"),
    }
    path = folder / "recipe.yaml"
    # JSON would write small numbers in a way that YAML reads as text.
    path.write_text(yaml.safe_dump(content))
    return load_recipe(path)


def prepare(case: Case, folder: Path, tiny: bool) -> Prepared:
    """Weights, rows and settings, made anew: the sides share nothing that one of them could change."""
    device = torch.device("cpu" if tiny else "cuda")
    recipe = make_recipe(case, folder, tiny)
    launcher = read_launcher(recipe.train.launcher)
    arguments = training_arguments(recipe, launcher, folder)
    arguments.save_strategy = "no"
    processor = make_processor(case.size.family, budget(case))
    config = make_config(case.size, processor)
    model = make_model(case, config, device)
    rows = make_rows(case)
    encoder = RowEncoder(
        processor, recipe.rendering, [processor.tokenizer.eos_token_id], recipe.train.max_length
    )
    counted = encoder.tokens_of(rows, grid(case))
    counts = np.array([(each.text, each.image, each.answer) for each in counted])
    costs = [Cost(each.total, (each.image,), each.answer) for each in counted]
    return Prepared(case, recipe, launcher, arguments, config, model, encoder, rows, counts, costs)


def ours(given: Prepared, experts: str | None = None) -> SFTTrainer:
    """The trainer of `lensmith train`; every row is encoded when it is asked for."""
    recipe, model, arguments = given.recipe, given.model, given.arguments
    # Those that encode ahead are other processes: what they hold is on no GPU.
    bare = given.bare()
    work = image_work(bare, recipe.model_family, grid(given.case).patches_a_token)
    plan = plan_run(recipe, given.launcher, given.counts, given.rows.epoch(), work)
    arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps = 1, plan.passes
    arguments.include_num_input_tokens_seen = "all"
    attend_per_document(model)
    group_experts(model, recipe.model_family)
    embed_by_products(model)
    if experts is not None:
        model.set_experts_implementation(experts)
    set_seed(recipe.train.seed)
    trained = choose_trained(model, recipe).model
    rows = EncodedRows(given.rows, given.encoder, cache_bytes=0, positions=rope_positions(bare))
    return _quiet(
        AnswerTrainer(
            recipe,
            model=trained,
            args=arguments,
            train_dataset=training_rows(rows),
            data_collator=PackCollator(),
            processing_class=given.encoder.processor,
            packs=plan,
        )
    )


def bare_trl(given: Prepared) -> SFTTrainer:
    """TRL's own trainer and collator, which renders and processes; pictures are decoded already."""
    case, arguments, encoder = given.case, given.arguments, given.encoder
    arguments.per_device_train_batch_size = case.batch
    arguments.gradient_accumulation_steps = case.step // case.batch
    arguments.train_sampling_strategy = "group_by_length"
    arguments.length_column_name = "length"
    given.model.set_attn_implementation("sdpa")
    set_seed(given.recipe.train.seed)
    rendered = [encoder.render(row.sample) for row in given.rows]
    pictures = [[Picture.open(io.BytesIO(data)).convert("RGB") for data in row.images] for row in given.rows]
    columns = {
        "row": list(range(len(given.rows))),
        "prompt": [each.prompt_text for each in rendered],
        "completion": [encoder.tokenizer.decode(each.answer_ids) for each in rendered],
        "length": [each.tokens for each in given.costs],
    }

    def with_pictures(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**batch, "images": [pictures[row] for row in batch["row"]]} if "row" in batch else batch

    trainer = SFTTrainer(
        model=choose_trained(given.model, given.recipe).model,
        args=arguments,
        train_dataset=Dataset.from_dict(columns).with_transform(with_pictures),
        processing_class=encoder.processor,
    )
    # As ours: the loss of a step is the mean over all its answer tokens.
    trainer.model_accepts_loss_kwargs = True
    return _quiet(trainer)


def make_trainer(side: Side, given: Prepared) -> SFTTrainer:
    """The trainer of the case's side."""
    if side == "ours":
        return ours(given)
    return bare_trl(given) if given.case.against == "trl" else ours(given, experts="eager")


def _quiet(trainer: SFTTrainer) -> SFTTrainer:
    trainer.remove_callback(PrinterCallback)
    return trainer
