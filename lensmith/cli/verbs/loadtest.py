"""lensmith loadtest: how fast a release answers at rising load, asked its own held-out rows."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from lensmith.artifact import Artifact
from lensmith.cli.arguments import home_of
from lensmith.cli.output import print_artifact, table
from lensmith.cli.reference import resolve
from lensmith.errors import InputError, Problem

if TYPE_CHECKING:
    from serving.loadtest.result import Load, LoadTest, Side


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument("release", metavar="RELEASE", help="directory, release-id, id, or NAME@CHANNEL")
    levels = parser.add_mutually_exclusive_group()
    levels.add_argument(
        "--concurrency",
        metavar="N,N...",
        help="requests in flight at each level, rising (1,2,4... until more gives no more throughput)",
    )
    levels.add_argument("--rates", metavar="R,R...", help="requests a second at each level instead, rising")
    parser.add_argument(
        "--rows", type=int, metavar="N", help="held-out rows asked at each level, each once (200, or all)"
    )
    parser.add_argument(
        "--against",
        metavar="RELEASE",
        help="another release of the same exam, measured in turns: merged against adapter",
    )
    parser.add_argument(
        "--rounds", type=int, default=1, metavar="N", help="how often each engine is started and measured (1)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure. Raises InputError where that cannot be done as asked, or the engine ends midway."""
    from serving.loadtest.measure import load_test
    from serving.loadtest.result import Load, read_load_test

    home = home_of(arguments)
    if arguments.rows is not None and arguments.rows < 1:
        raise InputError("nothing to ask", [Problem("must be 1 or more", "--rows")])
    if arguments.concurrency is not None:
        loads = [
            Load(concurrency=int(each)) for each in _numbers(arguments.concurrency, "--concurrency", int)
        ]
    else:
        loads = [Load(rate=each) for each in _numbers(arguments.rates or "", "--rates", float)]
    release = resolve(home, arguments.release)
    against = resolve(home, arguments.against) if arguments.against else None
    artifact = load_test(home, release, loads, arguments.rows or 0, against, arguments.rounds)
    if not arguments.json:
        print(_text(artifact, read_load_test(artifact)))
    print_artifact(artifact, arguments.json)
    if not arguments.json:
        print(f"page    {artifact.path / 'page.html'}")
    return 0


def _numbers(text: str, flag: str, of: type[int] | type[float]) -> list[float]:
    """The numbers of a list with commas. Raises InputError with every one that is none."""
    found: list[float] = []
    problems: list[Problem] = []
    for each in filter(None, text.split(",")):
        try:
            number = of(each)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            found.append(number)
        else:
            problems.append(Problem(f"{each!r} is no number", flag, "like 1,2,4,8"))
    if problems:
        raise InputError("the levels cannot be read", problems)
    return found


def _text(artifact: Artifact, result: LoadTest) -> str:
    from serving.loadtest.page import ratio

    parts = [_table(result.side)]
    if result.against is not None:
        parts.append(_table(result.against))
        times = "; ".join(f"{_load(load)}: {each:g}" for load, each in ratio(result))
        parts.append(f"throughput of {result.side.mode} over {result.against.mode}: {times}")
    return "\n\n".join(parts) + "\n"


def _table(side: Side) -> str:
    rows = []
    for at, each in enumerate(side.levels):
        spreads = (each.first_token_ms, each.between_tokens_ms)
        times = [f"{one.p50:.0f} / {one.p95:.0f} / {one.p99:.0f}" if one else "-" for one in spreads]
        saturated = "saturated" if at == side.saturated else ""
        figures = [f"{each.requests_per_s:.2f}", f"{each.output_tokens_per_s:.1f}"]
        rows.append([_load(each.load), str(each.requests), str(each.failures), *figures, *times, saturated])
    header = (side.mode, "requests", "failed", "answers/s", "tokens/s", "first token ms", "between ms", "")
    return table(rows, header) + "\np50 / p95 / p99"


def _load(load: Load) -> str:
    return str(load)
