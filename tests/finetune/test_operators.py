"""DeepSpeed's operators: compiled once, and again by the next one after a kill at any moment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from finetune.operators import FOLDER, _load
from tests.conftest import ROOT
from tests.finetune.test_distributed import launcher

pytestmark = pytest.mark.slow

NAME = "cpu_adam"
COMPILING = f"compiling DeepSpeed's {NAME}"
# What a start does that has nothing to wait for; importing DeepSpeed is most of it.
LIMIT_S = 300
# The real one takes a minute, nearly all of it for torch's headers; test_zero.py trains with it. How it is
# compiled, marked and found does not hang on what it does.
SOURCE = f"""
#include <Python.h>
#include <regex>
static std::regex something("a+");
static PyModuleDef operator_ = {{PyModuleDef_HEAD_INIT, "{NAME}", nullptr, -1, nullptr}};
PyMODINIT_FUNC PyInit_{NAME}() {{ return PyModule_Create(&operator_); }}
"""
LOAD = """
import sys
from pathlib import Path
from deepspeed.ops.op_builder import CPUAdamBuilder
from finetune.launcher import read_launcher
from finetune.operators import load_operators
CPUAdamBuilder.sources = lambda self: [str(Path(sys.argv[1]).with_name("operator.cpp"))]
load_operators(read_launcher(Path(sys.argv[1])))
"""
# What DeepSpeed does of its own accord, for its optimizer and as processes join.
OPTIMIZE = """
print("loaded", CPUAdamBuilder().load().__name__)
"""
JOIN = """
from deepspeed.comm.torch import build_shm_op
print("its own collectives:", build_shm_op())
"""


class Starts:
    """Processes that load the operators into one folder."""

    def __init__(self, folder: Path, config: Path, then: str = OPTIMIZE) -> None:
        self.folder, self.config, self.then = folder, config, then

    def start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "TORCH_EXTENSIONS_DIR": str(self.folder), "DS_ACCELERATOR": "cpu"}
        return subprocess.Popen(
            [sys.executable, "-c", LOAD + self.then, str(self.config)],
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ended(self, process: subprocess.Popen[str]) -> str:
        """What it printed; it ended well."""
        try:
            printed, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
        assert process.returncode == 0, printed
        return printed

    def found(self, pattern: str) -> list[Path]:
        return sorted(self.folder.glob(f"lensmith-*/{pattern}"))


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory, deepspeed_config: dict[str, Any]) -> Starts:
    root = tmp_path_factory.mktemp("operators")
    (root / "operator.cpp").write_text(SOURCE)
    return Starts(root / "extensions", launcher(root / "zero2.yaml", deepspeed_config, 2, "cpu"))


def kill_while_it_compiles(starts: Starts, process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Kill it, and only it, as the kernel does when memory is out: its compilers, which it gives, go on."""
    deadline = time.monotonic() + LIMIT_S
    while not any(each.name().startswith("cc1plus") for each in psutil.Process(process.pid).children(True)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    compilers = psutil.Process(process.pid).children(True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return compilers


def end_without_their_folder(starts: Starts, compilers: list[psutil.Process]) -> None:
    """End compilers once the folder that they write to is removed: from then on they only take time."""
    (coming,) = starts.found(f"coming/{NAME}")
    mark, deadline = coming / "of the killed", time.monotonic() + LIMIT_S
    mark.touch()
    while mark.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for each in compilers:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()


def test_killed_while_it_compiles(starts: Starts) -> None:
    """torch's own mark is left behind; of two that start then, one compiles and the other waits for it."""
    compilers = kill_while_it_compiles(starts, starts.start())
    assert starts.found(f"coming/{NAME}/lock")
    assert not starts.found(NAME)
    both = (starts.start(), starts.start())
    end_without_their_folder(starts, compilers)
    printed = [starts.ended(each) for each in both]
    assert sum(COMPILING in each for each in printed) == 1
    assert all(f"loaded {NAME}" in each for each in printed)
    assert [path.name for path in starts.found(f"{NAME}/*.so")] == [f"{NAME}.so"]
    assert not starts.found("coming")


def test_killed_while_it_loads(starts: Starts) -> None:
    """What is compiled stays, the mark goes."""
    if not starts.found(NAME):
        starts.ended(starts.start())
    (operator,) = starts.found(f"{NAME}/{NAME}.so")
    compiled = operator.stat().st_mtime_ns
    (operator.parent / "lock").touch()
    assert COMPILING not in starts.ended(starts.start())
    assert operator.stat().st_mtime_ns == compiled
    assert not (operator.parent / "lock").exists()


def test_nothing_is_compiled_without_offload(deepspeed_config: dict[str, Any], tmp_path: Path) -> None:
    """Processes without a GPU are joined by gloo alone."""
    joined = Starts(tmp_path, launcher(tmp_path / "zero2.yaml", deepspeed_config, 2), JOIN)
    assert "its own collectives: None" in joined.ended(joined.start())
    assert not joined.found("*")


class Installed:
    """The builder of an operator that was compiled when DeepSpeed was installed: it compiles nothing."""

    name = NAME
    loaded = 0

    def load(self) -> None:
        self.loaded += 1


def test_an_operator_that_came_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    builder = Installed()
    for _ in range(2):
        _load(builder, tmp_path)
    assert builder.loaded == 2
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(starts: Starts, tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.touch()
    process = Starts(taken, starts.config).start()
    printed, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "set TORCH_EXTENSIONS_DIR to a folder that can be written" in printed
