"""New tokens behind a real vLLM: read, said and proven as trained. One engine start."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import yaml

from data_prep.prepare import prepare
from finetune.generate import reference_trace
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.model import load_processor
from finetune.prompts import encode_conversation
from finetune.run import run_key
from finetune.train import train_process
from lensmith.base import pin_base
from lensmith.home import Home
from lensmith.recipe import load_recipe
from lensmith.row_file import Row
from lensmith.sample import Message, Sample, Text
from lensmith.trace import read_trace
from serving.engine import running_engine
from serving.parity import prove_serving
from serving.predict import served_trace
from serving.profile import derive_profile
from serving.question import read_reply, request_body
from tests.artifacts import make_held_out
from tests.conftest import recipe_content
from tests.roomy import with_room
from tests.serving.conftest import SERVE
from tests.serving.exam import CPU

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
TOKENS = ['{"account":"', '","amount":"', '","date":"20']


def test_served_as_trained(tmp_path: Path, tiny_base: Path, bank_forms: Path) -> None:
    content = recipe_content(with_room(tiny_base, tmp_path / "base", 16), bank_forms)
    content["train"].update(new_tokens=TOKENS, max_steps=25, learning_rate=0.02, warmup=0.0, save_every=25)
    # Nothing states a schema of the answers.
    content["serve"] = {name: value for name, value in SERVE.items() if name != "guided_json"}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    recipe, home = load_recipe(path), Home(tmp_path / "home")
    base, dataset = pin_base(recipe, home), prepare(recipe, home).dataset
    train_process(recipe, home, base, dataset)
    run = home.find("run", run_key(recipe, base, dataset))
    assert run is not None
    model, held_out = merge(recipe, home, base, run), make_held_out(home, bank_forms, 12)
    assert prove_merge(recipe, home, base, run, model, held_out).passed
    reference = reference_trace(recipe, home, base, run, held_out, 64)
    profile = derive_profile(recipe, home, model, base, CPU)
    asked = 'What stands behind {"account":" and "","date":"2025"?'
    row = Row(Sample("a", "a", (Message("user", (Text(asked),)), Message("assistant", (Text("1"),)))), ())
    with running_engine(profile, home, proof=True) as engine:
        trace = served_trace(recipe, home, profile, held_out, engine=engine)
        body = request_body(row, recipe.rendering, engine.model_name, 2)
        reply = httpx.post(f"{engine.url}/v1/chat/completions", json=body, timeout=60)
    proof = prove_serving(home, trace, reference)
    assert proof.statement["findings"] == []
    assert proof.statement["rows_equal"] == 12
    added = run.body["new_tokens"]
    assert all(each.answer_ids[0] in added.values() for each in read_trace(trace))
    # Read in a prompt as the tokenizer that it was taught with reads them, not as the base's does.
    processor = load_processor(recipe.base.path, None, TOKENS)
    taught = encode_conversation(processor, recipe.rendering, row.sample, (), answered=False)
    ids = taught["input_ids"][0].tolist()
    assert read_reply(row, reply.content, ()).prompt_ids == ids
    assert {added[TOKENS[0]], added[TOKENS[2]]} <= set(ids)
