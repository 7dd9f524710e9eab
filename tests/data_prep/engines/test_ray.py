"""The engine of several machines, on a real cluster of this one: two workers, started by the engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from data_prep.decoding.work import Request
from data_prep.engines import ray_cluster, ray_data
from data_prep.engines.engine import open_engine
from data_prep.engines.local import LocalEngine
from data_prep.engines.ray_data import RayEngine
from data_prep.engines.stations import Sent
from data_prep.prepare import prepare
from data_prep.refusal import Flaw
from lensmith.errors import InputError
from lensmith.home import Home
from lensmith.images import ImageLimits
from tests.conftest import ROOT
from tests.data_prep.conftest import BankForms
from tests.data_prep.folder import Folder

OBEY = "tests.data_prep.decoding.hostile_work:obey"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers that every test of this file uses; each alone would wait ten seconds for its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
        with ray_cluster.connected():
            assert (ray_cluster.cores(), ray_cluster.machines()) == (2, 1)
            yield


@pytest.fixture
def engine(cluster: None, folder: Folder) -> Iterator[RayEngine]:
    with open_engine(folder.recipe("data.engine=ray"), ImageLimits()) as engine:
        assert isinstance(engine, RayEngine)
        yield engine


def not_here(*arguments: object) -> NoReturn:
    raise AssertionError("the work was done in this process")


def test_both_engines_make_the_same_dataset(
    forms: BankForms, cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalEngine, "screen", not_here)
    monkeypatch.setattr(LocalEngine, "look", not_here)
    data = forms.recipe.data.model_copy(update={"engine": "ray"})
    recipe = forms.recipe.model_copy(update={"data": data})
    prepared = prepare(recipe, Home(tmp_path))
    assert prepared.dataset.manifest == forms.prepared.dataset.manifest
    assert prepared.held_out.manifest == forms.prepared.held_out.manifest
    assert prepared.intake.manifest == forms.prepared.intake.manifest
    assert prepared.intake.manifest == forms.prepared.intake.manifest
    # Planted files: missing, truncated, copied.
    assert prepared.intake.body["refused"]["rows"]


def test_a_deadly_picture_costs_only_itself(engine: RayEngine) -> None:
    requests = [Request(str(each), str(each).encode()) for each in range(300)]
    requests[7] = Request("deadly.png", b"segfault")
    answers = list(engine.look(OBEY, requests))
    assert isinstance(answers[7], Flaw)
    assert answers[7].code == "image_unsafe"
    assert answers[:7] + answers[8:] == [str(each) for each in range(300) if each != 7]


def test_a_lost_worker_s_batches_are_done_again(engine: RayEngine) -> None:
    requests = [Request(str(each), b"hash 40000000") for each in range(400)]
    killed: list[int] = []

    def kill_one() -> None:
        while not killed:
            time.sleep(0.05)
            for each in psutil.Process().children(recursive=True):
                # Its decoder is at work: not one that still starts.
                if "MapWorker" in each.name() and each.children():
                    killed.append(each.pid)
                    os.kill(each.pid, signal.SIGKILL)
                    break

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    assert list(engine.look(OBEY, requests)) == ["hash 40000000"] * 400
    assert killed


def test_a_file_that_a_worker_does_not_see_is_done_here_and_the_next_go_as_bytes(
    engine: RayEngine, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(request: Request) -> Sent:
        sent.append(type(request.source))
        return Sent(request, (1, 1) if isinstance(request.source, Path) else None)

    sent: list[type] = []
    monkeypatch.setattr(Sent, "of", elsewhere)
    monkeypatch.setattr(ray_data, "machines", lambda: 2)
    monkeypatch.setattr(ray_data, "_FIRST_BATCHES", 1)
    monkeypatch.setattr(ray_data, "_BATCH_PICTURES", 3)
    path = folder.root / "word"
    path.write_bytes(b"word")
    gone = folder.root / "gone"
    requests = [Request("a", path)] * 2 + [Request("b", gone)] + [Request("c", path)] * 2
    answers = list(engine.look(OBEY, requests))
    assert [each for each in answers if not isinstance(each, Flaw)] == ["word"] * 4
    assert isinstance(answers[2], Flaw)
    assert answers[2].code == "image_missing"
    assert [each is bytes for each in sent] == [False, False, False, True, True]


def test_a_machine_with_other_versions_is_refused(engine: RayEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine.wanted, "pillow", "1.0")
    with pytest.raises(InputError, match="other versions") as caught:
        list(engine.look(OBEY, [Request("a", b"a")]))
    assert "1.0 here" in caught.value.problems[0].what


def test_a_cluster_of_our_own_hears_this_machine_only_and_ends_with_its_block() -> None:
    code = """
import contextlib, json, signal, psutil
from data_prep.engines.ray_cluster import connected
before = signal.getsignal(signal.SIGTERM)
with connected():
    import ray
    from ray._common.usage import usage_lib
    started = psutil.Process().children(recursive=True)
    heard = set()
    for each in started:
        # Some of them only start others, and are gone by now.
        with contextlib.suppress(psutil.NoSuchProcess):
            heard |= {c.laddr.ip for c in each.net_connections("inet") if c.status == "LISTEN"}
    folder = ray._private.worker._global_node.get_session_dir_path()
    kept = signal.getsignal(signal.SIGTERM) is before
    told = usage_lib.usage_stats_enabled()
print(json.dumps([sorted(heard), folder, [p.pid for p in started], kept, told]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    heard, session, started, kept, told = json.loads(done.stdout.splitlines()[-1])
    assert set(heard) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert heard
    assert started
    # A process that was killed is there until it is reaped: on a busy machine that takes a moment.
    deadline = time.monotonic() + 60
    while (alive := [pid for pid in started if psutil.pid_exists(pid)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not alive
    assert not Path(session).parent.exists()
    assert kept
    assert not told
