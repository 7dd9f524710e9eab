"""Promote and roll back: who may, what is refused, what survives a kill, and what two managers see."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lensmith.artifact import Artifact
from lensmith.attestation import attestations
from lensmith.errors import GateRefused, InputError, IntegrityError, LensmithError
from lensmith.home import Home
from serving import promote as acts
from serving.bundle import make_release
from serving.gates import Policy
from serving.promote import promote, rollback
from serving.registry import REGISTRY_FILE, Registry
from tests.conftest import ROOT
from tests.release_artifacts import World, all_wrong, label, wrong_every

NAME = "bank-forms"


def standing(home: Home, channel: str = "production") -> str | None:
    with Registry.open(home) as registry:
        act = registry.find_current(NAME, "production" if channel == "production" else "staging")
    return act.release if act else None


def better_and_better(world: World) -> tuple[Artifact, Artifact]:
    """Two releases of which the first beats the base, and the second the first."""
    first = world.release("first", wrong_every(4))
    return first, world.release("second", baseline=world.model("first"), baseline_answer=wrong_every(4))


def in_production(world: World, policy: Policy) -> tuple[Artifact, Artifact]:
    """Both promoted, one after the other."""
    first, second = better_and_better(world)
    promote(world.home, first, "production", "ada", "reads handwriting", policy)
    promote(world.home, second, "production", "bob", "reads all of it", policy)
    return first, second


def test_a_promotion_is_logged_and_attested(world: World, policy: Policy) -> None:
    first, second = in_production(world, policy)
    with Registry.open(world.home) as registry:
        log = registry.acts(NAME, "production")
    assert [(each.who, each.before, each.release) for each in log] == [
        ("ada", None, first.id),
        ("bob", first.id, second.id),
    ]
    (verdict,) = attestations(world.home, second.id, "gate")
    assert verdict.passed
    assert [finding["outcome"] for finding in verdict.statement["findings"]] == ["pass"] * 3
    (told,) = attestations(world.home, second.id, "promotion")
    assert told.evidence == {"before": first.id}
    assert (told.statement["who"], told.statement["why"]) == ("bob", "reads all of it")
    assert told.statement["act"] == log[1].seq
    assert verdict.statement["policy"] == told.statement["policy"] == log[1].policy == policy.digest


def test_promoting_again_changes_nothing(world: World, policy: Policy) -> None:
    release = world.release("one")
    first = promote(world.home, release, "production", "ada", "good", policy)
    assert promote(world.home, release, "production", "bob", "again", policy) == first
    with Registry.open(world.home) as registry:
        assert len(registry.acts()) == 1
    assert len(attestations(world.home, release.id, "promotion")) == 1


def test_staging_asks_for_proofs_but_no_gain(world: World, policy: Policy) -> None:
    release = world.release("one", wrong_every(4), baseline_answer=wrong_every(4))
    promote(world.home, release, "staging", "ada", "to try it out", policy)
    assert standing(world.home, "staging") == release.id
    with pytest.raises(GateRefused, match="gain"):
        promote(world.home, release, "production", "ada", "hope", policy)
    assert standing(world.home) is None


def test_a_refusal_is_attested_and_moves_nothing(world: World, policy: Policy) -> None:
    release = world.release("one", wrong_every(4), baseline_answer=wrong_every(4))
    world.proof("serve-proof", world.model("one"), passed=False)
    with pytest.raises(GateRefused) as caught:
        promote(world.home, release, "production", "ada", "hope", policy)
    assert [problem.where for problem in caught.value.problems] == ["serve-proof", "gain"]
    (verdict,) = attestations(world.home, release.id, "gate")
    assert not verdict.passed
    assert standing(world.home) is None
    with Registry.open(world.home) as registry:
        assert registry.acts() == []
    with pytest.raises(GateRefused):
        promote(world.home, release, "staging", "ada", "hope", policy)


def test_the_second_release_must_beat_production_not_the_base(world: World, policy: Policy) -> None:
    promote(world.home, world.release("first", wrong_every(4)), "production", "ada", "good", policy)
    with pytest.raises(GateRefused, match="no report compares it with production's model"):
        promote(world.home, world.release("second"), "production", "bob", "good too", policy)


@pytest.mark.parametrize(
    ("who", "why", "told"),
    [
        ("", "good", "--who"),
        (" ", "good", "--who"),
        ("ada", "", "--why"),
        ("ada", "a\nb", "control character"),
    ],
)
def test_person_and_reason_are_demanded(world: World, policy: Policy, who: str, why: str, told: str) -> None:
    release = world.release("one")
    with pytest.raises(InputError, match=told):
        promote(world.home, release, "production", who, why, policy)
    with pytest.raises(InputError, match=told):
        rollback(world.home, NAME, "production", who, why)
    assert standing(world.home) is None


def test_unknown_channels_and_other_artifacts_are_refused(world: World, policy: Policy) -> None:
    with pytest.raises(InputError, match="no channel is called 'prod'"):
        promote(world.home, world.release("one"), "prod", "ada", "good", policy)
    with pytest.raises(InputError, match="is not a release"):
        promote(world.home, world.model("one"), "production", "ada", "good", policy)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _link(path: Path) -> None:
    """The same bytes, but somewhere else, where they can be changed any time."""
    elsewhere = path.parents[3] / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _beside(path: Path) -> None:
    (path.parent / "added.json").write_text("{}")


PLACES = {
    "weights": lambda world: world.model("first").path / "model.safetensors",
    "adapter": lambda world: world.run("first").path / "adapter_model.safetensors",
    "rows": lambda world: world.dataset.path / "data/train.parquet",
    "exam": lambda world: world.held_out.path / "data/held_out.parquet",
    "answers": lambda world: world.trace(world.model("first"), wrong_every(4)).path / "trace.jsonl",
    "profile": lambda world: world.profile(world.model("first")).path / "profile.yaml",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("damage", [_flip, Path.unlink, _link, _beside])
def test_nothing_tampered_with_goes_to_production(
    world: World, policy: Policy, place: str, damage: Callable[[Path], None]
) -> None:
    first = world.release("first", wrong_every(4))
    damage(PLACES[place](world))
    with pytest.raises(IntegrityError):
        promote(world.home, first, "production", "ada", "good", policy)
    assert standing(world.home) is None


def test_an_edited_release_is_refused_everywhere(world: World, policy: Policy) -> None:
    release = world.release("one")
    card = release.path / "README.md"
    card.write_text(card.read_text().replace("0.875", "0.999") + "perfect")
    for channel in ("staging", "production"):
        with pytest.raises(IntegrityError):
            promote(world.home, release, channel, "ada", "good", policy)


def test_an_adapter_is_promoted_without_merge_proof(world: World, policy: Policy, tmp_path: Path) -> None:
    """And its base's own files are re-hashed, because it is served from them."""
    checkpoint = tmp_path / "base"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    world.pin_base(checkpoint)
    run = world.run("adapter")
    release = make_release(
        world.recipe,
        world.home,
        model=run,
        profile=world.profile(run),
        report=world.report(run, label, world.base, all_wrong),
        dataset=world.dataset,
        held_out=world.held_out,
        merge_proof=None,
        serve_proof=world.proof("serve-proof", run),
    )
    (checkpoint / "model.safetensors").write_bytes(b"WEIGHTS")
    with pytest.raises(IntegrityError, match="is not what was pinned"):
        promote(world.home, release, "production", "ada", "small", policy)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    promote(world.home, release, "production", "ada", "small", policy)
    assert standing(world.home) == release.id


def test_rollback_restores_the_previous_release(world: World, policy: Policy) -> None:
    first, second = in_production(world, policy)
    assert rollback(world.home, NAME, "production", "eve", "misreads dates").id == first.id
    assert standing(world.home) == first.id
    (told,) = attestations(world.home, first.id, "rollback")
    assert told.evidence == {"before": second.id}
    assert (told.statement["who"], told.statement["why"]) == ("eve", "misreads dates")
    with Registry.open(world.home) as registry:
        last = registry.acts()[-1]
    assert (last.kind, last.who, last.before, last.release) == ("rollback", "eve", second.id, first.id)


def test_after_a_rollback_the_release_may_come_back(world: World, policy: Policy) -> None:
    first, second = in_production(world, policy)
    rollback(world.home, NAME, "production", "eve", "misreads dates")
    promote(world.home, second, "production", "bob", "dates were right", policy)
    assert standing(world.home) == second.id
    assert rollback(world.home, NAME, "production", "eve", "no, wrong").id == first.id


def test_there_must_be_something_to_roll_back_to(world: World, policy: Policy) -> None:
    with pytest.raises(InputError, match="nothing was promoted"):
        rollback(world.home, NAME, "production", "eve", "why not")
    promote(world.home, world.release("one"), "production", "ada", "good", policy)
    with pytest.raises(InputError, match="there is no release to roll"):
        rollback(world.home, NAME, "production", "eve", "why not")
    with pytest.raises(InputError, match="nothing was promoted"):
        rollback(world.home, NAME, "staging", "eve", "why not")


def test_no_rollback_to_a_deleted_release(world: World, policy: Policy) -> None:
    first, second = in_production(world, policy)
    shutil.rmtree(first.path)
    with pytest.raises(IntegrityError, match="is gone"):
        rollback(world.home, NAME, "production", "eve", "misreads dates")
    assert standing(world.home) == second.id


def test_no_rollback_to_a_release_whose_model_is_gone(world: World, policy: Policy) -> None:
    """The second release's trace of the first keeps naming it: gone is gone, whoever asks."""
    _, second = in_production(world, policy)
    shutil.rmtree(world.model("first").path)
    with pytest.raises(IntegrityError, match="gone"):
        rollback(world.home, NAME, "production", "eve", "misreads dates")
    assert standing(world.home) == second.id


@pytest.mark.parametrize("place", ["weights", "profile"])
def test_no_rollback_to_a_tampered_release(world: World, policy: Policy, place: str) -> None:
    _, second = in_production(world, policy)
    _flip(PLACES[place](world))
    with pytest.raises(IntegrityError, match="sha256"):
        rollback(world.home, NAME, "production", "eve", "misreads dates")
    assert standing(world.home) == second.id
    with Registry.open(world.home) as registry:
        assert len(registry.acts()) == 2


def _promote_with_others(root: Path, release: Path, who: str, policy: Policy, judged: Any, told: Any) -> None:
    """In a process of its own: judge, wait until the others have judged too, then move."""
    decide = acts.judge

    def judge_together(*arguments: Any) -> Any:
        verdict = decide(*arguments)
        judged.wait(60)
        return verdict

    acts.judge = judge_together
    home = Home(root)
    try:
        promote(home, home.resolve(str(release)), "production", who, "mine is best", policy)
        told.put((who, "won"))
    except LensmithError as error:
        told.put((who, str(error)))


def test_two_managers_at_once(world: World, policy: Policy) -> None:
    """Both releases beat the base, both are found good: one goes in, the other manager is told by whom."""
    releases = {"ada": world.release("one", wrong_every(4)), "bob": world.release("two")}
    context = multiprocessing.get_context("fork")
    judged, told = context.Barrier(2), context.Queue()
    children = [
        context.Process(
            target=_promote_with_others, args=(world.home.root, release.path, who, policy, judged, told)
        )
        for who, release in releases.items()
    ]
    for child in children:
        child.start()
    outcomes = dict(told.get(timeout=60) for _ in children)
    for child in children:
        child.join(60)
    (winner,) = [who for who, outcome in outcomes.items() if outcome == "won"]
    (loser,) = set(outcomes) - {winner}
    assert "changed meanwhile" in outcomes[loser]
    assert f"{winner} put release {releases[winner].id[:12]} there" in outcomes[loser]
    assert standing(world.home) == releases[winner].id
    assert attestations(world.home, releases[loser].id, "promotion") == []
    assert len(attestations(world.home, releases[winner].id, "promotion")) == 1


def _act_and_die(act: Callable[[], object], moment: int) -> None:
    """In a process of its own: SIGKILL before the `moment`-th SQL statement or rename."""
    seen = 0

    def step(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    connect, replace = sqlite3.connect, os.replace

    def traced_connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(step)
        return connection

    def traced_replace(source: Any, target: Any) -> None:
        step()
        replace(source, target)

    sqlite3.connect, os.replace = traced_connect, traced_replace  # pyright: ignore[reportAttributeAccessIssue]
    act()


def _killed_everywhere(world: World, act: Callable[[Home], object], before: str | None, after: str) -> int:
    """Kill `act` at each of its moments in turn; how many there were. `act` made whole again each time."""
    whole = world.home.root
    copy = Home(whole.with_name("copy"))
    context = multiprocessing.get_context("fork")
    for moment in range(1, 200):
        shutil.rmtree(copy.root, ignore_errors=True)
        shutil.copytree(whole, copy.root)
        child = context.Process(target=_act_and_die, args=(lambda: act(copy), moment))
        child.start()
        child.join(60)
        with Registry.open(copy) as registry:
            count = len(registry.acts())
        assert standing(copy) in (before, after)
        moved = standing(copy) == after
        if not moved:
            act(copy)
            count += 1
        # Whatever was asked last, the next act makes up for an attestation that the kill cut off.
        promote_again(copy)
        assert standing(copy) == after
        with Registry.open(copy) as registry:
            last = registry.acts()[-1]
            assert len(registry.acts()) == count
        told = [each for each in attestations(copy, after, last.kind) if each.statement["act"] == last.seq]
        assert len(told) == 1
        if child.exitcode == 0:
            return moment
        assert child.exitcode == -signal.SIGKILL
    raise AssertionError("the act never ended by itself")


def promote_again(home: Home) -> None:
    """Promote what stands in production once more: changes nothing but what was left undone."""
    from serving.gates import read_policy

    current = standing(home)
    assert current is not None
    policy = read_policy(ROOT / "recipes/gates/default.yaml")
    promote(home, home.by_id(current), "production", "ada", "again", policy)


@pytest.mark.slow
def test_a_promotion_killed_anywhere(world: World, policy: Policy) -> None:
    first, second = better_and_better(world)
    promote(world.home, first, "production", "ada", "good", policy)

    def act(home: Home) -> object:
        return promote(home, home.by_id(second.id), "production", "bob", "better", policy)

    assert _killed_everywhere(world, act, first.id, second.id) > 15


@pytest.mark.slow
def test_the_first_promotion_killed_anywhere(world: World, policy: Policy) -> None:
    """The registry itself is made on the way."""
    first = world.release("one")

    def act(home: Home) -> object:
        return promote(home, home.by_id(first.id), "production", "ada", "good", policy)

    assert _killed_everywhere(world, act, None, first.id) > 20


@pytest.mark.slow
def test_a_rollback_killed_anywhere(world: World, policy: Policy) -> None:
    first, second = in_production(world, policy)
    assert (
        _killed_everywhere(
            world,
            lambda home: rollback(home, NAME, "production", "eve", "misreads dates"),
            second.id,
            first.id,
        )
        > 15
    )


def test_an_edited_promotion_record_is_found(world: World, policy: Policy) -> None:
    release = world.release("one")
    promote(world.home, release, "production", "ada", "good", policy)
    (path,) = (world.home.root / "attestations" / release.id[:24]).glob("promotion-*")
    content = json.loads(path.read_text())
    content["statement"]["who"] = "someone else"
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="was changed after it was written"):
        rollback(world.home, NAME, "production", "eve", "why")


def test_promoting_is_quick(world: World, policy: Policy) -> None:
    release = world.release("one")
    started = time.process_time()
    promote(world.home, release, "production", "ada", "good", policy)
    assert time.process_time() - started < 1.0
    assert (world.home.root / REGISTRY_FILE).is_file()


def test_evaluation_release_and_registry_need_no_torch() -> None:
    modules = "serving.promote, serving.bundle, serving.card, finetune.evaluation.evaluate"
    heavy = "torch", "transformers", "vllm", "accelerate", "datasets"
    code = f"import sys, {modules}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
