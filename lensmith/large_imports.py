"""Programs that import torch, transformers or vLLM: what of their time is for nothing."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Look for no garbage while the block imports, and never in what it has imported.

    All of it stays. Python would look through it again and again: 1 to 3 of 10 CPU seconds.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class QuickExit:
    """Ends this process when everything is done that was to be done at its end, as `sys.exit(code)` does.

    To be made before anything registers with `atexit`. Python would then take every module apart: with
    torch's and transformers' more than a CPU second, for memory that the system takes back anyhow.
    """

    def __init__(self) -> None:
        self._code: int | None = None
        # What was registered first is done last.
        atexit.register(self._leave)

    def exit(self, code: int) -> NoReturn:
        """Raise SystemExit."""
        self._code = code
        sys.exit(code)

    def _leave(self) -> None:
        if self._code is not None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self._code)
