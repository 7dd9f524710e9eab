"""Promotion: who may, what is refused, and what it leaves in the log."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lensmith.attestation import attestations
from lensmith.errors import GateRefused, InputError, IntegrityError
from serving.bundle import make_release
from serving.gates import Policy
from serving.promote import promote, rollback
from serving.registry import REGISTRY_FILE, Registry
from tests.conftest import ROOT
from tests.release_artifacts import World, all_wrong, label, wrong_every
from tests.serving.channels import NAME, PLACES, flip, in_production, standing


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


def _link(path: Path) -> None:
    """The same bytes, but somewhere else, where they can be changed any time."""
    elsewhere = path.parents[3] / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _beside(path: Path) -> None:
    (path.parent / "added.json").write_text("{}")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("damage", [flip, Path.unlink, _link, _beside])
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
        intake=world.intake,
        merge_proof=None,
        serve_proof=world.proof("serve-proof", run),
    )
    (checkpoint / "model.safetensors").write_bytes(b"WEIGHTS")
    with pytest.raises(IntegrityError, match="is not what was pinned"):
        promote(world.home, release, "production", "ada", "small", policy)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    promote(world.home, release, "production", "ada", "small", policy)
    assert standing(world.home) == release.id


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
