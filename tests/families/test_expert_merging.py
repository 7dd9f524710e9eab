"""Adapters of routed experts are merged into the published layout, bit by bit as PEFT merges them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from merge_adapter import merge as merge_outside
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from data_prep.prepare import prepare
from finetune.layout import Part, published
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.merging import lora, weights
from finetune.merging.experts import ExpertDelta, ExpertLowRank
from finetune.merging.low_rank import LowRank
from finetune.merging.tensor_file import TensorFile
from finetune.model import load_model
from finetune.peft_names import named_in_full
from finetune.plan import plan
from finetune.proving import form, on_demand
from finetune.run import run_key
from finetune.train import train_process
from lensmith import families
from lensmith.artifact import Artifact
from lensmith.attestation import Attestation
from lensmith.base import pin_base
from lensmith.errors import InputError
from lensmith.home import Home
from lensmith.recipe import load_recipe
from tests.artifacts import make_held_out, make_run
from tests.conftest import recipe_content
from tests.families.conftest import Checkpoint
from tests.families.test_experts import ROUTED, expert_recipe
from tests.family_results import Shows
from tests.finetune.merged import Walk, as_bfloat16, planted

pytestmark = pytest.mark.slow

WEIGHTS, ADAPTER, CONFIG = "model.safetensors", "adapter_model.safetensors", "adapter_config.json"
PATTERN = {"experts.gate_up_proj": 3, "experts.down_proj": 2}
Tensors = dict[str, Tensor]
Walker = Callable[..., Walk]


@pytest.fixture(scope="module")
def walks(made: dict[str, Checkpoint], bank_forms: Path, tmp_path_factory: pytest.TempPathFactory) -> Walker:
    """A family's base, a random adapter on its language model with all experts, and their merged model."""
    walked: dict[tuple[str, str], Walk] = {}

    def walk(family: str, dtype: str = "float32") -> Walk:
        if (family, dtype) not in walked:
            root = tmp_path_factory.mktemp(family)
            shutil.copytree(made[family].root, root / "base")
            if dtype == "bfloat16":
                as_bfloat16(root / "base")
            recipe = expert_recipe(replace(made[family], root=root / "base"))
            home = Home(root / "home")
            base = pin_base(recipe, home)
            run = make_run(home, base, ["language"], experts=True, rank_pattern=PATTERN, rslora=True)
            model = merge(recipe, home, base, run)
            walked[family, dtype] = Walk(recipe, home, base, run, model, make_held_out(home, bank_forms, 4))
        return walked[family, dtype]

    return walk


def prove(walked: Walk) -> Attestation:
    return prove_merge(walked.recipe, walked.home, walked.base, walked.run, walked.model, walked.held_out)


def merged_by_peft(walked: Walk) -> PreTrainedModel:
    """In float32: in a lower dtype PEFT rounds the experts' delta before it adds it, and the sum again."""
    model = load_model(walked.recipe.base.path, torch.float32)
    with named_in_full(model):
        wrapped = PeftModel.from_pretrained(model, walked.run.path)
    return wrapped.merge_and_unload(safe_merge=False)


def same_bits(one: Tensors, other: Tensors) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if one[name].dtype != other[name].dtype or not one[name].equal(other[name])]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ROUTED)
def test_experts_merge_as_peft_merges_them(
    walks: Walker, family: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked = walks(family, dtype)
    model = merged_by_peft(walked)
    facts = walked.recipe.model_family
    expected = published(model.state_dict(), facts, model.config.to_dict())
    base, found = (load_file(path / WEIGHTS) for path in (walked.recipe.base.path, walked.model.path))
    assert same_bits(found, {name: each.to(base[name].dtype) for name, each in expected.items()}) == []
    routed = [name for name in base if ".mlp.experts." in name]
    assert routed
    assert not any(base[name].equal(found[name]) for name in routed)
    assert not any(base[name][0].equal(found[name][0]) for name in routed)
    proof = prove(walked)
    assert proof.statement["findings"] == []
    assert proof.passed
    assert proof.statement["adapter"]["used_once"] == len(load_file(walked.run.path / ADAPTER))
    monkeypatch.setattr(form, "WHOLE_BYTES", 0)
    if dtype == "bfloat16":
        # As where a layer's B is large: of one expert at a time.
        monkeypatch.setattr(on_demand, "_KEPT", 0)
    proof = prove(walked)
    assert proof.statement["findings"] == []
    sampled = proof.statement["weights"]
    assert sampled["bit_equal"] == sampled["changed"] == sampled["matrices"] > len(routed)


@pytest.mark.parametrize("family", ["qwen3_vl_moe", "glm4v_moe"])
def test_an_outside_adapter_of_experts_merges_as_peft_merges_it(
    walks: Walker, family: str, tmp_path: Path
) -> None:
    """Saved by another tool: wrapped names, parameters by the end of theirs; its merge is proven, and is the
    one of ours, which is PEFT's."""
    walked = walks(family, "bfloat16")
    tensors, config = (
        load_file(walked.run.path / ADAPTER),
        json.loads((walked.run.path / CONFIG).read_bytes()),
    )
    source = tmp_path / "source"
    source.mkdir()
    named = {
        f"module._orig_mod.{name}".replace(".weight", ".default.weight"): t for name, t in tensors.items()
    }
    save_file(named, source / ADAPTER)
    config["target_parameters"] = [f"mlp.experts.{name}" for name in ("gate_up_proj", "down_proj")]
    (source / CONFIG).write_text(json.dumps(config))
    merge_outside(source, walked.recipe.base.path, family, tmp_path / "out")
    ours, theirs = (load_file(root / WEIGHTS) for root in (walked.model.path, tmp_path / "out"))
    assert same_bits(ours, theirs) == []


@pytest.mark.parametrize("family", ROUTED)
def test_from_the_recipe_to_the_proof(
    made: dict[str, Checkpoint], family: str, bank_forms: Path, tmp_path: Path, shows: Shows
) -> None:
    shows(family, "", "experts")
    content = recipe_content(made[family].root, bank_forms)
    content["family"] = family
    towers = {"vision": "freeze", "connector": "freeze", "language": "adapt"}
    lora = {"rank": 4, "alpha": 8.0, "experts": {"rank": 2, "alpha": 8.0}}
    content["train"].update(towers=towers, lora=lora, max_length=1024, gradient_checkpointing=True)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    recipe, home = load_recipe(tmp_path / "recipe.yaml"), Home(tmp_path / "home")
    base, dataset = pin_base(recipe, home), prepare(recipe, home).dataset
    facts = made[family].family.experts
    assert facts is not None
    fused = facts.fused(made[family].config)
    planned = plan(recipe, dataset)
    assert planned.adapted["experts"] == len(fused)
    train_process(recipe, home, base, dataset)
    run = home.find("run", run_key(recipe, base, dataset))
    assert run is not None
    assert run.body["adapted"] == planned.adapted
    assert run.body["trained_parameters"] == planned.trained_parameters
    assert sorted(json.loads((run.path / CONFIG).read_bytes())["target_parameters"]) == sorted(fused)
    experts = {name: each for name, each in load_file(run.path / ADAPTER).items() if ".mlp.experts." in name}
    assert len(experts) == 2 * len(fused)
    assert all(bool(each.count_nonzero()) for each in experts.values())
    model = merge(recipe, home, base, run)
    proof = prove(Walk(recipe, home, base, run, model, make_held_out(home, bank_forms, 4)))
    assert proof.statement["findings"] == []
    assert proof.passed


def first_expert(tensors: Tensors, ending: str) -> str:
    return next(name for name in sorted(tensors) if ".mlp.experts." in name and name.endswith(ending))


def gate_and_up_swapped(merged: Tensors, base: Tensors) -> Tensors:
    if any(name.endswith("experts.gate_up_proj") for name in merged):
        name = first_expert(merged, "gate_up_proj")
        return {name: torch.cat(merged[name].chunk(2, dim=-1)[::-1], dim=-1)}
    gate, up = (first_expert(merged, f"0.{half}_proj.weight") for half in ("gate", "up"))
    return {gate: merged[up], up: merged[gate]}


def an_expert_the_other_way_round(merged: Tensors, base: Tensors) -> Tensors:
    """Its change in another order: as if A and B were read the wrong way round."""
    name = first_expert(merged, "down_proj" if first_expert(merged, "").endswith("down_proj") else "weight")
    change = (merged[name] - base[name]).reshape(-1, *merged[name].shape[-2:])
    turned = change.transpose(-2, -1).reshape(merged[name].shape)
    return {name: base[name] + turned}


def an_expert_left_as_it_was(merged: Tensors, base: Tensors) -> Tensors:
    name = first_expert(merged, "")
    kept = merged[name].clone()
    if kept.dim() == 2:
        return {name: base[name]}
    kept[1] = base[name][1]
    return {name: kept}


def two_experts_exchanged(merged: Tensors, base: Tensors) -> Tensors:
    name = first_expert(merged, "")
    if merged[name].dim() == 3:
        return {name: merged[name][[1, 0, 2, 3]]}
    other = name.replace(".experts.0.", ".experts.1.")
    return {name: merged[other], other: merged[name]}


FAULTS = [gate_and_up_swapped, an_expert_the_other_way_round, an_expert_left_as_it_was, two_experts_exchanged]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("family", ["qwen3_vl_moe", "glm4v_moe"])
def test_planted_faults_of_experts_fail(
    walks: Walker,
    family: str,
    fault: Callable[[Tensors, Tensors], Tensors],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    walked = walks(family)
    base = load_file(walked.recipe.base.path / WEIGHTS)

    def plant(root: Path) -> None:
        merged = load_file(root / WEIGHTS)
        wrong = {name: each.contiguous() for name, each in fault(merged, base).items()}
        assert any(not each.equal(merged[name]) for name, each in wrong.items())
        save_file(merged | wrong, root / WEIGHTS, metadata={"format": "pt"})

    broken = planted(walked, fault.__name__, plant)
    proof = prove(broken)
    assert not proof.passed
    text = "\n".join(proof.statement["findings"])
    assert "merged tensors differ from the definition: model." in text
    assert ".mlp.experts." in text
    assert "weights are not what was trained, once loaded" in text
    monkeypatch.setattr(form, "WHOLE_BYTES", 0)
    text = "\n".join(prove(broken).statement["findings"])
    assert "merged matrices differ from the definition: model." in text
    assert ".mlp.experts." in text


def test_a_dropped_expert_key_fails(walks: Walker) -> None:
    walked = walks("glm4v_moe")

    def plant(root: Path) -> None:
        merged = load_file(root / WEIGHTS)
        del merged[first_expert(merged, "up_proj.weight")]
        save_file(merged, root / WEIGHTS, metadata={"format": "pt"})

    proof = prove(planted(walked, "dropped", plant))
    assert not proof.passed
    text = "\n".join(proof.statement["findings"])
    assert "1 tensors of the base are missing: model.language_model.layers.1.mlp.experts.0.up_proj" in text
    assert "does not fit its model" in text


def experts_before_ranks(b: Tensor, rank: int) -> Tensor:
    """B as A is laid out: each expert's columns together."""
    return b.reshape(b.shape[0], -1, rank).permute(1, 0, 2).contiguous()


@pytest.mark.parametrize("family", ["qwen3_vl_moe", "glm4v_moe"])
def test_a_merge_that_reads_b_as_a_is_found(
    walks: Walker, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant: PEFT's two layouts, in A experts first, in B ranks first, taken for one."""

    def misread(file: TensorFile, deltas: dict[str, ExpertDelta]) -> ExpertLowRank:
        def start(part: Part, number: int) -> LowRank:
            delta = deltas[part.name]
            b = experts_before_ranks(file.read(delta.b), delta.rank)
            a = file.read(delta.a).reshape(len(b), delta.rank, -1)
            change = replace(part, expert=number).of(b @ a).numpy()
            width = np.eye(change.shape[1], dtype=np.float32)
            return LowRank(lambda first, rows: (change[first : first + rows], width), delta.scale, delta.rank)

        return start

    walked = walks(family)
    monkeypatch.setattr(lora, "expert_low_rank", misread)

    def plant(root: Path) -> None:
        (root / WEIGHTS).unlink()
        weights.write_merged(
            walked.recipe.base.path, walked.recipe.model_family, walked.run, root, walked.home.work_path("b")
        )

    proof = prove(planted(walked, f"b-as-a-{family}", plant))
    assert not proof.passed
    assert "merged tensors differ from the definition" in "\n".join(proof.statement["findings"])


def edited(walked: Walk, name: str, change: Callable[[Tensors], Tensors], **config: Any) -> Artifact:
    """The walk's run with changes in its adapter's tensors and config."""
    with walked.home.create("run", f"{name:0>24}", {"base": walked.base}) as draft:
        stated = json.loads((walked.run.path / CONFIG).read_bytes()) | config
        (draft.path / CONFIG).write_text(json.dumps(stated))
        save_file(change(load_file(walked.run.path / ADAPTER)), draft.path / ADAPTER)
        draft.body.update(walked.run.body)
    return draft.artifact


def without(*endings: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: each for name, each in tensors.items() if not name.endswith(endings)}


OUTER = (".mlp.experts.lora_A.weight", ".mlp.experts.lora_B.weight")
INNER = tuple(name.replace("experts.", "experts.base_layer.") for name in OUTER)


@pytest.mark.parametrize(
    ("name", "change", "config", "words"),
    [
        ("one", without(OUTER[0]), {}, "mlp.experts: has no lora_A"),
        ("down", without(*OUTER), {}, "mlp.experts.down_proj: is adapted, the config says, and has no"),
        ("gate", without(*INNER), {}, "mlp.experts.gate_up_proj: is adapted, the config says, and has no"),
        ("rank", lambda tensors: tensors, {"rank_pattern": PATTERN | {"experts.down_proj": 5}}, "rank 5"),
        (
            "half",
            lambda tensors: tensors,
            {"rank_pattern": PATTERN | {"experts.down_proj": 4}},
            "the adapter's",
        ),
        (
            "none",
            lambda tensors: tensors,
            {"target_parameters": None},
            "mlp.experts.base_layer",
        ),
    ],
)
def test_broken_adapters_of_experts_are_refused(
    walks: Walker,
    name: str,
    change: Callable[[Tensors], Tensors],
    config: dict[str, Any],
    words: str,
) -> None:
    walked = walks("glm4v_moe")
    with pytest.raises(InputError) as caught:
        merge(walked.recipe, walked.home, walked.base, edited(walked, name, change, **config))
    assert words in str(caught.value)


@pytest.mark.parametrize("only", ["down_proj", "gate_up_proj"])
def test_an_adapter_of_one_parameter_is_told_by_its_config(walks: Walker, only: str) -> None:
    """PEFT saves either under the name that the other has where both are adapted."""
    walked = walks("glm4v_moe")

    def alone(tensors: Tensors) -> Tensors:
        mine, other = (OUTER, INNER) if only == "down_proj" else (INNER, OUTER)
        kept = without(*other)(tensors)
        return {
            name.replace(".experts.base_layer.", ".experts.") if name.endswith(mine) else name: each
            for name, each in kept.items()
        }

    run = edited(walked, f"only-{only}", alone, target_parameters=[f"mlp.experts.{only}"])
    one = replace(walked, run=run, model=merge(walked.recipe, walked.home, walked.base, run))
    proof = prove(one)
    assert proof.statement["findings"] == []
    base, merged = (load_file(path / WEIGHTS) for path in (one.recipe.base.path, one.model.path))
    moved = {name for name in base if ".mlp.experts." in name and not base[name].equal(merged[name])}
    assert {name.split(".")[-2] in ("gate_proj", "up_proj") for name in moved} == {only == "gate_up_proj"}


def test_the_families_are_those_with_experts() -> None:
    assert {"qwen3_vl_moe", "glm4v_moe"} <= set(ROUTED) <= set(families.FAMILIES)
