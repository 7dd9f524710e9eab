"""Frozen towers are run once a row: the run is the one that runs them in every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from trl.trainer.sft_config import SFTConfig

import finetune.features
import finetune.train
from finetune.arguments import training_arguments
from finetune.collate import EncodedRows
from finetune.encoded import Encoded
from finetune.features import Numbers, image_features, keep_features
from finetune.launcher import Launcher
from finetune.trainer import AnswerTrainer
from lensmith.counting import Counts
from lensmith.dataset import read_split
from tests.finetune.conftest import Training, TrainingMaker
from tests.finetune.test_train import broken_after

pytestmark = pytest.mark.slow

FROZEN = {"vision": "freeze", "connector": "freeze", "language": "adapt"}
# An epoch is a little less than four steps of sixteen rows.
SETTINGS: dict[str, Any] = {"train__towers": FROZEN, "train__max_steps": 5, "train__batch_size": 16}


@pytest.fixture(scope="module")
def kept(new_training: TrainingMaker) -> Training:
    training = new_training(**SETTINGS)
    training.run()
    return training


def adapter(training: Training) -> dict[str, Tensor]:
    return load_file(training.run().path / "adapter_model.safetensors")


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> bool:
    return all(torch.allclose(ours[name], theirs[name], rtol=0, atol=tolerance) for name in theirs)


def test_the_same_run(kept: Training, new_training: TrainingMaker) -> None:
    """As with features made in every epoch, under the same key; packed too."""
    anew = new_training(**SETTINGS, train__image_features_gib=0)
    packed = new_training(**SETTINGS, train__pack_length=600)
    assert kept.losses() == pytest.approx(anew.losses(), abs=1e-5)
    assert packed.losses() == pytest.approx(anew.losses(), abs=1e-5)
    assert same(adapter(kept), adapter(anew), 1e-4)
    assert kept.run().manifest.key == anew.run().manifest.key == packed.run().manifest.key
    sizes = [each.run().record()["image_features"] for each in (kept, anew, packed)]
    assert sizes[0] > 0
    assert sizes[1] == 0
    assert sizes[2] > sizes[0], "positions are kept beside them"


def test_each_row_is_seen_once(new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    training = new_training(**SETTINGS)
    seen: list[str] = []
    calls: list[int] = []

    def counted(model: Any, rows: Sequence[Encoded], dtype: torch.dtype, numbers: Numbers) -> list[Encoded]:
        seen.extend(each.row for each in rows)
        calls.append(len(rows))
        return image_features(model, rows, dtype, numbers)

    monkeypatch.setattr(finetune.features, "image_features", counted)
    training.run()
    assert len(seen) == len(set(seen)) == len(set(read_split(training.dataset, "train").epoch()))
    assert calls[0] == 1, "the largest, from which the memory of all is told"
    assert len(calls) < len(seen) / 4


def test_features_of_another_row_would_show(
    new_training: TrainingMaker, kept: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant of the first test: all rows have the first one's picture."""
    training = new_training(**SETTINGS)

    def mistaken(model: Any, rows: Sequence[Encoded], dtype: torch.dtype, numbers: Numbers) -> list[Encoded]:
        made = image_features(model, rows, dtype, numbers)
        return [replace(each, features=made[0].features) for each in made]

    monkeypatch.setattr(finetune.features, "image_features", mistaken)
    assert training.losses() != pytest.approx(kept.losses(), abs=1e-3)


def test_resumed_equals_unbroken(
    new_training: TrainingMaker, kept: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: the same rows are seen together at every start."""
    training = new_training(**SETTINGS)
    broken_after(4, training, monkeypatch)
    assert training.run().record()["resumed_at"] == 4
    assert same(adapter(training), adapter(kept), 0)


class Enough(Exception):
    """What is kept was seen: nothing has to be trained."""


def before_training(
    training: Training, monkeypatch: pytest.MonkeyPatch, workers: int = 0
) -> tuple[int, EncodedRows]:
    """What `keep_features` gives, and the rows as it leaves them."""
    found: list[tuple[int, EncodedRows]] = []

    def arguments(*given: Any) -> SFTConfig:
        made = training_arguments(*given)
        made.dataloader_num_workers = workers
        return made

    def keeping(trainer: AnswerTrainer, launcher: Launcher, rows: EncodedRows, counts: Counts) -> int:
        found.append((keep_features(trainer, launcher, rows, counts), rows))
        raise Enough

    monkeypatch.setattr(finetune.train, "training_arguments", arguments)
    monkeypatch.setattr(finetune.train, "keep_features", keeping)
    with pytest.raises(Enough):
        training.run()
    return found[0]


def test_nothing_is_kept_that_is_needed_once(
    new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few steps of a large data set would wait for all of it."""
    within_an_epoch = new_training(**{**SETTINGS, "train__max_steps": 1})
    size, rows = before_training(within_an_epoch, monkeypatch)
    assert size == 0
    assert not any(each.features for each in rows.kept.values())


def test_workers_leave_no_file_open(
    new_training: TrainingMaker, preferences: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor that a worker has made holds one as long as it lives; a process may have 1,024."""
    training = new_training(**preferences | SETTINGS)
    size, rows = before_training(training, monkeypatch, workers=2)
    assert size > 0
    pairs = [(row, row.rejected) for row in rows.kept.values() if row.rejected is not None]
    assert len(pairs) == len(rows.kept)
    tensors = [
        tensor
        for pair in pairs
        for row in pair
        for tensor in (row.labels, *row.tokens.values(), *row.images.values())
    ]
    assert len(tensors) > len(rows.kept) > 0
    assert not any(tensor.is_shared() for tensor in tensors)


def test_too_many_are_not_kept(
    new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    size, _ = before_training(new_training(**SETTINGS, train__image_features_gib=1e-6), monkeypatch)
    assert size == 0
    assert "train.image_features_gib is 1e-06: they are made in every epoch" in capfd.readouterr().err


def test_what_is_trained_is_not_kept(new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    towers = {**FROZEN, "connector": "adapt"}
    size, _ = before_training(new_training(**{**SETTINGS, "train__towers": towers}), monkeypatch)
    assert size == 0
