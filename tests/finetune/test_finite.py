"""Weights that are no numbers are never sealed: a resume begins at the last whole checkpoint before them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from finetune import checkpoint as checkpoints
from finetune.finite import check_finite
from finetune.run import run_key
from finetune.trainer import AnswerTrainer
from lensmith.errors import InputError, IntegrityError
from tests.finetune.conftest import LONGER, Training, TrainingMaker, assert_same_run

pytestmark = pytest.mark.slow


def work_of(training: Training) -> Path:
    return training.home.work_path(run_key(training.recipe, training.base, training.dataset))


def test_every_saved_tensor_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-6"
    folder.mkdir()
    with pytest.raises(IntegrityError, match="no weights were saved in"):
        check_finite(folder)
    save_file({"a": torch.ones(3)}, folder / "adapter_model.safetensors")
    check_finite(folder)
    save_file({"a": torch.ones(3), "b": torch.tensor([1.0, torch.inf])}, folder / "more.safetensors")
    with pytest.raises(InputError, match="before checkpoint-6 was saved"):
        check_finite(folder)


def test_broken_weights_are_not_gone_on_from(
    new_training: TrainingMaker, unbroken: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step whose loss is a number may leave weights that are none: the checkpoint before it counts."""
    training = new_training(**LONGER)
    save = AnswerTrainer._save_checkpoint

    def planted(self: AnswerTrainer, *given: Any) -> None:
        if self.state.global_step == 4:
            weight = next(each for each in self.base.parameters() if each.requires_grad)
            weight.data[0, 0] = torch.inf
        save(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(AnswerTrainer, "_save_checkpoint", planted)
        with pytest.raises(InputError, match="before checkpoint-4 was saved"):
            training.run()
    assert checkpoints.sealed_steps(work_of(training)) == [3]
    assert training.run().record()["resumed_at"] == 3
    assert_same_run(training, unbroken)


def test_a_rate_that_breaks_the_first_step_leaves_no_checkpoint(new_training: TrainingMaker) -> None:
    training = new_training(train__learning_rate=1e39, train__schedule="constant", train__warmup=0.0)
    with pytest.raises(InputError, match="before checkpoint-1 was saved") as error:
        training.run()
    assert "holds NaN or infinite values (lower train.learning_rate)" in str(error.value)
    assert checkpoints.sealed_steps(work_of(training)) == []
