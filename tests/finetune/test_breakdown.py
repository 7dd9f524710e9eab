"""A loss that is no number: training stops at its step and names the rows, those of other processes too."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import finetune.rows
import finetune.trainer
from finetune.breakdown import BREAKDOWN, Pass, breakdown, is_broken
from finetune.encoded import Encoded
from finetune.launch import train
from finetune.run import run_key
from finetune.train import train_process
from lensmith.base import pin_base
from lensmith.dataset import read_split
from lensmith.errors import InputError
from lensmith.recipe import load_recipe
from lensmith.row_file import Row
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.test_distributed import launcher

STEP = {"loss": 2.0, "grad_norm": 3.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", STEP)
def test_no_finite_number(name: str, value: float) -> None:
    assert not is_broken(STEP)
    assert is_broken({**STEP, name: value})
    assert not is_broken({"train_loss": math.nan}), "what the trainer says at its end"


def test_only_the_broken_passes_are_named(tmp_path: Path) -> None:
    passes = [Pass(0, ("a", "b"), 1.0), Pass(1, tuple(f"row-{at}" for at in range(30)), math.inf)]
    error = breakdown(tmp_path, 7, {**STEP, "loss": math.inf}, {"loss": 4.2, "grad_norm": 880.0}, passes)
    assert str(error).splitlines() == [
        "training broke down at step 7",
        "  - step 7: the loss is inf, the gradient norm is 3.0; the step before had loss 4.2, gradient norm "
        "880 (lower train.learning_rate or the rate of a tower, or look at these rows)",
        "  - process 1: the loss of this pass is inf; rows "
        + ", ".join(f"row-{at}" for at in range(24))
        + " and 6 more",
        f"  - rows: see them: lensmith preview RECIPE --row ID (all of them are in {tmp_path / BREAKDOWN})",
    ]


def test_a_gradient_is_of_all_passes(tmp_path: Path) -> None:
    passes = [Pass(0, ("a",), 1.0), Pass(1, ("b",), 2.0)]
    told = str(breakdown(tmp_path, 1, {**STEP, "grad_norm": math.nan}, None, passes))
    assert "process 0: the loss of this pass is a number; rows a\n" in told
    assert "process 1: the loss of this pass is a number; rows b\n" in told
    assert "no weight has changed yet, so it is not the rate" in told
    assert "no single row" not in told
    broken = [replace(each, loss=math.nan) for each in passes * 9]
    told = str(breakdown(tmp_path, 1, {**STEP, "loss": math.nan}, None, broken))
    assert told.count("process") == 8
    assert "the loss of every pass is broken: no single row has done this" in told


def plant(rows: Collection[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pixels of these rows be no numbers."""
    encode = finetune.rows.RowEncoder.encode

    def planted(self: finetune.rows.RowEncoder, given: Row) -> Encoded:
        encoded = encode(self, given)
        if given.sample.id not in rows:
            return encoded
        pixels = torch.full_like(encoded.images["pixel_values"], torch.nan)
        return replace(encoded, images={**encoded.images, "pixel_values": pixels})

    monkeypatch.setattr(finetune.rows.RowEncoder, "encode", planted)


def work_of(training: Training) -> Path:
    return training.home.work_path(run_key(training.recipe, training.base, training.dataset))


PADDED = {"train__batch_size": 1, "train__gradient_accumulation": 4}
# Four rows a step, of some 80 tokens each: packs of two.
PACKED = {"train__batch_size": 4, "train__max_length": 180, "train__pack_length": 180}


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "together"), [(PADDED, 1), (PACKED, 2)])
def test_a_row_is_found(
    new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], together: int
) -> None:
    """One of a step's rows breaks its loss: its own pass alone is named, with the rows that share it."""
    training = new_training(**settings, train__max_steps=0, train__save_every=1)
    ids = [row.sample.id for row in read_split(training.dataset, "train")]
    plant([ids[5]], monkeypatch)
    with pytest.raises(InputError, match="broke down at step") as caught:
        training.run()
    told = json.loads((work_of(training) / BREAKDOWN).read_text())
    broken = [each["rows"] for each in told["passes"] if not math.isfinite(each["loss"])]
    assert len(broken) == 1
    assert ids[5] in broken[0]
    assert len(broken[0]) <= together
    assert sum(len(each["rows"]) for each in told["passes"]) == 4, "the filler of an empty pack is no row"
    assert f"process 0: the loss of this pass is nan; rows {', '.join(broken[0])}\n" in str(caught.value)
    assert training.home.all("run") == []


@pytest.mark.slow
def test_without_the_check_nothing_is_told(
    new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant of the test above: the broken row is learned, and no row is named."""
    training = new_training(**PADDED, train__max_steps=3)
    ids = [row.sample.id for row in read_split(training.dataset, "train")]
    plant(ids, monkeypatch)
    monkeypatch.setattr(finetune.trainer, "is_broken", lambda logs: False)
    with pytest.raises(InputError, match="holds NaN or infinite values"):
        training.run()


def without_numbers(training: Training, folder: Path) -> Path:
    """Its base with one weight that is no number: every row's loss is broken."""
    base = Path(shutil.copytree(training.recipe.base.path, folder / "base"))
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"][0, 0] = torch.nan
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    return base


def first_rows(error: InputError) -> list[Sequence[str]]:
    return [
        each.what.partition("; rows ")[2].split(", ") for each in error.problems if "; rows " in each.what
    ]


@pytest.mark.slow
def test_rows_of_every_process(
    new_training: TrainingMaker, deepspeed_config: dict[str, Any], tmp_path: Path
) -> None:
    """Two processes, two passes each: what the command line tells names all eight rows of the step."""
    config = launcher(tmp_path / "zero2.yaml", deepspeed_config, 2)
    training = new_training(
        train__launcher=config, train__batch_size=2, train__gradient_accumulation=2, train__max_steps=2
    )
    settings = [f"base.path={without_numbers(training, tmp_path)}"]
    recipe = load_recipe(training.recipe_path, settings)
    base = pin_base(recipe, training.home)
    with pytest.raises(InputError, match="broke down at step 1") as caught:
        train(recipe, training.recipe_path, settings, training.home, base, training.dataset)
    processes = [each.where for each in caught.value.problems if "; rows " in each.what]
    assert processes == ["process 0"] * 2 + ["process 1"] * 2
    named = [row for rows in first_rows(caught.value) for row in rows]
    ids = {row.sample.id for row in read_split(training.dataset, "train")}
    assert len(named) == len(set(named)) == 8
    assert set(named) <= ids
    assert "not the rate: look at these rows, and at the base's weights" in str(caught.value)
    single = new_training(train__batch_size=8)
    recipe = single.recipe.model_copy(update={"base": recipe.base})
    base = pin_base(recipe, single.home)
    with pytest.raises(InputError, match="broke down at step 1") as alone:
        train_process(recipe, single.home, base, single.dataset)
    assert sorted(named) == sorted(row for rows in first_rows(alone.value) for row in rows)
