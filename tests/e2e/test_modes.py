"""The other ways to train and to serve: all weights, a base in 4 bits, an adapter beside its base, a rival in
production."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lensmith.artifact import Artifact
from lensmith.attestation import Attestation, Predicate, attestations
from lensmith.home import Home
from lensmith.trace import TraceSettings
from tests.e2e.command import Command, run

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.e2e]
# Enough steps for the small base to begin its answers as forms' answers begin: a gain in characters.
FULL = (
    "train.method=full",
    "train.towers={vision: train, connector: train, language: train}",
    "train.max_steps=30",
    "train.learning_rate=0.003",
)
ADAPTER = ("serve.mode=adapter", "train.towers={vision: freeze, connector: freeze, language: adapt}")
# Sixteen answer tokens hold no whole field, and the small exam has few groups.
GAIN = {"metric": "character_error_rate", "above": 0.0, "confidence": 0.95, "groups": 5}
DECISION = ("--who", "ada", "--why", "reads more characters")


@dataclass(frozen=True)
class Finished:
    """A `lensmith run` that ended well."""

    command: Command
    home: Home
    summary: dict[str, Any]

    @property
    def release(self) -> Artifact:
        return self.home.by_id(self.summary["release"]["id"])

    @property
    def subject(self) -> Artifact:
        """What the release serves."""
        return self.home.by_id(self.release.body["subject"])

    @property
    def trace(self) -> Artifact:
        """What the subject answered."""
        return self.home.by_id(self.summary["scores"]["trace"])

    def proofs(self, predicate: Predicate) -> list[Attestation]:
        """The proofs about the subject."""
        return attestations(self.home, self.subject.id, predicate)

    def assert_verifies(self) -> None:
        """The release and all it was made from are whole, by the command line."""
        command = run(["verify", self.release.short, "--home", str(self.home.root)])
        assert command.process.returncode == 0, command.err
        assert f"{self.release.short} is whole" in "".join(command.out)
        assert f"  {self.subject.short}\n" in "".join(command.out)


def finished(arguments: list[str], home: Path, settings: tuple[str, ...], *more: str) -> Finished:
    """Run the recipe with `settings` laid over it, to its end."""
    given = [word for setting in settings for word in ("-s", setting)]
    command = run([*arguments, "--home", str(home), "--json", *given, *more])
    assert command.process.returncode == 0, command.err
    return Finished(command, Home(home), json.loads("".join(command.out)))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gates that the small base can pass by learning."""
    path = tmp_path_factory.mktemp("policy") / "gates.yaml"
    proofs = {"proofs": ["merge-proof", "serve-proof"]}
    gates = {"version": 1, "staging": proofs, "production": {**proofs, "gain": GAIN}}
    # As JSON, which is YAML too: safe_dump would write the second list as an alias of the first.
    path.write_text(json.dumps(gates))
    return path


@pytest.fixture(scope="module")
def full(
    arguments: list[str], unbroken: Path, policy: Path, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """All weights trained, and promoted to production by the same command."""
    home = Path(shutil.copytree(unbroken, tmp_path_factory.mktemp("full") / "home"))
    return finished(arguments, home, (*FULL, f"gates={policy}"), "--promote", "production", *DECISION)


@pytest.fixture(scope="module")
def in_4_bits(arguments: list[str], unbroken: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An adapter trained on a base in 4 bits, merged and served."""
    home = Path(shutil.copytree(unbroken, tmp_path_factory.mktemp("in_4_bits") / "home"))
    return finished(arguments, home, ("train.method=qlora",))


@pytest.fixture(scope="module")
def later_forms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A later hand-over: labels of forms that nothing was trained on yet."""
    from make_bank_forms import make_bank_forms

    out = tmp_path_factory.mktemp("later") / "bank_forms"
    make_bank_forms(out, forms=80, customers=20, seed=18)
    return out / "labels.jsonl"


@pytest.fixture(scope="module")
def adapter(
    arguments: list[str],
    full: Finished,
    later_forms: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Finished:
    """An adapter served beside its base, trained on the later hand-over while `full` is in production."""
    home = Path(shutil.copytree(full.home.root, tmp_path_factory.mktemp("adapter") / "home"))
    return finished(arguments, home, (*ADAPTER, f"data.source={later_forms}"))


def test_all_weights_are_trained_merged_and_proven(full: Finished) -> None:
    run_of_it = full.home.by_id(full.release.body["run"])
    assert (run_of_it.body["method"], full.subject.kind) == ("full", "model")
    assert [(proof["predicate"], proof["passed"]) for proof in full.summary["proofs"]] == [
        ("merge-proof", True),
        ("serve-proof", True),
    ]
    assert [
        each.passed for predicate in ("merge-proof", "serve-proof") for each in full.proofs(predicate)
    ] == [
        True,
        True,
    ]
    statement = full.summary["proofs"][0]["statement"]
    assert "adapter" not in statement
    weights = statement["weights"]
    assert weights["merged"] == weights["bit_equal"] == weights["tensors"] > 0, "every tensor was trained"
    assert weights["changed"] > weights["tensors"] // 2, "and most of them moved"
    base = Path(full.home.by_id(full.release.body["base"]).record()["place"])
    for made in (run_of_it, full.subject):
        sizes = [entry.bytes for entry in made.manifest.files if entry.path.endswith(".safetensors")]
        assert sum(sizes) >= 0.9 * sum(path.stat().st_size for path in base.glob("*.safetensors"))
    full.assert_verifies()
    assert full.command.survivors() == []


def test_all_weights_served_learn_more_than_the_base(full: Finished) -> None:
    assert full.summary["baseline"] == "base"
    assert (
        full.summary["scores"]["comparison"]["differences"]["character_error_rate"]["interval"]["upper"] < 0
    )
    assert full.summary["promoted"]["release"] == full.release.id
    shown = run(["show", "bank-forms@production", "--home", str(full.home.root)])
    assert full.release.id in "".join(shown.out), shown.err


def test_a_base_in_4_bits_is_served_as_it_was_trained_on(in_4_bits: Finished, unbroken: Path) -> None:
    run_of_it = in_4_bits.home.by_id(in_4_bits.release.body["run"])
    assert (run_of_it.body["method"], run_of_it.body["linears_in_4_bits"]) == ("qlora", 14)
    assert run_of_it.record()["linears_in_4_bits"] == 14
    merge_proof, serve_proof = in_4_bits.summary["proofs"]
    assert (merge_proof["passed"], serve_proof["passed"]) == (True, True)
    weights = merge_proof["statement"]["weights"]
    assert weights["merged"] == 26
    assert weights["bit_equal"] == weights["tensors"]
    held = merge_proof["statement"]["logits_4_bits"]
    assert 0 < held["max_abs_difference"] <= held["bound"]
    assert serve_proof["statement"]["rows_equal"] == serve_proof["statement"]["rows"] > 0
    assert in_4_bits.summary["baseline"] == "base"
    card = (in_4_bits.release.path / "README.md").read_text()
    assert "on the language model in 4 bits (nf4, double)" in card
    in_4_bits.assert_verifies()
    assert in_4_bits.command.survivors() == []


def test_an_adapter_is_served_beside_its_base(adapter: Finished) -> None:
    profile = adapter.home.by_id(adapter.release.body["profile"])
    assert (adapter.subject.kind, adapter.release.body["mode"]) == ("run", "adapter")
    assert (profile.body["mode"], profile.body["subject"]) == ("adapter", adapter.subject.id)
    assert profile.body["base"] == adapter.subject.manifest.inputs["base"]
    assert adapter.subject.body["towers"] == {"vision": "freeze", "connector": "freeze", "language": "adapt"}
    assert TraceSettings.model_validate(adapter.trace.body).serving == "adapter"
    made = [each.manifest.inputs["run"] for each in adapter.home.all("model")]
    assert adapter.subject.id not in made, "nothing was merged"
    (proof,) = adapter.summary["proofs"]
    assert (proof["predicate"], proof["passed"]) == ("serve-proof", True)
    assert proof["statement"]["rows_equal"] == proof["statement"]["rows"] > 0
    (attested,) = adapter.proofs("serve-proof")
    assert attested.passed
    assert attested.evidence["profile"] == profile.id
    assert adapter.proofs("merge-proof") == []
    adapter.assert_verifies()
    assert adapter.command.survivors() == []


def test_production_is_asked_again_on_the_new_held_out_rows(full: Finished, adapter: Finished) -> None:
    scores = adapter.summary["scores"]
    comparison = scores["comparison"]
    assert adapter.summary["baseline"] == "production"
    assert comparison["subject"] == full.subject.id
    assert scores["subject"] == adapter.subject.id
    asked_again = adapter.home.by_id(comparison["trace"])
    assert asked_again.manifest.inputs["profile"] == full.release.body["profile"], "as production serves it"
    exams = {each.manifest.inputs["held_out"] for each in (asked_again, adapter.trace)}
    assert exams == {scores["held_out"]} == {adapter.release.body["exam"]["held_out"]}
    assert scores["held_out"] != full.release.body["exam"]["held_out"], "another exam than its own"
    assert adapter.release.body["exam"]["baseline"] == full.subject.id
    page = Path(adapter.summary["pages"]["evaluation"]).read_text()
    assert "the model in production answered to the same" in page


def test_a_worse_model_does_not_replace_production(full: Finished, adapter: Finished, policy: Path) -> None:
    home = ("--home", str(adapter.home.root))
    words = ("promote", adapter.release.short, "--to", "production", "--policy", str(policy), *DECISION)
    refused = run([*words, *home])
    assert refused.process.returncode == 3, refused.err
    assert f"over production's model {full.subject.id[:12]}" in refused.err
    assert full.release.id in "".join(run(["show", "bank-forms@production", *home]).out)
