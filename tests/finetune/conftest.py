"""What the tests of finetune share: a prepared home to start from, and recipes that train on it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lensmith.artifact import Artifact
from lensmith.base import pin_base
from lensmith.home import Home
from lensmith.recipe import PATHS, Recipe, load_recipe
from tests.conftest import recipe_content, shared_folder
from tests.roomy import with_room


@dataclass(frozen=True)
class Training:
    """A recipe with its base and dataset in a home of its own."""

    recipe_path: Path
    recipe: Recipe
    home: Home
    base: Artifact
    dataset: Artifact

    def run(self) -> Artifact:
        """Train in this process, as the one process of the CPU launcher; the run."""
        from finetune.run import run_key
        from finetune.train import train_process

        train_process(self.recipe, self.home, self.base, self.dataset)
        run = self.home.find("run", run_key(self.recipe, self.base, self.dataset))
        assert run is not None
        return run

    def metrics(self) -> list[dict[str, float]]:
        """What its run tells of each step."""
        lines = (self.run().path / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def losses(self) -> list[float]:
        """The loss of each step of its run."""
        return [line["loss"] for line in self.metrics()]


TrainingMaker = Callable[..., Training]


@pytest.fixture(scope="session")
def prepared_home(tiny_base: Path, bank_forms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with base and dataset, to be copied; one for all workers."""

    def make(folder: Path) -> None:
        from data_prep.prepare import prepare

        path = folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe_content(tiny_base, bank_forms)))
        recipe, home = load_recipe(path), Home(folder / "home")
        pin_base(recipe, home)
        prepare(recipe, home)

    return shared_folder(tmp_path_factory, "prepared", make) / "home"


@pytest.fixture(scope="session")
def new_training(
    prepared_home: Path, tiny_base: Path, bank_forms: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainingMaker:
    """Make a training; keyword "train__method" sets train.method. Three steps, no warm-up."""
    from data_prep.prepare import prepare

    def make(**settings: Any) -> Training:
        root = tmp_path_factory.mktemp("training")
        content = recipe_content(tiny_base, bank_forms)
        content["train"].update(max_steps=3, warmup=0.0, learning_rate=0.01)
        for dotted, value in settings.items():
            *parents, last = dotted.split("__")
            section = content
            for name in parents:
                section = section.setdefault(name, {})
            section[last] = str(value) if ".".join([*parents, last]) in PATHS else value
        path = root / "recipe.yaml"
        path.write_text(yaml.safe_dump(content))
        shutil.copytree(prepared_home, root / "home")
        recipe, home = load_recipe(path), Home(root / "home")
        return Training(path, recipe, home, pin_base(recipe, home), prepare(recipe, home).dataset)

    return make


@pytest.fixture(scope="session")
def lora_losses(new_training: TrainingMaker) -> list[float]:
    """The losses of LoRA on one process: what every other way of starting it must give."""
    return new_training().losses()


@pytest.fixture(scope="session")
def preferences(bank_forms: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of objective dpo on the forms, each with a rejected answer; every third one is text alone."""
    folder = Path(shutil.copytree(bank_forms, tmp_path_factory.mktemp("preferences") / "forms"))
    lines: list[str] = []
    for number, raw in enumerate((folder / "labels.jsonl").read_bytes().splitlines()):
        # Some of the handed-over lines are no rows.
        with contextlib.suppress(ValueError, TypeError, LookupError):
            row = json.loads(raw)
            if number % 3 == 0:
                said = json.dumps(row["messages"][-1]["content"])[:60]
                row["messages"][0]["content"] = f"Write form {number} as JSON. {said}"
            lines.append(json.dumps({**row, "rejected": '{"account": "000000", "unsure": true}'}))
    (folder / "labels.jsonl").write_text("\n".join(lines))
    return {
        "data__source": folder / "labels.jsonl",
        "data__text_only": True,
        "train__objective": "dpo",
        "train__beta": 0.5,
        "train__max_steps": 6,
        "train__batch_size": 4,
        # The first steps of a longer run are a shorter one.
        "train__schedule": "constant",
    }


@pytest.fixture(scope="session")
def preferring(new_training: TrainingMaker, preferences: dict[str, Any]) -> Training:
    """Six steps of objective dpo, trained."""
    training = new_training(**preferences)
    training.run()
    return training


LONGER: dict[str, Any] = {
    "train__max_steps": 6,
    "train__batch_size": 8,
    "train__lora": {"rank": 4, "alpha": 8.0, "dropout": 0.1},
    "train__log_every": 4,
    "train__tower_learning_rates": {"vision": 0.003, "language": 0.02},
}


@pytest.fixture(scope="session")
def unbroken(new_training: TrainingMaker) -> Training:
    """Six steps with dropout, so that a resumed run needs the random numbers too; 2 rows past an epoch."""
    training = new_training(**LONGER)
    training.run()
    return training


def assert_same_run(ours: Training, theirs: Training) -> None:
    """The same key, losses and weights."""
    import torch
    from safetensors.torch import load_file

    assert ours.run().manifest.key == theirs.run().manifest.key
    assert ours.losses() == pytest.approx(theirs.losses(), abs=1e-6)
    weights = [load_file(each.run().path / "adapter_model.safetensors") for each in (ours, theirs)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.allclose(weights[0][name], each, atol=1e-6) for name, each in weights[1].items())


@pytest.fixture(scope="session")
def deepspeed_config() -> dict[str, Any]:
    """An accelerate config of two CPU processes under DeepSpeed; set its zero_stage."""
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": {"offload_optimizer_device": "none", "offload_param_device": "none"},
        "num_machines": 1,
        "num_processes": 2,
        "mixed_precision": "no",
        "use_cpu": True,
    }


@pytest.fixture(scope="session")
def roomy(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with rows for new tokens beyond its tokenizer's, and a head of its own."""
    return with_room(tiny_base, tmp_path_factory.mktemp("roomy") / "base", 16)


@pytest.fixture(scope="session")
def tied(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, with one matrix for both."""
    return with_room(tiny_base, tmp_path_factory.mktemp("tied") / "base", 16, tied=True)


@pytest.fixture(scope="session")
def examined(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a training that is evaluated after each step, and ends where nothing is gained."""
    from tests.finetune.examined import end_anywhere
    from tests.finetune.merged import lively_base

    return {
        "base__path": lively_base(tiny_base, tmp_path_factory.mktemp("examined") / "base", end_anywhere),
        "data__split__validation": 0.3,
        "serve__max_new_tokens": 5,
        "train__max_steps": 9,
        "train__schedule": "constant",
        "train__save_every": 100,
        "train__evaluate": {"every": 1, "rows": 5, "patience": 1, "metric": "character_error_rate"},
    }
