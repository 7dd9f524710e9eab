"""The pack plan: every row once, no pack too long, work shared evenly, the same everywhere and every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import skip_first_batches

from finetune.packing import (
    Pack,
    Packing,
    PackLoader,
    PackPlan,
    PackRows,
    PackSampler,
    image_work,
    plan_packs,
)
from lensmith import families


def packing(rows: int = 500, length: int = 4096, step: int = 64, processes: int = 4) -> Packing:
    """Documents of 50 to 1,500 tokens, most of them of images; an image token costs a third more."""
    rng = np.random.default_rng(5)
    text, image = rng.integers(30, 300, rows), rng.integers(0, 1200, rows) * rng.integers(0, 2, rows)
    return Packing(text + image, text + image + image // 3, length, step, processes, seed=17)


@pytest.fixture(scope="module")
def plan() -> PackPlan:
    return plan_packs(packing(), epochs=3)


def test_every_row_of_a_step_is_in_one_pack(plan: PackPlan) -> None:
    for epoch in range(3):
        steps = plan.packing.steps(epoch)
        for rows, shared in zip(steps, plan.steps(epoch), strict=True):
            assert sorted(row for packs in shared for pack in packs for row in pack) == sorted(rows)
        assert sorted(row for rows in steps for row in rows) == list(range(500))
    assert plan.packing.steps(0) != plan.packing.steps(1)


def test_no_pack_is_too_long_and_all_processes_pass_equally_often(plan: PackPlan) -> None:
    for epoch in range(3):
        for shared in plan.steps(epoch):
            assert all(len(packs) == plan.packing.processes for packs in shared)
            assert all(plan.packing.tokens[pack].sum() <= 4096 for packs in shared for pack in packs)


def test_work_is_shared_evenly(plan: PackPlan) -> None:
    """At every pass the slowest process has at most 3% more to do than the mean; in the order of the rows it
    would be half as much again."""

    def worst(passes: list[list[list[list[int]]]]) -> float:
        """Of all steps: the time that the slowest processes take, in shares of the mean."""
        work = [[[plan.packing.work[pack].sum() for pack in packs] for packs in shared] for shared in passes]
        return max(sum(max(packs) for packs in step) / np.mean(step, axis=1).sum() for step in work)

    whole = [list(plan.steps(epoch))[:-1] for epoch in range(3)]
    assert worst([shared for steps in whole for shared in steps]) < 1.03
    dealt = [
        [[rows[at::16] for at in range(start, start + 4)] for start in range(0, 16, 4)]
        for rows in plan.packing.steps(0)[:-1]
    ]
    assert worst(dealt) > 1.2


def test_no_pass_too_many(plan: PackPlan) -> None:
    steps = [rows for epoch in range(3) for rows in plan.packing.steps(epoch)[:-1]]
    assert any(plan.packing.share(rows, plan.passes - 1) is None for rows in steps)
    assert plan.last < plan.passes
    assert plan.passes_an_epoch == 7 * plan.passes + plan.last


class Numbers:
    """Rows that are their own numbers."""

    def __getitems__(self, keys: list[int]) -> list[int]:
        return keys


def packs_of(plan: PackPlan, process: int, filler: int, epoch: int = 0) -> list[Pack]:
    """The packs of an epoch, as the trainer's loader asks for them."""
    sampler, rows = PackSampler(plan), PackRows(Numbers(), plan, process, filler)
    sampler.set_epoch(epoch)
    return [rows.__getitems__(places) for places in sampler]


def test_processes_go_through_one_plan(plan: PackPlan) -> None:
    for epoch in range(2):
        packs = [packs_of(plan, process, 500, epoch) for process in range(4)]
        assert {len(each) for each in packs} == {plan.passes_an_epoch} == {len(PackSampler(plan))}
        assert sorted(row for each in packs for pack in each for row in pack if row != 500) == list(
            range(500)
        )
    assert packs_of(plan_packs(packing(), 3), 0, 500) == packs_of(plan, 0, 500)
    other = plan_packs(replace(packing(), seed=18), 3)
    assert packs_of(other, 0, 500) != packs_of(plan, 0, 500)


def test_a_pack_that_no_row_is_left_for_is_filled() -> None:
    tiny = Packing(np.array([9, 9, 9]), np.array([9, 9, 9]), length=10, rows=2, processes=2, seed=1)
    plan = plan_packs(tiny, epochs=1)
    assert (plan.passes, plan.last) == (1, 1)
    packs = [packs_of(plan, process, filler=3) for process in range(2)]
    assert [len(each) for each in packs] == [2, 2]
    # The step of one row leaves one process without.
    assert [each[1] for each in packs].count([3]) == 1


def test_rows_as_long_as_a_pack_have_one_each() -> None:
    full = Packing(np.full(8, 10), np.full(8, 10), length=10, rows=4, processes=2, seed=1)
    plan = plan_packs(full, epochs=1)
    assert plan.passes == 2
    assert all(len(pack) == 1 for shared in plan.steps(0) for packs in shared for pack in packs)
    with pytest.raises(ValueError, match="11 tokens in packs of 10"):
        plan_packs(replace(full, tokens=np.full(8, 11)), epochs=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_vl_moe"])
def test_an_image_costs_what_it_meets_in_the_tower(name: str) -> None:
    """In tokens of the language model, which meet two of its four experts."""
    from tests.finetune import tiny_models

    model = {"qwen3_vl": tiny_models.qwen3_vl, "qwen3_vl_moe": tiny_models.qwen3_vl_moe}[name]()
    matrices = {
        name: weight.numel()
        for name, weight in model.named_parameters()
        if weight.dim() in (2, 3) and "embed" not in name and "mlp.gate.weight" not in name
    }
    vision = sum(size for name, size in matrices.items() if ".visual.blocks." in name)
    language = sum(
        size // (2 if ".experts." in name else 1)
        for name, size in matrices.items()
        if ".language_model." in name
    )
    assert image_work(model, families.get(name), 4) == pytest.approx(4 * vision / language)


@pytest.mark.parametrize("rows", [30, 64])
def test_an_epoch_of_one_step_is_one_step(rows: int) -> None:
    plan = plan_packs(packing(rows=rows, processes=1), epochs=3)
    assert plan.last > 1
    # The trainer ends a step after `passes` forward passes.
    assert plan.passes == plan.last == plan.passes_an_epoch


def test_the_last_step_of_an_epoch_is_never_two() -> None:
    """Short rows in all steps but the last one of an epoch, which needs more passes than they do."""
    for seed in range(8):
        order = torch.randperm(128, generator=torch.Generator().manual_seed(seed)).numpy()
        tokens = np.full(128, 10)
        tokens[order[64:]] = 60
        plan = plan_packs(Packing(tokens, tokens, 1000, 64, 1, seed), epochs=1)
        assert plan.last == 4
        assert -(-plan.passes_an_epoch // plan.passes) == 2


def test_the_loader_passes_the_epoch_on(plan: PackPlan) -> None:
    rows = PackRows(Numbers(), plan, 0, 500)
    loader = PackLoader(rows, batch_sampler=PackSampler(plan), collate_fn=list)  # pyright: ignore[reportArgumentType]
    assert list(loader) == packs_of(plan, 0, 500)
    loader.set_epoch(1)
    assert list(loader) == packs_of(plan, 0, 500, epoch=1) != packs_of(plan, 0, 500)


def test_what_is_skipped_is_not_planned(plan: PackPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed training is at its step at once, however many lie before it."""
    planned: list[int] = []
    share = Packing.share

    def counted(self: Packing, rows: list[int], passes: int) -> list[list[Pack]] | None:
        planned.append(passes)
        return share(self, rows, passes)

    loader = PackLoader(
        PackRows(Numbers(), plan, 0, 500),  # pyright: ignore[reportArgumentType]
        batch_sampler=PackSampler(plan),
        collate_fn=list,
    )
    rest = skip_first_batches(loader, 6 * plan.passes)
    monkeypatch.setattr(Packing, "share", counted)
    assert list(rest) == packs_of(plan, 0, 500)[6 * plan.passes :]
    assert len(planned) == len(plan.packing.steps(0)) - 6 + len(plan.packing.steps(0))
