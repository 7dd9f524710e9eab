"""lensmith evaluate: ask the served model the held-out set, prove what is served, report."""

from __future__ import annotations

import argparse

from lensmith.cli.arguments import add_recipe, pipeline_of
from lensmith.cli.output import print_artifact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    add_recipe(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the serve proof and the report. Raises GateRefused where the proof fails."""
    pipeline = pipeline_of(arguments)
    report = pipeline.report
    pipeline.require(pipeline.serve_proof)
    print_artifact(report, arguments.json)
    if not arguments.json:
        print(f"page    {report.path / 'page.html'}")
    return 0
