"""Memory that ran out is the user's to mend; any other failure stays what it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import finetune.train
from finetune.room import memory_left
from lensmith.errors import InputError
from tests.finetune.conftest import Training, TrainingMaker

# As torch 2.13 words it on a GPU.
ON_A_GPU = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB."


@pytest.fixture(scope="module")
def training(new_training: TrainingMaker) -> Training:
    return new_training()


def allocate_on_the_machine() -> None:
    torch.empty(1 << 57, dtype=torch.uint8)


def allocate_on_a_gpu() -> None:
    raise torch.OutOfMemoryError(ON_A_GPU)


def allocate_in_python() -> None:
    bytearray(1 << 57)


@pytest.mark.parametrize("allocate", [allocate_on_the_machine, allocate_on_a_gpu, allocate_in_python])
def test_what_takes_less_is_named(training: Training, allocate: Callable[[], None]) -> None:
    with pytest.raises(InputError, match="out of memory") as error, memory_left(training.recipe.train):
        allocate()
    text = str(error.value)
    assert "train.batch_size: 2 rows at a time" in text
    assert "train.gradient_checkpointing: is off" in text
    assert "lensmith plan" in text


def test_what_is_done_already_is_not_advised(training: Training) -> None:
    train = training.recipe.train.model_copy(update={"batch_size": 1, "gradient_checkpointing": True})
    with pytest.raises(InputError) as error, memory_left(train):
        raise MemoryError
    assert "out of memory: MemoryError" in str(error.value)
    assert "train.batch_size: is 1 already (lower pixels.max_pixels" in str(error.value)
    assert "train.gradient_checkpointing: is on already" in str(error.value)


def test_packs_are_made_shorter(training: Training) -> None:
    train = training.recipe.train.model_copy(update={"pack_length": 4096, "max_length": 512})
    with pytest.raises(InputError) as error, memory_left(train):
        raise MemoryError
    assert "train.pack_length: 4,096 tokens at a time (set it to 2048" in str(error.value)
    assert "train.batch_size" not in str(error.value)
    short = train.model_copy(update={"pack_length": 512})
    with pytest.raises(InputError, match="is the longest row's already"), memory_left(short):
        raise MemoryError


def test_another_failure_stays_what_it_is(training: Training) -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_left(training.recipe.train):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_a_training_without_room_is_wrong_input(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*arguments: object) -> None:
        raise torch.OutOfMemoryError(ON_A_GPU)

    monkeypatch.setattr(finetune.train, "load_model", no_room)
    with pytest.raises(InputError, match=r"out of memory: CUDA out of memory\. Tried to allocate 2\.00 GiB"):
        training.run()
