"""Telling a device or a machine whose memory is full from other failures. No torch at import."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lensmith.errors import InputError, Problem
from lensmith.train_settings import Train

# torch.OutOfMemoryError and the CUDA driver's own error; torch's allocator on a CPU; cuBLAS and cuDNN, which
# find no room for themselves. All of them are RuntimeErrors.
_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


@contextlib.contextmanager
def memory_left(train: Train) -> Iterator[None]:
    """Turn a training that failed for want of memory into an InputError that says what takes less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not memory_is_full(error):
            raise
        raise InputError(f"out of memory: {_first_line(error)}", _mends(train)) from error


def memory_is_full(error: MemoryError | RuntimeError) -> bool:
    """Whether `error` came from an allocation that found no room, on a GPU or on the machine."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _WORDS)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _mends(train: Train) -> list[Problem]:
    problems: list[Problem] = []
    if train.pack_length > train.max_length:
        mend = f"lower it, to {train.max_length:,} at least: the same run, with less memory"
        problems.append(Problem(f"{train.pack_length:,} tokens at a time", "train.pack_length", mend))
    elif train.pack_length:
        mend = (
            "lower pixels.max_pixels and train.max_length, or shard the model over GPUs with train.launcher"
        )
        problems.append(Problem("is the longest row's already", "train.pack_length", mend))
    elif train.batch_size > 1:
        mend = "lower it and raise train.gradient_accumulation as much: the same run, with less memory"
        problems.append(Problem(f"{train.batch_size} rows at a time", "train.batch_size", mend))
    else:
        mend = "lower pixels.max_pixels, or shard the model over GPUs with train.launcher"
        problems.append(Problem("is 1 already", "train.batch_size", mend))
    if train.gradient_checkpointing:
        problems.append(Problem("is on already", "train.gradient_checkpointing"))
    else:
        mend = "set it to true: the same run, slower, with less memory"
        problems.append(Problem("is off", "train.gradient_checkpointing", mend))
    problems.append(Problem("`lensmith plan RECIPE` tells the memory that a recipe takes"))
    return problems
