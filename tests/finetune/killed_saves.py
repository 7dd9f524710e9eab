"""Kills `scripts/train.py` at each file boundary of a save, and lets each killed home go on.

PYTHONPATH=.:scripts python tests/finetune/killed_saves.py RECIPE HOME SCRATCH [--careless]

RECIPE's base and data are prepared in HOME. Each start is a fork of this process, in which the packages are
loaded and nothing more: a second instead of ten. Boundaries are counted from the first file of the second
checkpoint on, when the first one is whole. Writes a line of JSON for the undisturbed run and one a boundary.
--careless: the mutant, which writes a checkpoint's manifest before its files.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import deepspeed
import safetensors.torch
import torch
import train as program
import transformers.tokenization_mistral_common

import finetune.train
from data_prep.prepare import find_prepared
from finetune import checkpoint as checkpoints
from finetune.run import run_key
from finetune.trainer import AnswerTrainer
from lensmith.base import pin_base
from lensmith.home import Home
from lensmith.recipe import load_recipe

FIRST = "checkpoint-2"
WRITES = re.compile("[wax+]")
# An empty folder more, or a file that says nothing.
IDLE = re.compile(r"^mkdir |README\.md$")
# A checkpoint that counts no more, or a work folder whose run is whole: one file of it stands for all. A
# temporary file that has got its name is not there to be removed.
ALIKE = re.compile(r"^remove work/\*/(checkpoint-\d(?!/checkpoint\.json))?|^remove (?=.*\.tmp$)")


class Boundaries:
    """Calls `at` with a name before each change of a file below `home`; in the middle of tensor files, too,
    which are written outside Python."""

    def __init__(self, home: Path, at: Callable[[str], None]) -> None:
        self.home = home.resolve()
        self.at = at
        self.counted = self.own = False
        sys.addaudithook(self._audit)
        torch.save = self._whole(torch.save, 1)
        safetensors.torch.serialize_file = self._whole(safetensors.torch.serialize_file, 1)

    def _audit(self, event: str, given: tuple[Any, ...]) -> None:
        if self.own:
            return
        if event == "open":
            path, mode, flags = given
            writes = WRITES.search(mode) if mode else flags & (os.O_WRONLY | os.O_RDWR)
            if isinstance(path, (str, os.PathLike)) and writes:
                self._tell("write", os.fspath(path))
        elif event == "os.rename":
            self._tell("rename", given[1], given[3])
        elif event in ("os.remove", "os.rmdir"):
            self._tell(event.removeprefix("os."), given[0], given[1])
        elif event == "os.mkdir":
            self._tell("mkdir", given[0], given[2])

    def _whole(self, write: Callable[..., Any], at: int) -> Callable[..., Any]:
        def writing(*given: Any, **rest: Any) -> Any:
            path = Path(given[at])
            self._tell("write", path)
            done = write(*given, **rest)
            whole = path.read_bytes()
            os.truncate(path, len(whole) // 2)
            self._tell("half", path)
            self.own = True
            path.write_bytes(whole)
            self.own = False
            return done

        return writing

    def _tell(self, what: str, path: Any, folder: int = -1) -> None:
        root = Path(f"/proc/self/fd/{folder}").readlink() if folder >= 0 else Path.cwd()
        place = Path(os.path.normpath(root / os.fsdecode(path)))
        if not place.is_relative_to(self.home):
            return
        name = place.relative_to(self.home).as_posix()
        self.counted = self.counted or FIRST in name
        if self.counted:
            self.at(f"{what} {re.sub(r'[0-9a-f]{12,}|(?<=[.])[0-9]+(?=[.]tmp)', '*', name)}")


def start(recipe: Path, home: Path, log: Path, at: Callable[[str], None] | None = None) -> int:
    """The exit status of the program (as `os.waitstatus_to_exitcode`), in a process of its own.

    It writes to the end of `log`. `at` is called as by `Boundaries`.
    """
    child = os.fork()
    if child == 0:
        code = 70
        try:
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(out, 1)
            os.dup2(out, 2)
            if at is not None:
                Boundaries(home, at)
            code = program.main([str(recipe), "--home", str(home)])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def load(recipe_path: Path, home: Path) -> None:
    """What every start does first, once for all of them: importing, and digesting the code for its keys."""
    assert deepspeed.__version__
    assert finetune.train.train_process
    assert transformers.tokenization_mistral_common.__name__
    recipe = load_recipe(recipe_path)
    prepared = find_prepared(recipe, Home(home))
    assert prepared is not None
    run_key(recipe, pin_base(recipe, Home(home)), prepared.dataset)
    gc.freeze()


def kill_at(name: str, number: int) -> Callable[[str], None]:
    """Ends the process without a word at the `number`th boundary, which must have that name."""
    left = [number]

    def at(found: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL if found == name else signal.SIGABRT)

    return at


def write_manifest_first() -> None:
    """The mutant: what is being saved counts as whole."""
    save = AnswerTrainer._save_checkpoint

    def careless(self: AnswerTrainer, *given: Any) -> None:
        state = self.state
        folder = checkpoints.folder_of(Path(str(self.args.output_dir)), state.global_step)
        folder.mkdir()
        checkpoints.seal(folder, state.global_step, state.max_steps, 1, 0)
        save(self, *given)

    AnswerTrainer._save_checkpoint = careless


def result(home: Path) -> str | None:
    """The id of the run, which is the digest of its weights and facts; None without one."""
    runs = Home(home).all("run")
    for each in runs:
        Home(home).verify(each)
    return runs[0].id if len(runs) == 1 else None


def sample(names: list[str]) -> list[int]:
    """All boundaries but those that are idle or like one before them; of a tensor file that in its middle."""
    seen: set[str] = set()
    chosen: list[int] = []
    for number, name in enumerate(names):
        alike = ALIKE.match(name)
        kind = alike.group() if alike else name
        begun = f"half {name.removeprefix('write ')}" in names
        if kind not in seen and not begun and not IDLE.search(name):
            seen.add(kind)
            chosen.append(number)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("home", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--careless", action="store_true")
    given = parser.parse_args()
    load(given.recipe, given.home)
    if given.careless:
        write_manifest_first()
    scratch: Path = given.scratch
    unbroken, begun = scratch / "unbroken", scratch / "begun"
    for each in (unbroken, begun):
        shutil.copytree(given.home, each)
    names, log = scratch / "names", scratch / "log"
    names.touch()

    def note(name: str) -> None:
        with os.fdopen(os.open(names, os.O_WRONLY | os.O_APPEND), "a") as file:
            file.write(name + "\n")

    assert start(given.recipe, unbroken, log, note) == 0, log.read_text()
    print(json.dumps({"id": result(unbroken)}), flush=True)
    told = names.read_text().splitlines()
    assert start(given.recipe, begun, log, kill_at(told[0], 0)) == -signal.SIGKILL, log.read_text()
    for number in sample(told):
        home = scratch / f"killed-{number}"
        shutil.copytree(begun, home)
        ended = start(given.recipe, home, log, kill_at(told[number], number))
        again = start(given.recipe, home, log)
        found = {"at": told[number], "ended": ended, "again": again, "id": result(home)}
        print(json.dumps({**found, "log": log.read_text()[-800:]}), flush=True)
        shutil.rmtree(home)
        if given.careless and found["id"] is None:
            return


if __name__ == "__main__":
    main()
