"""Kills `scripts/train.py` at each file boundary of a save, and lets each killed home go on.

PYTHONPATH=.:scripts python tests/finetune/killed_saves.py SCRATCH CASE... [--careless]

A CASE is RECIPE:HOME:PATTERN. RECIPE's base and data are prepared in HOME; PATTERN is found in the names of
the boundaries to kill at. Each start is a fork of this process, in which the packages are loaded and nothing
more: a second instead of ten. Boundaries are counted from the first file of the second checkpoint on, when
the first one is whole. Writes a line of JSON for the undisturbed run and one a boundary, with its case's
number.
--careless: the mutant, which writes a checkpoint's manifest before its files.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deepspeed
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
from tests.finetune.boundaries import Boundaries

FIRST = "checkpoint-2"
# An empty folder more, or a file that says nothing.
IDLE = re.compile(r"^mkdir |README\.md$")
# A checkpoint that counts no more, or a work folder whose run is whole: one file of it stands for all. A
# temporary file that has got its name is not there to be removed.
ALIKE = re.compile(r"^remove work/\*/(checkpoint-\d(?!/checkpoint\.json))?|^remove (?=.*\.tmp$)")


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
            told = Boundaries(home, FIRST, at).watched() if at is not None else contextlib.nullcontext()
            with told:
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


def kill(recipe: Path, home: Path, pattern: str, scratch: Path) -> Iterator[dict[str, Any]]:
    """What became of the undisturbed run, and of those that were killed and started again."""
    unbroken, begun = scratch / "unbroken", scratch / "begun"
    for each in (unbroken, begun):
        shutil.copytree(home, each)
    names, log = scratch / "names", scratch / "log"
    names.touch()

    def note(name: str) -> None:
        with os.fdopen(os.open(names, os.O_WRONLY | os.O_APPEND), "a") as file:
            file.write(name + "\n")

    assert start(recipe, unbroken, log, note) == 0, log.read_text()
    yield {"id": result(unbroken)}
    told = names.read_text().splitlines()
    assert start(recipe, begun, log, kill_at(told[0], 0)) == -signal.SIGKILL, log.read_text()
    for number in sample(told):
        if not re.search(pattern, told[number]):
            continue
        killed = scratch / f"killed-{number}"
        shutil.copytree(begun, killed)
        ended = start(recipe, killed, log, kill_at(told[number], number))
        again = start(recipe, killed, log)
        found = {"at": told[number], "ended": ended, "again": again, "id": result(killed)}
        yield {**found, "log": log.read_text()[-800:]}
        shutil.rmtree(killed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("case", nargs="+")
    parser.add_argument("--careless", action="store_true")
    given = parser.parse_args()
    for number, case in enumerate(given.case):
        recipe, home, pattern = case.split(":", 2)
        scratch = given.scratch / str(number)
        scratch.mkdir()
        load(Path(recipe), Path(home))
        if given.careless:
            write_manifest_first()
        for found in kill(Path(recipe), Path(home), pattern, scratch):
            print(json.dumps({"case": number, **found}), flush=True)
            if given.careless and "at" in found and found["id"] is None:
                return


if __name__ == "__main__":
    main()
