"""What a device holds beside what the ZeRO paper counts: buckets, copies for the update, several passes."""

from __future__ import annotations

from pathlib import Path

import pytest
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
    divided = memory(launcher(2, 1))
    assert divided.at_once == max(500 + divided.gradients, divided.gradients + 4 * 75)


def test_asking_the_model_between_steps_may_take_the_most() -> None:
    def asked(started: Launcher, answers: int) -> Memory:
        return training_memory(train(), started, BILLION, 75, STEP, 100, 1, answers=answers)

    alone = launcher(0, 1)
    assert asked(alone, 0) == memory(alone)
    assert asked(alone, 599).at_once == 600, "less than a step"
    assert asked(alone, 700).at_once == asked(alone, 700).answers == 700
    divided = asked(launcher(2, 1), 700)
    assert divided.at_once == 700 + divided.gradients, "ZeRO keeps its own"


def test_several_processes_without_zero_reduce_copies() -> None:
    assert memory(launcher(0, 1)).buffers == 0
    assert memory(launcher(0, 2)).buffers == 4 * 75


@pytest.mark.parametrize(("stage", "elements"), [(1, 0.5), (2, 0.5), (3, 1.5)])
def test_zero_makes_its_whole_bucket_however_little_is_trained(stage: int, elements: float) -> None:
    assert memory(launcher(stage, 2)).buffers == 2 * elements * BILLION


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
    assert quarter.buffers == (100 + 3 * 10) * 2 + (50 + 5) * (2 + 4)
    assert quarter.at_once == 500 + quarter.gradients, "a pass leaves no whole gradients behind"
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


def test_a_master_copy_is_updated_by_gradients_in_float32() -> None:
    many = memory(launcher(2, 4), trained=BILLION)
    assert many.at_once == many.gradients + 4 * BILLION // 4, "more than the pass"
    assert memory(launcher(2, 4), trained=BILLION, dtype="float32").at_once < many.at_once * 2
    whole = memory(launcher(2, 4, offload=True), trained=BILLION)
    assert whole.at_once == 500 + whole.gradients, "the update is on the CPU"
    assert memory(launcher(3, 1), trained=4 * BILLION).at_once == 8 * BILLION + 4 * BILLION, (
        "stage 3 updates so many at a time"
    )
