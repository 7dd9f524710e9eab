"""How a training's process leaves when all is done: one place for it, alone or one of several."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from lensmith.large_imports import QuickExit


def leave(ending: QuickExit, code: int) -> NoReturn:
    """End this process with `code`; with 0 together with all that it was joined with. Raises SystemExit.

    Nothing is taken apart: of several processes one was seen to abort there, its work done, where a thread of
    torch's asked for the interpreter that was going. And none leaves before all have come: another may still
    be reading what this one has sent. Where one of several failed, the others do not come, and it ends as any
    program does.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        if code != 0:
            sys.exit(code)
        _wait_for_all()
    ending.exit(code)


def _wait_for_all() -> None:
    # Imported with the training, which has just been.
    from torch import distributed

    if distributed.is_initialized():
        # One that is gone by now has failed; what this one had to do is done.
        with contextlib.suppress(RuntimeError):
            distributed.barrier()
