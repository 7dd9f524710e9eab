"""The table at the end of a run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from lensmith.cli.summary import summary_text
from lensmith.home import Home
from lensmith.report import read_report
from tests.release_artifacts import World, all_wrong, label

LOGITS = {"max_abs_difference": 0.0}
WEIGHTS = {"tensors": 9, "bit_equal": 9}


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `summarise` gives, of a world made directly."""
    world = World(Home(tmp_path_factory.mktemp("summary") / "home"))
    report = read_report(world.report(world.model("one"), label, world.base, all_wrong))
    return {
        "dataset": {"rows": {"train": 1, "validation": 2, "held_out": 3}, "refused": 0, "reasons": {}},
        "scores": report.model_dump(mode="json"),
        "baseline": "base",
        "proofs": [],
        "release": {"name": "bank-forms", "short": "release-1"},
        "promoted": None,
        "pages": {"data": "d", "evaluation": "e", "card": "c"},
        "home": "/home",
    }


def merge_proof(**parts: Any) -> dict[str, Any]:
    statement = {"findings": [], "weights": WEIGHTS, "logits": LOGITS, **parts}
    return {"predicate": "merge-proof", "passed": True, "statement": statement}


def test_a_full_fine_tune_has_no_adapter_to_tell_of(facts: dict[str, Any]) -> None:
    text = summary_text({**facts, "proofs": [merge_proof()]})
    assert "passed: 9 of 9 tensors bit-equal, logits 0.0e+00 apart" in text
    text = summary_text({**facts, "proofs": [merge_proof(adapter={"used_once": 4})]})
    assert "9 of 9 tensors bit-equal, 4 adapter tensors used once, logits" in text


def test_a_sampled_proof_says_what_it_did_not_compute(facts: dict[str, Any]) -> None:
    weights = {"form": "sampled", "matrices": 24_128, "bit_equal": 1200, "untouched": 900}
    logits = {"computed": False, "because": "not computed: needs 1314 GiB of memory"}
    text = summary_text({**facts, "proofs": [merge_proof(weights=weights, logits=logits)]})
    assert "passed: 1200 of 24128 merged matrices looked at, all bit-equal" in text
    assert "logits not computed: needs 1314 GiB of memory" in text


def test_guided_answers_are_told_of_beside_the_free_ones(facts: dict[str, Any]) -> None:
    engines = {"reference": "transformers 5.20.2", "engine": "vllm", "engine_version": "0.32.0"}
    statement: dict[str, Any] = {"rows": 64, "rows_equal": 64, "guided": {"rows": 64, "rows_equal": 63}}
    statement |= {"rows_live": 417, "findings": ["guided: 1 row differs", "too warm"], **engines}
    proof = {"predicate": "serve-proof", "passed": False, "statement": statement}
    text = summary_text({**facts, "proofs": [proof]})
    assert (
        "FAILED: 64 of 64 rows equal token by token, transformers 5.20.2 against vllm 0.32.0, 417 answers"
        " unlike the base's; guided JSON: 63 of 64; guided: 1 row differs; too warm\n"
    ) in text
    # Nobody asked the base, nor under a schema.
    statement |= {"guided": None, "rows_live": None, "findings": []}
    text = summary_text({**facts, "proofs": [proof | {"passed": True}]})
    assert "passed: 64 of 64 rows equal token by token, transformers 5.20.2 against vllm 0.32.0\n" in text


def test_the_last_line_runs_as_it_stands(facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    program = shlex.split(summary_text(facts).splitlines()[-1])[2]
    assert Path(program).is_file(), "nothing is on the path: its place is told"
    monkeypatch.setenv("PATH", str(Path(program).parent))
    assert summary_text(facts).endswith("lensmith serve release-1 --home /home")
    assert "  lensmith serve" in summary_text(facts)
