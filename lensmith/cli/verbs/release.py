"""lensmith release: bundle model, profile, proofs and reports."""

from __future__ import annotations

import argparse

from lensmith.cli.arguments import add_recipe, pipeline_of
from lensmith.cli.output import print_artifact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    add_recipe(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the release. Raises GateRefused where a proof did not pass."""
    print_artifact(pipeline_of(arguments).release, arguments.json)
    return 0
