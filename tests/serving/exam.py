"""A small exam that real engines sit: one base, one adapter, one held-out set, one reference."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from lensmith.artifact import Artifact
from lensmith.files import digest_json
from lensmith.home import Home
from lensmith.recipe import Recipe
from serving.build import EngineBuild
from serving.engine import Engine
from serving.hardware import Hardware
from serving.profile_file import Profile, write_profile

ROOT = Path(__file__).resolve().parents[2]
CPU = Hardware(cores=1, memory=8 << 30)
CPU_BUILD = EngineBuild(version="0.32.0", device="cpu")
START_S = 600


@dataclass(frozen=True)
class Exam:
    """Everything an engine is judged by. `reference` is base and adapter in transformers, `base_trace` the
    base alone, both on every held-out row."""

    home: Home
    recipe: Recipe
    base: Artifact
    run: Artifact
    model: Artifact
    held_out: Artifact
    reference: Artifact
    base_trace: Artifact


def profile_artifact(home: Home, profile: Profile, subject: Artifact, base: Artifact) -> Artifact:
    """A profile artifact with any content: what no recipe would give."""
    key = digest_json(profile.model_dump(mode="json"))
    with home.create("profile", key, {"subject": subject, "base": base}) as draft:
        write_profile(draft.path, profile)
        draft.body.update(profile.model_dump(mode="json"))
    return draft.artifact


@dataclass
class Program:
    """A program that runs an engine and says where it is on its standard output."""

    process: subprocess.Popen[str]
    engine: Engine

    def family(self) -> list[psutil.Process]:
        """The program's processes below it, at this moment."""
        return psutil.Process(self.process.pid).children(recursive=True)


def start_program(argv: list[str], model_name: str) -> Program:
    """Start `argv` and wait for the line that names the engine's address."""
    return wait_for_greeting(begin_program(argv), model_name)


def begin_program(argv: list[str], err: Path | None = None) -> subprocess.Popen[str]:
    """Start `argv`. err: a file for what it says on its standard error."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with contextlib.ExitStack() as stack:
        stderr = stack.enter_context(err.open("w")) if err else None
        return subprocess.Popen(
            [sys.executable, *argv],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )


def wait_for_greeting(process: subprocess.Popen[str], model_name: str) -> Program:
    """Wait for the line that names the engine's address."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"at (http://\S+:\d+)/v1 \(vLLM (\S+); log: (.+)\)", line):
            url, version, log = found.groups()
            engine = Engine(url, model_name, version, Path(log), process.pid)
            return Program(process, engine)
    raise AssertionError(f"the program ended with {process.wait()} before it served")


def wait_gone(family: list[psutil.Process], limit_s: float = 60) -> list[psutil.Process]:
    """Those of `family` that are still there after `limit_s` seconds."""
    _, alive = psutil.wait_procs(family, limit_s)
    return [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def home_without(trace: Artifact, home: Home, folder: Path) -> Home:
    """A copy of `home` under `folder`, in which the rows of `trace` have not been asked yet."""
    copy = Home(Path(shutil.copytree(home.root, folder / "home")))
    shutil.rmtree(copy.by_id(trace.id).path)
    return copy
