"""lensmith live: which adapters a live server has."""

from __future__ import annotations

import argparse
import dataclasses

from lensmith.cli.arguments import home_of
from lensmith.cli.output import print_json, table
from lensmith.cli.verbs.load import add_port


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    add_port(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError where no live server was ever started from this home."""
    from serving.live import standing

    url, adapters = standing(home_of(arguments), arguments.port)
    if arguments.json:
        print_json({"url": url, "adapters": [dataclasses.asdict(each) for each in adapters]})
        return 0
    print(f"serving at {url}/v1" if url else "no server runs; the next one on this port loads:")
    print(table([(each.name, each.state, f"release-{each.release[:12]}") for each in adapters]))
    return 0
