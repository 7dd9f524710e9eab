"""Training in one process: what it makes, what stops it, and that a batch is learned as a whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import training_args
from transformers.modeling_layers import GradientCheckpointingLayer
from trl.trainer.sft_config import SFTConfig

import finetune.train
from finetune import checkpoint as checkpoints
from finetune.arguments import training_arguments
from finetune.disk import disk_is_full
from finetune.launcher import Launcher, read_launcher
from finetune.run import asked_of, run_key
from finetune.started import check_batch, check_dtype, check_started
from finetune.train import train_process
from lensmith.base import template_digest
from lensmith.errors import InputError, IntegrityError
from lensmith.recipe import Recipe
from tests.conftest import ROOT
from tests.finetune.conftest import LONGER, Training, TrainingMaker, assert_same_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lora(new_training: TrainingMaker) -> Training:
    training = new_training()
    training.run()
    return training


def test_run_states_what_was_trained(lora: Training) -> None:
    run = lora.run()
    assert run.manifest.inputs == {"base": lora.base.id, "dataset": lora.dataset.id}
    assert run.body["adapted"] == {"vision": 8, "connector": 4, "language": 14}
    assert run.body["template"] == template_digest(lora.recipe.base.path)
    assert run.body["steps"] == 3
    assert run.body["global_batch"] == 2
    # All that the key is made of can be read, and nothing of how this machine launched it.
    assert run.body["asked"] == asked_of(lora.recipe)
    assert run.body["asked"]["train"]["learning_rate"] == 0.01
    assert str(lora.recipe.train.launcher) not in json.dumps(run.body)
    weights = load_file(run.path / "adapter_model.safetensors")
    assert len(weights) == 2 * 26
    assert sum(each.numel() for each in weights.values()) == sum(run.body["trained_parameters"].values())
    assert any(bool(each.any()) for name, each in weights.items() if "lora_B" in name), "nothing was learned"
    assert json.loads((run.path / "adapter_config.json").read_text())["base_model_name_or_path"] == (
        lora.base.short
    )
    assert run.record()["engine"]["class"] == "PeftModelForCausalLM"
    losses = lora.losses()
    assert run.body["final_loss"] == losses[-1]
    assert losses[-1] < losses[0]
    assert not lora.home.work_path(run.manifest.key).exists()


def test_found_again_without_work(lora: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune.train, "training_arguments", None)
    train_process(lora.recipe, lora.home, lora.base, lora.dataset)


def test_same_recipe_gives_the_same_id(lora: Training, new_training: TrainingMaker) -> None:
    again = new_training().run()
    assert again.manifest.key == lora.run().manifest.key
    assert again.id == lora.run().id


@pytest.fixture(scope="module")
def full(new_training: TrainingMaker) -> Training:
    training = new_training(
        train__method="full", train__towers={"vision": "freeze", "connector": "train", "language": "train"}
    )
    training.run()
    return training


def test_full_writes_a_whole_checkpoint(full: Training) -> None:
    run, base = full.run(), full.recipe.base.path
    before, after = load_file(base / "model.safetensors"), load_file(run.path / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        frozen = name.startswith("model.visual.") and "merger" not in name
        same = torch.equal(tensor, after[name])
        assert same if frozen else after[name].dtype == tensor.dtype, name
    assert not torch.equal(
        before["model.language_model.layers.0.mlp.up_proj.weight"],
        after["model.language_model.layers.0.mlp.up_proj.weight"],
    )
    for path in base.iterdir():
        if path.suffix != ".safetensors":
            assert (run.path / path.name).read_bytes() == path.read_bytes(), path.name


def test_accumulated_batches_count_by_answer_tokens(
    new_training: TrainingMaker, lora: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows have answers of different lengths: a mean of means would be another loss."""
    split = new_training(train__batch_size=1, train__gradient_accumulation=2)
    assert split.losses() == pytest.approx(lora.losses(), abs=1e-5)
    make = finetune.train.make_trainer

    def mean_of_means(*arguments: Any) -> Any:
        trainer, tracker = make(*arguments)
        trainer.model_accepts_loss_kwargs = False
        return trainer, tracker

    monkeypatch.setattr(finetune.train, "make_trainer", mean_of_means)
    mutant = new_training(train__batch_size=1, train__gradient_accumulation=2)
    assert mutant.losses() != pytest.approx(lora.losses(), abs=1e-5)


@pytest.mark.parametrize("every", [True, 2])
def test_recomputed_activations_learn_the_same(
    new_training: TrainingMaker, lora: Training, monkeypatch: pytest.MonkeyPatch, every: bool | int
) -> None:
    make, made = finetune.train.make_trainer, []

    def noted(*arguments: Any) -> Any:
        made.append(make(*arguments))
        return made[0]

    monkeypatch.setattr(finetune.train, "make_trainer", noted)
    training = new_training(train__gradient_checkpointing=every)
    assert training.losses() == pytest.approx(lora.losses(), abs=1e-5)
    blocks = [each for each in made[0][0].model.modules() if isinstance(each, GradientCheckpointingLayer)]
    assert [each.gradient_checkpointing for each in blocks] == [n % every == 0 for n in range(len(blocks))]
    assert len(blocks) >= 4


@pytest.mark.parametrize("method", ["lora", "full"])
def test_bfloat16_keeps_what_it_trains_in_float32(new_training: TrainingMaker, method: str) -> None:
    mode = "adapt" if method == "lora" else "train"
    training = new_training(
        train__dtype="bfloat16",
        train__method=method,
        train__towers=dict.fromkeys(("vision", "connector", "language"), mode),
    )
    path = next(training.run().path.glob("*.safetensors"))
    assert {each.dtype for each in load_file(path).values()} == {torch.float32}
    losses = training.losses()
    assert losses[-1] < losses[0]


def work_of(training: Training) -> Path:
    return training.home.work_path(run_key(training.recipe, training.base, training.dataset))


class Broken(Exception):
    """The planted end of a training."""


def broken_after(step: int, training: Training, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Train until the checkpoint after `step` is whole, then fail; the work directory."""
    seal = checkpoints.seal

    def failing(folder: Path, at: int, *rest: Any) -> Any:
        manifest = seal(folder, at, *rest)
        if at == step:
            raise Broken
        return manifest

    with monkeypatch.context() as patch:
        patch.setattr("finetune.checkpoint.seal", failing)
        with pytest.raises(Broken):
            training.run()
    return work_of(training)


@pytest.mark.parametrize("step", [1, 4, 6])
def test_resumed_equals_unbroken(
    new_training: TrainingMaker, unbroken: Training, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    training = new_training(**LONGER)
    work = broken_after(step, training, monkeypatch)
    # What a kill in the middle of the next save leaves: the highest number, but no manifest.
    half = checkpoints.folder_of(work, step + 1)
    shutil.copytree(checkpoints.folder_of(work, step), half)
    (half / checkpoints.MANIFEST).unlink()
    (half / "adapter_model.safetensors").write_bytes(b"half")
    run = training.run()
    assert_same_run(training, unbroken)
    assert run.record().get("resumed_at", 6) == step


def test_forgotten_random_numbers_would_show(
    new_training: TrainingMaker, unbroken: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant of the test above: with the random numbers not restored, the losses differ."""
    training = new_training(**LONGER)
    broken_after(1, training, monkeypatch)
    monkeypatch.setattr(finetune.train.AnswerTrainer, "_load_rng_state", lambda self, checkpoint: None)
    assert training.run().body["final_loss"] != pytest.approx(unbroken.run().body["final_loss"], abs=1e-6)


def test_another_number_of_processes_does_not_begin_again_silently(
    new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = new_training()
    work = broken_after(1, training, monkeypatch)
    folder = checkpoints.folder_of(work, 1)
    checkpoints.seal(folder, 1, 3, processes=2, zero_stage=3)
    with pytest.raises(InputError, match="cannot be gone on from with this launcher") as error:
        training.run()
    assert "made by 2 processes with ZeRO stage 3" in str(error.value)
    checkpoints.seal(folder, 1, 3, processes=1, zero_stage=0, fsdp=True)
    with pytest.raises(
        InputError, match=r"made by 1 processes with FSDP2; cpu\.yaml starts 1 with ZeRO stage 0"
    ):
        training.run()
    assert checkpoints.read_whole(folder) is not None


def test_row_longer_than_max_length_stops_before_training(new_training: TrainingMaker) -> None:
    training = new_training(train__max_length=70)
    with pytest.raises(InputError, match=r"longer than train\.max_length 70"):
        training.run()


def test_other_processes_than_the_launcher_says(
    new_training: TrainingMaker, deepspeed_config: dict[str, Any], tmp_path: Path
) -> None:
    settings = {**deepspeed_config["deepspeed_config"], "zero_stage": 2}
    path = tmp_path / "zero2.yaml"
    path.write_text(yaml.safe_dump({**deepspeed_config, "deepspeed_config": settings}))
    training = new_training(train__launcher=path)
    with pytest.raises(IntegrityError, match=r"zero2\.yaml describes") as error:
        training.run()
    assert "1 started, the launcher config says 2" in str(error.value)


def test_deepspeed_that_is_not_on_is_noticed(deepspeed_config: dict[str, Any], tmp_path: Path) -> None:
    settings = {**deepspeed_config["deepspeed_config"], "zero_stage": 3}
    path = tmp_path / "zero3.yaml"
    path.write_text(yaml.safe_dump({**deepspeed_config, "deepspeed_config": settings}))
    launcher = read_launcher(path)
    check_started(launcher, 2, 3)
    with pytest.raises(IntegrityError, match="ZeRO stage: 0 started"):
        check_started(launcher, 2, 0)
    with pytest.raises(IntegrityError, match="processes: 1 started"):
        check_started(launcher, 1, 3)
    # What accelerate really starts of it without a GPU.
    with pytest.raises(IntegrityError, match="finds no GPU it leaves FSDP out"):
        check_started(read_launcher(ROOT / "recipes/accelerate/fsdp2.yaml"), 1, 0)


@pytest.mark.parametrize(
    ("cpu", "told"), [(True, "train.dtype: transformers trains in bfloat16 under"), (False, "no GPU of this")]
)
def test_bfloat16_is_refused_before_the_processes_join(
    new_training: TrainingMaker,
    deepspeed_config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cpu: bool,
    told: str,
) -> None:
    """Where transformers finds no GPU that computes in it."""
    monkeypatch.setattr(training_args, "is_torch_bf16_gpu_available", lambda: False)
    path = tmp_path / "zero.yaml"
    settings = {**deepspeed_config["deepspeed_config"], "zero_stage": 2}
    path.write_text(yaml.safe_dump({**deepspeed_config, "deepspeed_config": settings, "use_cpu": cpu}))
    training = new_training(train__launcher=path, train__dtype="bfloat16")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"zero\.yaml cannot train in bfloat16 here") as error:
        training.run()
    assert told in str(error.value)
    assert not list(training.home.root.rglob("checkpoint-*"))
    alone = new_training(train__dtype="bfloat16").recipe
    check_dtype(alone, read_launcher(alone.train.launcher))


def test_one_process_drives_one_gpu(new_training: TrainingMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where transformers has counted eight GPUs for one process, it would learn from eight batches a step."""
    training, gpus = new_training(), 8

    def seeing(recipe: Recipe, launcher: Launcher, work: Path) -> SFTConfig:
        arguments = training_arguments(recipe, launcher, work)
        # What transformers leaves there after counting; no machine of the tests has several GPUs.
        arguments._n_gpu = gpus
        assert arguments.n_gpu == gpus
        return arguments

    monkeypatch.setattr(finetune.train, "training_arguments", seeing)
    with pytest.raises(InputError, match="sees 8 GPUs") as error:
        training.run()
    assert "16 rows at a time, not 2 (set CUDA_VISIBLE_DEVICES=0 or use a launcher of 8" in str(error.value)
    launcher = read_launcher(training.recipe.train.launcher)
    gpus = 1
    check_batch(launcher, seeing(training.recipe, launcher, training.home.root))


FILL_THE_DISK = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from finetune.disk import space_left
from lensmith.errors import InputError
root = Path(sys.argv[1])
big = {"a": torch.zeros(2_000_000)}
for write in (
    lambda: torch.save(big, root / "state.pt"),
    lambda: save_file(big, root / "weights.safetensors"),
    lambda: (root / "text").write_bytes(bytes(8_000_000)),
):
    try:
        with space_left(root):
            write()
    except InputError as error:
        assert "no space left" in str(error)
        print("told")
    for path in root.iterdir():
        path.unlink()
"""


def test_full_disk_is_told_by_every_writer(tmp_path: Path) -> None:
    script = f"mount -t tmpfs -o size=2m tmpfs {tmp_path} && {sys.executable} - {tmp_path}"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        input=FILL_THE_DISK,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.stdout.split() == ["told"] * 3, done.stderr


def test_other_failures_are_not_a_full_disk(tmp_path: Path) -> None:
    assert not disk_is_full(tmp_path, RuntimeError("shapes differ"))
    assert not disk_is_full(tmp_path, PermissionError(13, "no"))
    assert disk_is_full(tmp_path, OSError(28, "No space left on device"))
