"""The program that vLLM's server is started by. That the real one answers show the tests of engines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from serving.api_server import PROGRAM
from tests.conftest import ROOT

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
    print("engine", "sklearn" in sys.modules and sys.modules["sklearn"], server, gc.isenabled(), flush=True)
"""


def test_the_engine_s_process_imports_no_server(tmp_path: Path) -> None:
    """In the place of vLLM two small modules, which tell what is loaded where."""
    for module, text in (("entrypoints/openai/api_server", SERVER), ("v1/engine/core", ENGINE)):
        path = tmp_path / "vllm" / f"{module}.py"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (tmp_path / "vllm" / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-P", str(PROGRAM), "--port", "1"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["engine None False True", "server --port 1"]
