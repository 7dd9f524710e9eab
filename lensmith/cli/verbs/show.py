"""lensmith show: one artifact in full."""

from __future__ import annotations

import argparse
from dataclasses import asdict

import yaml

from lensmith.attestation import attestations
from lensmith.cli.arguments import home_of
from lensmith.cli.output import print_json, table
from lensmith.cli.reference import resolve
from lensmith.dataset import held_out_reads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument("artifact", metavar="ARTIFACT", help="directory, kind-id, id, or NAME@CHANNEL")


def run(arguments: argparse.Namespace) -> int:
    """Body, files, inputs, attestations and the run's record; of an exam also every reading of it."""
    home = home_of(arguments)
    artifact = resolve(home, arguments.artifact)
    about = attestations(home, artifact.id)
    reads = held_out_reads(home, artifact) if artifact.kind == "held_out" else None
    if arguments.json:
        print_json(
            artifact.manifest.model_dump()
            | {
                "path": str(artifact.path),
                "record": artifact.record(),
                "attestations": [each.model_dump() for each in about],
            }
            | ({"reads": [asdict(each) for each in reads]} if reads is not None else {})
        )
        return 0
    print(
        f"{artifact.short}\n\nid     {artifact.id}\nkey    {artifact.manifest.key}\nwhere  {artifact.path}\n"
    )
    if artifact.manifest.inputs:
        print("made from")
        for role, input_id in artifact.manifest.inputs.items():
            print(f"  {role:<12} {input_id[:12]}")
        print()
    if reads is not None:
        print(f"read {len(reads):,} times")
        for each in reads:
            print(f"  {each.at}  {each.reason}")
        print()
    if about:
        print("attested")
        for each in about:
            print(f"  {each.second}  {each.predicate:<12} {'passed' if each.passed else 'FAILED'}")
        print()
    print(
        yaml.safe_dump(
            {"body": artifact.body, "record": artifact.record()}, sort_keys=False, allow_unicode=True
        )
    )
    print(table([[f"{entry.bytes:,}".rjust(14), entry.path] for entry in artifact.manifest.files]))
    return 0
