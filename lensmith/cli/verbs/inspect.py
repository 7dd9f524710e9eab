"""lensmith inspect: what a folder or export holds, before there is a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path

from lensmith.cli.output import print_json
from lensmith.errors import InputError, Problem

_MANIFESTS = (".csv", ".jsonl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="a folder, an archive or a file of labels as it was handed over; or a recipe, for its data",
    )
    parser.add_argument(
        "--manifest", metavar="FILE", help="also write a new .csv or .jsonl file with a line a picture"
    )


def run(arguments: argparse.Namespace) -> int:
    """Makes nothing but the manifest; bad rows and pictures are told, and are no error.

    Raises InputError where there is nothing to look at, or the manifest may not stand where it is asked for.
    """
    from data_prep.inspection.given import open_paths
    from data_prep.inspection.inspection import inspect, write_manifest
    from lensmith.cli.inspection import as_json, lines

    paths = [Path(each) for each in arguments.paths]
    manifest = Path(arguments.manifest) if arguments.manifest else None
    if manifest:
        _check_manifest(manifest, paths)
    found = inspect(open_paths(paths))
    if manifest:
        write_manifest(found, manifest)
    if arguments.json:
        print_json({**as_json(found), "manifest": manifest and str(manifest)})
    else:
        print("\n".join([*lines(found), *([f"manifest  {manifest}"] if manifest else [])]))
    return 0


def _check_manifest(manifest: Path, paths: list[Path]) -> None:
    problem: Problem | None = None
    place = manifest.resolve()
    if manifest.suffix not in _MANIFESTS:
        problem = Problem("ends in neither .csv nor .jsonl", str(manifest), "give it one of these endings")
    elif place.exists():
        # It could be somebody's labels.
        problem = Problem("is already there", str(manifest), "remove it, or choose another name")
    elif any(place.is_relative_to(path.resolve()) for path in paths):
        mend = "write it elsewhere: the next look would take it for labels"
        problem = Problem("lies in what is looked at", str(manifest), mend)
    if problem:
        raise InputError("the manifest cannot be written there", [problem])
