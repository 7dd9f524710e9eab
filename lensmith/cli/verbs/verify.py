"""lensmith verify: re-hash an artifact and everything it was made from."""

from __future__ import annotations

import argparse

from lensmith.attestation import attestations
from lensmith.base import verify_base
from lensmith.cli.arguments import home_of
from lensmith.cli.output import print_json
from lensmith.cli.reference import resolve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument("artifact", metavar="ARTIFACT", help="directory, kind-id, id, or NAME@CHANNEL")


def run(arguments: argparse.Namespace) -> int:
    """Raises IntegrityError with every file, input or attestation that is not what it should be."""
    home = home_of(arguments)
    artifact = resolve(home, arguments.artifact)
    chain = home.verify(artifact)
    for each in chain:
        if each.kind == "base":
            verify_base(each)
        attestations(home, each.id)
    files = sum(len(each.manifest.files) for each in chain)
    if arguments.json:
        print_json({"verified": [{"kind": each.kind, "id": each.id} for each in chain], "files": files})
        return 0
    many = "s" if len(chain) > 1 else ""
    print(f"{artifact.short} is whole: {files} files of {len(chain)} artifact{many} re-hashed")
    for each in chain:
        print(f"  {each.short}")
    return 0
