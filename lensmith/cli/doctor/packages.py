"""The packages: which build is installed, and whether it loads. Loading happens in another process."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from lensmith.cli.doctor.check import Check

BOOTSTRAP = "make bootstrap"
MODULES = ("torch", "torchvision", "transformers", "deepspeed", "vllm")
_LIMIT_S = 180

# A line of JSON after each import: an extension that stops the interpreter shows by the line it lacks.
_PROBE = """
import importlib, json, sys
for name in sys.argv[1:]:
    facts = {"name": name}
    try:
        module = importlib.import_module(name)
        if name == "torch":
            facts["cuda"] = module.version.cuda
            facts["gpus"] = module.cuda.device_count() if module.version.cuda else 0
    except Exception as error:
        facts["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    print("\\n@" + json.dumps(facts), flush=True)
"""


@dataclass(frozen=True)
class Loaded:
    """How an import went: `error` is "" where it loaded. cuda, gpus: of torch only."""

    error: str
    cuda: str | None = None
    gpus: int = 0


def load_modules(names: tuple[str, ...] = MODULES) -> dict[str, Loaded]:
    """Import each module in one process of its own, in order, and tell how it went."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _PROBE, *names],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        output, end = done.stdout, f"stops the interpreter (exit code {done.returncode})"
    except subprocess.TimeoutExpired as error:
        output = (error.stdout or b"").decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        end = f"takes longer than {_LIMIT_S} s"
    facts = [json.loads(line[1:]) for line in output.splitlines() if line.startswith("@")]
    found = {
        each["name"]: Loaded(each.get("error", ""), each.get("cuda"), each.get("gpus", 0)) for each in facts
    }
    # The first without a line is the one that ended the process; those after it were never tried.
    for position, name in enumerate(names[len(facts) :]):
        found[name] = Loaded(
            f"its import {end}" if position == 0 else f"not tried: {names[len(facts)]} {end}"
        )
    return found


def version_of(*distributions: str) -> str:
    """Name and version of the first of these distributions that is installed, or ""."""
    for name in distributions:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return ""


def check_python() -> Check:
    """Python itself: an older one than 3.11 cannot even load this file."""
    return Check("Python", "ok", f"{platform.python_version()} in {sys.prefix}")


def check_torch(loaded: Loaded, gpus: int) -> Check:
    """torch and its build; `gpus` is how many the driver sees."""
    version = version_of("torch")
    if not version or loaded.error:
        return Check("torch", "missing", loaded.error or "not installed", BOOTSTRAP)
    build = f"CUDA {loaded.cuda}" if loaded.cuda else "CPU build"
    if gpus and not loaded.cuda:
        mend = f"LENSMITH_BUILD=cuda {BOOTSTRAP}"
        return Check("torch", "warning", f"{version}, {build}, but there are {gpus} GPUs", mend)
    if gpus and not loaded.gpus:
        return Check("torch", "warning", f"{version}, {build}, sees none of {gpus} GPUs", "update the driver")
    return Check("torch", "ok", f"{version}, {build}")


def check_module(name: str, loaded: Loaded, *distributions: str) -> Check:
    """A package that has only to load."""
    version = version_of(*distributions)
    if not version:
        return Check(name, "missing", "not installed", BOOTSTRAP)
    if loaded.error:
        return Check(name, "missing", f"{version}: {loaded.error}", f"rm -rf .venv && {BOOTSTRAP}")
    return Check(name, "ok", version)


def check_deepspeed(loaded: Loaded, gpus: int) -> Check:
    """DeepSpeed, and the accelerator that DS_ACCELERATOR makes it use."""
    check = check_module("DeepSpeed", loaded, "deepspeed")
    chosen = os.environ.get("DS_ACCELERATOR", "")
    if check.state != "ok" or not chosen:
        return check
    found = f"{check.found}, DS_ACCELERATOR={chosen}"
    if (chosen == "cuda") != bool(gpus):
        mend = f"unset DS_ACCELERATOR: this machine has {gpus or 'no'} GPUs"
        return Check("DeepSpeed", "warning", found, mend)
    return Check("DeepSpeed", "ok", found)


def check_compiler() -> Check:
    """What DeepSpeed compiles its operators with: a C++ compiler, Python's headers, ninja."""
    name = "C++ compiler"
    # torch.utils.cpp_extension takes $CXX, else c++.
    compiler = shutil.which(os.environ.get("CXX") or "c++")
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    beside_python = str(Path(sys.executable).parent)
    ninja = shutil.which("ninja") or shutil.which("ninja", path=beside_python)
    wants = [
        (compiler is not None, f"no {os.environ.get('CXX') or 'c++'}", "Debian, Ubuntu: apt-get install g++"),
        (headers.is_file(), "no Python.h", "Debian, Ubuntu: apt-get install python3-dev"),
        (ninja is not None, "no ninja", BOOTSTRAP),
    ]
    lacks = [(found, mend) for there, found, mend in wants if not there]
    if lacks:
        found = ", ".join(found for found, _ in lacks) + ": DeepSpeed cannot compile its operators"
        return Check(name, "warning", found, "; ".join(mend for _, mend in lacks))
    return Check(name, "ok", str(compiler))
