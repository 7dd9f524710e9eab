"""Settings are ordered by speed, stay the same training, and the advice for a full memory is the plan's."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from finetune.launcher import Launcher
from finetune.setting import REASONS, RowLengths, changes, costs, savings, setting_of, settings
from lensmith.train_settings import Towers, Train


def train(**more: object) -> Train:
    towers = Towers(vision="adapt", connector="adapt", language="adapt")
    content = {"method": "lora", "towers": towers, "launcher": Path("l.yaml"), "learning_rate": 0.001}
    return Train.model_validate({**content, "batch_size": 4, "gradient_accumulation": 2, **more})


def launcher(stage: int) -> Launcher:
    kind = "DEEPSPEED" if stage else "NO"
    return Launcher(Path("l.yaml"), kind, 2, 1, stage, False, False, False, None, "", True)


def test_every_setting_learns_from_as_many_rows() -> None:
    for each in settings(train(), launcher(2)):
        assert each.batch_size * each.gradient_accumulation == 8


def test_without_deepspeed_nothing_is_divided() -> None:
    assert {each.zero_stage for each in settings(train(), launcher(0))} == {0}
    assert not any(each.offload_optimizer for each in settings(train(), launcher(0)))


@pytest.mark.parametrize("more", [{"method": "qlora"}, {"evaluate": {"every": 5}}], ids=str)
def test_stage_3_is_not_proposed_where_it_is_refused(more: dict[str, Any]) -> None:
    assert {each.zero_stage for each in settings(train(**more), launcher(2))} == {2}
    assert "deepspeed_config.zero_stage" not in savings(train(**more), launcher(2))


def test_the_order_is_from_fastest_to_slowest() -> None:
    order = settings(train(), launcher(2))
    assert (order[0].batch_size, order[0].recomputed, order[0].zero_stage) == (8, 0, 2)
    assert (order[-1].batch_size, order[-1].offload_parameters) == (1, True)
    # Stage 3 before computing twice, both before offloading.
    first = {
        key: next(i for i, each in enumerate(order) if key in changes(order[0], each))
        for key in REASONS
        if key != "train.pack_length"
    }
    assert list(first) == sorted(first, key=lambda key: first[key])


def test_packs_shrink_to_the_longest_row_and_no_further() -> None:
    packed = train(pack_length=8192, max_length=3000)
    assert {each.pack_length for each in settings(packed, launcher(0))} == {8192, 4096, 3000}
    assert savings(packed, launcher(0))["train.pack_length"] == "4096"


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        (RowLengths(1024, alike=True), [(8192, 4), (0, 8), (4096, 4), (0, 4), (2048, 4), (0, 2), (0, 1)]),
        (RowLengths(1100, alike=True), [(16384, 4), (0, 8), (8192, 4), (0, 4), (4096, 4), (0, 2), (2048, 4)]),
        (RowLengths(1024, alike=False), [(8192, 4), (4096, 4), (2048, 4), (0, 8), (0, 4), (0, 2), (0, 1)]),
    ],
    ids=["as many tokens", "more tokens padded", "pads"],
)
def test_padded_rows_may_be_packed(lengths: RowLengths, expected: list[tuple[int, int]]) -> None:
    padded = train(max_length=2048)
    order = settings(padded, launcher(0), lengths, packs=True)
    sizes = [(each.pack_length, each.batch_size) for each in order if not each.recomputed]
    # Packs say with the recipe's rows and passes what a step is.
    assert sizes[: len(expected)] == expected
    assert all(each.batch_size * each.gradient_accumulation == 8 for each in order)
    now = setting_of(padded, launcher(0), lengths)
    assert changes(now, order[0]) == {"train.pack_length": str(expected[0][0])}
    assert costs(now, order[0]) == {}
    assert "train.pack_length" not in savings(padded, launcher(0))


def test_packs_grow_until_they_hold_the_rows_of_a_step() -> None:
    packed = train(pack_length=3500, max_length=3000)
    lengths = {each.pack_length for each in settings(packed, launcher(0), RowLengths(1600, True), packs=True)}
    assert lengths == {3000, 3500, 7000, 14000}


def test_advice_is_what_a_plan_would_take_up_next() -> None:
    assert savings(train(), launcher(2)) == {
        "train.batch_size": "2",
        "deepspeed_config.zero_stage": "3",
        "train.gradient_checkpointing": "4",
        "deepspeed_config.offload_optimizer_device": "cpu",
    }
    order = settings(train(), launcher(0))
    now = setting_of(train(), launcher(0))
    assert (
        changes(now, order[order.index(now) + 1])["train.batch_size"]
        == savings(train(), launcher(0))["train.batch_size"]
    )
    assert savings(train(batch_size=1, gradient_checkpointing=True), launcher(0)) == {}


def test_a_cost_is_told_of_what_gets_slower_alone() -> None:
    now = setting_of(train(gradient_checkpointing=True), launcher(2))
    then = dataclasses.replace(now, recomputed=0, zero_stage=3, batch_size=2)
    assert costs(now, then).keys() == {"deepspeed_config.zero_stage", "train.batch_size"}
    assert costs(then, now).keys() == {"train.gradient_checkpointing"}


def test_blocks_are_recomputed_by_and_by() -> None:
    order = settings(train(), launcher(0))
    shown = [each.values()["train.gradient_checkpointing"] for each in order if each.batch_size == 1]
    assert shown == ["false", "4", "2", "true"]
    assert [each.train(train()).recomputed for each in order if each.batch_size == 1] == [0, 4, 2, 1]
    assert savings(train(batch_size=1, gradient_checkpointing=4), launcher(0)) == {
        "train.gradient_checkpointing": "2"
    }
