"""lensmith load: a release's adapter into a live server."""

from __future__ import annotations

import argparse

from lensmith.cli.arguments import home_of
from lensmith.cli.output import print_json
from lensmith.cli.reference import resolve


def add_port(parser: argparse.ArgumentParser) -> None:
    """Which live server is meant."""
    parser.add_argument("--port", type=int, help="of the live server, where this home has several")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument("release", metavar="RELEASE", help="NAME@CHANNEL, or a release")
    add_port(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises GateRefused without a proof, and where its live answers are not those of the proof."""
    from serving.live import load_adapter

    home = home_of(arguments)
    member = load_adapter(home, resolve(home, arguments.release), arguments.port)
    if arguments.json:
        print_json({"name": member.name, "release": member.release.id})
    else:
        print(f"{member.name} is live: {member.release.short}")
    return 0
