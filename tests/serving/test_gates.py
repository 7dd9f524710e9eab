"""The gates: every demand has a mutant here that it must catch, and answers "undecidable" where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.evaluation.evaluate import evaluate
from lensmith.artifact import Artifact
from lensmith.attestation import Predicate, attest
from lensmith.errors import InputError, IntegrityError
from lensmith.home import Home
from serving.gates import Demands, Finding, GainRule, Policy, judge, read_policy
from serving.registry import Entry
from serving.release_file import read_release
from tests.release_artifacts import World, label, plain_recipe, wrong_every


def gain(**changed: Any) -> Demands:
    """Only a gain is demanded, by the shipped rule but for `changed`."""
    rule = {"metric": "field_f1", "above": 0.0, "confidence": 0.95, "groups": 20} | changed
    return Demands(proofs=[], gain=GainRule.model_validate(rule))


def only(world: World, release: Artifact, demands: Demands, production: Entry | None = None) -> Finding:
    (finding,) = judge(world.home, release, demands, production).findings
    return finding


def entry(release: Artifact) -> Entry:
    stated = read_release(release)
    return Entry(release.id, stated.name, stated.subject, stated.profile)


def test_the_shipped_policy_says_what_it_should(policy: Policy) -> None:
    assert policy.staging.proofs == ["merge-proof", "serve-proof"]
    assert policy.staging.gain is None
    assert policy.production.proofs == ["merge-proof", "serve-proof"]
    assert policy.production.gain == GainRule(metric="field_f1", above=0.0, confidence=0.95, groups=20)
    assert policy.demands("staging") == policy.staging
    assert policy.demands("production") == policy.production


def test_a_good_release_meets_everything(world: World, policy: Policy) -> None:
    verdict = judge(world.home, world.release("one"), policy.production, None)
    assert verdict.passed
    assert verdict.unmet() == []
    assert set(verdict.evidence) == {"model", "held_out", "merge-proof", "serve-proof", "report"}
    assert "+0.5000" in verdict.findings[2].text
    assert "24 groups" in verdict.findings[2].text


@pytest.mark.parametrize("predicate", ["merge-proof", "serve-proof"])
class TestProofs:
    """Each proof must be there, passed, whole, and about this model."""

    def test_missing(self, world: World, predicate: Predicate) -> None:
        release = world.release("one")
        folder = world.home.root / "attestations" / world.model("one").id[:24]
        for path in folder.glob(f"{predicate}-*"):
            path.unlink()
        finding = only(world, release, Demands.model_validate({"proofs": [predicate]}))
        assert (finding.outcome, finding.demand) == ("fail", predicate)
        assert "there is none" in finding.text
        assert finding.mend

    def test_failed_later(self, world: World, predicate: Predicate) -> None:
        """The last word counts, and within one second a failure does, whatever its file is called."""
        release = world.release("one")
        world.proof(predicate, world.model("one"), passed=False)
        finding = only(world, release, Demands.model_validate({"proofs": [predicate]}))
        assert finding.outcome == "fail"
        assert "row form-003: answers differ at token 4" in finding.text

    def test_passed_after_a_failure(self, world: World, predicate: Predicate) -> None:
        """A defect that was mended and proven again does not stick."""
        release = world.release("one")
        world.proof(predicate, world.model("one"), passed=False)
        world.proof(predicate, world.model("one"))
        finding = only(world, release, Demands.model_validate({"proofs": [predicate]}))
        assert finding.outcome == "pass"

    def test_of_another_model(self, world: World, predicate: Predicate) -> None:
        release = world.release("one")
        folder = world.home.root / "attestations"
        for path in (folder / world.model("one").id[:24]).glob(f"{predicate}-*"):
            path.unlink()
        world.proof(predicate, world.model("two"))
        finding = only(world, release, Demands.model_validate({"proofs": [predicate]}))
        assert finding.outcome == "fail"

    def test_replayed_from_another_model(self, world: World, predicate: Predicate) -> None:
        """The passing proof of one model, copied beside another: its subject gives it away."""
        release = world.release("one")
        world.proof(predicate, world.model("two"))
        folder = world.home.root / "attestations"
        for path in (folder / world.model("two").id[:24]).glob(f"{predicate}-*"):
            (folder / world.model("one").id[:24] / path.name).write_bytes(path.read_bytes())
        with pytest.raises(IntegrityError, match="is about"):
            judge(world.home, release, Demands.model_validate({"proofs": [predicate]}), None)

    def test_edited(self, world: World, predicate: Predicate) -> None:
        release = world.release("one")
        world.proof(predicate, world.model("one"), passed=False)
        for path in (world.home.root / "attestations" / world.model("one").id[:24]).glob("*.json"):
            path.write_text(path.read_text().replace('"passed": false', '"passed": true'))
        with pytest.raises(IntegrityError, match="was changed after it was written"):
            judge(world.home, release, Demands.model_validate({"proofs": [predicate]}), None)


def test_a_serve_proof_under_another_profile_does_not_count(world: World) -> None:
    release = world.release("one")
    folder = world.home.root / "attestations" / world.model("one").id[:24]
    (path,) = folder.glob("serve-proof-*")
    path.unlink()
    other = {"profile": world.profile(world.base).id}
    attest(world.home, "serve-proof", world.model("one").id, True, other, {"findings": []})
    finding = only(world, release, Demands(proofs=["serve-proof"]))
    assert finding.outcome == "fail"
    assert "under its profile" in finding.text


class TestGain:
    """The interval's lower bound, against the right rival, on the same held-out set."""

    def test_none(self, world: World) -> None:
        release = world.release("one", wrong_every(4), baseline_answer=wrong_every(4))
        assert only(world, release, gain()).outcome == "fail"

    def test_a_loss(self, world: World) -> None:
        release = world.release("one", wrong_every(2), baseline_answer=label)
        assert only(world, release, gain()).outcome == "fail"

    def test_a_gain_within_the_noise(self, world: World) -> None:
        """Better on average, but the interval reaches down to nothing."""
        release = world.release("one", label, baseline_answer=wrong_every(47))
        finding = only(world, release, gain())
        assert finding.outcome == "fail"
        assert "+0.0000 to" in finding.text

    def test_the_bar_is_the_policys(self, world: World) -> None:
        release = world.release("one", wrong_every(4))
        assert only(world, release, gain(above=0.3)).outcome == "pass"
        assert only(world, release, gain(above=0.35)).outcome == "fail"

    def test_a_falling_error_rate_is_a_gain(self, world: World) -> None:
        better = world.release("one", wrong_every(4))
        finding = only(world, better, gain(metric="character_error_rate"))
        assert finding.outcome == "pass"
        assert "gains +0.0" in finding.text

    def test_a_rising_error_rate_is_none(self, world: World) -> None:
        worse = world.release("one", wrong_every(2), baseline_answer=label)
        assert only(world, worse, gain(metric="character_error_rate")).outcome == "fail"

    def test_few_groups_are_undecidable(self, home: Home) -> None:
        world = World(home, rows=38)
        finding = only(world, world.release("one"), gain())
        assert finding.outcome == "undecidable"
        assert "19 held-out groups decide nothing, 20 are demanded" in finding.text
        assert not judge(home, world.release("one"), gain(), None).passed

    def test_one_group_is_undecidable(self, home: Home) -> None:
        world = World(home, rows=8, per_group=8)
        assert only(world, world.release("one"), gain(groups=2)).outcome == "undecidable"

    def test_a_lax_interval_is_undecidable(self, home: Home) -> None:
        """A recipe that asks for 60% intervals finds gains everywhere."""
        world = World(home, recipe=plain_recipe(confidence=0.6))
        finding = only(world, world.release("one"), gain())
        assert finding.outcome == "undecidable"
        assert finding.mend == "evaluate.confidence: 0.95"

    def test_text_answers_have_no_field_gain(self, home: Home) -> None:
        recipe = plain_recipe()
        text = recipe.model_copy(update={"data": recipe.data.model_copy(update={"answer": "text"})})
        world = World(home, recipe=text)
        release = world.release("one")
        assert only(world, release, gain()).outcome == "undecidable"
        assert only(world, release, gain(metric="exact_match")).outcome == "pass"

    def test_without_a_comparison(self, world: World) -> None:
        """A report on its own shows no gain, however good its figures."""
        model = world.model("one")
        report = evaluate(world.recipe, world.home, world.trace(model, label), world.held_out, None)
        release = world.release("one", report=report)
        finding = only(world, release, gain())
        assert finding.outcome == "fail"
        assert "no report compares it with base" in finding.text

    def test_against_something_else_than_the_base(self, world: World) -> None:
        release = world.release("one", baseline=world.model("weak"))
        assert "no report compares it with base" in only(world, release, gain()).text

    def test_against_the_base_once_something_is_in_production(self, world: World) -> None:
        """Beating the base is no news any more; the message says what makes the comparison."""
        production = entry(world.release("old", wrong_every(4)))
        finding = only(world, world.release("new"), gain(), production)
        assert finding.outcome == "fail"
        assert f"production's model {production.subject[:12]}" in finding.text
        assert "lensmith run" in finding.mend

    def test_against_production(self, world: World) -> None:
        old = world.release("old", wrong_every(4))
        new = world.release("new", baseline=world.model("old"), baseline_answer=wrong_every(4))
        assert only(world, new, gain(), entry(old)).outcome == "pass"

    def test_a_comparison_made_later_from_the_same_answers_counts(self, world: World) -> None:
        old = world.release("old", wrong_every(4))
        new = world.release("new")
        world.report(world.model("new"), label, world.model("old"), wrong_every(4))
        assert only(world, new, gain(), entry(old)).outcome == "pass"

    def test_a_comparison_of_other_answers_does_not(self, world: World) -> None:
        """Asked again until it looked better: not the answers that the release was made on."""
        old = world.release("old", wrong_every(4))
        new = world.release("new", wrong_every(4))
        better = world.trace(world.model("new"), label, name="again")
        rival = world.trace(world.model("old"), wrong_every(4))
        evaluate(world.recipe, world.home, better, world.held_out, rival)
        assert only(world, new, gain(), entry(old)).outcome == "fail"

    def test_production_under_another_profile_does_not_count(self, world: World) -> None:
        """A rival that was served crippled is easy to beat."""
        old = world.release("old", wrong_every(4))
        new = world.release("new", baseline=world.model("old"), baseline_answer=wrong_every(4))
        other = Entry(old.id, "bank-forms", world.model("old").id, "f" * 64)
        assert only(world, new, gain(), other).outcome == "fail"

    def test_a_model_does_not_beat_itself(self, world: World) -> None:
        release = world.release("one")
        assert "cannot beat itself" in only(world, release, gain(), entry(release)).text


def test_all_unmet_demands_are_named_at_once(world: World, policy: Policy) -> None:
    release = world.release("one", wrong_every(4), baseline_answer=wrong_every(4))
    for path in (world.home.root / "attestations" / world.model("one").id[:24]).glob("*-proof-*"):
        path.unlink()
    verdict = judge(world.home, release, policy.production, None)
    assert [problem.where for problem in verdict.unmet()] == ["merge-proof", "serve-proof", "gain"]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


GOOD = """\
version: 1
staging: {proofs: [serve-proof, merge-proof]}
production:
  proofs: [merge-proof, serve-proof]
  gain: {metric: field_f1, above: 0.0, confidence: 0.95, groups: 20}
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("version: 1", "version: 2", ":1 version"),
        ("  proofs: [", "  proof: [", "did you mean proofs?"),
        ("  proofs: [merge-proof", "  proofs: [merge", ":4 production.proofs.0"),
        ("[merge-proof, serve-proof]", "[]", ":4 production.proofs: lacks merge-proof, serve-proof"),
        ("[merge-proof, serve-proof]", "[merge-proof]", ":4 production.proofs: lacks serve-proof"),
        ("[serve-proof, merge-proof]", "[]", ":2 staging.proofs: lacks merge-proof, serve-proof"),
        ("  gain: {", "  # gain: {", "bad.yaml:3 production.gain: is missing"),
        ("gain: {metric", "gain: null # {metric", ":5 production.gain: is missing"),
        ("field_f1", "f1", "production.gain.metric"),
        ("above: 0.0", "above: -0.1", "production.gain.above"),
        ("above: 0.0", "above: '0.0'", "production.gain.above"),
        ("above: 0.0", "above: .nan", "production.gain.above"),
        ("groups: 20", "groups: 1", "production.gain.groups"),
        ("confidence: 0.95", "confidence: 0.5", "production.gain.confidence"),
        ("staging: {proofs: [serve-proof, merge-proof]}\n", "", "staging"),
        ("version: 1", "version: 1\nversion: 1", "given twice"),
    ],
)
def test_a_bad_policy_says_where(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert read_policy(write(tmp_path / "good.yaml", GOOD)).production.gain is not None
    with pytest.raises(InputError) as caught:
        read_policy(write(tmp_path / "bad.yaml", GOOD.replace(old, new)))
    assert told in str(caught.value)


def test_a_policy_is_known_by_what_it_says(tmp_path: Path) -> None:
    policy = read_policy(write(tmp_path / "good.yaml", GOOD))
    commented = read_policy(write(tmp_path / "commented.yaml", f"# the same\n{GOOD}"))
    stricter = read_policy(write(tmp_path / "stricter.yaml", GOOD.replace("groups: 20", "groups: 30")))
    assert policy.digest == commented.digest
    assert len({policy.digest, stricter.digest}) == 2


def test_a_missing_policy_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_policy(tmp_path / "none.yaml")
