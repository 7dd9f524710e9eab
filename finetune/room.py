"""Telling a device or a machine whose memory is full from other failures. No torch at import."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from finetune.launcher import read_launcher
from finetune.setting import REASONS, savings
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
    """What `lensmith plan` would look at, in its order: finetune/setting.py."""
    possible = savings(train, read_launcher(train.launcher))
    size, largest = ("train.pack_length", train.pack_length) if train.pack_length else ("train.batch_size", 0)
    states = {
        "train.pack_length": f"{largest:,} tokens at a time",
        "train.batch_size": f"{train.batch_size} rows at a time",
        "train.gradient_checkpointing": f"is {train.recomputed}" if train.recomputed else "is off",
    }
    problems: list[Problem] = []
    if size not in possible:
        state = "is the longest row's already" if train.pack_length else "is 1 already"
        shorter = "pixels.max_pixels and train.max_length" if train.pack_length else "pixels.max_pixels"
        mend = f"lower {shorter}, or shard the model over GPUs with train.launcher"
        problems.append(Problem(state, size, mend))
    for key, value in possible.items():
        also = ", train.gradient_accumulation as much higher" if key == "train.batch_size" else ""
        problems.append(
            Problem(states.get(key, "can change"), key, f"set it to {value}{also}: {REASONS[key]}")
        )
    if train.recomputed == 1:
        problems.append(Problem("is on already", "train.gradient_checkpointing"))
    problems.append(Problem("`lensmith plan RECIPE --gpu NAME` proposes the fastest setting that fits"))
    return problems
