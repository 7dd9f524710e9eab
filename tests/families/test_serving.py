"""Each family's merged model behind a real vLLM on a CPU: equal to transformers, or found and named.

One engine start a family; Qwen3-VL has its own in tests/serving, with whatever else can go wrong there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_families import write_served

from finetune.generate import reference_trace
from finetune.merge import merge
from lensmith import families
from lensmith.artifact import Artifact
from lensmith.attestation import Attestation
from lensmith.base import pin_base
from lensmith.home import Home
from lensmith.recipe import Recipe
from lensmith.trace import read_trace
from serving.engine import Engine, running_engine
from serving.parity import prove_serving
from serving.predict import served_trace
from serving.profile import derive_profile
from tests.artifacts import make_mixed_held_out, make_run, make_text_held_out, text_rows
from tests.families.conftest import Checkpoint, towers_of
from tests.family_results import Shows
from tests.serving.exam import CPU

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

PICTURES = 2
SERVE = {"dtype": "float32", "max_model_len": 1024, "max_new_tokens": 8, "kv_cache_gib": 0.25}
# Not here: Qwen3-VL (above); DeepSeek-OCR-2, whose form with the published encoders no run has seen yet.
SERVED = [name for name in families.FAMILIES if name not in ("qwen3_vl", "deepseek_ocr2")]


@dataclass(frozen=True)
class Served:
    """A family's merged model and the engine that serves it."""

    recipe: Recipe
    home: Home
    base: Artifact
    run: Artifact
    profile: Artifact
    engine: Engine

    def prove(self, held_out: Artifact) -> Attestation:
        """The serve proof on these rows."""
        trace = served_trace(self.recipe, self.home, self.profile, held_out, engine=self.engine)
        assert len({tuple(row.answer_ids) for row in read_trace(trace)}) > 1
        reference = reference_trace(self.recipe, self.home, self.base, self.run, held_out, 64)
        return prove_serving(self.home, trace, reference)


@pytest.fixture(scope="module", params=SERVED)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    family, root = families.get(request.param), tmp_path_factory.mktemp(request.param)
    towers = towers_of(family.name, "lora")
    checkpoint = Checkpoint(family, write_served(family.name, root / "base"))
    content = checkpoint.recipe("lora", **dict.fromkeys(towers, "adapt")).model_dump(mode="json")
    recipe = Recipe.model_validate(content | {"serve": content["serve"] | SERVE})
    home = Home(root / "home")
    base = pin_base(recipe, home)
    run = make_run(home, base, towers)
    model = merge(recipe, home, base, run)
    profile = derive_profile(recipe, home, model, base, CPU)
    with running_engine(profile, home, proof=True) as engine:
        yield Served(recipe, home, base, run, profile, engine)


def test_answers_are_those_of_transformers(served: Served, bank_forms: Path, shows: Shows) -> None:
    """On text and images; where the CPU engine is known to treat images otherwise, the proof fails on those
    rows alone and says what it is."""
    name = served.recipe.family
    shows(name, "", "serve text")
    known = served.recipe.model_family.vllm_images.get("cpu")
    shows(name, "", "serve image" if known is None else "serve image refused")
    texts = len(text_rows())
    proof = served.prove(make_mixed_held_out(served.home, bank_forms, PICTURES))
    findings = proof.statement["findings"]
    assert proof.statement["rows"] == texts + PICTURES
    if known is None:
        assert findings == []
        assert proof.passed
        assert proof.statement["largest_logprob_difference"] < 1e-3
        return
    assert not proof.passed
    assert proof.statement["rows_equal"] == texts
    assert findings
    for finding in findings:
        assert known in finding
        assert "text-" not in finding
    assert served.prove(make_text_held_out(served.home)).passed
