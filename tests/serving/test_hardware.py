"""Reading the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from lensmith.errors import InputError
from lensmith.units import GIB
from serving.build import installed_engine
from serving.hardware import Gpu, _gpus, _memory, _visible, parse_gpus, read_hardware

TWO = parse_gpus("NVIDIA H200, 143771, 9.0\nNVIDIA H100 80GB HBM3, 81559, 9.0\n")


def test_gpus_as_nvidia_smi_prints_them() -> None:
    h100 = Gpu("NVIDIA H100 80GB HBM3", 81559 << 20, (9, 0))
    assert (Gpu("NVIDIA H200", 143771 << 20, (9, 0)), h100) == TWO
    assert parse_gpus("NVIDIA GB10, [N/A], 12.1\n") == (Gpu("NVIDIA GB10", 0, (12, 1)),)
    assert parse_gpus("Tesla P4, 7680, [N/A]\n") == (Gpu("Tesla P4", 7680 << 20),)
    assert parse_gpus("") == ()


@pytest.mark.parametrize(
    ("chosen", "left"),
    [(None, TWO), ("1", TWO[1:]), ("1,0", (TWO[1], TWO[0])), ("", ()), ("-1", ()), ("GPU-af31", TWO[:1])],
)
def test_cuda_visible_devices(chosen: str | None, left: tuple[Gpu, ...]) -> None:
    assert _visible(TWO, chosen) == left


def test_a_container_s_memory_limit_counts(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    assert _memory(100, limit) == 100
    limit.write_text("max\n")
    assert _memory(100, limit) == 100
    limit.write_text("40\n")
    assert _memory(100, limit) == 40


def _tool(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_driver_s_tool_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tool(tmp_path, "echo 'NVIDIA H200, 143771, 9.0'", monkeypatch)
    assert _gpus() == TWO[:1]
    _tool(tmp_path, "echo 'NVIDIA-SMI has failed'; exit 9", monkeypatch)
    assert _gpus() == ()


def test_a_driver_that_hangs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tool(tmp_path, "exec sleep 5", monkeypatch)
    monkeypatch.setattr("serving.hardware._QUERY_LIMIT_S", 0.2)
    with pytest.raises(InputError, match="does not answer"):
        _gpus()


def test_this_machine() -> None:
    hardware = read_hardware()
    assert hardware.cores >= 1
    assert hardware.memory > GIB
    assert installed_engine().version
