"""The engine of one machine."""

from __future__ import annotations

from collections.abc import Iterator

import psutil

from data_prep.decoding.work import Request
from data_prep.engines.local import LocalEngine
from data_prep.refusal import Flaw
from data_prep.sources.source import Found
from lensmith.images import ImageLimits
from tests.data_prep.folder import Folder

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
