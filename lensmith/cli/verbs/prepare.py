"""lensmith prepare: check and split labelled data."""

from __future__ import annotations

import argparse

from lensmith.cli.arguments import add_max_bad, add_recipe, pipeline_of
from lensmith.cli.output import counted, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    add_recipe(parser)
    add_max_bad(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the dataset, its held-out set and the intake."""
    pipeline = pipeline_of(arguments)
    dataset, held_out, intake = pipeline.dataset, pipeline.held_out, pipeline.intake
    if arguments.json:
        ids = {"dataset": dataset.id, "held_out": held_out.id, "intake": intake.id}
        paths = {"path": str(dataset.path), "intake_path": str(intake.path)}
        print_json({**dataset.body, **intake.body, **ids, **paths})
        return 0
    print(f"{dataset.short}  {dataset.path}\n{held_out.short}  {held_out.path}")
    count = dataset.body["rows"]
    rows = f"{count['train']:,} train, {count['validation']:,} validation, {count['held_out']:,} held-out"
    print(f"rows    {rows}\nreport  {intake.path / 'report.html'}")
    for what in ("refused", "flagged"):
        print(f"{what} {counted(intake.body[what]['rows'], 'row')}: {intake.path / f'{what}.csv'}")
    return 0
