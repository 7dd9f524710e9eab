"""lensmith evaluate: ask the served model the held-out set, prove what is served, report."""

from __future__ import annotations

import argparse

from lensmith.cli.arguments import add_recipe, pipeline_of
from lensmith.cli.output import print_artifact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    add_recipe(parser)
    parser.add_argument(
        "--split",
        choices=("held-out", "validation"),
        default="held-out",
        help="the exam (held-out), or the validation rows, whose mistakes can go back to the labellers",
    )


def run(arguments: argparse.Namespace) -> int:
    """Make the report; of the exam also the serve proof.

    Raises GateRefused where the proof fails or the exam was retired.
    """
    pipeline = pipeline_of(arguments)
    if arguments.split == "validation":
        report = pipeline.validation_report
    else:
        report = pipeline.report
        pipeline.require(pipeline.serve_proof)
    print_artifact(report, arguments.json)
    if not arguments.json:
        print(f"page    {report.path / 'page.html'}")
    return 0
