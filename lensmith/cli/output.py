"""What commands print: text for people, one JSON object for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from lensmith.artifact import Artifact


def print_json(value: Any) -> None:
    """One JSON object on one line of stdout."""
    print(json.dumps(value, ensure_ascii=False, sort_keys=True, default=str))


def note(text: str) -> None:
    """A line of progress, on stderr so that stdout stays the result."""
    print(text, file=sys.stderr, flush=True)


def counted(number: int, thing: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> str:
    """Rows in aligned columns, two spaces between; the header underlined."""
    every = [list(header), *map(list, rows)] if header else [list(row) for row in rows]
    if not every:
        return ""
    widths = [max(len(row[column]) for row in every) for column in range(len(every[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in every
    ]
    if header:
        lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def print_artifact(artifact: Artifact, as_json: bool) -> None:
    """What a stage made, and where it lies."""
    if as_json:
        print_json(
            {"kind": artifact.kind, "id": artifact.id, "path": str(artifact.path), "body": artifact.body}
        )
    else:
        print(f"{artifact.short}  {artifact.path}")
