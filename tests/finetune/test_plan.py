"""The plan: exact counts, and memory that is near what is really kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml

from finetune.adapter import choose_trained
from finetune.encoder import check_rows, row_encoder
from finetune.forecast import Forecast
from finetune.fsdp import gathered_of
from finetune.gpus import parse_gpus
from finetune.launcher import read_launcher
from finetune.memory import state_memory
from finetune.model import load_model, load_skeleton
from finetune.plan import Plan, plan
from finetune.setting import RowLengths
from lensmith.artifact import Artifact
from lensmith.dataset import read_split
from lensmith.errors import InputError
from lensmith.home import Home
from lensmith.recipe import Recipe, load_recipe
from lensmith.units import GIB
from tests.conftest import ROOT
from tests.finetune.conftest import Training, TrainingMaker
from tests.published import write_pages, write_published


@pytest.fixture(scope="module")
def training(new_training: TrainingMaker) -> Training:
    return new_training()


@pytest.fixture(scope="module")
def planned(training: Training) -> Plan:
    return plan(training.recipe, training.dataset)


def test_counts_are_those_of_the_encoded_rows(training: Training, planned: Plan) -> None:
    encoder = row_encoder(training.recipe, training.recipe.base.path)
    encoded = [encoder.encode(row) for row in read_split(training.dataset, "train")]
    assert planned.steps == training.recipe.train.max_steps == 3
    assert planned.rows.rows == len(encoded)
    images = sum(int((each.tokens["mm_token_type_ids"] > 0).sum()) for each in encoded)
    answers = sum(int((each.labels >= 0).sum()) for each in encoded)
    assert planned.rows.image_tokens == images
    assert planned.rows.answer_tokens == answers
    assert planned.rows.text_tokens == sum(len(each.labels) for each in encoded) - images - answers
    assert planned.rows.longest.total == max(len(each.labels) for each in encoded)


def test_parameters_are_those_of_the_model(training: Training, planned: Plan) -> None:
    base = training.recipe.base.path
    model = load_model(base, torch.float32)
    assert planned.parameters == sum(each.numel() for each in model.parameters())
    assert planned.trained_parameters == choose_trained(model, training.recipe).parameters


def test_fsdp2_divides_what_one_process_keeps(training: Training, planned: Plan) -> None:
    config = ROOT / "recipes/accelerate/fsdp2.yaml"
    train = training.recipe.train.model_copy(update={"launcher": config})
    divided = plan(training.recipe.model_copy(update={"train": train}), training.dataset)
    assert divided.memory.weights == planned.memory.weights // 8
    assert divided.memory.optimizer == planned.memory.optimizer // 8
    assert planned.memory.buffers == 0
    model = choose_trained(load_skeleton(training.recipe.base.path), training.recipe).model
    assert divided.memory.buffers == gathered_of(model).nbytes(4)
    assert divided.memory.activations == planned.memory.activations


def mean_size(training: Training) -> float:
    """Bytes of an encoded row."""
    encoder = row_encoder(training.recipe, training.recipe.base.path)
    sizes = [encoder.encode(row).nbytes for row in read_split(training.dataset, "train")]
    return sum(sizes) / len(sizes)


def test_a_step_holds_the_batches_of_all_its_passes(training: Training, planned: Plan) -> None:
    """The trainer takes them, to the device, before the first pass."""
    train = training.recipe.train
    often = train.model_copy(update={"gradient_accumulation": train.gradient_accumulation + 2})
    more = plan(training.recipe.model_copy(update={"train": often}), training.dataset)
    waiting = 2 * train.batch_size * mean_size(training)
    assert more.memory.activations - planned.memory.activations == pytest.approx(waiting, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "accumulation", "epochs"), [(5, 3, 1.0), (8, 1, 0.5), (40, 1, 1.0)])
def test_steps_are_those_of_the_run(
    new_training: TrainingMaker, batch: int, accumulation: int, epochs: float
) -> None:
    training = new_training(
        train__batch_size=batch,
        train__gradient_accumulation=accumulation,
        train__epochs=epochs,
        train__max_steps=0,
        train__save_every=100,
    )
    assert plan(training.recipe, training.dataset).steps == training.run().body["steps"]


@pytest.mark.slow
def test_packs_are_what_memory_is_planned_for(new_training: TrainingMaker, training: Training) -> None:
    padded = plan(new_training(train__batch_size=16).recipe, training.dataset)
    packed = plan(new_training(train__batch_size=16, train__pack_length=600).recipe, training.dataset)
    assert padded.packs is None
    assert packed.packs is not None
    assert packed.steps == padded.steps
    assert packed.packs.passes == 3
    assert packed.packs.mean_tokens < packed.packs.tokens <= 600
    assert packed.packs.image_tokens < packed.packs.tokens
    # Beside its own rows a pass finds those of the other two, which only wait.
    waiting = 2 / 3 * 16 * mean_size(training)
    assert 0 < packed.memory.activations - waiting < padded.memory.activations / 2


def test_what_a_proposal_asks_of_the_rows(training: Training) -> None:
    recipe, base = training.recipe, training.recipe.base.path
    encoder = row_encoder(recipe, base)
    counted = list(check_rows(recipe, training.dataset, base, encoder))
    forecast = Forecast(recipe, training.dataset, encoder, counted, 0, {})
    totals = [each.total for each in counted]
    assert forecast.lengths == RowLengths(pytest.approx(sum(totals) / len(totals)), alike=False)
    longest = totals.index(max(totals))
    # Shown more than once in an epoch, and no other row is.
    forecast.shown = [longest, longest]
    assert forecast.lengths == RowLengths(totals[longest], alike=True)
    assert forecast.may_pack(recipe.train)
    assert not forecast.may_pack(recipe.train.model_copy(update={"objective": "dpo"}))
    unproven = dataclasses.replace(recipe.model_family, packs=None)
    with patch.object(Recipe, "model_family", unproven):
        assert not forecast.may_pack(recipe.train)


def test_what_stops_the_training_stops_the_plan(new_training: TrainingMaker) -> None:
    training = new_training(train__max_length=70)
    with pytest.raises(InputError, match=r"longer than train\.max_length 70"):
        plan(training.recipe, training.dataset)


def launcher_of(content: dict[str, Any], path: Path, stage: int, processes: int) -> Any:
    deepspeed = {**content["deepspeed_config"], "zero_stage": stage}
    path.write_text(yaml.safe_dump({**content, "deepspeed_config": deepspeed, "num_processes": processes}))
    return read_launcher(path)


def test_zero_divides_what_it_says(
    training: Training, deepspeed_config: dict[str, Any], tmp_path: Path
) -> None:
    """The three rows of the ZeRO paper's figure 1: 7.5B parameters, 64 GPUs, mixed precision Adam."""
    train = training.recipe.train.model_copy(update={"method": "full", "dtype": "bfloat16"})
    parameters = 7_500_000_000
    for stage, expected in ((1, 31.4), (2, 16.6), (3, 1.9)):
        launcher = launcher_of(deepspeed_config, tmp_path / "l.yaml", stage, 64)
        state = state_memory(train, launcher, parameters, parameters)
        # The paper counts in units of 10^9 bytes, and no buffers.
        assert (state.weights + state.gradients + state.optimizer) / 1e9 == pytest.approx(expected, abs=0.06)


def test_offloading_takes_it_off_the_device(
    training: Training, deepspeed_config: dict[str, Any], tmp_path: Path
) -> None:
    offload = dict.fromkeys(("offload_optimizer_device", "offload_param_device"), "cpu")
    config = {**deepspeed_config, "deepspeed_config": deepspeed_config["deepspeed_config"] | offload}
    launcher = launcher_of(config, tmp_path / "l.yaml", 3, 2)
    state = state_memory(training.recipe.train, launcher, 1000, 1000)
    assert (state.weights, state.gradients, state.optimizer) == (0, 0, 0)
    assert state.buffers > 0


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_pages(Home(tmp_path_factory.mktemp("pages")), 2)


def shipped(name: str, base: Path) -> Recipe:
    return load_recipe(ROOT / "recipes" / "bank_forms" / name, [f"base.path={base}"])


def test_rows_of_glm_are_counted_as_they_are_encoded(tmp_path: Path, pages: Artifact) -> None:
    base = write_published("GLM-4.6V-Flash", tmp_path / "base")
    recipe = shipped("glm46v_flash_lora_1xh100.yaml", base)
    encoder = row_encoder(recipe, base)
    encoded = encoder.encode(read_split(pages, "train")[0])
    counted = next(iter(check_rows(recipe, pages, base, encoder)))
    assert counted.total == len(encoded.labels)
    assert counted.image == int((encoded.tokens["mm_token_type_ids"] > 0).sum())
    taught = encoded.labels[encoded.labels >= 0]
    assert encoder.tokenizer.decode(taught) == '{"account":"732006"}<|endoftext|>'


@pytest.mark.slow
def test_what_fits_a_gpu_is_said_and_the_fastest_setting_that_does(tmp_path: Path, pages: Artifact) -> None:
    base = write_published("Qwen3-VL-8B-Instruct", tmp_path / "base")
    recipe = shipped("qwen3_vl_8b_lora_1xh100.yaml", base)
    planned = plan(recipe, pages, parse_gpus(["h100-80,24", "8"]))
    large, small, none = planned.proposals
    assert (large.fits, none.fits) == (True, False)
    assert large.setting is not None
    assert large.setting.recomputed == 0, "the fastest setting, and fits"
    assert large.setting.pack_length, "nothing is padded"
    assert none.setting is None
    for each in (large, small):
        assert each.memory is not None
        assert each.setting is not None
        assert each.memory.needed <= each.gpu.memory
        train = recipe.train
        rows = each.setting.batch_size * each.setting.gradient_accumulation
        assert rows == train.batch_size * train.gradient_accumulation
        assert set(each.reasons) <= set(each.changes)
    assert small.setting is not None
    assert small.setting.speed > large.setting.speed


def test_gpus_are_names_or_gib() -> None:
    first, second = parse_gpus(["A100-40, 12.5"])
    assert (first.name, first.memory) == ("a100-40", 40 * GIB)
    assert second.memory == int(12.5 * GIB)
    with pytest.raises(InputError, match="--gpu") as error:
        parse_gpus(["h100,l40s-48", "-3"])
    assert "'h100': is no GPU" in str(error.value)
    assert "'-3'" in str(error.value)
