"""The run artifact: its key, and writing it from a finished checkpoint. No torch at import."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finetune.checkpoint import Manifest, folder_of, read_whole
from finetune.launcher import read_launcher
from finetune.merging.tokenizer_files import extend_files
from finetune.quantized import Quantized, write_quantized
from finetune.scores import best_of
from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.artifact import Artifact
from lensmith.base import checkpoint_path
from lensmith.errors import IntegrityError, Problem
from lensmith.families.family import Tower
from lensmith.files import write_atomically, write_json
from lensmith.home import Home
from lensmith.provenance import package_versions, stage_key
from lensmith.recipe import Recipe
from lensmith.train_settings import LoraPart

PACKAGES = ("torch", "torchvision", "transformers", "tokenizers", "trl", "peft", "accelerate", "deepspeed")
METRICS = "metrics.jsonl"
# How it is launched, watched and kept does not change what is learned; the batch counts as a whole.
_NOT_ASKED = {
    "launcher",
    "batch_size",
    "gradient_accumulation",
    "gradient_checkpointing",
    "pack_length",
    "image_features_gib",
    "cpu_products",
    "log_every",
    "save_every",
    "keep_last",
    "stop_grace",
    "collective_timeout",
    "evaluate",
    "wandb",
    "wandb_project",
}
# What a preference training tells besides, by the trainer's names.
_PREFERENCE = {
    "chosen_reward": "rewards/chosen",
    "rejected_reward": "rewards/rejected",
    "reward_margin": "rewards/margins",
    "reward_accuracy": "rewards/accuracies",
}
_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class Outcome:
    """What the body of a run states beside the recipe: all of it follows from recipe, base and dataset.

    quantized: of a base that was held in 4 bits. new_tokens: the id of each.
    """

    adapted: dict[LoraPart, int]
    parameters: dict[Tower, int]
    template: str
    quantized: Quantized | None = None
    new_tokens: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """chosen: the checkpoint whose weights the run has. facts: for the body, every score among them."""

    chosen: Path
    facts: dict[str, Any]


def run_key(recipe: Recipe, base: Artifact, dataset: Artifact) -> str:
    """The key of the run that the recipe asks for.

    The launcher config counts only by how many rows it makes an optimizer step learn from: another number
    of processes, or another ZeRO stage, with the same global batch is the same run.
    Raises InputError where the launcher config cannot be used.
    """
    inputs = {"base": base.id, "dataset": dataset.id}
    return stage_key("train", "finetune.train", _packages(recipe), asked_of(recipe), inputs)


def _packages(recipe: Recipe) -> tuple[str, ...]:
    return (*PACKAGES, "bitsandbytes") if recipe.train.method == "qlora" else PACKAGES


def asked_of(recipe: Recipe) -> dict[str, Any]:
    """What the recipe asks of a training, as JSON values; nothing of how or where it is launched.

    Raises InputError where the launcher config cannot be used.
    """
    budget = recipe.pixel_budget
    return {
        "family": recipe.family,
        "pixels": budget and asdict(budget),
        "train": recipe.train.model_dump(mode="json", exclude=_NOT_ASKED),
        "global_batch": read_launcher(recipe.train.launcher).global_batch(recipe),
        # It decides which weights the run has, and when it ends.
        **({"evaluate": asked_of_evaluation(recipe)} if recipe.train.evaluate.every else {}),
    }


def asked_of_evaluation(recipe: Recipe) -> dict[str, Any]:
    """What the evaluations during a training follow from, as JSON values."""
    evaluate, answer = recipe.train.evaluate, recipe.data.answer
    return {
        **evaluate.model_dump(mode="json"),
        "metric": evaluate.task_metric(answer),
        "answer": answer,
        "max_new_tokens": recipe.serve.max_new_tokens,
    }


def evaluated_by(recipe: Recipe, work: Path, last: Manifest) -> Evaluated | None:
    """The checkpoint that the evaluations choose, and what they came to; None where there were none.

    Raises IntegrityError where that checkpoint is not whole.
    """
    settings = recipe.train.evaluate
    metric = settings.task_metric(recipe.data.answer)
    best = best_of(last.scores, metric)
    if best is None:
        return None
    step = best.step if settings.keep_best else last.step
    chosen = folder_of(work, step)
    if read_whole(chosen) is None:
        mend = "remove the folder above it to train again"
        raise IntegrityError(
            "the best checkpoint is damaged", [Problem("is not whole any more", str(chosen), mend)]
        )
    scores = [each.model_dump() for each in last.scores]
    facts = {"metric": metric, "scores": scores, "chosen": step, "ended_early": last.over}
    return Evaluated(chosen, facts)


def step_losses(log_history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The trainer's log, one entry a step; the loss is in nats an answer token, for objective dpo a pair."""
    return [
        {
            "step": entry["step"],
            "epoch": entry["epoch"],
            "loss": entry["loss"],
            "learning_rate": entry["learning_rate"],
            "gradient_norm": entry["grad_norm"],
            "answer_accuracy": entry["mean_token_accuracy"],
            "tokens": entry["num_input_tokens_seen"],
            **{name: entry[key] for name, key in _PREFERENCE.items() if key in entry},
        }
        for entry in log_history
        if "loss" in entry
    ]


def metrics(log_history: Sequence[Mapping[str, Any]], every: int) -> list[dict[str, Any]]:
    """Every `every`th step's entry and the last one's; loss and accuracy are means since the one before.

    Made from single steps, so that a resumed run gives the same lines as an unbroken one.
    """
    steps = step_losses(log_history)
    lines: list[dict[str, Any]] = []
    window: list[dict[str, Any]] = []
    for entry in steps:
        window.append(entry)
        if entry["step"] % every == 0 or entry is steps[-1]:
            means = {
                name: sum(each[name] for each in window) / len(window)
                for name in ("loss", "answer_accuracy", *_PREFERENCE)
                if name in entry
            }
            lines.append({**entry, **means})
            window = []
    return lines


def seal_run(
    recipe: Recipe,
    home: Home,
    base: Artifact,
    dataset: Artifact,
    last: Path,
    outcome: Outcome,
    record: Mapping[str, Any],
    evaluated: Evaluated | None = None,
) -> Artifact:
    """Write the run artifact from the last checkpoint of a finished training, or the best one's weights.

    lora, qlora: PEFT's config and weights of the adapter; qlora: quantized.json too. full: a
    whole checkpoint directory, all but weights and new tokens byte-equal to the base's. All:
    metrics.jsonl. Raises InputError when the disk is full.
    """
    key, asked = run_key(recipe, base, dataset), asked_of(recipe)
    state = json.loads((last / "trainer_state.json").read_bytes())
    checkpoint = last if evaluated is None else evaluated.chosen
    lines = metrics(state["log_history"], recipe.train.log_every)
    with home.create("run", key, {"base": base, "dataset": dataset}) as draft:
        if recipe.train.adapts:
            shutil.copyfile(checkpoint / ADAPTER_WEIGHTS, draft.path / ADAPTER_WEIGHTS)
            _write_adapter_config(checkpoint, draft.path, base)
        else:
            _copy_checkpoint(checkpoint_path(base), checkpoint, draft.path)
            extend_files(draft.path, outcome.new_tokens)
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
        write_atomically(draft.path / METRICS, text.encode())
        draft.body.update(
            asked=asked,
            family=recipe.family,
            method=recipe.train.method,
            towers=recipe.train.towers.model_dump(mode="json"),
            dtype=recipe.train.dtype,
            base_revision=base.body["revision"],
            adapted=dict(outcome.adapted),
            trained_parameters=dict(outcome.parameters),
            new_tokens=dict(outcome.new_tokens),
            template=outcome.template,
            seed=recipe.train.seed,
            steps=state["global_step"],
            global_batch=asked["global_batch"],
            final_loss=step_losses(state["log_history"])[-1]["loss"],
        )
        if evaluated is not None:
            draft.body["evaluation"] = evaluated.facts
        if outcome.quantized is not None:
            write_quantized(draft.path, outcome.quantized)
            draft.body.update(linears_in_4_bits=len(outcome.quantized.linears))
        draft.record.update(record, packages=package_versions(_packages(recipe)))
    return draft.artifact


def _write_adapter_config(checkpoint: Path, out: Path, base: Artifact) -> None:
    config = json.loads((checkpoint / ADAPTER_CONFIG).read_bytes())
    # PEFT writes where the base lay on this machine, and its sets in the order of this process's hash seed.
    config["base_model_name_or_path"] = base.short
    for name, value in config.items():
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            config[name] = sorted(value)
    write_json(out / ADAPTER_CONFIG, config)


def _copy_checkpoint(base: Path, checkpoint: Path, out: Path) -> None:
    weights = [path for pattern in _WEIGHTS for path in checkpoint.glob(pattern)]
    if not weights:
        raise IntegrityError(f"{checkpoint} holds no weights", [Problem("no model*.safetensors there")])
    for path in weights:
        shutil.copyfile(path, out / path.name)
    for path in sorted(base.iterdir()):
        weight = any(
            path.match(pattern) for pattern in (*_WEIGHTS, "*.safetensors", "*.bin", "*.pt", "*.pth")
        )
        if path.is_file() and not weight and not path.name.startswith("."):
            shutil.copyfile(path, out / path.name)
