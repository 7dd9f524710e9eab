"""The program that vLLM's server is started by. That the real one answers show the tests of engines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from serving.api_server import PROGRAM
from tests.conftest import ROOT
from tests.serving.exam import wait_gone

SERVER = """
import multiprocessing, sys
if __name__ == "__main__":
    from vllm.v1.engine.core import engine
    child = multiprocessing.get_context("spawn").Process(target=engine)
    child.start()
    child.join()
    print("server", *sys.argv[1:])
"""
ENGINE = """
import gc, sys
def engine():
    server = "vllm.entrypoints.openai.api_server" in sys.modules
    unused = [sys.modules.get(name, "not left out") for name in ("sklearn", "scipy")]
    print("engine", *unused, server, gc.isenabled(), flush=True)
"""


# An engine that is busy, and notices nothing.
BUSY = """
import os, time
def engine():
    print(os.getpid(), flush=True)
    time.sleep(600)
"""


def with_engine(folder: Path, engine: str) -> dict[str, str]:
    """The environment in which two small modules are in vLLM's place."""
    for module, text in (("entrypoints/openai/api_server", SERVER), ("v1/engine/core", engine)):
        path = folder / "vllm" / f"{module}.py"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (folder / "vllm" / "__init__.py").touch()
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def test_the_engine_s_process_goes_with_a_server_that_is_killed(tmp_path: Path) -> None:
    """Nobody else may be left to end it."""
    server = subprocess.Popen(
        [sys.executable, "-P", str(PROGRAM)],
        stdout=subprocess.PIPE,
        text=True,
        env=with_engine(tmp_path, BUSY),
    )
    assert server.stdout is not None
    engine = psutil.Process(int(server.stdout.readline()))
    server.kill()
    server.wait()
    try:
        assert wait_gone([engine], 5) == []
    finally:
        if engine.is_running():
            engine.kill()


def test_the_engine_s_process_imports_no_server(tmp_path: Path) -> None:
    """The small modules tell what is loaded where."""
    done = subprocess.run(
        [sys.executable, "-P", str(PROGRAM), "--port", "1"],
        capture_output=True,
        text=True,
        timeout=60,
        env=with_engine(tmp_path, ENGINE),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["engine None None False True", "server --port 1"]
