"""The proposal is the fastest setting that fits, of padded rows and of packs, whatever their lengths are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from finetune.gpus import Gpu
from finetune.launcher import Launcher
from finetune.memory import Memory
from finetune.proposal import Proposal, propose
from finetune.setting import RowLengths
from lensmith.train_settings import Train
from tests.finetune.test_setting import launcher, train

NOTHING = Memory(0, 0, 0, 0, 0, 0, 0, 0, 0)
TOKEN = 1 << 20


@dataclass
class Rows:
    """What `propose` asks a Forecast: a pass takes a MiB a token, pads included, and nothing else counts."""

    mean: float
    longest: int
    packed: bool = True

    @property
    def lengths(self) -> RowLengths:
        return RowLengths(self.mean, alike=self.mean == self.longest)

    def may_pack(self, train: Train) -> bool:
        return self.packed

    def memory(self, train: Train, launcher: Launcher) -> Memory:
        tokens = train.pack_length or train.batch_size * self.longest
        return replace(NOTHING, weights=tokens * TOKEN // (4 if train.recomputed else 1))


def proposed(rows: Any, tokens: int, **more: object) -> Proposal:
    """For a GPU that has room for so many tokens, of a training of 16 rows a step."""
    gpu = Gpu("any", replace(NOTHING, weights=tokens * TOKEN).needed)
    return propose(rows, train(batch_size=4, gradient_accumulation=4, **more), launcher(0), gpu)


def test_packs_of_rows_whose_pads_do_not_fit() -> None:
    """Of unequal rows a pack takes less than the rows in it, padded: neither order is the other's."""
    found = proposed(Rows(mean=500, longest=2000), 9000, max_length=2048)
    assert found.fits
    assert found.changes == {"train.pack_length": "8192"}
    assert found.reasons == {}


def test_padded_rows_where_the_shortest_pack_does_not_fit() -> None:
    found = proposed(Rows(mean=1000, longest=1000), 3000, max_length=4096)
    assert not found.fits
    assert found.changes == {"train.batch_size": "2", "train.gradient_accumulation": "8"}


def test_more_padded_rows_than_the_longest_pack_that_fits() -> None:
    found = proposed(Rows(mean=1000, longest=1000), 8100, max_length=4096)
    assert found.changes == {"train.batch_size": "8", "train.gradient_accumulation": "2"}


def test_packs_before_more_rows_that_are_padded() -> None:
    """Pads cost what tokens do: eight rows at a time would be 7,600 tokens and 400 pads."""
    found = proposed(Rows(mean=950, longest=1000), 8100, max_length=4096)
    assert found.changes == {"train.pack_length": "4096"}


@pytest.mark.parametrize(
    ("mean", "changes"),
    [
        (299, {"train.pack_length": "2048", "train.gradient_checkpointing": "4"}),
        (301, {"train.batch_size": "1", "train.gradient_accumulation": "16"}),
    ],
)
def test_blocks_are_computed_again_before_a_pass_has_too_few_tokens(
    mean: int, changes: dict[str, str]
) -> None:
    """One row alone fits without, and is no work for a GPU; packs fit with a fourth of the memory a token."""
    found = proposed(Rows(mean=mean, longest=mean), 550, max_length=2048)
    assert found.changes == changes
    assert found.reasons.keys() == changes.keys() - {"train.pack_length", "train.gradient_accumulation"}


def test_a_family_that_does_not_pack_is_padded() -> None:
    found = proposed(Rows(mean=500, longest=2000, packed=False), 9000, max_length=2048)
    assert found.fits
    assert found.changes == {}


def test_packs_before_blocks_are_computed_again() -> None:
    rows = Rows(mean=500, longest=2000)
    found = proposed(rows, 2100, max_length=2048, gradient_checkpointing=True)
    assert found.changes["train.gradient_checkpointing"] == "false"
    assert found.changes["train.pack_length"] == "2048"
    assert found.reasons == {}, "both are faster"


@pytest.mark.parametrize("more", [{}, {"pack_length": 4096}], ids=["padded", "packed"])
def test_no_setting_where_one_row_does_not_fit(more: dict[str, Any]) -> None:
    assert proposed(Rows(mean=500, longest=2000), 400, max_length=2048, **more).setting is None
