"""What ZeRO holds of a step, and when: its bucket, the copy that is summed, this process's gradients."""

from __future__ import annotations

import dataclasses

import pytest

from finetune.dry_run import Step
from finetune.zero import AHEAD, BUCKET, LIVE, SUB_GROUP, Zero

STEP = Step(held=500, gradients=300, together=600)
# Of few trained parameters, in bfloat16, on two processes.
FEW = {stage: Zero(stage, 1000, 100, 60, 2, 2, offloads=False) for stage in (1, 2, 3)}
BYTES = 2 * BUCKET


def many(stage: int, **more: object) -> Zero:
    """So many that the bucket is full before a pass is over."""
    zero = Zero(stage, 4 * BUCKET, 3 * BUCKET, 1000, 2, 2, offloads=False)
    return dataclasses.replace(zero, **more)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_bucket_is_made_whole_however_little_is_trained(stage: int) -> None:
    assert FEW[stage].bucket == BYTES
    assert FEW[stage].summed == 200, "what is in it alone is copied"
    assert many(stage).summed == BYTES


def test_gradients_that_a_process_keeps() -> None:
    assert {stage: zero.gradients for stage, zero in FEW.items()} == {1: 200, 2: 100, 3: 100}


def test_stage_3_gathers_weights() -> None:
    assert {stage: zero.live for stage, zero in FEW.items()} == {1: 0, 2: 0, 3: 2 * 2000}
    assert many(3, parameters=3 * LIVE).live == 2 * (LIVE + AHEAD), "at most"


def test_of_a_single_pass_there_are_no_gradients_before_it_but_stage_3s() -> None:
    assert FEW[2].most(STEP, 1, 0) == BYTES + 500
    assert FEW[2].most(STEP, 2, 0) == BYTES + 500 + 100
    assert FEW[3].most(STEP, 1, 0) == BYTES + 500 + 100 + 4000
    assert FEW[1].most(STEP, 1, 0) == BYTES + 600, "whole, as they grow"
    assert FEW[1].most(STEP, 2, 0) == BYTES + 500 + 200


def test_gradients_are_summed_behind_the_pass_unless_the_bucket_is_full_before() -> None:
    short = Step(held=50, gradients=200, together=200)
    assert FEW[2].most(short, 1, 0) == BYTES + 200
    assert FEW[2].most(short, 2, 0) == BYTES + 200 + 100
    assert FEW[3].most(dataclasses.replace(short, held=0), 1, 0) == BYTES + 4000 + 100
    single = dataclasses.replace(FEW[3], parameters=1, width=4)
    assert single.most(short, 1, 0) == 2 * BYTES + 400 + 200
    assert FEW[1].most(short, 1, 0) == BYTES + 200 + 200
    for stage in (2, 3):
        zero, held = many(stage), 10 * BYTES
        most = zero.most(Step(held, gradients=0, together=held), 1, 0)
        assert most == 2 * BYTES + held + zero.live + zero.gradients


def test_the_update_has_gradients_twice_and_in_float32() -> None:
    nothing = Step(0, 0, 0)
    all_of_it = 3 * BUCKET
    assert many(2, processes=1).most(nothing, 1, 0) == (2 + 2 + 4) * all_of_it
    single = many(2, processes=1, width=4).most(nothing, 1, 0)
    assert single == max((4 + 4) * all_of_it, 2 * 4 * BUCKET + 4 * all_of_it), (
        "no other copy than the flat one"
    )
    parts = many(3, processes=1, trained=3 * SUB_GROUP, parameters=0)
    assert parts.most(nothing, 1, 0) == BYTES + 2 * 3 * SUB_GROUP + (2 + 4) * SUB_GROUP, "so many at a time"


def test_where_the_optimizer_is_offloaded_buffers_are_left() -> None:
    for stage in (2, 3):
        away = many(stage, offloads=True, parameters=0)
        assert away.gradients == away.updated == 0
        assert away.most(Step(0, 0, 0), 2, 0) == 2 * BYTES + away.passed
        assert away.passed == {2: 2 * 1000, 3: 0}[stage], "through which gradients are added there"
        assert many(stage).passed == 0


def test_between_steps_stage_3_keeps_its_own() -> None:
    assert FEW[2].most(STEP, 1, 10 * BYTES) == 10 * BYTES
    assert FEW[3].most(STEP, 1, 10 * BYTES) == 11 * BYTES + 100 + 4000
