"""lensmith run: all stages of a recipe, to a release; with --promote, into a channel."""

from __future__ import annotations

import argparse

from lensmith.cli.arguments import add_max_bad, add_recipe, pipeline_of
from lensmith.cli.output import print_json
from lensmith.cli.summary import summarise, summary_text
from lensmith.cli.verbs.promote import add_decision, promote_release
from lensmith.errors import InputError, Problem


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    add_recipe(parser)
    add_max_bad(parser)
    add_decision(parser, "--promote", required=False)


def run(arguments: argparse.Namespace) -> int:
    """Make or find everything; promote where that was asked for."""
    decision = (arguments.channel, arguments.who, arguments.why)
    if any(decision) and not all(decision):
        raise InputError("a promotion needs all three", [Problem("give --promote, --who and --why together")])
    pipeline = pipeline_of(arguments)
    if arguments.channel:
        from serving.gates import read_policy

        # Read again at the end: what is wrong in it should not be told after hours of training.
        read_policy(pipeline.recipe.gates)
    release = pipeline.release
    promoted = None
    if arguments.channel:
        promoted = promote_release(
            pipeline.home,
            release,
            arguments.channel,
            arguments.who,
            arguments.why,
            pipeline.recipe.gates,
        )
    summary = summarise(pipeline, promoted)
    if arguments.json:
        print_json(summary)
    else:
        print(summary_text(summary))
    return 0
