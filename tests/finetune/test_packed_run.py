"""A packed run is the run without packing: the same rows a step, the same losses, the same when resumed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import finetune.packed
from finetune.collate import COLUMN, EncodedRows, training_rows
from finetune.documents import rope_positions
from finetune.encoded import IGNORED
from finetune.encoder import row_encoder
from finetune.model import load_skeleton
from finetune.packing import PackPlan
from lensmith.dataset import read_split
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.test_train import broken_after

pytestmark = pytest.mark.slow

# Two rows past an epoch; sixteen rows a step, some 80 tokens each, in packs of six or seven.
SETTINGS: dict[str, Any] = {"train__max_steps": 4, "train__batch_size": 16, "train__log_every": 1}
PACKED: dict[str, Any] = {**SETTINGS, "train__pack_length": 600}


@pytest.fixture(scope="module")
def padded(new_training: TrainingMaker) -> Training:
    training = new_training(**SETTINGS)
    training.run()
    return training


@pytest.fixture(scope="module")
def packed(new_training: TrainingMaker) -> Training:
    training = new_training(**PACKED)
    training.run()
    return training


def test_the_same_run(padded: Training, packed: Training) -> None:
    assert packed.losses() == pytest.approx(padded.losses(), abs=1e-5)
    ours, theirs = (load_file(each.run().path / "adapter_model.safetensors") for each in (packed, padded))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in theirs)
    assert packed.run().manifest.key == padded.run().manifest.key


def test_resumed_equals_unbroken(
    new_training: TrainingMaker, packed: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = new_training(**PACKED)
    broken_after(2, training, monkeypatch)
    run = training.run()
    assert run.record()["resumed_at"] == 2
    assert run.manifest.key == packed.run().manifest.key
    assert training.losses() == pytest.approx(packed.losses(), abs=1e-6)
    ours, theirs = (load_file(each.run().path / "adapter_model.safetensors") for each in (training, packed))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)


def test_rows_of_another_order_would_show(
    new_training: TrainingMaker, padded: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant of the first test: an epoch that is shuffled by another seed than accelerate's."""
    training = new_training(**PACKED)
    plan_run = finetune.packed.plan_run

    def reseeded(*given: Any) -> PackPlan:
        plan = plan_run(*given)
        return replace(plan, packing=replace(plan.packing, seed=plan.packing.seed + 1))

    monkeypatch.setattr(finetune.packed, "plan_run", reseeded)
    assert training.losses() != pytest.approx(padded.losses(), abs=1e-3)


def test_the_row_that_fills_teaches_nothing(packed: Training) -> None:
    source = packed.recipe.base.path
    encoder = row_encoder(packed.recipe, source)
    stored = read_split(packed.dataset, "train")
    rows = training_rows(EncodedRows(stored, encoder, positions=rope_positions(load_skeleton(source))))
    first, last = rows[0][COLUMN], rows[len(rows) - 1][COLUMN]
    assert len(rows) == len(training_rows(EncodedRows(stored, encoder))) + 1
    assert torch.equal(first.tokens["input_ids"], last.tokens["input_ids"])
    assert bool((first.labels != IGNORED).any())
    assert not bool((last.labels != IGNORED).any())
