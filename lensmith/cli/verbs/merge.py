"""lensmith merge: base and adapter, or several, into one checkpoint, with the merge proof."""

from __future__ import annotations

import argparse

from lensmith.cli.arguments import add_recipe, pipeline_of
from lensmith.cli.output import print_artifact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    add_recipe(parser)


def run(arguments: argparse.Namespace) -> int:
    """Merge and prove. Raises GateRefused where the proof fails."""
    pipeline = pipeline_of(arguments)
    model = pipeline.model
    pipeline.require(pipeline.merge_proof)
    print_artifact(model, arguments.json)
    return 0
