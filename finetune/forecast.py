"""The memory of a recipe's training in any setting: of its longest rows, or its largest pack."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from finetune.adapter import choose_trained
from finetune.answer_loss import LOGITS
from finetune.collate import COLUMN, Collator
from finetune.documents import PackCollator, attend_per_document, row_positions
from finetune.dry_answers import dry_answers, largest_batch
from finetune.dry_run import Step, base_of, dry_step
from finetune.encoded import IGNORED, Encoded
from finetune.fsdp import gathered_of
from finetune.launcher import Launcher
from finetune.lengths import RowTokens
from finetune.memory import NOTHING, Gathered, Memory, training_memory
from finetune.model import DTYPES, in_dtype, load_skeleton
from finetune.new_tokens import NONE, NewTokens
from finetune.packing import PackPlan, image_work, plan_run
from finetune.quantized import quantized_linears
from finetune.rows import RowEncoder
from lensmith.artifact import Artifact
from lensmith.dataset import read_split
from lensmith.exam import proof_rows
from lensmith.families.family import Tower
from lensmith.recipe import Recipe
from lensmith.tokens import read_grid
from lensmith.train_settings import Train

Batch = Mapping[str, Tensor]


class Forecast:
    """What a recipe's training would take under any of its settings; each pass is run dry once.

    counts: int64 [rows, 3], text, image and answer tokens of the training rows; shown: those of an epoch.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Artifact,
        encoder: RowEncoder,
        counted: Sequence[RowTokens],
        parameters: int,
        trained: Mapping[Tower, int],
        new: NewTokens = NONE,
    ) -> None:
        """`counted` by row; `parameters` of the base, `trained` by tower; the recipe's `new` tokens."""
        self.recipe, self.encoder, self.new = recipe, encoder, new
        self.trained = sum(trained.values())
        self.parameters = parameters + (self.trained if recipe.train.adapts else 0)
        self._dataset, self._rows = dataset, read_split(dataset, "train")
        self.shown = self._rows.epoch()
        self.counts = np.array([(each.text, each.image, each.answer) for each in counted], np.int64)
        self._longest = np.argsort(-self.counts.sum(axis=1), kind="stable").tolist()
        self._bare = load_skeleton(recipe.base.path)
        names = quantized_linears(recipe.model_family, self._bare.config.to_dict())
        held = names if recipe.train.method == "qlora" else []
        self._in_4_bits = sum(self._bare.get_parameter(f"{name}.weight").numel() for name in held)
        self._encoded: dict[int, Encoded] = {}
        self._packs: dict[int, PackPlan] = {}
        self._steps: dict[tuple[int, int, int, bool], Step] = {}
        self._answers: dict[tuple[int, bool], int] = {}

    def memory(self, train: Train, launcher: Launcher) -> Memory:
        """Of one device, under the recipe's `train` and `launcher` or these with another setting."""
        packs = self.packs(train, launcher)
        batch = self._batch(train, packs)
        return training_memory(
            train,
            launcher,
            self.parameters,
            self.trained,
            self._step(train, batch, divided=launcher.in_weights_dtype),
            self._logits(train, batch),
            train.gradient_accumulation if packs is None else packs.passes,
            self._in_4_bits,
            self._answered(train, launcher) if train.evaluate.every else 0,
            self._gathered() if launcher.fsdp else NOTHING,
        )

    def packs(self, train: Train, launcher: Launcher) -> PackPlan | None:
        """The packs under `train`; None where rows are padded."""
        if not train.pack_length:
            return None
        if train.pack_length not in self._packs:
            recipe = self.recipe.model_copy(update={"train": train})
            patches = read_grid(recipe.base.path, recipe.model_family, recipe.pixel_budget).patches_a_token
            work = image_work(self._bare, recipe.model_family, patches)
            self._packs[train.pack_length] = plan_run(recipe, launcher, self.counts, self.shown, work)
        return self._packs[train.pack_length]

    def _batch(self, train: Train, packs: PackPlan | None) -> Batch:
        """The longest rows, or the largest pack of the first epoch, as the collator gives them to a pass."""
        if packs is None:
            rows = [{COLUMN: self._encode(number)} for number in self._longest[: train.batch_size]]
            return Collator(self.encoder.pad_id, self.recipe.model_family.numbers)(rows)
        totals = self.counts.sum(axis=1)
        every = (pack for shared in packs.steps(0) for each in shared for pack in each)
        largest = max(
            ([self.shown[place] for place in pack] for pack in every), key=lambda pack: totals[pack].sum()
        )
        family = self.recipe.model_family
        positions = row_positions(self._bare, family)
        rows = [self._encode(number) for number in largest]
        return PackCollator.of(family)(
            [{COLUMN: replace(each, positions=positions(each.tokens, each.images))} for each in rows]
        )

    def _encode(self, number: int) -> Encoded:
        if number not in self._encoded:
            self._encoded[number] = self.encoder.encode(self._rows[number])
        return self._encoded[number]

    def _logits(self, train: Train, batch: Batch) -> int:
        """Bytes of the logits that exist at a time, as finetune/answer_loss.py cuts them."""
        answers = int((batch["labels"][:, 1:] != IGNORED).sum())
        vocabulary = int(self._bare.config.get_text_config().vocab_size)
        pieces = max(1, math.ceil(answers * vocabulary / LOGITS))
        return math.ceil(answers / pieces) * vocabulary * DTYPES[train.dtype].itemsize

    def _loaded(self, train: Train, divided: bool) -> PreTrainedModel:
        """As finetune/train.py loads it: whole in float32 where any of it is fully trained without ZeRO."""
        whole = train.method == "full" and not divided
        return load_skeleton(self.recipe.base.path, torch.float32 if whole else DTYPES[train.dtype])

    def _answered(self, train: Train, launcher: Launcher) -> int:
        """Bytes that evaluation holds on the process with the largest batch of prompts."""
        divided = launcher.in_weights_dtype
        key = (launcher.processes, divided)
        if key not in self._answers:
            asked = proof_rows(read_split(self._dataset, "validation"), train.evaluate.rows)
            shares = [asked[place :: launcher.processes] for place in range(launcher.processes)]
            batches = [
                largest_batch(self.encoder.processor, self.recipe.rendering, share)
                for share in shares
                if share
            ]
            largest = max(batches, key=lambda batch: batch["input_ids"].numel())
            self._answers[key] = dry_answers(
                self._loaded(train, divided),
                largest,
                self.recipe.serve.max_new_tokens,
                autocast=train.dtype == "bfloat16",
            )
        return self._answers[key]

    def _gathered(self) -> Gathered:
        bare = load_skeleton(self.recipe.base.path)
        return gathered_of(choose_trained(bare, self.recipe, new=self.new).model)

    def _step(self, train: Train, batch: Batch, *, divided: bool) -> Step:
        """`divided`: by DeepSpeed or FSDP2, which compute in the weights' dtype; without them torch casts."""
        key = (train.batch_size, train.pack_length, train.recomputed, divided)
        if key not in self._steps:
            bare = self._loaded(train, divided)
            model = choose_trained(bare, self.recipe, half_adapter=divided, new=self.new).model
            if train.pack_length:
                attend_per_document(base_of(model))
            self._steps[key] = dry_step(
                model,
                # As the trainer does.
                in_dtype(batch, DTYPES[train.dtype]) if divided else batch,
                recomputed=train.recomputed,
                autocast=train.dtype == "bfloat16" and not divided,
                pairs=self.encoder.pairs,
            )
        return self._steps[key]
