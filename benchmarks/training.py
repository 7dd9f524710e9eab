"""What the training benchmarks share: rows, a tiny model, and the two sides that train it.

Both sides get the same weights, the same rows as token ids and pictures in memory, LoRA on the same linears,
as many rows an optimizer step, dtype, attention kernels (sdpa), threads and epochs. Ours is the trainer that
recipes run, on packs. The baseline is TRL's SFTTrainer with its own collator for images: dynamic padding,
rows of like length together, pictures decoded before the clock starts. It renders and processes rows anew
in every epoch; ours keeps them while memory allows, and what frozen towers make of their pictures, and
multiplies by frozen weights as CPU_PRODUCTS says.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]


PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate")
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
# Pixels of an image's sides, one token being 32 x 32, and digits of an answer.
RATE = 2e-3
# A recipe's train.cpu_products: torch's own linears, which the baseline has, cannot be told to.
CPU_PRODUCTS = "onednn"
EDGES, DIGITS = (64, 416), (2, 48)


@dataclass(frozen=True)
class Task:
    """What a benchmark trains.

    vocabulary: of the model, 0 for its tokenizer's. step: rows of an optimizer step. batch: rows of the
    baseline's forward pass. pack_length: most tokens of one of ours. adapted: "all" linears have LoRA, or
    those of the "language" model, vision and connector being frozen.
    """

    name: str
    vocabulary: int
    rows: int
    epochs: int
    step: int
    batch: int
    pack_length: int
    adapted: Literal["all", "language"] = "all"


class Rows(list[Any]):
    """Rows in memory, each shown once an epoch."""

    def epoch(self) -> list[int]:
        return list(range(len(self)))


def make_rows(number: int) -> Rows:
    """Rows with a picture of noise each and digits to answer with; the same ones at every call."""
    import numpy as np
    from PIL import Image as Picture

    from lensmith.images import encode_png
    from lensmith.row_file import Row
    from lensmith.sample import Image, Message, Sample, Text

    rng = np.random.default_rng(11)
    rows = Rows()
    for at in range(number):
        width, height = (int(each) for each in rng.integers(*EDGES, size=2))
        shade = np.full((height, width, 3), 40 * (at % 6), np.uint8)
        shade[::2] += rng.integers(0, 50, shade[::2].shape, dtype=np.uint8)
        digits = str(at % 6) * int(rng.integers(*DIGITS))
        asked = Message("user", (Image(f"{at}.png"), Text("Read the shade.")))
        sample = Sample(f"r{at}", "g", (asked, Message("assistant", (Text(digits),))))
        rows.append(Row(sample, (encode_png(Picture.fromarray(shade)),)))
    return rows


def make_model(task: Task) -> tuple[Any, Any]:
    """The tiny model with LoRA, and an encoder of its rows."""
    import torch
    from peft import LoraConfig, get_peft_model
    from tiny_base import checkpoint

    from finetune.rows import RowEncoder
    from lensmith import families
    from lensmith.rendering import Rendering

    processor = checkpoint.make_processor()
    # transformers does not say of which class the configuration of its text is.
    config: Any = checkpoint.make_config(checkpoint.DEMO, processor)
    if task.vocabulary:
        config.text_config.vocab_size = task.vocabulary
    model = checkpoint.make_model(config, seed=0)
    model.set_attn_implementation("sdpa")
    model.config.use_cache = False
    torch.manual_seed(0)
    family = families.get("qwen3_vl")
    names = [
        name
        for name, each in model.named_modules()
        if isinstance(each, torch.nn.Linear) and "." in name
        if task.adapted == "all" or family.tower_of(name) == "language"
    ]
    lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=names)
    ends = [processor.tokenizer.eos_token_id]
    encoder = RowEncoder(processor, Rendering(family), ends, 1024)
    return get_peft_model(model.train(), lora), encoder


def settings(task: Task, folder: str, **more: Any) -> Any:
    from trl.trainer.sft_config import SFTConfig

    return SFTConfig(
        output_dir=folder,
        num_train_epochs=task.epochs,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        use_cpu=True,
        bf16=False,
        seed=1,
        data_seed=1,
        gradient_checkpointing=False,
        remove_unused_columns=False,
        max_length=None,
        report_to="none",
        disable_tqdm=True,
        logging_steps=1000,
        **{"save_strategy": "no", **more},
    )


def ours(task: Task, folder: str) -> tuple[Any, Any, Any, Callable[[], Any]]:
    """The trainer that recipes run, its model and encoder, and what it does before the first step."""
    import numpy as np
    from datasets import Dataset

    from finetune.collate import COLUMN, FILLER, NUMBER, EncodedRows
    from finetune.documents import PackCollator, attend_per_document, rope_positions
    from finetune.features import keep_features
    from finetune.launcher import read_launcher
    from finetune.packing import Packing, plan_packs
    from finetune.trainer import AnswerTrainer
    from lensmith.recipe import load_recipe
    from lensmith.tokens import ImageGrid, PixelBudget

    model, encoder = make_model(task)
    rows = make_rows(task.rows)
    size = encoder.processor.image_processor.size
    grid = ImageGrid(32, 1, PixelBudget(size["shortest_edge"], size["longest_edge"]))
    counts = np.array([(each.text, each.image, each.answer) for each in encoder.tokens_of(rows, grid)])
    tokens = counts.sum(axis=1)
    plan = plan_packs(Packing(tokens, tokens, task.pack_length, task.step, 1, seed=1), task.epochs)
    arguments = settings(
        task,
        folder,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=plan.passes,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    base = model.get_base_model()
    attend_per_document(base)
    transform = EncodedRows(rows, encoder, positions=rope_positions(base))  # pyright: ignore[reportArgumentType]
    data = Dataset.from_dict({NUMBER: [*range(len(rows)), FILLER]}).with_transform(transform)
    assert COLUMN in data[0]
    transform.kept.clear()
    collate = PackCollator()
    # Of the recipe the trainer reads the towers' rates, and what is frozen.
    frozen = [f"train.towers.{tower}=freeze" for tower in ("vision", "connector") if task.adapted != "all"]
    recipe = load_recipe(
        ROOT / "recipes/bank_forms/qwen3_vl_tiny_lora.yaml",
        [
            f"train.learning_rate={RATE}",
            f"train.epochs={task.epochs}.0",
            f"train.cpu_products={CPU_PRODUCTS}",
            *frozen,
        ],
    )
    trainer = AnswerTrainer(
        recipe,
        model=model,
        args=arguments,
        train_dataset=data,
        data_collator=collate,
        processing_class=encoder.processor,
        packs=plan,
    )
    launcher = read_launcher(recipe.train.launcher)
    return trainer, model, encoder, lambda: keep_features(trainer, launcher, transform, counts)


def baseline(task: Task, folder: str) -> tuple[Any, Any, Any, Callable[[], Any]]:
    """TRL's own collator renders and processes; pictures are decoded before the clock starts."""
    import io

    from datasets import Dataset
    from PIL import Image as Picture
    from trl.trainer.sft_trainer import SFTTrainer

    model, encoder = make_model(task)
    rows = make_rows(task.rows)
    rendered = [encoder.render(row.sample) for row in rows]
    pictures = [[Picture.open(io.BytesIO(data)).convert("RGB") for data in row.images] for row in rows]
    given = {
        "row": list(range(len(rows))),
        "prompt": [each.prompt_text for each in rendered],
        "completion": [encoder.tokenizer.decode(each.answer_ids) for each in rendered],
        "length": [len(encoder.encode(row).labels) for row in rows],
    }

    def with_pictures(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**batch, "images": [pictures[row] for row in batch["row"]]} if "row" in batch else batch

    arguments = settings(
        task,
        folder,
        per_device_train_batch_size=task.batch,
        gradient_accumulation_steps=task.step // task.batch,
        train_sampling_strategy="group_by_length",
        length_column_name="length",
    )
    data = Dataset.from_dict(given).with_transform(with_pictures)
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=data, processing_class=encoder.processor)
    # As ours: the loss of a step is the mean over all its answer tokens.
    trainer.model_accepts_loss_kwargs = True
    return trainer, model, encoder, lambda: None
