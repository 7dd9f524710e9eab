"""lensmith train: fine-tune with accelerate."""

from __future__ import annotations

import argparse

from lensmith.cli.arguments import add_recipe, pipeline_of
from lensmith.cli.output import print_artifact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    add_recipe(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the run; stages before it are done where they are not."""
    print_artifact(pipeline_of(arguments).run, arguments.json)
    return 0
