"""lensmith pull: copy an artifact from a store."""

from __future__ import annotations

import argparse

from lensmith.cli.arguments import home_of
from lensmith.cli.output import print_artifact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument("address", metavar="ADDRESS", help="where `lensmith push` put it")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError where no whole artifact lies there; IntegrityError where a file was changed."""
    from lensmith.transfer import pull

    print_artifact(pull(home_of(arguments), arguments.address), arguments.json)
    return 0
