"""lensmith prepare: check and split labelled data."""

from __future__ import annotations

import argparse

from lensmith.cli.arguments import add_max_bad, add_recipe, pipeline_of
from lensmith.cli.output import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    add_recipe(parser)
    add_max_bad(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the dataset and its held-out set."""
    pipeline = pipeline_of(arguments)
    dataset, held_out = pipeline.dataset, pipeline.held_out
    if arguments.json:
        print_json(
            {"dataset": dataset.id, "held_out": held_out.id, "path": str(dataset.path), **dataset.body}
        )
        return 0
    print(f"{dataset.short}  {dataset.path}\n{held_out.short}  {held_out.path}")
    print(f"report  {dataset.path / 'report.html'}\nrefused {dataset.path / 'refused.csv'}")
    return 0
