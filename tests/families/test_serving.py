"""Each family's merged model behind a real vLLM on a CPU: equal to transformers, or found and named.

One engine start a family; Qwen3-VL has its own in tests/serving, with whatever else can go wrong there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_families import SERVED as LARGE
from tiny_families import write_served

from finetune.generate import reference_trace
from finetune.merge import merge
from finetune.prompts import encode_conversation
from lensmith import families
from lensmith.artifact import Artifact
from lensmith.attestation import Attestation
from lensmith.base import pin_base
from lensmith.home import Home
from lensmith.recipe import Recipe
from lensmith.rendering import Rendering
from lensmith.row_file import Row
from lensmith.trace import TraceRow, read_trace
from serving.engine import Engine, running_engine
from serving.parity import prove_serving
from serving.predict import served_trace
from serving.profile import derive_profile
from tests.artifacts import good_rows, make_mixed_held_out, make_run, make_text_held_out, text_rows
from tests.families.conftest import Checkpoint, towers_of
from tests.family_results import Shows
from tests.roomy import with_room
from tests.serving.exam import CPU

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

PICTURES = 2
# Of a family with its published encoders one, which costs each of the two about 20 CPU seconds:
# larger than a tile of 768 pixels, it is seen whole and as two tiles.
TILED = (1000, 500)
SERVE = {"dtype": "float32", "max_new_tokens": 8, "kv_cache_gib": 0.25}
SERVED = [name for name in families.FAMILIES if name != "qwen3_vl"]


@dataclass(frozen=True)
class Served:
    """A family's merged model and the engine that serves it."""

    recipe: Recipe
    home: Home
    base: Artifact
    run: Artifact
    model: Checkpoint
    profile: Artifact
    engine: Engine

    def mixed(self, forms: Path) -> Artifact:
        """Rows of text and rows with an image."""
        if self.recipe.family in LARGE:
            return make_mixed_held_out(self.home, forms, 1, TILED)
        return make_mixed_held_out(self.home, forms, PICTURES)

    def ask(self, held_out: Artifact) -> Artifact:
        """The engine's answers to these rows."""
        return served_trace(self.recipe, self.home, self.profile, held_out, engine=self.engine)

    def prove(self, held_out: Artifact) -> Attestation:
        """The serve proof on these rows."""
        trace = self.ask(held_out)
        assert len({tuple(row.answer_ids) for row in read_trace(trace)}) > 1
        reference = reference_trace(self.recipe, self.home, self.base, self.run, held_out, 64)
        return prove_serving(self.home, trace, reference)


@pytest.fixture(scope="module", params=SERVED)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    family, root = families.get(request.param), tmp_path_factory.mktemp(request.param)
    towers = towers_of(family.name, "lora")
    path = write_served(family.name, root / "base")
    # Whole questions of these rows become tokens: read alike by both, or the proof fails.
    tokens = ["Name a colour.", "12 34 56"] if family.new_tokens else []
    checkpoint = Checkpoint(family, with_room(path, root / "roomy", 16) if tokens else path)
    content = checkpoint.recipe("lora", **dict.fromkeys(towers, "adapt")).model_dump(mode="json")
    # All positions that Qwen3-VL's tiny checkpoints have; an image in tiles is longer.
    length = {"max_model_len": 2048 if family.name in LARGE else 1024}
    recipe = Recipe.model_validate(content | {"serve": content["serve"] | SERVE | length})
    home = Home(root / "home")
    base = pin_base(recipe, home)
    run = make_run(home, base, towers, new_tokens=tokens)
    model = merge(recipe, home, base, run)
    profile = derive_profile(recipe, home, model, base, CPU)
    with running_engine(profile, home, proof=True) as engine:
        yield Served(recipe, home, base, run, Checkpoint(family, model.path), profile, engine)
    # pytest keeps the folders of three runs; DeepSeek-OCR-2's holds 4 GB.
    shutil.rmtree(root)


def test_answers_are_those_of_transformers(served: Served, bank_forms: Path, shows: Shows) -> None:
    """On text and images; where the CPU engine is known to treat images otherwise, the proof fails on those
    rows alone and says what it is: transformers, told to do the same, is as sure of the engine's answers."""
    name = served.recipe.family
    shows(name, "", "serve text")
    known = served.recipe.model_family.vllm_images.get("cpu")
    shows(name, "", "serve image" if known is None else "serve image refused")
    texts = len(text_rows())
    mixed = served.mixed(bank_forms)
    proof = served.prove(mixed)
    findings = proof.statement["findings"]
    assert proof.statement["rows"] == mixed.body["rows"] > texts
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
    answers = {each.row: each for each in read_trace(served.ask(mixed))}
    for row in good_rows(bank_forms)[:PICTURES]:
        answer = answers[row.sample.id]
        assert difference(served.model, row, answer, causal=True) < 1e-3
        assert difference(served.model, row, answer, causal=False) > 1e-2


def difference(model: Checkpoint, row: Row, answer: TraceRow, *, causal: bool) -> float:
    """Between the engine's log-probabilities of the answer's tokens and transformers', in nats.

    causal: an image's tokens are read one after the other, and hold the tower's features alone.
    """
    given = encode_conversation(
        model.processor, Rendering(model.family), row.sample, row.images, answered=False
    )
    # What says which tokens are an image's.
    kinds = {name: given.pop(name) for name in list(given) if name.endswith("token_type_ids")}
    prompt, told = given.pop("input_ids"), torch.tensor([answer.answer_ids])
    assert prompt.tolist() == [answer.prompt_ids]
    ids = torch.cat([prompt, told], dim=1)
    given["attention_mask"] = torch.ones_like(ids)
    loaded = model.load()
    if causal:
        with torch.no_grad():
            loaded.get_input_embeddings().weight[model.config[model.family.image_id]] = 0
    else:
        given |= {name: torch.cat([kind, torch.zeros_like(told)], dim=1) for name, kind in kinds.items()}
    with torch.no_grad():
        logits = loaded(input_ids=ids, **given).logits[0, prompt.shape[1] - 1 : -1]
    ours = logits.log_softmax(-1).gather(1, told[0, :, None])[:, 0]
    return float((ours - torch.tensor(answer.answer_logprobs)).abs().max())
