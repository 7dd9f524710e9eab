"""The program that accelerate starts, once a process:

accelerate launch --config_file CONFIG scripts/train.py RECIPE [--home DIR] [-s key.path=value]

CONFIG is the recipe's `train.launcher`.

SIGTERM to any of its processes: all of them save after their step, and end with 0; the same command goes on.
`lensmith train RECIPE` runs the same. `lensmith prepare RECIPE` must have been run before, in the same home.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from lensmith.large_imports import QuickExit, no_collection
from lensmith.process import die_with_launcher
from lensmith.signals import TERMINATION

if __name__ == "__main__":
    # Before the slow imports. accelerate and torchrun do not take their processes along when they are killed.
    signal.signal(signal.SIGTERM, TERMINATION.note)
    die_with_launcher()
    ending = QuickExit()

# Before transformers is imported: everything is local, and a look at a hub would wait for a time-out.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from data_prep.prepare import find_prepared
from finetune.ending import leave
from finetune.launch import ERROR_FILE, check_key, first_failure
from finetune.run import run_key
from lensmith.base import pin_base
from lensmith.errors import InputError, LensmithError, Problem
from lensmith.failure import write_failure
from lensmith.home import Home
from lensmith.left_out import IN_FOUR_BITS, TRACKER, UNUSED, leave_out
from lensmith.recipe import Recipe, load_recipe

STOPPED = 130


def main(argv: list[str] | None = None) -> int:
    """Run one training process; gives its exit code (0 trained, or saved and told to stop; 2, 4, 130)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--home", type=Path, default=Path("workspace"))
    parser.add_argument("-s", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    arguments = parser.parse_args(argv)
    try:
        train(arguments.recipe, arguments.settings, Home(arguments.home))
    except LensmithError as error:
        if ERROR_FILE in os.environ:
            write_failure(Path(os.environ[ERROR_FILE]), error)
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return STOPPED
    except Exception as error:
        tell_first(error)
        raise
    return 0


def tell_first(error: Exception) -> None:
    """Of several processes, leave for the launcher what ended the first one that failed by no error of ours.

    What the others then raise follows from it, and so does what the launcher's log ends with.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if ERROR_FILE not in os.environ or processes == 1:
        return
    told = first_failure(Path(os.environ[ERROR_FILE]))
    if told.exists():
        return
    rank = os.environ["RANK"]
    summary = f"training process {rank} of {processes} (counted from 0) failed"
    problem = Problem(f"{type(error).__name__}: {error}", f"process {rank}")
    write_failure(told, LensmithError(summary, [problem]))


def train(recipe_path: Path, settings: list[str], home: Home) -> None:
    """Train the recipe's run from the home's base and dataset. Raises InputError where they are missing.

    Raises IntegrityError where this process was launched for another run.
    """
    recipe = load_recipe(recipe_path, settings)
    base = pin_base(recipe, home)
    prepared = find_prepared(recipe, home)
    # What changes from here on is not seen: the code is loaded, and its digest remembered.
    check_key(run_key(recipe, base, prepared.dataset) if prepared else None)
    if prepared is None:
        raise InputError(
            f"{home.root} has no dataset for {recipe_path}",
            [Problem("the data was not prepared", "", f"lensmith prepare {recipe_path} --home {home.root}")],
        )
    leave_out(*unused(recipe))
    # Imported here: torch takes seconds, and wrong input should be told at once.
    with no_collection():
        from finetune.train import train_process

    train_process(recipe, home, base, prepared.dataset, TERMINATION)


def unused(recipe: Recipe) -> list[str]:
    """Packages that this training does not use and that libraries would import."""
    names = [*UNUSED]
    if recipe.train.method != "qlora":
        names.append(IN_FOUR_BITS)
    if recipe.train.wandb == "disabled":
        names.append(TRACKER)
    return names


if __name__ == "__main__":
    leave(ending, main())  # pyright: ignore[reportPossiblyUnboundVariable]
