"""Arguments that several verbs share."""

from __future__ import annotations

import argparse
from pathlib import Path

from lensmith.cli.pipeline import Pipeline
from lensmith.errors import InputError, Problem
from lensmith.home import Home
from lensmith.recipe import Recipe, load_recipe


def add_recipe(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """RECIPE and -s."""
    parser.add_argument(
        "recipe", metavar="RECIPE", nargs="?" if optional else None, help="a recipe's YAML file"
    )
    add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """-s alone, where the recipe is an option."""
    parser.add_argument(
        "-s",
        dest="settings",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="lay a value over the recipe, e.g. -s train.epochs=2 (repeatable)",
    )


def add_max_bad(parser: argparse.ArgumentParser) -> None:
    """--max-bad: `-s data.max_bad=...` by a name of its own; of the two, the later holds."""
    parser.add_argument(
        "--max-bad",
        dest="settings",
        metavar="SHARE|COUNT",
        action="append",
        type="data.max_bad={}".format,
        help="refused rows beyond which nothing is written: a share below 1, or a count (data.max_bad)",
    )


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The recipe that the command line names, settings laid over it."""
    return load_recipe(Path(arguments.recipe), arguments.settings)


def home_of(arguments: argparse.Namespace) -> Home:
    """The home that the command line names; made where it is not there.

    Raises InputError where it cannot be made.
    """
    home = Home(Path(arguments.home))
    try:
        home.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = Problem(error.strerror or str(error), str(home.root), "choose another place: --home DIR")
        raise InputError("there can be no home here", [problem]) from error
    return home


def pipeline_of(arguments: argparse.Namespace) -> Pipeline:
    """The stages of the recipe that the command line names."""
    return Pipeline(Path(arguments.recipe), arguments.settings, home_of(arguments))
