"""Fine-tuning: the program that every process runs under `accelerate launch`. Read it top to bottom."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn
from transformers import PrinterCallback, set_seed
from trl.trainer.sft_config import SFTConfig

from finetune import checkpoint as checkpoints
from finetune.adapter import choose_trained
from finetune.arguments import training_arguments
from finetune.blank_image import blank_image, needs_blank_image, see_blank_image
from finetune.collate import Collator, EncodedRows, training_rows
from finetune.disk import space_left
from finetune.documents import PackCollator, attend_per_document
from finetune.encoder import check_taught, count_rows, row_encoder
from finetune.examiner import Examiner, NoMoreGain
from finetune.experts import check_experts, gather_experts_whole, group_experts
from finetune.features import keep_features
from finetune.fsdp import Divided, divide_by_blocks
from finetune.launcher import read_launcher
from finetune.lora import check_saved
from finetune.model import DTYPES, load_model, load_skeleton
from finetune.new_tokens import NONE, NewTokens, read_new_tokens
from finetune.operators import load_operators
from finetune.packed import Packed, pack_rows
from finetune.patches import embed_by_products
from finetune.possible import check_possible
from finetune.preference_trainer import PreferenceTrainer
from finetune.progress import Progress
from finetune.quantized import read_quantized
from finetune.resume import Sealer, alone, resume_point
from finetune.room import memory_left
from finetune.run import Outcome, evaluated_by, run_key, seal_run
from finetune.shared import check_shared
from finetune.started import check_batch, check_dtype, check_started, engine_facts, zero_stage
from finetune.stopping import Stopper
from finetune.tracker import Tracker
from finetune.trainer import AnswerTrainer
from finetune.waiting import check_patience, others_come
from lensmith.artifact import Artifact
from lensmith.base import checkpoint_path, template_digest
from lensmith.dataset import read_split
from lensmith.errors import IntegrityError
from lensmith.home import Home
from lensmith.recipe import Recipe
from lensmith.signals import Noted


def train_process(
    recipe: Recipe, home: Home, base: Artifact, dataset: Artifact, stop: Noted | None = None
) -> None:
    """Train as one of the launcher's processes; the first one writes the run artifact.

    Goes on from the last whole checkpoint of the same key, and ends as if it had never stopped: weights,
    optimizer, schedule, random numbers and row order are restored. Returns at once where the run is there.
    stop: notes SIGTERM; told in any process, all of them save after their step and raise StoppedEarly.
    Raises InputError for what the recipe, data, launcher or machine make impossible (a row that is too long,
    LoRA targets that match nothing, a loss that is no number, no space or memory left), IntegrityError where
    the launcher started something else than it states.
    """
    key = run_key(recipe, base, dataset)
    if home.find("run", key) is not None:
        return
    began = time.time()
    source, work = checkpoint_path(base), home.work_path(key)
    with others_come(recipe.train), memory_left(recipe.train), space_left(home.root), alone(home, key):
        work.mkdir(parents=True, exist_ok=True)
        # Counted before the processes join: ZeRO-3 would partition even a model without memory.
        bare = load_skeleton(source) if recipe.train.pack_length else None
        new = read_new_tokens(source, recipe.train.new_tokens)
        shape = choose_trained(load_skeleton(source), recipe, new=new)
        launcher = read_launcher(recipe.train.launcher)
        check_possible(recipe, launcher, dataset)
        # By the environment first: processes that nobody started cannot be joined.
        check_started(launcher, int(os.environ.get("WORLD_SIZE", "1")), launcher.zero_stage)
        check_dtype(recipe, launcher)
        # Before the processes join, for which DeepSpeed wants them.
        load_operators(launcher)
        arguments = training_arguments(recipe, launcher, work)
        state = PartialState()
        check_started(launcher, state.num_processes, zero_stage(arguments))
        check_patience(recipe.train)
        check_batch(launcher, arguments)
        if launcher.machines > 1:
            check_shared(work, state)

        encoder = row_encoder(recipe, source)
        check_taught(new, dataset, encoder)
        counts = count_rows(recipe, dataset, source, encoder, state)
        packs = pack_rows(recipe, launcher, dataset, source, encoder, bare, counts, arguments)
        start = resume_point(work, launcher, state)
        record: dict[str, Any] = {}
        if start is None or not start.manifest.finished:
            noted = stop or Noted()
            stopper = Stopper(noted, start.manifest.step if start else 0)
            stopper.check()
            examiner = None
            if recipe.train.evaluate.every:
                scores = start.manifest.scores if start else ()
                examiner = Examiner(recipe, dataset, source, work, noted, scores)
            rows = EncodedRows(
                read_split(dataset, "train"),
                encoder,
                positions=packs and packs.positions,
                workers=arguments.dataloader_num_workers,
            )
            trainer, tracker = make_trainer(recipe, key, home, source, arguments, rows, packs, examiner, new)
            record["image_features"] = keep_features(trainer, launcher, rows, counts)
            trainer.add_callback(stopper)
            stopper.check()
            with contextlib.suppress(NoMoreGain):
                trainer.train(resume_from_checkpoint=str(start.path) if start else None)
            record.update(check_base(trainer.model, recipe))
            experts = check_experts(trainer.base, recipe.model_family)
            record.update(engine=engine_facts(trainer, launcher) | experts, wandb=tracker.status)
            stopper.raise_if_stopped()
            record["resumed_at"] = start.manifest.step if start else 0
        state.wait_for_everyone()
        if state.is_main_process:
            last = checkpoints.last_whole(work)
            if last is None or not last[1].finished:
                raise IntegrityError(f"training ended without a whole last checkpoint in {work}")
            evaluated = evaluated_by(recipe, work, last[1])
            chosen = evaluated.chosen if evaluated else last[0]
            check_saved(chosen, shape.model)
            record.update(seconds=round(time.time() - began, 1), ended=time.time())
            outcome = Outcome(
                shape.adapted, shape.parameters, template_digest(source), read_quantized(work), new.ids
            )
            seal_run(recipe, home, base, dataset, last[0], outcome, record, evaluated)
        state.wait_for_everyone()


def make_trainer(
    recipe: Recipe,
    key: str,
    home: Home,
    source: Path,
    arguments: SFTConfig,
    rows: EncodedRows,
    packs: Packed | None,
    examiner: Examiner | None = None,
    new: NewTokens = NONE,
) -> tuple[AnswerTrainer, Tracker]:
    """The trainer over the chosen towers, with our collator and callbacks."""
    train, family, work = recipe.train, recipe.model_family, home.work_path(key)
    launcher = read_launcher(train.launcher)
    stage = zero_stage(arguments)
    # Weights trained in bfloat16 need a float32 master copy: DeepSpeed keeps one, torch's autocast does not.
    master = train.method == "full" and stage == 0
    model = load_model(source, torch.float32 if master else DTYPES[train.dtype])
    model.config.use_cache = False
    group_experts(model, recipe.model_family)
    if arguments.device.type != "cpu":
        # On a CPU, too, it would be faster; what trainings give there would change in the last bits.
        embed_by_products(model)
    if train.method == "qlora":
        # Imported only where it is used: bitsandbytes takes seconds.
        from finetune.four_bit import hold_in_four_bits

        hold_in_four_bits(model, recipe, work)
    if packs is not None:
        attend_per_document(model)
    if needs_blank_image(recipe, launcher):
        see_blank_image(model, family, blank_image(family, rows.encoder.processor))
    # After loading, which draws random numbers or not by ZeRO stage: the adapter starts the same everywhere.
    set_seed(train.seed)
    trained = choose_trained(model, recipe, half_adapter=stage == 3, new=new)
    if stage == 3 and "experts" in trained.adapted:
        gather_experts_whole(trained.model)
    tracker = Tracker(recipe, key, home.root, examiner)
    trainer = (PreferenceTrainer if train.objective == "dpo" else AnswerTrainer)(
        recipe,
        model=trained.model,
        args=arguments,
        train_dataset=training_rows(rows),
        data_collator=PackCollator.of(family) if packs else Collator(rows.encoder.pad_id, family.numbers),
        packs=packs.plan if packs else None,
        processing_class=rows.encoder.processor,
        # The tracker tells what the examiner has found.
        callbacks=[*([examiner] if examiner else []), Progress(work, train.log_every), tracker],
    )
    if launcher.fsdp:
        divide_by_blocks(trainer.accelerator, trained.model, DTYPES[train.dtype])
        trainer.add_callback(Divided(launcher))
    # It would print every step; progress and metrics have their own places.
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Sealer(work, launcher, train.keep_last, examiner))
    return trainer, tracker


def check_base(model: nn.Module | None, recipe: Recipe) -> dict[str, int]:
    """For a run's record, how many linears were trained on in 4 bits; nothing for other methods than qlora.

    Raises IntegrityError where they are not all that should be.
    """
    if recipe.train.method != "qlora":
        return {}
    from finetune.four_bit import check_in_four_bits

    return {"linears_in_4_bits": check_in_four_bits(model, recipe.model_family)}
