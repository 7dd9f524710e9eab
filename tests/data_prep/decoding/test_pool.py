"""The decoder pool: hostile images cost themselves and nothing else."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.round import BATCH_IMAGES, WINDOW_BYTES, WINDOW_IMAGES
from data_prep.decoding.work import Budget, PoolBroken, Request
from data_prep.refusal import Flaw
from lensmith.images import ImageLimits, decode_image, pixel_digest
from tests.data_prep.decoding.whole_decode import PICTURE_FACTS, PictureFacts
from tests.data_prep.folder import picture

OBEY = "tests.data_prep.decoding.hostile_work:obey"
TIGHT = Budget(cpu_seconds=0.4, wall_seconds=1.0, memory_bytes=200_000_000)


def pool(workers: int = 1, budget: Budget = TIGHT, limits: ImageLimits | None = None) -> DecoderPool:
    return DecoderPool(limits or ImageLimits(), work=OBEY, workers=workers, budget=budget)


def order(*words: str) -> list[Request]:
    return [Request(f"{at}.png", word.encode()) for at, word in enumerate(words)]


def ask(*words: str, workers: int = 1, budget: Budget = TIGHT) -> list[Any]:
    with pool(workers, budget) as one:
        return list(one.facts(order(*words)))


def codes(answers: list[Any]) -> list[str]:
    return [each.code if isinstance(each, Flaw) else each for each in answers]


def test_facts_of_real_images(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "huge.png").open("wb").truncate(1 << 40)
    requests = [
        Request("a.png", tmp_path / "a.png"),
        Request("a.png", picture(1)),
        Request("b.png", tmp_path / "b.png"),
        Request("pipe.png", tmp_path / "pipe.png"),
        Request("folder", tmp_path),
        Request("huge.png", tmp_path / "huge.png"),
        Request("empty.png", b""),
        Request("long.png", b"x" * 50_000_001),
        Request("photo.jpg", picture(2, kind="JPEG")),
    ]
    with DecoderPool(ImageLimits(), work=PICTURE_FACTS, workers=2) as one:
        found = list(one.facts(requests))
        assert list(one.facts(requests)) == found
    image = decode_image(picture(1), ImageLimits())
    assert found[0] == PictureFacts(*image.size, "PNG", pixel_digest(image))
    assert found[1] == found[0]
    assert found[8].format == "JPEG"
    assert codes(found[2:5]) == ["image_missing"] * 3
    assert codes(found[5:8]) == ["image_unreadable"] * 3
    for flaw in found[2:8]:
        assert flaw.mend
        assert str(tmp_path) not in flaw.what


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_every_hostile_image_costs_itself_only(workers: int) -> None:
    words = []
    for at in range(40):
        words += [f"fine {at}", "bad is no image", "bug x"] if at % 2 else [f"fine {at}"]
    for at, word in (
        (3, "segfault"),
        (20, "spin"),
        (41, "allocate 900000000"),
        (50, "exit 3"),
        (60, "sleep 30"),
    ):
        words.insert(at, word)
    answers = ask(*words, workers=workers)
    for word, got in zip(words, answers, strict=True):
        if word.startswith("fine"):
            assert got == word
        else:
            expected = "image_unreadable" if word.startswith("b") else "image_unsafe"
            assert got.code == expected, word
    said = {
        word: got.what.partition(": ")[2] for word, got in zip(words, answers, strict=True) if word != got
    }
    assert said == {
        "bad is no image": "is no image",
        "bug x": "KeyError: 'x'",
        "segfault": "opening it crashes the image library",
        "exit 3": "opening it crashes the image library",
        "spin": "opening it takes more than 0.4 seconds",
        "sleep 30": "opening it takes more than 0.4 seconds",
        "allocate 900000000": "opening it takes more than 200 MB of memory",
    }


def test_cpu_time_has_a_limit_of_its_own() -> None:
    began = time.monotonic()
    assert codes(ask("spin", budget=Budget(cpu_seconds=0.3, wall_seconds=60))) == ["image_unsafe"]
    assert time.monotonic() - began < 30


def test_memory_is_counted_above_an_idle_worker() -> None:
    room = TIGHT.memory_bytes
    assert ask(f"allocate {room * 3 // 4}") == [room * 3 // 4]
    assert codes(ask(f"allocate {room + 8_000_000}")) == ["image_unsafe"]


def test_an_image_is_not_blamed_for_those_before_it() -> None:
    quarter = TIGHT.memory_bytes // 4
    # The leaks of the first leave no room for the fourth, which fits in a worker of its own.
    answers = ask(f"leak {quarter}", f"leak {quarter}", f"leak {quarter}", f"allocate {quarter * 2}", "fine")
    assert answers[3:] == [quarter * 2, "fine"]
    assert ask("keep", "once", "fine") == ["keep", "once", "fine"]


def test_a_stopped_worker_is_ended_by_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_prep.decoding.round._TIMER_GRACE_S", 0.2)
    assert codes(ask("fine", "stop", "fine")) == ["fine", "image_unsafe", "fine"]


def test_what_an_image_library_prints_reaches_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    assert ask("shout", "fine") == ["shout", "fine"]
    assert capfd.readouterr() == ("", "")


def test_large_answers_and_requests_do_not_lock_up() -> None:
    words = ["large 300000", "fine " + "x" * 300_000] * 40
    answers = ask(*words, workers=2)
    assert [len(each) for each in answers] == [300_000, 300_005] * 40


def test_only_some_images_are_taken_ahead() -> None:
    taken = 0

    def endless() -> Iterator[Request]:
        nonlocal taken
        while True:
            taken += 1
            yield Request("a", b"fine")

    with pool() as one:
        answers = one.facts(endless())
        for _ in range(5):
            next(answers)
        assert taken <= WINDOW_IMAGES + 5
        answers.close()
        taken = 0
        heavy = one.facts(Request("a", b"fine " + b"x" * (WINDOW_BYTES // 3)) for _ in iter(int, 1))
        next(heavy)


def test_an_iteration_left_early_leaves_the_pool_fit() -> None:
    with pool() as one:
        first = one.facts(order("fine 1", "spin"))
        assert next(first) == "fine 1"
        with pytest.raises(PoolBroken, match="another"):
            next(one.facts(order("fine")))
        first.close()
        assert list(one.facts(order("fine 2"))) == ["fine 2"]


def test_work_that_cannot_be_imported() -> None:
    with (
        DecoderPool(ImageLimits(), work="data_prep.no_such:thing", workers=2) as one,
        pytest.raises(PoolBroken, match="no_such"),
    ):
        list(one.facts(order("fine")))


def test_workers_that_never_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pool() as one, pytest.raises(PoolBroken, match="before they begin"):
        list(one.facts(order("fine")))


def cpu_seconds(one: DecoderPool) -> float:
    """CPU time of this process and of the workers: a busy machine changes it little."""
    workers = [psutil.Process(pid).cpu_times() for pid in one.pids]
    return time.process_time() + sum(each.user + each.system for each in workers)


def test_workers_load_no_torch_and_start_fast() -> None:
    times = []
    for _ in range(3):
        with pool(budget=Budget()) as one:
            (modules,) = one.facts(order("modules"))
            times.append(cpu_seconds(one) - time.process_time())
    assert not {"torch", "transformers", "numpy", "pydantic"} & set(modules)
    assert min(times) < 0.3


def test_what_preparation_asks_of_workers_loads_no_numpy() -> None:
    program = "import sys, data_prep.sight; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_what_the_pool_adds_to_an_image_is_small() -> None:
    images = 3000
    with pool(budget=Budget()) as one:
        times = []
        for _ in range(4):
            began = cpu_seconds(one)
            assert sum(1 for _ in one.facts(Request("a", b"fine") for _ in range(images))) == images
            times.append((cpu_seconds(one) - began) / images)
    # 5% of the millisecond that a small image takes.
    assert min(times) < 50e-6, times


def test_a_worker_starts_when_the_others_have_enough_to_do() -> None:
    with pool(3) as one:
        assert one.pids == ()
        for images, workers in ((1, 1), (2 * BATCH_IMAGES, 1), (2 * BATCH_IMAGES + 1, 2), (1000, 3), (1, 3)):
            assert list(one.facts(order("fine") * images)) == ["fine"] * images
            assert len(one.pids) == workers


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


PARENT = """
import sys
from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.work import Budget, Request
from lensmith.images import ImageLimits
with DecoderPool(ImageLimits(), work="tests.data_prep.decoding.hostile_work:obey", workers=2) as pool:
    list(pool.facts([Request("a", b"fine")] * 100))
    print(*pool.pids, flush=True)
    list(pool.facts([Request("a", b"spin"), Request("b", b"sleep 60")] * 20))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_however_the_parent_ends_no_worker_stays(number: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        pids = [int(each) for each in parent.stdout.readline().split()]
        assert len(pids) == 2
        time.sleep(0.3)
        # As a terminal does: to the whole group.
        os.killpg(parent.pid, number)
        _, told = parent.communicate(timeout=10)
    deadline = time.monotonic() + 5
    while not all(map(is_gone, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # One traceback at most: the parent's own.
    assert told.count("Traceback") == (number == signal.SIGINT)


def test_a_closed_pool_has_no_workers() -> None:
    with pool(2) as one:
        list(one.facts(order("fine") * 100))
        pids = one.pids
        next(one.facts(order("sleep 60", "sleep 60") * 4), None)
    assert len(pids) == 2
    assert all(map(is_gone, pids))


@dataclass(frozen=True)
class Trap:
    """Unpickled, it makes a file."""

    file: Path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self.file), "w")


@pytest.mark.parametrize("forged", ["trap", "nonsense", "never asked", "no such answer"])
def test_what_a_taken_over_worker_says_is_never_run(forged: str, tmp_path: Path) -> None:
    messages = {
        "trap": pickle.dumps(Trap(tmp_path / "sprung")),
        "nonsense": b"\xc1nonsense",
        "never asked": msgspec.msgpack.encode([[10**9, 0, "forged"]]),
        "no such answer": msgspec.msgpack.encode([[7, 99, "forged"]]),
    }
    words = [f"good {number}" for number in range(20)]
    words[7] = f"forge {messages[forged].hex()}"
    answers = ask(*words)
    assert list(tmp_path.iterdir()) == []
    assert codes(answers) == ["image_unsafe" if at == 7 else word for at, word in enumerate(words)]
    # The trap does spring where it is unpickled.
    pickle.loads(messages["trap"]).close()
    assert (tmp_path / "sprung").exists()


def test_a_result_of_another_type_is_not_taken() -> None:
    with DecoderPool(ImageLimits(), work="tests.data_prep.decoding.hostile_work:lie", workers=1) as one:
        assert codes(list(one.facts(order("anything")))) == ["image_unsafe"]
