"""vLLM's API server as a program: `python -P serving/api_server.py OPTIONS`, which are vLLM's own.

The engine runs in a process of its own, and multiprocessing runs the main program's file there again. That of
`python -m vllm.entrypoints.openai.api_server` has it import the HTTP server once more, which it does not use.
And vLLM 0.32's engine does not notice that its server is gone, and would keep its memory: here it goes too.
"""

from __future__ import annotations

import importlib
import os
import runpy
import sys
from pathlib import Path

from lensmith.large_imports import QuickExit, no_collection
from lensmith.left_out import UNUSED, leave_out
from lensmith.process import LAUNCHED_BY, die_with_launcher

PROGRAM = Path(__file__).resolve()
# Given where videos are served.
MEDIA_OPTION = "--media-io-kwargs"
_SERVER = "vllm.entrypoints.openai.api_server"
_ENGINE = "vllm.v1.engine.core"
_VIDEOS = "vllm.multimodal.video"


def _load(module: str) -> None:
    """Import what this process is for."""
    leave_out(*UNUSED)
    with no_collection():
        importlib.import_module(module)


def _add_loader() -> None:
    """Put our way of reading videos beside vLLM's own, which the option then names."""
    from serving.film_loader import LOADER, FilmLoader

    importlib.import_module(_VIDEOS).VIDEO_LOADER_REGISTRY.register(LOADER)(FilmLoader)


if __name__ == "__main__":
    ending = QuickExit()
    os.environ[LAUNCHED_BY] = str(os.getpid())
    _load(_SERVER)
    if MEDIA_OPTION in sys.argv:
        _add_loader()
    # It is to run as the main program, for which it must not count as imported.
    del sys.modules[_SERVER]
    runpy.run_module(_SERVER, run_name="__main__")
    ending.exit(0)
elif __name__ == "__mp_main__":
    die_with_launcher(at_once=True)
    _load(_ENGINE)
