"""lensmith rollback: put the previous release of a channel back."""

from __future__ import annotations

import argparse

from lensmith.cli.arguments import home_of
from lensmith.cli.output import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument("channel", metavar="NAME@CHANNEL", help="for example bank-forms@production")
    parser.add_argument("--who", required=True, help="who decides this")
    parser.add_argument("--why", required=True, help="the reason, for the log")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError where nothing was there before, IntegrityError where it is no longer whole."""
    from serving.promote import rollback
    from serving.registry import parse_reference

    name, channel = parse_reference(arguments.channel)
    restored = rollback(home_of(arguments), name, channel, arguments.who, arguments.why)
    if arguments.json:
        print_json({"name": name, "channel": channel, "release": restored.id})
    else:
        print(f"{name}@{channel} is again {restored.short}")
    return 0
