"""lensmith list: the artifacts of a home."""

from __future__ import annotations

import argparse
import datetime

from lensmith.artifact import KINDS, MANIFEST, Artifact
from lensmith.cli.arguments import home_of
from lensmith.cli.output import print_json, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument(
        "kind", metavar="KIND", nargs="?", choices=KINDS, help=f"only one of {', '.join(KINDS)}"
    )


def run(arguments: argparse.Namespace) -> int:
    """Oldest first."""
    home = home_of(arguments)
    found = home.all(arguments.kind)
    if arguments.json:
        print_json(
            {
                "artifacts": [
                    {"kind": a.kind, "id": a.id, "key": a.manifest.key, "path": str(a.path)} for a in found
                ]
            }
        )
        return 0
    if not found:
        print(f"no artifacts in {home.root}")
        return 0
    rows = [[each.short, _made(each), _size(each), str(each.path)] for each in found]
    print(table(rows, ("artifact", "made", "size", "where")))
    return 0


def _made(artifact: Artifact) -> str:
    stamp = (artifact.path / MANIFEST).stat().st_mtime
    return datetime.datetime.fromtimestamp(stamp).strftime("%Y-%m-%d %H:%M")


def _size(artifact: Artifact) -> str:
    total = float(sum(entry.bytes for entry in artifact.manifest.files))
    for unit in ("B", "KB", "MB", "GB"):
        if total < 1000:
            return f"{total:.0f} {unit}"
        total /= 1000
    return f"{total:.1f} TB"
