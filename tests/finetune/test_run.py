"""The run's key and metrics: what was asked, not how it was started or how often it was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.run import metrics, run_key
from lensmith.errors import InputError
from tests.finetune.conftest import Training, TrainingMaker


def key(training: Training) -> str:
    return run_key(training.recipe, training.base, training.dataset)


def with_train(training: Training, **settings: Any) -> str:
    train = training.recipe.train.model_copy(update=settings)
    recipe = training.recipe.model_copy(update={"train": train})
    return run_key(recipe, training.base, training.dataset)


@pytest.fixture(scope="module")
def training(new_training: TrainingMaker) -> Training:
    return new_training()


def test_watching_and_saving_do_not_change_the_key(training: Training) -> None:
    same = with_train(
        training,
        log_every=7,
        save_every=9,
        stop_grace=5,
        collective_timeout=6,
        wandb="offline",
        wandb_project="x",
        gradient_checkpointing=True,
    )
    assert same == key(training)


@pytest.mark.parametrize(
    "setting",
    [{"learning_rate": 0.5}, {"seed": 1}, {"max_steps": 4}, {"batch_size": 4}, {"dtype": "bfloat16"}],
)
def test_what_is_asked_changes_the_key(training: Training, setting: dict[str, Any]) -> None:
    assert with_train(training, **setting) != key(training)


def test_more_processes_with_the_same_global_batch_are_the_same_run(
    training: Training, deepspeed_config: dict[str, Any], tmp_path: Path
) -> None:
    keys: set[str] = set()
    for stage in (2, 3):
        deepspeed_config["deepspeed_config"]["zero_stage"] = stage
        path = tmp_path / f"zero{stage}.yaml"
        path.write_text(yaml.safe_dump(deepspeed_config))
        keys.add(with_train(training, launcher=path, batch_size=1))
        assert with_train(training, launcher=path) != key(training), "twice the rows a step"
    keys.add(with_train(training, batch_size=1, gradient_accumulation=2))
    assert keys == {key(training)}


def test_missing_launcher(training: Training, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        with_train(training, launcher=tmp_path / "none.yaml")


def entry(step: int) -> dict[str, float]:
    return {
        "step": step,
        "epoch": step / 10,
        "loss": float(step),
        "learning_rate": 0.1,
        "grad_norm": 1.0,
        "mean_token_accuracy": step / 100,
        "num_input_tokens_seen": step * 50,
    }


def test_metrics_are_means_over_the_steps_between() -> None:
    history = [*(entry(step) for step in range(1, 8)), {"step": 7, "train_runtime": 1.0}]
    lines = metrics(history, 3)
    assert [line["step"] for line in lines] == [3, 6, 7]
    assert [line["loss"] for line in lines] == [2.0, 5.0, 7.0]
    assert lines[1]["answer_accuracy"] == pytest.approx(0.05)
    assert lines[-1]["tokens"] == 350
