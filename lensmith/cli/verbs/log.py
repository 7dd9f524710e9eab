"""lensmith log: every promotion and rollback, and what each channel holds now."""

from __future__ import annotations

import argparse
import dataclasses

from lensmith.cli.arguments import home_of
from lensmith.cli.output import print_json, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="only the releases of this name")


def run(arguments: argparse.Namespace) -> int:
    """Oldest first. The log only grows."""
    from serving.registry import Registry

    with Registry.open(home_of(arguments)) as registry:
        acts = registry.acts(arguments.name)
    if arguments.json:
        print_json({"acts": [dataclasses.asdict(act) for act in acts]})
        return 0
    if not acts:
        print("nothing was promoted yet")
        return 0
    rows = [
        [act.at, act.kind, f"{act.name}@{act.channel}", f"release-{act.release[:12]}", act.who, act.why]
        for act in acts
    ]
    print(table(rows, ("when", "act", "channel", "release", "who", "why")))
    held = {f"{act.name}@{act.channel}": act.release for act in acts}
    print("\nnow: " + ", ".join(f"{channel} is release-{release[:12]}" for channel, release in held.items()))
    return 0
