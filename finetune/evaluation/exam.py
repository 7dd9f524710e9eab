"""Holding a trace against the held-out set: it counts only when it answers exactly these rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lensmith.artifact import Artifact
from lensmith.dataset import read_asked
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.home import Home
from lensmith.rendering import Rendering
from lensmith.trace import TraceRow, TraceSettings, read_trace, trace_settings

# How many differing rows an error lists before it only counts them.
_LISTED = 20


@dataclass(frozen=True)
class ExamRow:
    """A held-out row as the report keeps it. images: files inside the report, in the row's order."""

    id: str
    group: str
    label: str
    digests: tuple[str, ...]
    images: tuple[str, ...]


def check_asked(trace: Artifact, held_out: Artifact) -> TraceSettings:
    """The trace's settings, after checking that it was made on exactly this held-out set, or this dataset.

    Raises IntegrityError for another held-out set, InputError for an artifact of another kind.
    """
    if trace.kind != "trace":
        raise InputError(f"{trace.short} is not a trace")
    if held_out.kind not in ("held_out", "dataset"):
        raise InputError(f"{held_out.short} is not a held-out set")
    settings = trace_settings(trace)
    if settings.held_out != held_out.id:
        raise IntegrityError(
            f"{trace.short} answers another exam",
            [
                Problem(
                    f"it was asked {settings.held_out[:12]}, the held-out set is {held_out.id[:12]}",
                    mend="ask the model this held-out set: lensmith evaluate",
                )
            ],
        )
    return settings


def read_exam(
    home: Home, held_out: Artifact, rendering: Rendering, reason: str, folder: Path
) -> Iterator[ExamRow]:
    """The held-out (or a dataset's validation) rows, labels as the model writes them (`Rendering.said`).

    Each image is written once to `folder`/images, named by its pixels' digest.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for row in read_asked(home, held_out, reason):
        digests = tuple(image.digest for image in row.sample.images)
        files = tuple(f"images/{digest[:32]}.png" for digest in digests)
        for name, data in zip(files, row.images, strict=True):
            if not (folder / name).exists():
                (folder / name).write_bytes(data)
        sample = row.sample
        yield ExamRow(
            sample.id,
            sample.group,
            rendering.said(sample.messages[-1]),
            digests,
            files,
        )


def answers(trace: Artifact, rows: Mapping[str, ExamRow]) -> dict[str, TraceRow]:
    """The trace's rows by id, in the order of `rows`.

    Raises IntegrityError with every difference: a row missing, asked twice, unknown, of another group, or
    asked with other pixels.
    """
    found: dict[str, TraceRow] = {}
    problems: list[Problem] = []
    for row in read_trace(trace):
        wanted = rows.get(row.row)
        if wanted is None:
            problems.append(Problem("is not a row of the held-out set", row.row))
        elif row.row in found:
            problems.append(Problem("is answered twice", row.row))
        elif row.group != wanted.group:
            problems.append(
                Problem(f"has group {row.group!r}, the held-out set says {wanted.group!r}", row.row)
            )
        elif tuple(row.image_digests) != wanted.digests:
            problems.append(Problem("was asked with other pixels than the held-out image's", row.row))
        else:
            found[row.row] = row
    named = {problem.where for problem in problems}
    problems += [Problem("has no answer", row) for row in rows if row not in found and row not in named]
    if problems:
        more = len(problems) - _LISTED
        listed = problems[:_LISTED] + ([Problem(f"and {more:,} more rows")] if more > 0 else [])
        raise IntegrityError(f"{trace.short} does not answer the held-out set row by row", listed)
    return {row: found[row] for row in rows}
