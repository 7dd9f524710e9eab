"""The k-th largest of what is never held as a whole, against all of it sorted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from finetune.proving import largest
from finetune.proving.largest import kth_largest

SIZE = 40_000


def drawn(kind: str) -> Tensor:
    """Elements as changes have them, and as none has."""
    source = torch.Generator().manual_seed(1)
    values = torch.randn(SIZE, generator=source)
    return {
        "normal": values,
        "rising": values.abs().sort().values,
        "few values": values.round(),
        "nearly all zero": values * (torch.arange(SIZE) % 199 == 0),
        "one value": torch.full((SIZE,), -0.5),
        "two values": torch.where(torch.arange(SIZE) < 7, 2.0, 1.0),
        "zero": torch.zeros(SIZE),
    }[kind]


def in_blocks(values: Tensor, passes: list[int]) -> Callable[[], Iterator[Tensor]]:
    def blocks() -> Iterator[Tensor]:
        passes.append(1)
        yield from values.view(-1, 8).split(301)

    return blocks


@pytest.fixture(params=[500, 1 << 20])
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(largest, "_HELD", request.param)
    return request.param


@pytest.mark.parametrize(
    "kind", ["normal", "rising", "few values", "nearly all zero", "one value", "two values", "zero"]
)
def test_it_is_what_sorting_gives(held: int, kind: str) -> None:
    values = drawn(kind)
    in_order = values.abs().sort(descending=True).values
    for count in (1, 2, 7, 8, 201, 202, 203, SIZE // 3, SIZE // 2, SIZE - 1, SIZE):
        passes: list[int] = []
        assert kth_largest(in_blocks(values, passes), count) == float(in_order[count - 1])
        assert len(passes) <= (1 if held > SIZE else 6)


def test_none_and_more_than_there_are(held: int) -> None:
    values = drawn("normal")
    assert kth_largest(in_blocks(values, []), 0) == math.inf
    with pytest.raises(ValueError, match="fewer than 40001"):
        kth_largest(in_blocks(values, []), SIZE + 1)


def test_a_sample_that_misleads_costs_passes_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sampled element is small: the bracket that it gives lies below what is wanted."""
    monkeypatch.setattr(largest, "_HELD", 500)
    values = torch.linspace(1, 2, SIZE)
    values[::64] = torch.linspace(0, 0.01, len(values[::64]))
    in_order = values.sort(descending=True).values
    for count in (1, 500, SIZE // 2):
        assert kth_largest(in_blocks(values, []), count) == float(in_order[count - 1])
