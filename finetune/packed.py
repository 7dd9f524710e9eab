"""What a packed training has beside its recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedModel
from trl.trainer.sft_config import SFTConfig

from finetune.documents import row_positions
from finetune.encoded import Encoded, Positions
from finetune.kept import foresee_kept
from finetune.launcher import Launcher
from finetune.packing import PackPlan, image_work, plan_run
from finetune.rows import RowEncoder
from lensmith.artifact import Artifact
from lensmith.counting import Counts
from lensmith.dataset import read_split
from lensmith.recipe import Recipe
from lensmith.tokens import read_grid


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
    encoder: RowEncoder,
    bare: PreTrainedModel | None,
    counts: Counts,
    arguments: SFTConfig,
) -> Packed | None:
    """Plan the packs where the recipe asks for them, and let `arguments` take one a forward pass.

    `bare` is the base's skeleton, None where rows are padded: then there are no packs. `counts` is what
    `count_rows` gives.
    """
    if bare is None:
        return None
    rows, positions = read_split(dataset, "train"), row_positions(bare, recipe.model_family)

    def encode(number: int) -> Encoded:
        encoded = encoder.encode(rows[number])
        return replace(encoded, positions=positions(encoded.tokens, encoded.images))

    kept = foresee_kept(recipe, launcher, source, bare, rows.epoch(), counts, encode)
    plan = training_packs(recipe, launcher, source, bare, counts, rows.epoch(), kept=kept is not None)
    arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps = 1, plan.passes
    # Nothing in a pack is padding; the trainer would look for a mask.
    arguments.include_num_input_tokens_seen = "all"
    return Packed(plan, positions)


def training_packs(
    recipe: Recipe,
    launcher: Launcher,
    source: Path,
    bare: PreTrainedModel,
    counts: Counts,
    shown: list[int],
    *,
    kept: bool,
) -> PackPlan:
    """The packs of a whole training; `kept`: the towers have seen its images before the first step.

    `bare`, on the meta device, is the checkpoint's at `source`; the rest is as in `plan_run`.
    """
    patches = read_grid(source, recipe.model_family, recipe.pixel_budget).patches_a_token
    work = 0.0 if kept else image_work(bare, recipe.model_family, patches)
    return plan_run(recipe, launcher, counts, shown, work)
