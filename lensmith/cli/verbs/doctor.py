"""lensmith doctor: what this machine has, what is missing, and how to mend it."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from lensmith.cli.arguments import add_recipe, recipe_of
from lensmith.cli.doctor.check import can_run
from lensmith.cli.doctor.diagnose import diagnose
from lensmith.cli.output import print_json, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    add_recipe(parser, optional=True)


def run(arguments: argparse.Namespace) -> int:
    """Print every check; 2 where a recipe was given that cannot run here."""
    recipe = recipe_of(arguments) if arguments.recipe else None
    checks = diagnose(recipe, Path(arguments.home))
    runs = can_run(checks)
    if arguments.json:
        print_json({"checks": [dataclasses.asdict(check) for check in checks], "can_run": runs})
    else:
        print(table([(check.name, check.state, check.found) for check in checks]))
        mends = [f"  {check.name}: {check.mend}" for check in checks if check.mend]
        if mends:
            print("\nTo mend:\n" + "\n".join(mends))
        if recipe is not None:
            print(f"\n{arguments.recipe} {'can' if runs else 'cannot'} run here")
    return 2 if recipe is not None and not runs else 0
