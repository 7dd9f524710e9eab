"""DeepSpeed's operators, compiled where they run, under a lock that a kill cannot leave behind.

torch marks a folder in which it compiles by a file `lock`, for which every other process waits. A process
that is killed meanwhile leaves it, and every later start would wait for ever. So each operator is compiled
here, before DeepSpeed asks for it, in a folder that nobody else uses, by one process at a time: the kernel
lets go of `flock` when its holder dies, and whatever `lock` is found then is nobody's.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finetune.launcher import Launcher
from lensmith.errors import InputError, Problem

# Where torch compiles extensions, one folder each; the user's own choice is where ours lies.
FOLDER = "TORCH_EXTENSIONS_DIR"
_COMING = "coming"


def load_operators(launcher: Launcher) -> None:
    """Compile, once for a user and kind of processor, what DeepSpeed needs of C++ here, and load it.

    This is the optimizer in host memory; DeepSpeed's own collectives are left out. What DeepSpeed compiles
    later goes to the same folder. Raises InputError where the folder cannot be written, and RuntimeError
    where the compiler fails.
    """
    if launcher.zero_stage and launcher.cpu:
        leave_out_collectives()
    builder = _builder(launcher)
    if builder is None:
        return
    folder = _folder()
    with _alone(folder):
        _load(builder, folder)
    os.environ[FOLDER] = str(folder)


def leave_out_collectives() -> None:
    """Let DeepSpeed join processes without a GPU by gloo alone.

    Its collectives in shared memory take a minute to compile, and serve one call, `inference_all_reduce`,
    that no training makes (DeepSpeed 0.19.8, comm/torch.py). To be called before the processes join.
    """
    # Imported only where it is used: it takes seconds.
    from deepspeed.ops import __compatible_ops__

    __compatible_ops__["deepspeed_shm_comm"] = False


def _builder(launcher: Launcher) -> Any:
    """What makes the operator that DeepSpeed will ask for, if any, one compiled at installation too."""
    if not launcher.zero_stage or not launcher.offload_optimizer:
        return None
    from deepspeed.accelerator import get_accelerator
    from deepspeed.ops import __compatible_ops__

    accelerator = get_accelerator()
    if accelerator is None:
        raise RuntimeError("DeepSpeed finds nothing to compute on")
    builder = accelerator.create_op_builder("CPUAdamBuilder")
    return builder if builder is not None and __compatible_ops__.get(builder.NAME) else None


def _folder() -> Path:
    """The folder of this user, these packages and this processor, for which the code is compiled."""
    chosen = os.environ.get(FOLDER)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(chosen) if chosen else cache / "lensmith" / "torch_extensions"
    # The place of the sources too: torch compiles anew, under who uses it, where they lie elsewhere.
    made_for = [
        sys.prefix,
        sys.version,
        version("torch"),
        version("deepspeed"),
        platform.machine(),
        _processor(),
    ]
    return root / f"lensmith-{hashlib.sha256(repr(made_for).encode()).hexdigest()[:16]}"


def _processor() -> str:
    """The instructions that this processor has: a home may be shared by machines of several kinds."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.partition(":")[0].strip() in ("flags", "Features"):
                return line
    return platform.processor()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, and nothing of those who died with it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / "lensmith.lock").open("w")
    except OSError as error:
        mend = f"set {FOLDER} to a folder that can be written"
        raise InputError(
            "DeepSpeed's operators cannot be compiled", [Problem(str(error), str(folder), mend)]
        ) from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        # A compiler that outlived its killed parent may still write there: it is not gone on with.
        shutil.rmtree(folder / _COMING, ignore_errors=True)
        yield


def _load(builder: Any, folder: Path) -> None:
    """Load the builder's operator into DeepSpeed's own store, compiled first where it is not there."""
    place = folder / builder.name
    if place.is_dir():
        # Loading takes it too, for a moment.
        (place / "lock").unlink(missing_ok=True)
        os.environ[FOLDER] = str(folder)
        builder.load()
        return
    coming = folder / _COMING
    coming.mkdir()
    print(f"compiling DeepSpeed's {builder.name}, once for this machine", flush=True)
    os.environ[FOLDER] = str(coming)
    builder.load()
    # Whole, or not there at all. What is loaded stays loaded under its new name. Of an operator that came
    # compiled with DeepSpeed there is nothing.
    if (coming / builder.name).is_dir():
        (coming / builder.name).rename(place)
    shutil.rmtree(coming)
