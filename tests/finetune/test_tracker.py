"""The tracker never fails a run: offline by itself, offline where the service cannot be reached."""

from __future__ import annotations

import pytest

import finetune.tracker
from tests.finetune.conftest import TrainingMaker

pytestmark = pytest.mark.slow


def test_offline_leaves_its_files_in_the_home(new_training: TrainingMaker) -> None:
    training = new_training(train__wandb="offline", train__max_steps=1)
    assert training.run().record()["wandb"] == "offline"
    assert list(training.home.root.glob("wandb/offline-run-*/run-*.wandb"))


def test_unreachable_service(new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setattr(finetune.tracker, "PATIENCE_S", 2.0)
    training = new_training(train__wandb="online", train__max_steps=1)
    assert training.run().record()["wandb"].startswith("offline: ")
    assert list(training.home.root.glob("wandb/offline-run-*/run-*.wandb"))


def test_disabled_writes_nothing(new_training: TrainingMaker) -> None:
    training = new_training(train__max_steps=1)
    assert training.run().record()["wandb"] == "disabled"
    assert not (training.home.root / "wandb").exists()
