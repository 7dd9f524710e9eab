"""Each family's merged model behind a real vLLM on a CPU: equal to transformers, or found and named.

One engine start a family; Qwen3-VL has its own in tests/serving, with whatever else can go wrong there. Where
vLLM applies adapters of the family here, the merged model is the base of one beside it, over every tower
that it applies.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_families import SERVED as LARGE
from tiny_families import write_served
from transformers import PreTrainedModel

from finetune.adapted import load_trained
from finetune.generate import reference_trace
from finetune.merge import merge
from finetune.prompts import encode_conversation
from lensmith import families
from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.artifact import Artifact
from lensmith.attestation import Attestation
from lensmith.base import pin_base
from lensmith.errors import InputError
from lensmith.families.family import Family
from lensmith.home import Home
from lensmith.recipe import Recipe
from lensmith.rendering import Rendering
from lensmith.row_file import Row
from lensmith.trace import TraceRow, read_trace
from serving import engine as starting
from serving.command import base_name, engine_argv
from serving.engine import Engine, running_engine
from serving.engine_adapter import engine_adapter
from serving.parity import prove_serving
from serving.predict import served_trace
from serving.profile import derive_profile, make_profile, read_profile
from tests.artifacts import (
    good_rows,
    make_film_held_out,
    make_mixed_held_out,
    make_run,
    make_text_held_out,
    text_rows,
)
from tests.families.conftest import Checkpoint, towers_of
from tests.family_results import Shows
from tests.films import SAMPLING
from tests.roomy import with_room
from tests.serving.exam import CPU, CPU_BUILD, profile_artifact

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

PICTURES = 2
# Of a family with its published encoders one, which costs each of the two about 20 CPU seconds:
# larger than a tile of 768 pixels, it is seen whole and as two tiles.
TILED = (1000, 500)
SERVE = {"dtype": "float32", "max_new_tokens": 8, "kv_cache_gib": 0.25}
SERVED = [name for name in families.FAMILIES if name != "qwen3_vl"]


@dataclass(frozen=True)
class Served:
    """What an engine serves, and how it was made: `run` on `base`. model: the merged one; of an adapter the
    base beside it. adapter: what is served beside the merged model, where vLLM applies one."""

    recipe: Recipe
    home: Home
    base: Artifact
    run: Artifact
    model: Checkpoint
    profile: Artifact
    engine: Engine
    adapter: Served | None = None

    def mixed(self, forms: Path) -> Artifact:
        """Rows of text and rows with an image."""
        if self.recipe.family in LARGE:
            return make_mixed_held_out(self.home, forms, 1, TILED)
        return make_mixed_held_out(self.home, forms, PICTURES)

    def ask(self, held_out: Artifact) -> Artifact:
        """The engine's answers to these rows."""
        return served_trace(self.recipe, self.home, self.profile, held_out, engine=self.engine)

    def ask_without(self, part: str, held_out: Artifact) -> Artifact:
        """The engine's answers to these rows by the adapter without a part."""
        name = name_without(part)
        profile = read_profile(self.profile).model_copy(update={"served_name": name})
        other = profile_artifact(self.home, profile, self.run, self.base)
        engine = replace(self.engine, model_name=name)
        return served_trace(self.recipe, self.home, other, held_out, engine=engine)

    def differs(self, trace: Artifact, row: Row, *, causal: bool) -> float:
        """How far transformers is from one of these answers, see `difference`."""
        (answer,) = (each for each in read_trace(trace) if each.row == row.sample.id)
        run = self.run.path if self.profile.body["mode"] == "adapter" else None
        loaded = load_trained(self.model.root, run, torch.float32)
        return difference(self.model, loaded, row, answer, causal=causal)

    def prove(self, held_out: Artifact) -> Attestation:
        """The serve proof on these rows."""
        return self.judge(self.ask(held_out), held_out)

    def judge(self, trace: Artifact, held_out: Artifact) -> Attestation:
        """The serve proof of these answers."""
        assert len({tuple(row.answer_ids) for row in read_trace(trace)}) > 1
        reference = reference_trace(self.recipe, self.home, self.base, self.run, held_out, 64)
        return prove_serving(self.home, trace, reference)


@pytest.fixture(scope="module", params=SERVED)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    family, root = families.get(request.param), tmp_path_factory.mktemp(request.param)
    towers = towers_of(family.name, "lora")
    path = write_served(family.name, root / "base")
    # Whole questions of these rows become tokens: read alike by both, or the proof fails.
    tokens = ["Name a colour.", "12 34 56"] if not family.no_new_tokens else []
    checkpoint = Checkpoint(family, with_room(path, root / "roomy", 16) if tokens else path)
    content = checkpoint.recipe("lora", **dict.fromkeys(towers, "adapt")).model_dump(mode="json")
    # All positions that Qwen3-VL's tiny checkpoints have; an image in tiles is longer.
    length = {"max_model_len": 2048 if family.name in LARGE else 1024}
    filmed = {"video": SAMPLING} if family.video else {}
    most = {"max_videos": 2} if family.video and family.video.served is None else {}
    changed = {"serve": content["serve"] | SERVE | length | most, "data": content["data"] | filmed}
    recipe = Recipe.model_validate(content | changed)
    home = Home(root / "home")
    base = pin_base(recipe, home)
    run = make_run(home, base, towers, new_tokens=tokens)
    model = merge(recipe, home, base, run)
    merged = Checkpoint(family, model.path)
    profile = derive_profile(recipe, home, model, base, CPU)
    if family.vllm_adapts and "cpu" not in family.vllm_no_adapters:
        with adapted(merged, home, changed, root) as adapter:
            engine = replace(adapter.engine, model_name=base_name(read_profile(adapter.profile)))
            yield Served(recipe, home, base, run, merged, profile, engine, adapter)
    else:
        with running_engine(profile, home, proof=True) as engine:
            yield Served(recipe, home, base, run, merged, profile, engine)
    # pytest keeps the folders of three runs; DeepSeek-OCR-2's holds 4 GB.
    shutil.rmtree(root)


@contextlib.contextmanager
def adapted(merged: Checkpoint, home: Home, changed: dict[str, Any], root: Path) -> Iterator[Served]:
    """An engine with a base, an adapter over every tower that it applies, and that adapter without a part,
    once for each part."""
    family = merged.family
    towers = list(family.vllm_adapts)
    content = merged.recipe("lora", **dict.fromkeys(towers, "adapt")).model_dump(mode="json")
    options = {"mode": "adapter", "tower_connector_lora": any(family.vllm_adapts.values())}
    recipe = Recipe.model_validate(content | changed | {"serve": changed["serve"] | options})
    base = pin_base(recipe, home)
    # Parts of unequal rank and scaling: each must arrive with its own.
    run = make_run(home, base, towers, seed=2, rank_pattern={"o_proj": 6}, alpha_pattern={"down_proj": 12})
    profile = derive_profile(recipe, home, run, base, CPU)
    maimed = [maim(run, tower, family, root / name_without(tower)) for tower in parts_of(family)]

    def with_maimed(*arguments: Any, **options: Any) -> list[str]:
        argv = engine_argv(*arguments, **options)
        at = argv.index("--lora-modules") + 2
        more = [json.dumps({"name": path.name, "path": str(path)}) for path in maimed]
        return [*argv[:at], *more, *argv[at:]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starting, "engine_argv", with_maimed)
        # No profile starts an engine so: the linter would refuse the maimed ones.
        patch.setattr(starting, "refuse_unsafe", lambda *_: None)
        with running_engine(profile, home, proof=True) as engine:
            yield Served(recipe, home, base, run, merged, profile, engine)


def parts_of(family: Family) -> list[str]:
    """What an adapter is left out of: each tower; of a single one what is not its attention."""
    return list(family.vllm_adapts) if len(family.vllm_adapts) > 1 else ["mlp"]


def name_without(part: str) -> str:
    """What the adapter without this part is called."""
    return f"without-{part}"


def maim(run: Artifact, part: str, family: Family, folder: Path) -> Path:
    """The run's adapter without a part, as an engine reads it."""
    folder.mkdir()
    stored = load_file(run.path / ADAPTER_WEIGHTS)
    kept = {
        name: tensor
        for name, tensor in stored.items()
        if f".{part}." not in name and family.find_tower(name.removeprefix("base_model.model.")) != part
    }
    assert 0 < len(kept) < len(stored)
    save_file(kept, folder / ADAPTER_WEIGHTS)
    shutil.copy(run.path / ADAPTER_CONFIG, folder)
    for name, data in engine_adapter(folder, family.vllm_names).items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.usefixtures("answered_here")
def test_an_adapter_is_applied_whole(served: Served, bank_forms: Path, shows: Shows) -> None:
    """Beside its base, which answers as it is; without a part of it the proof fails. Where vLLM applies none
    on a CPU, no profile asks for it."""
    if served.adapter is None:
        with pytest.raises(InputError, match="cannot be served"):
            make_profile(served.recipe, served.run, served.base, CPU, CPU_BUILD)
        return
    ours, family = served.adapter, served.model.family
    for tower in family.vllm_adapts:
        shows(family.name, tower, "serve adapter")
    known = family.vllm_images.get("cpu")
    mixed = ours.mixed(bank_forms)
    # Where the CPU engine treats images otherwise, rows of text are proven, and the others as below.
    asked = mixed if known is None else make_text_held_out(ours.home)
    proof = ours.prove(asked)
    assert proof.statement["findings"] == []
    assert proof.passed
    assert proof.statement["serving"] == "adapter"
    row = good_rows(bank_forms)[0]
    if known is not None:
        assert ours.differs(ours.ask(mixed), row, causal=True) < 1e-3
        assert ours.differs(ours.ask(mixed), row, causal=False) > 1e-2
    for part in parts_of(family):
        answers = ours.ask_without(part, asked)
        if known is not None and part != "language" and part in family.vllm_adapts:
            assert ours.judge(answers, asked).passed
            assert ours.differs(ours.ask_without(part, mixed), row, causal=True) > 1e-2
            continue
        failed = ours.judge(answers, asked)
        assert not failed.passed
        assert any("a part of the adapter left out" in finding for finding in failed.statement["findings"])


@pytest.mark.usefixtures("answered_here")
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
    for row in good_rows(bank_forms)[:PICTURES]:
        assert served.differs(served.ask(mixed), row, causal=True) < 1e-3
        assert served.differs(served.ask(mixed), row, causal=False) > 1e-2


@pytest.mark.usefixtures("answered_here")
def test_videos_are_seen_as_trained(served: Served, shows: Shows) -> None:
    """Frames and times reach the engine's processor as they were taken: prompts are equal everywhere, and
    answers but where the CPU engine is known to treat images otherwise, frames among them."""
    form, name = served.recipe.model_family.video, served.recipe.family
    if form is None:
        assert read_profile(served.profile).videos is None
        return
    known = served.recipe.model_family.vllm_images.get("cpu")
    shows(name, "", "serve video" if known is None else "serve video refused")
    proof = served.prove(make_film_held_out(served.home, form.served))
    if known is not None:
        assert not proof.passed
        assert all(known in finding for finding in proof.statement["findings"])
        return
    assert proof.statement["findings"] == []
    assert proof.passed


def difference(
    model: Checkpoint, loaded: PreTrainedModel, row: Row, answer: TraceRow, *, causal: bool
) -> float:
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
    if causal:
        with torch.no_grad():
            loaded.get_input_embeddings().weight[model.config[model.family.image_id]] = 0
    else:
        given |= {name: torch.cat([kind, torch.zeros_like(told)], dim=1) for name, kind in kinds.items()}
    with torch.no_grad():
        logits = loaded(input_ids=ids, **given).logits[0, prompt.shape[1] - 1 : -1]
    ours = logits.log_softmax(-1).gather(1, told[0, :, None])[:, 0]
    return float((ours - torch.tensor(answer.answer_logprobs)).abs().max())
