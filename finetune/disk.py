"""Telling a full disk from other failures."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from lensmith.errors import InputError, Problem
from lensmith.files import is_disk_full

# A write that fails with less than this left failed for want of space, whatever it says.
_FULL_BYTES = 1 << 20


@contextlib.contextmanager
def space_left(root: Path) -> Iterator[None]:
    """Turn a write below `root` that failed for want of space into an InputError that says so."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if disk_is_full(root, error):
            raise InputError(
                f"no space left under {root}",
                [
                    Problem(
                        "while training", mend="free disk; the same command goes on from the last checkpoint"
                    )
                ],
            ) from error
        raise


def disk_is_full(root: Path, error: Exception) -> bool:
    """Whether `error` came from a full disk: torch and safetensors tell it in words, or not at all."""
    return is_disk_full(error) or "No space left" in str(error) or shutil.disk_usage(root).free < _FULL_BYTES
