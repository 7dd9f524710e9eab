"""What the training benchmarks share: rows, a tiny model, and the two sides that train it.

Both sides get the same weights, the same rows as token ids and pictures in memory, LoRA on the same linears,
as many rows an optimizer step, dtype, attention kernels (sdpa), threads and epochs. Ours is the trainer that
recipes run, on packs. The baseline is TRL's SFTTrainer with its own collator for images: dynamic padding,
rows of like length together, pictures decoded before the clock starts. It renders and processes rows anew
in every epoch; ours keeps them while memory allows, and what frozen towers make of their pictures.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from benchmarks import result  # noqa: E402

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate")
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
# Pixels of an image's sides, one token being 32 x 32, and digits of an answer.
RATE = 2e-3
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
    config = checkpoint.make_config(checkpoint.DEMO, processor)
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
        [f"train.learning_rate={RATE}", f"train.epochs={task.epochs}.0", *frozen],
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


def final_loss(model: Any, encoder: Any, rows: Sequence[Any]) -> float:
    """Nats an answer token over all rows, one by one, by transformers' own forward pass."""
    import torch

    total, answers = 0.0, 0
    base = model.get_base_model().eval()
    base.set_attn_implementation("sdpa")
    with torch.no_grad():
        for row in rows:
            encoded = encoder.encode(row)
            taught = int((encoded.labels >= 0).sum())
            given = {name: each[None] for name, each in encoded.tokens.items()}
            keep = torch.arange(len(encoded.labels) - taught - 1, len(encoded.labels) - 1)
            logits = base(**given, **encoded.images, logits_to_keep=keep).logits[0]
            total += float(
                torch.nn.functional.cross_entropy(logits, encoded.labels[-taught:], reduction="sum")
            )
            answers += taught
    return total / answers


def run_side(side: str, task: Task) -> dict[str, Any]:
    """Train as one side: samples a second, peak memory of the process in MB, and what was learned."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        trainer, model, encoder, first = (ours if side == "ours" else baseline)(task, folder)
        started = time.perf_counter()
        first()
        trainer.train()
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    arguments = trainer.args
    return {
        "samples_per_s": task.rows * task.epochs / seconds,
        "peak_mb": peak,
        "loss": final_loss(model, encoder, make_rows(min(task.rows, 48))),
        "settings": {
            "dtype": str(next(model.parameters()).dtype),
            "attention": "sdpa",
            "threads": torch.get_num_threads(),
            "rows_a_pass": arguments.per_device_train_batch_size,
            "passes_a_step": arguments.gradient_accumulation_steps,
            "sampling": str(arguments.train_sampling_strategy),
        },
    }


def compare(task: Task, tolerance: float) -> dict[str, dict[str, Any]]:
    """Run both sides: what `run_side` gives of each. Raises SystemExit where they learned differently."""
    script = [str(ROOT / "benchmarks" / f"{task.name}.py")]
    given = ["--rows", str(task.rows), "--epochs", str(task.epochs), "--adapted", task.adapted]
    found = {
        side: result.last_line([*script, *given, "--side", side], result.one_thread(**ENVIRONMENT))
        for side in ("baseline", "ours")
    }
    for side, each in found.items():
        print(f"{side}, {task.adapted}: loss {each['loss']:.4f}, {each['settings']}", file=sys.stderr)
    apart = abs(found["ours"]["loss"] - found["baseline"]["loss"])
    if apart > tolerance:
        raise SystemExit(f"the final losses are {apart:.3f} nats apart, {tolerance} is allowed")
    return found


def ratio(found: dict[str, dict[str, Any]]) -> float:
    return round(found["ours"]["samples_per_s"] / found["baseline"]["samples_per_s"], 1)


def main(task: Task, asked: float, tolerance: float, description: str, beside: Sequence[Task] = ()) -> int:
    """Run both sides, compare what they learned, print and perhaps write the result.

    asked: the ratio that issue 4 asks for. tolerance: of the final losses, in nats an answer token. beside:
    tasks whose ratio is written beside the first one's.
    """
    parser = argparse.ArgumentParser(description=description)
    path = ROOT / "benchmarks" / "results" / f"{task.name}.json"
    parser.add_argument("--write", action="store_true", help=f"write {path.relative_to(ROOT)}")
    parser.add_argument("--rows", type=int, default=task.rows)
    parser.add_argument("--epochs", type=int, default=task.epochs)
    parser.add_argument(
        "--adapted", choices=("all", "language"), default=task.adapted, help=argparse.SUPPRESS
    )
    parser.add_argument("--side", choices=("ours", "baseline"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    task = replace(task, rows=given.rows, epochs=given.epochs, adapted=given.adapted)
    if given.side:
        print(json.dumps(run_side(given.side, task)))
        return 0
    found = compare(task, tolerance)
    asked_beside = beside if given.write else ()
    others = [compare(replace(each, rows=task.rows, epochs=task.epochs), tolerance) for each in asked_beside]
    line = {
        "name": task.name,
        "ratio": ratio(found),
        "ours": round(found["ours"]["samples_per_s"], 2),
        "baseline": round(found["baseline"]["samples_per_s"], 2),
        "unit": "samples/s",
        "ours_peak_mb": round(found["ours"]["peak_mb"]),
        "baseline_peak_mb": round(found["baseline"]["peak_mb"]),
        **{f"ratio_{each.adapted}": ratio(other) for each, other in zip(asked_beside, others, strict=True)},
    }
    if given.write:
        facts = {
            "asked_ratio": asked,
            "adapted": task.adapted,
            "loss": {side: round(each["loss"], 4) for side, each in found.items()},
            "loss_tolerance": tolerance,
            "settings": {side: each["settings"] for side, each in found.items()},
        }
        result.write(path, line, PACKAGES, facts)
    print(json.dumps(line))
    return 0
