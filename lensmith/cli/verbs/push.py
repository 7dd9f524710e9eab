"""lensmith push: copy an artifact to a store."""

from __future__ import annotations

import argparse

from lensmith.cli.arguments import home_of
from lensmith.cli.output import print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument("artifact", metavar="ARTIFACT", help="directory, kind-id, id, or NAME@CHANNEL")
    parser.add_argument(
        "address", metavar="ADDRESS", help="a folder of its own in a store, e.g. s3://bucket/forms-3"
    )


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError where anything else lies there; IntegrityError where a file did not come whole."""
    from lensmith.cli.reference import resolve
    from lensmith.transfer import push

    home = home_of(arguments)
    artifact = resolve(home, arguments.artifact)
    sent = push(home, artifact, arguments.address)
    if arguments.json:
        result = {"kind": artifact.kind, "id": artifact.id, "address": arguments.address}
        print_json(result | {"files": sent.files, "already": sent.already})
        return 0
    print(f"{artifact.short}  {arguments.address}  {sent.files} files sent, {sent.already} lay there")
    return 0
