"""Adapters beside their base behind a real vLLM: one in part, and several live; three engine starts.

The engines run inside programs that are ended: one by SIGKILL, one by that of its supervisor, one by SIGTERM.
No process may survive.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil
import pytest

from finetune.generate import reference_trace
from lensmith.artifact import Artifact
from lensmith.attestation import Attestation
from lensmith.cli.main import main
from lensmith.errors import GateRefused, InputError
from lensmith.recipe import Recipe
from lensmith.serve_settings import Live
from lensmith.trace import read_trace
from serving.engine import Engine
from serving.guard import TOKEN_HEADER
from serving.live import load_adapter, standing, unload_adapter
from serving.live_state import LiveState
from serving.loadtest.client import _ASKED_TOKENS, _CACHED_IMAGES, _CACHED_TOKENS
from serving.parity import prove_serving
from serving.port import free_port, listeners
from serving.predict import served_trace
from serving.profile import make_profile
from tests.artifacts import make_run
from tests.e2e.command import kill_at_renames, run
from tests.family_results import Shows
from tests.serving.exam import (
    CPU,
    CPU_BUILD,
    Exam,
    Program,
    begin_program,
    profile_artifact,
    start_program,
    wait_for_greeting,
    wait_gone,
)
from tests.serving.live_releases import make_live_release, make_trace

pytestmark = [pytest.mark.vllm, pytest.mark.slow]


def with_tower_option(recipe: Recipe) -> Recipe:
    """The recipe with vLLM's option that applies an adapter's vision and connector part."""
    return recipe.model_copy(update={"serve": recipe.serve.model_copy(update={"tower_connector_lora": True})})


@pytest.fixture(scope="module")
def partial(exam: Exam) -> Artifact:
    """A profile that no recipe gives: the adapter without the option that its towers need."""
    profile = make_profile(with_tower_option(exam.recipe), exam.run, exam.base, CPU, CPU_BUILD)
    assert profile.adapter is not None
    options = profile.adapter.model_copy(update={"tower_connector": False})
    return profile_artifact(exam.home, profile.model_copy(update={"adapter": options}), exam.run, exam.base)


@pytest.fixture(scope="module")
def holder(exam: Exam, partial: Artifact) -> Iterator[Program]:
    """An engine that applies the adapter in part, in a program that knows nothing of clean ends."""
    script = Path(__file__).with_name("hold_engine.py")
    program = start_program([str(script), str(partial.path), str(exam.home.root)], exam.recipe.release.name)
    yield program
    program.process.kill()
    program.process.wait()


def test_an_adapter_served_in_part_fails_the_proof(exam: Exam, partial: Artifact, holder: Program) -> None:
    trace = served_trace(exam.recipe, exam.home, partial, exam.held_out, engine=holder.engine)
    proof = prove_serving(exam.home, trace, exam.reference, exam.base_trace)
    assert not proof.passed
    assert any("a part of the adapter left out" in finding for finding in proof.statement["findings"])
    # Neither the trained model nor the base: the language part alone was applied.
    assert proof.statement["rows_equal"] < proof.statement["rows"]
    assert proof.statement["rows_live"] > 0


def test_sigkill_of_the_supervisor_alone_leaves_no_engine(holder: Program) -> None:
    """Nobody is left above the engine who would stop it: what holds the memory must go by itself."""
    family = holder.family()
    assert len(family) >= 3, "supervisor, server and engine process"
    (supervisor,) = psutil.Process(holder.process.pid).children()
    supervisor.kill()
    assert wait_gone(family, 10) == []


@dataclass(frozen=True)
class Fleet:
    """Releases of three adapters on all towers, by name, their runs, and what transformers answers."""

    exam: Exam
    recipe: Recipe
    runs: dict[str, Artifact]
    references: dict[str, Artifact]
    releases: dict[str, Artifact]

    def release(self, name: str, run: str, answers: str) -> Artifact:
        """A release called `name` of the adapter of `run`, said to be proven with the answers of another."""
        rows = list(read_trace(self.references[answers]))
        exam = self.exam
        return make_live_release(exam.home, self.recipe, name, self.runs[run], exam.base, exam.held_out, rows)

    def prove(self, live: Program, name: str, asked: str, rows: int | None = None) -> Attestation:
        """The serve proof of the release called `name` by what the engine answers under the name `asked`."""
        exam, engine = self.exam, replace(live.engine, model_name=asked)
        profile = exam.home.by_id(self.releases[name].body["profile"])
        trace = served_trace(exam.recipe, exam.home, profile, exam.held_out, rows, engine)
        return prove_serving(exam.home, trace, self.references[name], exam.base_trace)


@pytest.fixture(scope="module")
def fleet(exam: Exam) -> Fleet:
    """Room for three, two of which are computed together: their slots change hands."""
    recipe = with_tower_option(exam.recipe)
    live = Live(max_adapters=3, max_rank=6, at_once=2)
    serve = recipe.serve.model_copy(update={"mode": "adapter", "live": live})
    recipe = recipe.model_copy(update={"serve": serve})
    runs = {"forms": exam.run} | {
        name: make_run(exam.home, exam.base, seed=seed) for seed, name in ((2, "checks"), (3, "notes"))
    }
    references = {
        name: reference_trace(exam.recipe, exam.home, exam.base, run, exam.held_out, 64)
        for name, run in runs.items()
    }
    made = Fleet(exam, recipe, runs, references, {})
    # In float32 the engine's answers are the reference's: they stand for those of the proofs.
    made.releases.update({name: made.release(name, name, name) for name in runs})
    base = profile_artifact(
        exam.home, make_profile(exam.recipe, exam.base, exam.base, CPU, CPU_BUILD), exam.base, exam.base
    )
    make_trace(exam.home, base, exam.held_out, list(read_trace(exam.base_trace)), "base")
    return made


@pytest.fixture(scope="module")
def live(fleet: Fleet) -> Iterator[Program]:
    """`lensmith serve` of one adapter, on a port where another was live before."""
    port = free_port("127.0.0.1")
    LiveState(fleet.exam.home, port).want({"checks": fleet.releases["checks"].id})
    yield from serve(fleet, "forms", port)


@dataclass(frozen=True)
class Restarted:
    """A server that was begun on the port of one that had just been killed. left: that one's processes, of
    which the server itself was kept from ending; err: what the new one says."""

    process: subprocess.Popen[str]
    left: list[psutil.Process]
    err: Path


@pytest.fixture(scope="module")
def restarted(fleet: Fleet, live: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarted]:
    """`live` is killed, and `lensmith serve` begun on its port at once."""
    left = live.family()
    (listens,) = listeners(port(live.engine))
    listens.suspend()
    live.process.kill()
    live.process.wait()
    err = tmp_path_factory.mktemp("restarted") / "err"
    process = begin_program(serving(fleet, "checks", port(live.engine)), err)
    yield Restarted(process, left, err)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def again(restarted: Restarted) -> Program:
    """The one that was begun then."""
    return wait_for_greeting(restarted.process, "checks")


def serve(fleet: Fleet, name: str, port: int) -> Iterator[Program]:
    program = start_program(serving(fleet, name, port), name)
    yield program
    program.process.kill()
    program.process.wait()


def serving(fleet: Fleet, name: str, port: int) -> list[str]:
    """The command that serves a release."""
    entry = "from lensmith.cli.main import entry; entry()"
    home = ["--home", str(fleet.exam.home.root), "--port", str(port)]
    return ["-c", entry, "serve", fleet.releases[name].short, *home]


def states(fleet: Fleet) -> dict[str, str]:
    return {each.name: each.state for each in standing(fleet.exam.home)[1]}


def test_what_was_live_before_is_loaded_again(fleet: Fleet, live: Program) -> None:
    assert states(fleet) == {"checks": "live", "forms": "live"}


def test_adapters_beside_one_base_are_each_proven(fleet: Fleet, live: Program, shows: Shows) -> None:
    for tower in fleet.exam.run.body["modules"]:
        shows("qwen3_vl", tower, "serve adapter")
    exam = fleet.exam
    assert main(["load", fleet.releases["notes"].short, "--home", str(exam.home.root)]) == 0
    assert states(fleet) == dict.fromkeys(("checks", "forms", "notes"), "live")

    with ThreadPoolExecutor(len(fleet.runs)) as threads:
        proofs = list(threads.map(lambda name: fleet.prove(live, name, name), fleet.runs))
    for proof, trained in zip(proofs, fleet.runs.values(), strict=True):
        assert proof.statement["findings"] == []
        assert proof.passed
        assert proof.subject == trained.id
        assert proof.statement["rows_live"] > 0
        # Each beside the others' rows, free and guided.
        for answers in (proof.statement, proof.statement["guided"]):
            assert answers["rows_equal"] == exam.held_out.body["rows"]
            assert answers["largest_logprob_difference"] < 1e-4
        assert proof.statement["guided"]["rows_unlike_free"] == exam.held_out.body["rows"]


def test_nobody_else_loads_an_adapter(fleet: Fleet, live: Program) -> None:
    folder = str(fleet.exam.run.path)
    for path, body in (
        ("/v1/load_lora_adapter", {"lora_name": "mine", "lora_path": folder}),
        ("/v1/unload_lora_adapter", {"lora_name": "forms"}),
        ("/adapters", {"name": "mine", "src": folder}),
    ):
        assert httpx.post(live.engine.url + path, json=body).status_code == 403
    assert "mine" not in states(fleet)
    # vLLM's own path beside its API key, closed by the guard alone.
    headers = {TOKEN_HEADER: LiveState(fleet.exam.home, port(live.engine)).server().token}
    body = {"name": "forms", "src": folder}
    assert httpx.post(f"{live.engine.url}/adapters", json=body, headers=headers).status_code == 400


def test_an_adapter_that_does_not_answer_as_proven_is_taken_out(fleet: Fleet, live: Program) -> None:
    home = fleet.exam.home
    unload_adapter(home, "notes")
    with pytest.raises(GateRefused, match="letters, row") as caught:
        load_adapter(home, fleet.release("letters", "notes", "forms"))
    assert "not live: letters" in str(caught.value)
    assert states(fleet) == {"checks": "live", "forms": "live"}


def test_what_a_tower_saw_is_not_given_to_the_next_of_its_name(
    fleet: Fleet, live: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM keeps it by the adapter's name: refused before it is loaded, and seen where that is left out."""
    home = fleet.exam.home
    other = fleet.release("forms", "notes", "notes")
    unload_adapter(home, "forms")
    # Asked its rows again: the engine remembers a few images only.
    load_adapter(home, fleet.releases["forms"])
    unload_adapter(home, "forms")
    with pytest.raises(InputError, match="vLLM remembers images"):
        load_adapter(home, other)
    monkeypatch.setattr("serving.live._check_unused", lambda *_: None)
    with pytest.raises(GateRefused, match="forms, row"):
        load_adapter(home, other)
    assert states(fleet) == {"checks": "live"}
    load_adapter(home, fleet.release("fresh", "notes", "notes"))


def test_killed_midway_a_load_leaves_what_was_live(fleet: Fleet, live: Program, tmp_path: Path) -> None:
    home = fleet.exam.home
    words = ["load", fleet.releases["notes"].short, "--home", str(home.root)]
    killer = kill_at_renames(tmp_path, home.root / "live")
    before = {"checks": "live", "fresh": "live"}
    # Before the engine is asked, and after it has answered as the proof says.
    for left in (before, before | {"notes": "unchecked"}):
        assert run(words, killer).process.returncode == -signal.SIGKILL
        assert states(fleet) == left


def test_a_server_that_is_begun_while_a_killed_one_still_ends_waits_for_it(
    fleet: Fleet, restarted: Restarted
) -> None:
    """As a service manager does it. Held up, the old one has its port and its memory for seconds."""
    deadline = time.monotonic() + 60
    while "waiting for what a killed server left" not in (told := restarted.err.read_text()):
        assert time.monotonic() < deadline
        assert restarted.process.poll() is None
        time.sleep(0.1)
    (supervisor,) = (each for each in restarted.left if f"process {each.pid}\n" in told)
    assert supervisor.is_running()
    for each in restarted.left:
        if each.is_running() and each.status() == psutil.STATUS_STOPPED:
            each.resume()
    assert wait_gone(restarted.left) == []
    # The new one is not there yet.
    assert states(fleet) == {"checks": "waiting", "fresh": "waiting"}
    refused = run(["load", fleet.releases["notes"].short, "--home", str(fleet.exam.home.root)])
    assert refused.process.returncode == 2
    assert "no live server runs there" in refused.err


def test_the_next_start_serves_what_was_live_and_the_same_commands_finish(
    fleet: Fleet, again: Program, tmp_path: Path
) -> None:
    home = ["--home", str(fleet.exam.home.root)]
    before = {"checks": "live", "fresh": "live"}
    assert states(fleet) == before
    assert run(["load", fleet.releases["notes"].short, *home]).process.returncode == 0
    assert states(fleet) == before | {"notes": "live"}
    killer = kill_at_renames(tmp_path, fleet.exam.home.root / "live")
    unload = ["unload", "notes", *home]
    assert run(unload, killer).process.returncode == -signal.SIGKILL
    assert states(fleet) == before | {"notes": "missing"}
    assert run(unload, killer).process.returncode == 0
    assert states(fleet) == before


def test_the_engine_counts_what_a_load_test_reads(again: Program) -> None:
    told = httpx.get(f"{again.engine.url}/metrics").text
    for name in (_ASKED_TOKENS, _CACHED_TOKENS, _CACHED_IMAGES):
        assert f"\n{name}" in told


def test_two_names_that_are_swapped_fail_the_proof(fleet: Fleet, again: Program) -> None:
    # The last one that asks: with this proof its release may not be live any more.
    swapped = fleet.prove(again, "checks", "fresh", 8)
    assert not swapped.passed
    assert any(finding.startswith("answer differs") for finding in swapped.statement["findings"])


def test_sigterm_ends_the_server_cleanly(fleet: Fleet, again: Program) -> None:
    family = again.family()
    assert len(family) >= 3
    again.process.terminate()
    assert again.process.wait(60) == 0
    assert wait_gone(family, 1) == []
    assert states(fleet) == {"checks": "waiting", "fresh": "waiting"}
    assert LiveState(fleet.exam.home, port(again.engine)).find_server() is None


def port(engine: Engine) -> int:
    return int(engine.url.rpartition(":")[2])
