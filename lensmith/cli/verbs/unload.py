"""lensmith unload: an adapter out of a live server."""

from __future__ import annotations

import argparse

from lensmith.cli.arguments import home_of
from lensmith.cli.output import print_json
from lensmith.cli.verbs.load import add_port


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument("name", metavar="NAME", help="the adapter's name in requests: its release's")
    add_port(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError, with what there is, where there is no such adapter."""
    from serving.live import unload_adapter

    unload_adapter(home_of(arguments), arguments.name, arguments.port)
    if arguments.json:
        print_json({"name": arguments.name})
    else:
        print(f"{arguments.name} is no longer live")
    return 0
