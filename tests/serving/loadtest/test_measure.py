"""What is refused before an engine starts, and what becomes of an engine that fails under load."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from lensmith.artifact import Artifact
from lensmith.cli.main import main
from lensmith.dataset import held_out_reads
from lensmith.errors import InputError
from lensmith.home import Home
from serving.build import EngineBuild
from serving.engine import Engine, _wait_healthy
from serving.loadtest.client import Measured, Task
from serving.loadtest.measure import ROWS, _chosen_loads, load_test
from serving.loadtest.result import Load, Request, read_load_test
from serving.port import free_port
from tests.release_artifacts import World, form_rows
from tests.serving.loadtest.loadable import Loadable


@pytest.fixture
def room(home: Home) -> Loadable:
    return Loadable(home)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Artifact]:
    """The profiles that an engine was started for: none may be."""
    profiles: list[Artifact] = []

    @contextlib.contextmanager
    def start(profile: Artifact, home: Home, **_: Any) -> Iterator[Engine]:
        profiles.append(profile)
        raise AssertionError("an engine was started")
        yield

    monkeypatch.setattr("serving.loadtest.measure.running_engine", start)
    return profiles


def levels(*concurrency: int) -> list[Load]:
    return [Load(concurrency=each) for each in concurrency]


def measured(task: Task, load: Load) -> Measured:
    """What an engine might have answered."""
    one = Request(
        side=task.side,
        round=task.round,
        load=load,
        row=0,
        input_tokens=9,
        output_tokens=2,
        first=5.0,
        gaps=[2.0],
        latency=7.0,
        error="",
    )
    requests = [one.model_copy(update={"row": at}) for at in range(task.rows)]
    return Measured(
        load=load, seconds=1.0, asked_tokens=36, cached_tokens=9, cached_images=0, requests=requests
    )


def test_all_that_is_wrong_is_said_at_once(room: Loadable, started: list[Artifact]) -> None:
    release = room.release("one")
    before = held_out_reads(room.home, room.held_out)
    with pytest.raises(InputError) as caught:
        load_test(room.home, release, levels(4, 4, 60), rows=100, against=release, rounds=0)
    told = [(each.what, each.where) for each in caught.value.problems]
    assert told == [
        ("100 are asked for, the held-out set has 48", "--rows"),
        ("must be 1 or more", "--rounds"),
        ("levels must rise", "--concurrency or --rates"),
        ("60 in flight need 120 rows, 100 are asked", "--concurrency"),
        ("is the release itself", "--against"),
    ]
    assert started == []
    assert held_out_reads(room.home, room.held_out) == before


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"rows": 1}, "must be 2 or more"),
        ({"loads": levels(0)}, "a level must be above 0"),
        ({"loads": [Load(rate=-1.0)]}, "a level must be above 0"),
        ({"loads": levels(25)}, "25 in flight need 50 rows, 48 are asked"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    room: Loadable, started: list[Artifact], more: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        load_test(room.home, room.release("one"), **more)


def test_releases_of_different_exams_are_not_compared(
    room: Loadable, started: list[Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = room.release("one")
    room.held_out = room.make_held_out("another", form_rows(20, 2))
    room.dataset = room.artifact(
        "dataset", "other", {}, {"x": b""}, **(room.dataset.body | {"held_out": room.held_out.id})
    )
    room.intake = room.make_intake("other", room.dataset)
    room.rows = form_rows(20, 2)
    two = room.release("two")
    with pytest.raises(InputError, match="different held-out sets"):
        load_test(room.home, one, levels(1), against=two)


def test_what_was_proven_with_another_vllm_is_not_measured(home: Home, started: list[Artifact]) -> None:
    room = Loadable(home)
    room.build = EngineBuild(version="0.0.1", device=room.build.device)
    with pytest.raises(InputError, match="the profile was derived for"):
        load_test(home, room.release("one"), levels(1))


def test_only_releases_are_measured(world: World, started: list[Artifact]) -> None:
    with pytest.raises(InputError, match="is not a release"):
        load_test(world.home, world.profile(world.base), levels(1))


def test_levels_double_while_rows_last() -> None:
    assert _chosen_loads([], ROWS) == levels(1, 2, 4, 8, 16, 32, 64)
    assert _chosen_loads([], 5) == levels(1, 2)
    assert _chosen_loads(levels(3), 5) == levels(3)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--concurrency", "1,two,3.5"], "--concurrency: 'two' is no number"),
        (["--rates", "1,x"], "--rates: 'x' is no number"),
        (["--rates", "1,inf"], "--rates: 'inf' is no number"),
        (["--rows", "0"], "--rows: must be 1 or more"),
        ([], "'nothing' names no artifact"),
    ],
)
def test_the_command_says_what_it_cannot_read(
    home: Home, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main(["loadtest", "nothing", *arguments, "--home", str(home.root)]) == 2
    assert told in capsys.readouterr().err


def test_every_round_asks_each_level_once_and_the_other_release_first_in_turns(
    room: Loadable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked again under the same mark, the engine's caches would know the rows."""
    asked: list[Task] = []
    engine = Engine("http://127.0.0.1:1", "bank-forms", "0.32.0", Path("log"), 1)

    def ask(task: Task, _: Engine) -> list[Measured]:
        asked.append(task)
        return [measured(task, each) for each in task.loads]

    monkeypatch.setattr("serving.loadtest.measure.running_engine", lambda *_, **__: nullcontext(engine))
    monkeypatch.setattr("serving.loadtest.measure._ask", ask)
    one, two = room.release("one"), room.release("two")
    test = load_test(room.home, one, levels(1, 2), rows=4, against=two, rounds=3)
    assert [(each.round, each.side) for each in asked] == [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (2, 1)]
    assert [each.loads for each in asked] == [levels(1, 2)] * 6
    result = read_load_test(test)
    assert result.against is not None
    for side, release in ((result.side, one), (result.against, two)):
        assert side.release == release.id
        assert [(level.load.concurrency, level.requests) for level in side.levels] == [(1, 12), (2, 12)]
    roles = {"held_out", "release", "profile", "against_release", "against_profile"}
    assert test.manifest.inputs.keys() == roles


class Double:
    """The program of tests/serving/engine_double.py in vLLM's place; the benchmark that asks it is real."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def running(self, profile: Artifact, home: Home, **_: Any) -> Iterator[Engine]:
        port, log = free_port("127.0.0.1"), self.folder / "vllm-double.log"
        argv = [
            sys.executable,
            str(Path(__file__).parents[1] / "engine_double.py"),
            str(port),
            "dies-after-5",
        ]
        with log.open("wb") as stream:
            process = subprocess.Popen(argv, stderr=stream)
        try:
            url = f"http://127.0.0.1:{port}"
            yield Engine(url, "bank-forms", _wait_healthy(process, url, log, 30), log, process.pid)
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.vllm
def test_an_engine_that_dies_midway_is_an_error_and_nothing_is_written(
    room: Loadable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked by vLLM's own benchmark, whose import takes most of the test's time."""
    monkeypatch.setattr("serving.loadtest.measure.running_engine", Double(tmp_path).running)
    with pytest.raises(InputError, match="vLLM stopped during the load test"):
        load_test(room.home, room.release("one"), levels(1), rows=4)
    assert room.home.all("loadtest") == []
