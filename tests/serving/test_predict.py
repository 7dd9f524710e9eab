"""Asking the rows: order, refusals, an engine that breaks. A small HTTP program stands in vLLM's place."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lensmith.artifact import Artifact
from lensmith.dataset import HELD_OUT_FILE, READS_LOG, split_file
from lensmith.errors import InputError
from lensmith.exam import proof_rows
from lensmith.guide import recipe_guide
from lensmith.home import Home
from lensmith.recipe import Recipe
from lensmith.row_file import Row, write_rows
from lensmith.sample import Image, Message, Sample, Text, Video
from lensmith.trace import GUIDED_FILE, read_trace, trace_settings
from serving.engine import Engine, _wait_healthy
from serving.port import free_port
from serving.predict import served_trace
from serving.profile import derive_profile
from tests.serving.exam import CPU
from tests.serving.small import small_base, small_model, small_recipe, small_run

ROWS = 12


def rows() -> list[Row]:
    return [
        Row(
            Sample(
                f"row-{i:02}",
                f"group-{i % 4}",
                (Message("user", (Text(f"read form {i}"),)), Message("assistant", (Text("x"),))),
            ),
            (),
        )
        for i in range(ROWS)
    ]


class Room:
    """A home with a profile and a held-out set, and engines that behave as asked."""

    def __init__(self, folder: Path, home: Home) -> None:
        self.home = home
        self.folder = folder
        self.recipe: Recipe = small_recipe(folder, concurrency=3)
        self.base = small_base(home, self.recipe)
        self.profile = derive_profile(self.recipe, home, self.base, self.base, CPU)
        with home.create("held_out", "h" * 64, {}) as draft:
            write_rows(draft.path / HELD_OUT_FILE, rows())
            draft.body.update(rows=ROWS)
        self.held_out = draft.artifact
        self.processes: list[subprocess.Popen[bytes]] = []

    def engine(self, behaviour: str) -> Engine:
        port, log = free_port("127.0.0.1"), self.folder / "engine.log"
        program = Path(__file__).with_name("engine_double.py")
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, str(program), str(port), behaviour], stdout=stream, stderr=subprocess.STDOUT
            )
        self.processes.append(process)
        url = f"http://127.0.0.1:{port}"
        return Engine(url, "bank-forms", _wait_healthy(process, url, log, 30), log, process.pid)

    def trace(self, engine: Engine, count: int | None = None) -> Artifact:
        return served_trace(self.recipe, self.home, self.profile, self.held_out, count, engine)


@pytest.fixture
def room(tmp_path: Path, home: Home) -> Iterator[Room]:
    made = Room(tmp_path, home)
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


@pytest.fixture
def well(room: Room) -> Callable[[], Engine]:
    return lambda: room.engine("well")


def test_answers_stand_in_the_order_of_the_rows(room: Room, well: Callable[[], Engine]) -> None:
    trace = room.trace(well())
    answered = list(read_trace(trace))
    assert [row.row for row in answered] == [row.sample.id for row in rows()]
    assert [row.answer_text for row in answered] == [f"read form {i}" for i in range(ROWS)]
    settings = trace_settings(trace)
    assert (settings.subject, settings.held_out) == (room.base.id, room.held_out.id)
    assert (settings.engine, settings.engine_version, settings.serving) == ("vllm", "0.32.0", "base")
    assert settings.rows == ROWS
    assert settings.template == room.base.body["template"]
    assert {row.image_tokens for row in answered} == {2}


def test_guided_answers_are_asked_beside_the_free_ones_of_the_proof_s_rows(
    room: Room, well: Callable[[], Engine]
) -> None:
    recipe = small_recipe(room.folder / "guided", guided_json=True, proof_rows=5)
    base = small_base(room.home, recipe)
    model = small_model(room.home, base, small_run(room.home, base, ["language"]))
    profile = derive_profile(recipe, room.home, model, base, CPU)
    trace = served_trace(recipe, room.home, profile, room.held_out, engine=well())
    assert len({row.answer_text for row in read_trace(trace)}) == ROWS
    guided = list(read_trace(trace, GUIDED_FILE))
    assert [row.row for row in guided] == [row.sample.id for row in proof_rows(rows(), 5)]
    assert {row.answer_text for row in guided} == {"guided"}
    guide = recipe_guide(recipe)
    assert guide is not None
    assert trace_settings(trace).guided == guide.digest


def test_a_trace_that_is_there_is_not_asked_again(room: Room, well: Callable[[], Engine]) -> None:
    first = room.trace(well())
    nobody = Engine("http://127.0.0.1:1", "bank-forms", "0.32.0", room.folder / "log", 1 << 22)
    assert room.trace(nobody).path == first.path


def test_each_reading_of_the_held_out_set_is_logged(room: Room, well: Callable[[], Engine]) -> None:
    room.trace(well())
    (line,) = (room.home.root / READS_LOG).read_text().splitlines()
    assert json.loads(line)["reason"] == f"served trace of {room.base.id[:12]}"


def test_validation_rows_of_a_dataset_are_asked_without_a_reading_of_the_exam(
    room: Room, well: Callable[[], Engine]
) -> None:
    with room.home.create("dataset", "d" * 64, {}) as draft:
        write_rows(draft.path / split_file("train"), rows()[4:])
        write_rows(draft.path / split_file("validation"), rows()[:4])
    trace = served_trace(room.recipe, room.home, room.profile, draft.artifact, engine=well())
    assert [row.row for row in read_trace(trace)] == [row.sample.id for row in rows()[:4]]
    assert trace.manifest.inputs == {"profile": room.profile.id, "validation": draft.artifact.id}
    assert trace_settings(trace).held_out == draft.artifact.id
    assert not (room.home.root / READS_LOG).exists()


def test_an_exam_with_videos_starts_no_engine(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.predict.running_engine", None)
    frames = (Image("a#1", "aa", (8, 8)), Image("a#2", "bb", (8, 8)))
    shown = Message("user", (Video("a.mp4", frames, (0.0, 1.0), 2.0),))
    sample = Sample("filmed", "g", (shown, Message("assistant", (Text("two"),))))
    with room.home.create("held_out", "e" * 64, {}) as draft:
        write_rows(draft.path / HELD_OUT_FILE, [*rows(), Row(sample, (b"png", b"other"))])
    with pytest.raises(InputError, match="the profile takes no videos") as error:
        served_trace(room.recipe, room.home, room.profile, draft.artifact)
    assert [each.where for each in error.value.problems] == ["row filmed"]


def test_proof_rows_alone(room: Room, well: Callable[[], Engine]) -> None:
    trace = room.trace(well(), 5)
    assert [row.row for row in read_trace(trace)] == [row.sample.id for row in proof_rows(rows(), 5)]
    assert trace_settings(trace).rows == 5


def test_a_dropped_connection_is_asked_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.predict._PAUSE_S", 0.01)
    assert trace_settings(room.trace(room.engine("drops-first"))).rows == ROWS


def test_an_engine_that_dies_midway_leaves_nothing(room: Room) -> None:
    engine = room.engine("dies-after-5")
    with pytest.raises(InputError, match="vLLM stopped while it was asked row"):
        room.trace(engine)
    assert room.home.all("trace") == []
    assert list((room.home.root / "artifacts").glob("trace/*")) == []


def test_an_engine_that_lives_but_does_not_answer(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.predict._PAUSE_S", 0.01)
    engine = room.engine("well")
    mute = Engine("http://127.0.0.1:1", engine.model_name, engine.version, engine.log, engine.pid)
    with pytest.raises(InputError, match=r"did not answer row .*\n.*3 times"):
        room.trace(mute)


def test_all_refused_rows_are_named(room: Room) -> None:
    with pytest.raises(InputError, match=f"refused {ROWS // 2} held-out rows") as caught:
        room.trace(room.engine("refuses-odd"))
    for i in range(1, ROWS, 2):
        assert f"row row-{i:02}: refused with 400: cannot take read form {i}" in str(caught.value)
    assert room.home.all("trace") == []
