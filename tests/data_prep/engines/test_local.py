"""The engine of one machine."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from data_prep.decoding.work import Request
from data_prep.engines.local import LocalEngine
from data_prep.prepare import prepare
from data_prep.refusal import Flaw
from data_prep.sources.source import Found
from lensmith.errors import InputError
from lensmith.home import Home
from lensmith.images import ImageLimits
from tests.conftest import ROOT
from tests.data_prep.folder import Folder

PROBE = """
import sys
from pathlib import Path
from data_prep.prepare import prepare
from lensmith.home import Home
from lensmith.recipe import load_recipe
prepare(load_recipe(Path(sys.argv[1])), Home(Path(sys.argv[2])))
print("LOADED", "data_prep.engines.ray_data" in sys.modules, "ray" in sys.modules)
"""
OBEY = "tests.data_prep.decoding.hostile_work:obey"


def children() -> int:
    return len(psutil.Process().children())


def test_answers_come_in_order_and_a_deadly_picture_costs_only_itself(folder: Folder) -> None:
    requests = [Request(str(each), str(each).encode()) for each in range(40)]
    requests[7] = Request("deadly.png", b"segfault")
    with LocalEngine(folder.recipe(), ImageLimits()) as engine:
        answers = list(engine.look(OBEY, requests))
    assert isinstance(answers[7], Flaw)
    assert answers[7].code == "image_unsafe"
    assert answers[:7] + answers[8:] == [str(each) for each in range(40) if each != 7]


def test_children_live_as_long_as_their_work_is_asked_for(folder: Folder) -> None:
    before = children()
    with LocalEngine(folder.recipe(), ImageLimits()) as engine:
        assert list(engine.look(OBEY, [])) == []
        assert children() == before
        first = list(engine.look(OBEY, [Request("a", b"pid")] * 20))
        assert set(engine.look(OBEY, [Request("a", b"pid")] * 20)) <= {*first, *engine.pids}
        at_work = children()
        list(engine.look("data_prep.sight:see", [Request("a", b"no picture")]))
        assert before < children() <= at_work
        assert not set(first) & set(engine.pids)
    assert children() == before


def test_rows_are_read_as_they_are_asked_for(folder: Folder) -> None:
    taken: list[int] = []

    def batches() -> Iterator[list[Found]]:
        for number in range(3):
            taken.append(number)
            yield [Found(f"labels.jsonl:{number}", "", None)]

    with LocalEngine(folder.recipe(), ImageLimits()) as engine:
        screened = engine.screen(batches())
        assert [each.place for each in next(screened)] == ["labels.jsonl:0"]
        assert taken == [0]
        assert [batch[0].place for batch in screened] == ["labels.jsonl:1", "labels.jsonl:2"]


def test_ray_is_not_imported_where_nobody_asks_for_it(folder: Folder, tmp_path: Path) -> None:
    folder.fill()
    folder.recipe()
    command = [sys.executable, "-c", PROBE, str(folder.root.with_suffix(".yaml")), str(tmp_path / "home")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED True False"


def test_without_ray_its_engine_says_how_to_install_it(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.fill()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        prepare(folder.recipe("data.engine=ray"), Home(tmp_path / "home"))
    assert caught.value.problems[0].mend == "pip install 'lensmith[ray]'"


def test_the_engine_is_no_part_of_the_key(folder: Folder, tmp_path: Path) -> None:
    folder.fill()
    home = Home(tmp_path / "home")
    made = prepare(folder.recipe(), home)
    # Found, so that no cluster is started.
    assert prepare(folder.recipe("data.engine=ray"), home).dataset.path == made.dataset.path
