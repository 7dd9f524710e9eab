"""Whole trainings under DeepSpeed on two processes: what one process learns, by every method, and saves that
are killed. One start.

The program of a process is scripts/train.py's; that `lensmith train` starts it so, under ZeRO-2 and ZeRO-3,
is in test_distributed.py and test_mixed_rows.py.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_families import write_tiny

from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.quantized import read_quantized
from tests.artifacts import make_held_out
from tests.conftest import ROOT
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.divided import Divided
from tests.finetune.merged import as_bfloat16, as_tied, lively_base
from tests.finetune.test_distributed import (
    FULL,
    TOLERANCE,
    WHOLE,
    assert_deepspeed,
    assert_same_weights,
    launcher,
)
from tests.finetune.test_examiner import assert_evaluated_as_alone
from tests.finetune.test_mixed_rows import SHARED
from tests.finetune.test_mixed_rows import mixed as mixed  # a fixture
from tests.finetune.test_packed_run import PACKED
from tests.finetune.test_packed_run import padded as padded  # a fixture
from tests.finetune.watched_save import KILLED, LAST, STEPS
from tests.roomy import TOKENS

pytestmark = pytest.mark.slow

LIMIT_S = 600
ADAPTER, WEIGHTS = "adapter_model.safetensors", "model.safetensors"
# Each tower at its own rate: DeepSpeed must keep the optimizer's groups apart. DoRA reads the base's weights.
RATED: dict[str, Any] = {
    "train__tower_learning_rates": {"vision": 0.002, "connector": 0.02},
    "train__lora": {"variant": "dora", "rank": 4, "alpha": 8.0},
}
HALF: dict[str, Any] = {"train__batch_size": 1}
# Of a batch of four rows.
QUARTER: dict[str, Any] = {**HALF, "train__gradient_accumulation": 2, "train__max_steps": 3}
# One checkpoint is kept: another step's is removed when the last one is whole.
SAVED: dict[str, Any] = {"train__max_steps": STEPS, "train__save_every": 1, "train__keep_last": 1}
# An adapter, all weights in float32, and all in bfloat16.
KILLED_IN_A_SAVE = ("dora", "full", "full in bfloat16")


@dataclass(frozen=True)
class Saving(Divided):
    """saves: by name, of each process, the boundaries of the last save and what counted there."""

    saves: dict[str, list[list[tuple[str, int | str | None]]]]


def losses(shared: Divided, name: str) -> list[float]:
    lines = (shared.run(name).path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture(scope="module")
def tokens(roomy: Path) -> dict[str, Any]:
    """Settings that teach new tokens."""
    return {"base__path": roomy, "train__new_tokens": TOKENS}


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings that adapt routed experts beside the rest of the language model."""
    return {
        "family": "qwen3_vl_moe",
        "base__path": write_tiny("qwen3_vl_moe", tmp_path_factory.mktemp("experts") / "base"),
        "train__towers": {"vision": "freeze", "connector": "freeze", "language": "adapt"},
        "train__lora": {"rank": 4, "alpha": 8.0, "experts": {"rank": 3, "alpha": 6.0}},
        "train__max_length": 1024,
    }


@pytest.fixture(scope="module")
def whole(tied: Path) -> dict[str, Any]:
    """Settings of method full on a base with one matrix for embeddings and head, as those of up to 4B are."""
    return {**FULL, "base__path": tied}


@pytest.fixture(scope="module")
def half(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same with a base in bfloat16, as they are published, trained in it."""

    def change(base: Path) -> None:
        as_tied(base)
        as_bfloat16(base)

    base = lively_base(tiny_base, tmp_path_factory.mktemp("half") / "base", change)
    return {**FULL, "base__path": base, "train__dtype": "bfloat16"}


@pytest.fixture(scope="module")
def beside(new_training: TrainingMaker) -> Training:
    """A connector trained whole beside an adapter, on one process."""
    training = new_training(**WHOLE)
    training.run()
    return training


@pytest.fixture(scope="module")
def shared(
    new_training: TrainingMaker,
    deepspeed_config: dict[str, Any],
    preferences: dict[str, Any],
    tokens: dict[str, Any],
    experts: dict[str, Any],
    whole: dict[str, Any],
    half: dict[str, Any],
    mixed: dict[str, Any],
    examined: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Saving:
    """One start for all of them."""
    shipped = yaml.safe_load((ROOT / "recipes/accelerate/deepspeed_zero3.yaml").read_text())
    shipped |= {"num_processes": 2, "use_cpu": True}

    def make(
        stage: int, offload: str, settings: dict[str, Any], content: dict[str, Any] = deepspeed_config
    ) -> Training:
        config = launcher(tmp_path_factory.mktemp("launcher") / "zero.yaml", content, stage, offload)
        return new_training(**settings, train__launcher=config)

    recomputed = {"train__gradient_checkpointing": True}
    killed: dict[str, Any] = {
        "dora": (3, "none", {**RATED, **HALF, **SAVED}),
        "full": (2, "cpu", {**whole, **HALF, **SAVED}),
        # As the recipes of 8B and more have it.
        "full in bfloat16": (3, "none", {**half, **HALF, **SAVED, **recomputed}, shipped),
    }
    trainings = {
        # First: what the others need nothing of is left out of a process for good.
        "qlora": make(2, "none", {"train__method": "qlora", **HALF}),
        **{name: make(*given) for name, given in killed.items()},
        **{f"{name} resumed": make(*given) for name, given in killed.items()},
        "offloaded": make(3, "cpu", HALF),
        "dpo 2": make(2, "none", {**preferences, **QUARTER}),
        "dpo 3": make(3, "none", {**preferences, **QUARTER}),
        # Sixteen rows of two processes, in two passes each.
        "packed": make(3, "none", {**PACKED, "train__batch_size": 8, "train__pack_length": 512}),
        "tokens": make(2, "none", {**tokens, **HALF}),
        "experts": make(3, "none", {**experts, **HALF}, shipped),
        "beside 2": make(2, "none", {**WHOLE, **HALF}),
        "beside 3": make(3, "none", {**WHOLE, **HALF}),
        "evaluated": make(3, "none", {**mixed, **examined, **SHARED}),
    }
    out = tmp_path_factory.mktemp("ended")
    config = trainings["qlora"].recipe.train.launcher
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(config), "--main_process_port", "0"]
    cases = [f"{name}:{each.recipe_path}:{each.home.root}" for name, each in trainings.items()]
    ended = subprocess.run(
        [sys.executable, *launch, str(ROOT / "tests/finetune/zero_trainings.py"), str(out), *cases],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'scripts'}",
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
        },
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    # What Triton leaves is told last.
    assert ended.returncode == 0, ended.stderr.partition("nanobind: leaked")[0][-3000:]
    ended_so = Divided.read(trainings, out)
    saves = {
        name: [json.loads((out / f"{name}.{rank}.save.json").read_bytes()) for rank in (0, 1)]
        for name in KILLED_IN_A_SAVE
    }
    return Saving(trainings, ended_so.errors, ended_so.said, saves)


def test_zero3_dora(shared: Divided, new_training: TrainingMaker) -> None:
    single, run = new_training(**RATED), shared.run("dora")
    assert_deepspeed(run, 3)
    assert losses(shared, "dora") == pytest.approx(single.losses(), abs=TOLERANCE)
    assert run.manifest.key == single.run().manifest.key
    assert_same_weights(run, single.run(), ADAPTER)


def test_zero2_qlora(shared: Divided, new_training: TrainingMaker) -> None:
    single, run = new_training(train__method="qlora"), shared.run("qlora")
    assert_deepspeed(run, 2)
    assert run.record()["linears_in_4_bits"] == 14
    assert losses(shared, "qlora") == pytest.approx(single.losses(), abs=TOLERANCE)
    assert_same_weights(run, single.run(), ADAPTER)
    assert read_quantized(run.path) == read_quantized(single.run().path)


def test_zero3_offloaded(shared: Divided, lora_losses: list[float]) -> None:
    """Weights and optimizer in host memory; AdamW is DeepSpeed's for CPUs, compiled where it runs."""
    assert_deepspeed(shared.run("offloaded"), 3, offload=["optimizer", "parameters"])
    assert losses(shared, "offloaded") == pytest.approx(lora_losses, abs=TOLERANCE)


def test_zero2_full_offloaded(shared: Divided, new_training: TrainingMaker, whole: dict[str, Any]) -> None:
    """The optimizer in host memory, as recipes/accelerate/deepspeed_zero2_offload.yaml has it."""
    single, run = new_training(**whole), shared.run("full")
    assert_deepspeed(run, 2, offload=["optimizer"])
    assert losses(shared, "full") == pytest.approx(single.losses(), abs=TOLERANCE)
    assert_same_weights(run, single.run(), WEIGHTS)
    assert load_file(run.path / WEIGHTS).keys() == load_file(whole["base__path"] / WEIGHTS).keys()


def test_zero3_full_in_bfloat16(
    shared: Divided, new_training: TrainingMaker, half: dict[str, Any], bank_forms: Path
) -> None:
    """From a tied base to the proof. One process does not compute in bfloat16: torch casts to it."""
    single, run = new_training(**half), shared.run("full in bfloat16")
    assert_deepspeed(run, 3)
    assert run.manifest.key == single.run().manifest.key
    assert losses(shared, "full in bfloat16") == pytest.approx(single.losses(), rel=0.001)
    base, ours, theirs = (
        load_file(folder / WEIGHTS) for folder in (half["base__path"], run.path, single.run().path)
    )
    assert ours.keys() == theirs.keys() == base.keys()
    assert {each.dtype for each in ours.values()} == {torch.bfloat16}
    frozen = {name for name in base if name.startswith("model.visual.") and "merger" not in name}
    assert all(torch.equal(ours[name], base[name]) for name in frozen)
    # Of vectors around one, steps as small as these are lost in bfloat16.
    matrices = [name for name, each in base.items() if name not in frozen and each.dim() > 1]
    # At another rate, or left out, one would be about as far from the other as it has moved; an embedding
    # that is used once or twice moves by the sign of rounding noise.
    for name in matrices:
        moved, apart = (theirs[name].float() - each[name].float() for each in (base, ours))
        assert 0 < float(apart.norm()) < 0.5 * float(moved.norm()), name
    training = shared.trainings["full in bfloat16"]
    model = merge(training.recipe, training.home, training.base, run)
    exam = make_held_out(training.home, bank_forms, 4)
    proof = prove_merge(training.recipe, training.home, training.base, run, model, exam)
    assert proof.statement["findings"] == []
    assert proof.passed


@pytest.mark.parametrize("name", KILLED_IN_A_SAVE)
def test_what_counts_at_every_boundary_of_a_save(shared: Saving, name: str) -> None:
    """The checkpoint before, until both processes have written the new one and its manifest has its name;
    then that one, until the run is whole."""
    first, second = ([tuple(each) for each in told] for told in shared.saves[name])
    work = f"work/*/checkpoint-{STEPS}"
    at = first.index((f"rename {work}/checkpoint.json", STEPS - 1))
    assert {counts for _, counts in [*first[: at + 1], *second]} == {STEPS - 1}
    assert [counts for counts, _ in itertools.groupby(counts for _, counts in first[at + 1 :])] == [
        STEPS,
        "run",
    ]
    names = [{each for each, _ in told} for told in (first, second)]
    for rank in (0, 1):
        assert f"half {work}/rng_state_{rank}.pth" in names[rank]
        own = KILLED.replace("rank_1", f"rank_{rank}")
        assert any(each.startswith(f"half {work}/") and each.endswith(own) for each in names[rank])
    saved = ADAPTER if name == "dora" else WEIGHTS
    assert {f"half {work}/{saved}", f"write {work}/latest", f"half {work}/scheduler.pt"} <= names[0]
    assert f"remove work/*/checkpoint-{STEPS - 1}/checkpoint.json" in names[0]
    assert f"half {work}/{LAST}" in names[1]


@pytest.mark.parametrize("name", KILLED_IN_A_SAVE)
def test_killed_and_resumed(shared: Divided, name: str) -> None:
    """The same in every byte; but for the last bits where AdamW is DeepSpeed's for CPUs, which multiplies its
    bias corrections from step to step, and takes powers in the first step of a process."""
    run, unbroken = shared.run(f"{name} resumed"), shared.run(name)
    assert run.record()["resumed_at"] == STEPS - 1
    if name != "full":
        assert run.id == unbroken.id
        return
    assert losses(shared, f"{name} resumed") == losses(shared, name)
    ours, theirs = (load_file(each.path / WEIGHTS) for each in (run, unbroken))
    assert ours.keys() == theirs.keys()
    for weight, each in theirs.items():
        torch.testing.assert_close(ours[weight], each, rtol=3e-7, atol=3e-7)


@pytest.mark.parametrize("stage", [2, 3])
def test_preferences(shared: Divided, preferring: Training, stage: int) -> None:
    """Among them passes in which one process has pairs of text alone and the other an image."""
    assert_deepspeed(shared.run(f"dpo {stage}"), stage)
    assert losses(shared, f"dpo {stage}") == pytest.approx(preferring.losses()[:3], abs=TOLERANCE)


def test_zero3_packed(shared: Divided, padded: Training) -> None:
    assert_deepspeed(shared.run("packed"), 3)
    assert losses(shared, "packed") == pytest.approx(padded.losses(), abs=2e-5)


def test_new_tokens(shared: Divided, new_training: TrainingMaker, tokens: dict[str, Any]) -> None:
    single, run = new_training(**tokens), shared.run("tokens")
    assert_deepspeed(run, 2)
    assert losses(shared, "tokens") == pytest.approx(single.losses(), abs=TOLERANCE)
    assert_same_weights(run, single.run(), ADAPTER)


def test_zero3_experts(shared: Divided, new_training: TrainingMaker, experts: dict[str, Any]) -> None:
    """Two processes, which hold a part of each, learn what one does."""
    single, run = new_training(**experts), shared.run("experts")
    assert run.record()["engine"]["zero_stage"] == 3
    assert run.record()["engine"]["experts"] == "grouped_mm"
    assert losses(shared, "experts") == pytest.approx(single.losses(), abs=TOLERANCE)
    assert_same_weights(run, single.run(), ADAPTER)
    assert any("experts" in name for name in load_file(run.path / ADAPTER))


@pytest.mark.parametrize("stage", [2, 3])
def test_a_tower_whole_beside_an_adapter(shared: Divided, beside: Training, stage: int) -> None:
    run = shared.run(f"beside {stage}")
    assert_deepspeed(run, stage)
    assert losses(shared, f"beside {stage}") == pytest.approx(beside.losses(), abs=TOLERANCE)
    assert run.manifest.key == beside.run().manifest.key
    assert_same_weights(run, beside.run(), ADAPTER)
    assert "base_model.model.model.visual.merger.norm.weight" in load_file(run.path / ADAPTER)


def test_zero3_evaluated(
    shared: Divided, new_training: TrainingMaker, mixed: dict[str, Any], examined: dict[str, Any]
) -> None:
    assert_deepspeed(shared.run("evaluated"), 3)
    assert_evaluated_as_alone(shared, new_training(**{**mixed, **examined}))
