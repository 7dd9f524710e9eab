"""The memory of a recipe's training in any setting: of its longest rows, or its largest pack."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from finetune.adapter import choose_trained
from finetune.answer_loss import LOGITS
from finetune.collate import COLUMN, FEATURES, Collator
from finetune.documents import PackCollator, attend_per_document, row_positions
from finetune.dry_answers import dry_answers, largest_batch
from finetune.dry_run import Step, base_of, dry_step
from finetune.encoded import IGNORED, Encoded
from finetune.features import may_keep
from finetune.fsdp import gathered_of
from finetune.kept import Kept, foresee_kept, see_dry
from finetune.launcher import Launcher
from finetune.lengths import RowTokens
from finetune.memory import NOTHING, Memory, training_memory
from finetune.model import DTYPES, in_dtype, load_skeleton, shape_in_training
from finetune.new_tokens import NONE, NewTokens
from finetune.packed import training_packs
from finetune.packing import PackPlan
from finetune.quantized import quantized_linears
from finetune.rows import RowEncoder
from finetune.setting import RowLengths
from lensmith.artifact import Artifact
from lensmith.dataset import read_split
from lensmith.exam import proof_rows
from lensmith.families.family import Tower
from lensmith.recipe import Recipe
from lensmith.train_settings import Train


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
        self._kept: dict[tuple[bool, bool], Kept | None] = {}
        self._packs: dict[tuple[int, bool], PackPlan] = {}
        self._passes: dict[tuple[int, int, int, bool, bool], tuple[Step, int, int]] = {}
        self._answers: dict[tuple[int, bool], int] = {}

    def memory(self, train: Train, launcher: Launcher) -> Memory:
        """Of one device, under the recipe's `train` and `launcher` or these with another setting."""
        packs, kept = self.packs(train, launcher), self.kept(train, launcher)
        step, logits, inputs = self._pass(train, launcher, packs)
        waiting = self._waiting(train, launcher, packs, inputs)
        return training_memory(
            train,
            launcher,
            self.parameters,
            self.trained,
            replace(step, held=step.held + waiting, together=step.together + waiting),
            logits,
            train.gradient_accumulation if packs is None else packs.passes,
            self._in_4_bits,
            self._answered(train, launcher) if train.evaluate.every else 0,
            gathered_of(self._shape()) if launcher.fsdp else NOTHING,
            kept.held if kept else 0,
            self._largest_trained() if launcher.offload_optimizer else 0,
        )

    @property
    def lengths(self) -> RowLengths:
        """Of the rows of an epoch."""
        tokens = self.counts[self.shown].sum(axis=1)
        return RowLengths(float(tokens.mean()), alike=bool(tokens.min() == tokens.max()))

    def may_pack(self, train: Train) -> bool:
        """Whether rows may be packed under `train`."""
        return self.recipe.model_family.packs is not None and train.objective != "dpo"

    def packs(self, train: Train, launcher: Launcher) -> PackPlan | None:
        """The packs under `train`; None where rows are padded."""
        if not train.pack_length:
            return None
        kept = self.kept(train, launcher) is not None
        key = (train.pack_length, kept)
        if key not in self._packs:
            recipe = self._with(train)
            source = recipe.base.path
            self._packs[key] = training_packs(
                recipe, launcher, source, self._bare, self.counts, self.shown, kept=kept
            )
        return self._packs[key]

    def kept(self, train: Train, launcher: Launcher) -> Kept | None:
        """The image features that are kept under `train` and `launcher`; None where none are."""
        recipe = self._with(train)
        source, packed = recipe.base.path, bool(train.pack_length)
        if not may_keep(recipe, launcher, self._bare, self.shown):
            return None
        key = (launcher.in_weights_dtype, packed)
        if key not in self._kept:
            encode = self._placed if packed else self._encode
            self._kept[key] = foresee_kept(
                recipe, launcher, source, self._bare, self.shown, self.counts, encode
            )
        return self._kept[key]

    def _with(self, train: Train) -> Recipe:
        return self.recipe.model_copy(update={"train": train})

    def _largest(self, train: Train, packs: PackPlan | None) -> list[int]:
        """The longest rows of the training, or those of the largest pack of the first epoch."""
        if packs is None:
            return self._longest[: train.batch_size]
        totals = self.counts.sum(axis=1)
        every = (pack for shared in packs.steps(0) for each in shared for pack in each)
        return max(
            ([self.shown[place] for place in pack] for pack in every), key=lambda pack: totals[pack].sum()
        )

    def _batch(self, train: Train, launcher: Launcher, numbers: list[int]) -> dict[str, Any]:
        """These rows as the collator gives them to a pass."""
        rows = [self._placed(each) if train.pack_length else self._encode(each) for each in numbers]
        if self.kept(train, launcher):
            rows, _ = see_dry(self._with(train), launcher, self.recipe.base.path, rows)
        family = self.recipe.model_family
        collate = (
            PackCollator.of(family) if train.pack_length else Collator(self.encoder.pad_id, family.numbers)
        )
        return collate([{COLUMN: each} for each in rows])

    def _waiting(self, train: Train, launcher: Launcher, packs: PackPlan | None, inputs: int) -> int:
        """Bytes on the device of a step's other batches: the trainer takes all of them before the first pass.

        inputs: of the largest batch; the others are as large as they are in the mean.
        """
        tokens, largest = self.counts[:, 1], self.counts[self._largest(train, packs), 1].sum()
        if packs is None:
            others, mean = train.gradient_accumulation - 1, tokens[self.shown].mean() * train.batch_size
        elif launcher.cpu:
            others = packs.passes - 1
            mean = tokens[self.shown].sum() / (packs.passes_an_epoch * launcher.processes)
        else:
            # accelerate has no part in them: they go to the device one by one.
            return 0
        return round(others * inputs * (mean / largest if largest else 1))

    def _placed(self, number: int) -> Encoded:
        """A row with its positions, as it is packed."""
        row = self._encode(number)
        positions = row_positions(self._bare, self.recipe.model_family)
        return replace(row, positions=positions(row.tokens, row.images))

    def _encode(self, number: int) -> Encoded:
        if number not in self._encoded:
            self._encoded[number] = self.encoder.encode(self._rows[number])
        return self._encoded[number]

    def _logits(self, train: Train, labels: Tensor) -> int:
        """Bytes of the logits that exist at a time, as finetune/answer_loss.py cuts them."""
        answers = int((labels[:, 1:] != IGNORED).sum())
        vocabulary = int(self._bare.config.get_text_config().vocab_size)
        pieces = max(1, math.ceil(answers * vocabulary / LOGITS))
        return math.ceil(answers / pieces) * vocabulary * DTYPES[train.dtype].itemsize

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
                shape_in_training(self.recipe.base.path, train, divided=divided),
                largest,
                self.recipe.serve.max_new_tokens,
                autocast=train.dtype == "bfloat16",
            )
        return self._answers[key]

    def _shape(self) -> nn.Module:
        bare = load_skeleton(self.recipe.base.path)
        return choose_trained(bare, self.recipe, new=self.new).model

    def _largest_trained(self) -> int:
        return max(each.numel() for each in self._shape().parameters() if each.requires_grad)

    def _pass(self, train: Train, launcher: Launcher, packs: PackPlan | None) -> tuple[Step, int, int]:
        """The largest pass, and the bytes of its logits and of what it is given."""
        divided, kept = launcher.in_weights_dtype, self.kept(train, launcher) is not None
        key = (train.batch_size, train.pack_length, train.recomputed, divided, kept)
        if key not in self._passes:
            batch = self._batch(train, launcher, self._largest(train, packs))
            inputs = sum(each.nbytes for each in tree_leaves(batch))
            features = batch.pop(FEATURES, None)
            bare = shape_in_training(self.recipe.base.path, train, divided=divided)
            model = choose_trained(bare, self.recipe, half_adapter=divided, new=self.new).model
            if train.pack_length:
                attend_per_document(base_of(model))
            step = dry_step(
                model,
                # As the trainer does.
                in_dtype(batch, DTYPES[train.dtype]) if divided else batch,
                recomputed=train.recomputed,
                autocast=train.dtype == "bfloat16" and not divided,
                features=features,
                pairs=self.encoder.pairs,
            )
            self._passes[key] = step, self._logits(train, batch["labels"]), inputs
        return self._passes[key]
