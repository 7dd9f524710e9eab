"""What a device holds beside what the ZeRO paper counts: buckets, copies for the update, several passes."""

from __future__ import annotations

import itertools
from pathlib import Path

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from finetune.dry_run import Step
from finetune.fsdp import gathered_of
from finetune.launcher import Launcher
from finetune.memory import CONTEXT, Gathered, Memory, training_memory
from lensmith.train_settings import Towers, Train

BILLION = 10**9
STEP = Step(held=500, gradients=300, together=600)


class Block(GradientCheckpointingLayer):
    """A block of a tower."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)


def train(**more: object) -> Train:
    towers = Towers(vision="train", connector="train", language="train")
    content = {"method": "full", "towers": towers, "launcher": Path("l.yaml"), "learning_rate": 0.001}
    return Train.model_validate(content | more)


def launcher(stage: int, processes: int, *, offload: bool = False, kind: str = "MULTI_GPU") -> Launcher:
    return Launcher(
        path=Path("l.yaml"),
        kind="DEEPSPEED" if stage else kind,
        processes=processes,
        machines=1,
        zero_stage=stage,
        offload_optimizer=offload,
        offload_parameters=False,
        cpu=False,
        port=None,
        address="",
        gathers=True,
    )


def memory(started: Launcher, trained: int = 75, passes: int = 1, **more: object) -> Memory:
    return training_memory(train(**more), started, BILLION, trained, STEP, 100, passes)


def test_what_a_pass_holds_is_told_with_its_logits_apart() -> None:
    found = memory(launcher(0, 1))
    assert (found.activations, found.logits) == (400, 100)
    assert found.at_once == 600, "gradients grow while activations fall"
    assert found.total == found.weights + found.optimizer + 600
    assert found.reserve == CONTEXT + found.total // 20


def test_gradients_of_the_passes_before_are_there_all_the_time() -> None:
    assert memory(launcher(0, 1), passes=2).at_once == 800


def test_asking_the_model_between_steps_may_take_the_most() -> None:
    def asked(started: Launcher, answers: int) -> Memory:
        return training_memory(train(), started, BILLION, 75, STEP, 100, 1, answers=answers)

    alone = launcher(0, 1)
    assert asked(alone, 0) == memory(alone)
    assert asked(alone, 599).at_once == 600, "less than a step"
    assert asked(alone, 700).at_once == asked(alone, 700).answers == 700
    assert asked(launcher(0, 2), 700).at_once == 700 + 4 * 75, "and the copies that processes reduce"
    gathered = Gathered(outside=100, block=10, outside_trained=50, block_trained=5)
    assert gathered.asking(2) == (100 + 3 * 10) * 2, "and no gradients"


def test_several_processes_without_zero_reduce_copies() -> None:
    assert memory(launcher(0, 1)).buffers == 0
    assert memory(launcher(0, 2)).buffers == 4 * 75
    assert memory(launcher(0, 2)).at_once == 600 + 4 * 75


def test_fsdp2_divides_all_and_gathers_blocks() -> None:
    gathered = Gathered(outside=100, block=10, outside_trained=50, block_trained=5)

    def divided(processes: int, trained: int, **more: object) -> Memory:
        started = launcher(0, processes, kind="FSDP")
        return training_memory(
            train(**more), started, BILLION, trained, STEP, 100, passes=2, gathered=gathered
        )

    whole, quarter = divided(1, BILLION), divided(4, BILLION)
    assert (whole.weights, whole.gradients, whole.optimizer) == (4 * BILLION, 4 * BILLION, 8 * BILLION)
    assert (quarter.weights, quarter.gradients) == (BILLION, BILLION)
    assert quarter.optimizer == 2 * BILLION
    assert quarter.buffers == (100 + 3 * 10) * 2 + (50 + 5) * 2 + 5 * 4
    assert quarter.at_once == 500 + quarter.gradients + quarter.buffers, "the part of the passes before"
    towers = Towers(vision="adapt", connector="adapt", language="adapt")
    adapter = divided(2, 1_000, method="lora", towers=towers)
    assert adapter.weights == ((BILLION - 1_000) * 2 + 1_000 * 4) // 2, "a frozen base stays in bfloat16"


def test_what_fsdp2_gathers_of_a_model() -> None:
    model = nn.Sequential(nn.Linear(3, 2), Block(4), Block(5), nn.Linear(2, 3))
    model[1].requires_grad_(False)
    model[0].requires_grad_(False)
    assert gathered_of(model) == Gathered(
        outside=8 + 9, block=5 * 5 + 5, outside_trained=9, block_trained=5 * 5 + 5
    )


def test_fsdp2_keeps_a_part_of_gradients_that_grow_as_activations_fall() -> None:
    def at_once(gathered: Gathered) -> int:
        started = launcher(0, 4, kind="FSDP")
        return training_memory(train(), started, BILLION, 150, STEP, 100, 1, gathered=gathered).at_once

    # Those of the pass are 300 bytes, the part of four processes, in float32, 150.
    assert at_once(Gathered(10, 1, 0, 0)) == (500 + 600) / 2 + 13 * 2
    assert at_once(Gathered(10, 1, 150, 0)) == 150 + 150 * (2 + 4), "behind the pass all outside is summed"


def test_zero_trains_by_a_copy_in_float32_whatever_the_dtype() -> None:
    for stage, dtype in itertools.product((1, 2, 3), ("float32", "bfloat16")):
        assert memory(launcher(stage, 2), trained=BILLION, dtype=dtype).optimizer == 12 * BILLION // 2
    assert memory(launcher(0, 2), trained=BILLION).optimizer == 8 * BILLION


def test_an_offloaded_optimizer_takes_its_gradients_along() -> None:
    for stage in (2, 3):
        assert memory(launcher(stage, 2), trained=BILLION).gradients == BILLION
        away = memory(launcher(stage, 2, offload=True), trained=BILLION)
        assert (away.gradients, away.optimizer) == (0, 0)
