"""What a family states of its checkpoints holds for transformers' class, loaded from the published layout."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors import safe_open
from tiny_families import MAKERS, write_tiny
from tiny_families import checkpoint as checkpoints
from torch import nn
from transformers import AutoModelForImageTextToText

from lensmith import families
from lensmith.base import check_base
from lensmith.errors import InputError
from lensmith.families.family import TOWERS, Family
from tests.families.conftest import Checkpoint
from tests.family_results import Shows

pytestmark = pytest.mark.slow

# Names on disk that a published checkpoint has and transformers' class has not, from the indexes of
# published checkpoints.
PUBLISHED = {
    "qwen3_vl": ["model.visual.merger.linear_fc1.weight", "model.language_model.layers.0.mlp.up_proj.weight"],
    "qwen3_vl_moe": ["model.language_model.layers.0.mlp.experts.gate_up_proj"],
    "glm4v": [
        "model.visual.merger.gate_proj.weight",
        "model.language_model.layers.0.mlp.gate_up_proj.weight",
    ],
    "glm4v_moe": [
        "model.language_model.layers.0.mlp.gate_proj.weight",
        "model.language_model.layers.1.mlp.experts.3.up_proj.weight",
        "model.language_model.layers.1.mlp.shared_experts.down_proj.weight",
        "model.language_model.layers.1.mlp.gate.e_score_correction_bias",
    ],
    "gemma3": [
        "language_model.model.embed_tokens.weight",
        "language_model.model.layers.0.self_attn.q_proj.weight",
        "vision_tower.vision_model.encoder.layers.0.self_attn.out_proj.weight",
        "multi_modal_projector.mm_input_projection_weight",
    ],
    "deepseek_ocr2": [
        "model.sam_model.blocks.0.norm1.weight",
        "model.sam_model.neck.3.bias",
        "model.sam_model.net_2.weight",
        "model.qwen2_model.model.model.layers.0.self_attn.q_proj.bias",
        "model.qwen2_model.query_768.weight",
        "model.projector.layers.weight",
        "model.view_seperator",
        "model.layers.1.mlp.experts.3.gate_proj.weight",
        "lm_head.weight",
    ],
    "molmo2": [
        "model.transformer.wte.embedding",
        "model.transformer.wte.new_embedding",
        "model.transformer.blocks.0.self_attn.att_proj.weight",
        "model.transformer.blocks.0.self_attn.attn_out.weight",
        "model.transformer.blocks.0.mlp.ff_proj.weight",
        "model.transformer.blocks.0.ff_norm.weight",
        "model.transformer.ln_f.weight",
        "model.vision_backbone.image_vit.transformer.resblocks.0.attention.wq.bias",
        "model.vision_backbone.image_vit.transformer.resblocks.0.feed_forward.w2.weight",
        "model.vision_backbone.image_vit.positional_embedding",
        "model.vision_backbone.image_pooling_2d.wo.weight",
        "model.vision_backbone.image_projector.w3.weight",
        "lm_head.weight",
    ],
}


def names_on_disk(checkpoint: Checkpoint) -> set[str]:
    with safe_open(checkpoint.root / "model.safetensors", "pt") as file:
        return set(file.keys())


def test_is_a_base_of_its_family(checkpoint: Checkpoint) -> None:
    config = check_base(checkpoint.root, checkpoint.family)
    assert config["model_type"] == checkpoint.family.model_type
    assert type(checkpoint.load()).__name__ == checkpoint.family.architecture


def test_every_tensor_comes_back_from_the_published_layout(checkpoint: Checkpoint, shows: Shows) -> None:
    """None missing, none left over, each with the values it was made with."""
    shows(checkpoint.family.name, "", "load")
    model, found = AutoModelForImageTextToText.from_pretrained(
        checkpoint.root, dtype=torch.float32, output_loading_info=True
    )
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert not found["mismatched_keys"]
    tiny = MAKERS[checkpoint.family.name]
    made = checkpoints.make_model(tiny, tiny.config(checkpoint.processor), 0).state_dict()
    loaded = model.state_dict()
    assert made.keys() == loaded.keys()
    assert [name for name in made if not torch.equal(made[name], loaded[name])] == []


def test_names_are_the_published_ones(checkpoint: Checkpoint) -> None:
    names = names_on_disk(checkpoint)
    assert [name for name in PUBLISHED[checkpoint.family.name] if name not in names] == []
    if checkpoint.family.layout.renames:
        own = set(checkpoint.load().state_dict()) - {"lm_head.weight"}
        assert not own & names


def test_every_parameter_is_in_exactly_one_tower(checkpoint: Checkpoint) -> None:
    family, model = checkpoint.family, checkpoint.load()
    by_prefix = {
        name: [
            tower
            for tower, prefixes in family.towers.items()
            if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)
        ]
        for name, _ in model.named_parameters()
    }
    assert {name: towers for name, towers in by_prefix.items() if len(towers) != 1} == {}
    assert {towers[0] for towers in by_prefix.values()} == set(TOWERS)


def test_every_linear_is_stated_and_no_other(checkpoint: Checkpoint) -> None:
    family, model = checkpoint.family, checkpoint.load()
    linears = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    stated = {tower: family.expected_linears(checkpoint.config, tower) for tower in TOWERS}
    every = [name for names in stated.values() for name in names]
    assert len(every) == len(set(every))
    assert set(every) == linears - {"lm_head"}
    for tower, names in stated.items():
        assert {family.tower_of(name) for name in names} <= {tower}
        assert bool(names) == family.adaptable(tower)


def test_every_fused_expert_and_router_is_stated(checkpoint: Checkpoint) -> None:
    experts = checkpoint.family.experts
    parameters = dict(checkpoint.load().named_parameters())
    fused = {name for name in parameters if ".experts." in name and ".shared_experts." not in name}
    routers = {name for name in parameters if name.endswith(".mlp.gate.weight")}
    assert fused == set(experts.fused(checkpoint.config) if experts else [])
    assert routers == set(experts.routers(checkpoint.config) if experts else [])
    assert {parameters[name].dim() for name in fused} <= {3}


@pytest.mark.parametrize("settings", [{"decoder_sparse_step": 2}, {"mlp_only_layers": [1]}])
def test_dense_layers_between_are_found(made: dict[str, Checkpoint], settings: dict[str, object]) -> None:
    from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration

    checkpoint = made["qwen3_vl_moe"]
    content = {**checkpoint.config, "text_config": checkpoint.config["text_config"] | settings}
    with torch.device("meta"):
        model = Qwen3VLMoeForConditionalGeneration(Qwen3VLMoeConfig(**content))
    linears = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)} - {"lm_head"}
    config = model.config.to_dict()
    stated = [name for tower in TOWERS for name in checkpoint.family.expected_linears(config, tower)]
    assert set(stated) == linears
    assert any("mlp.up_proj" in name for name in stated)


def without_a_tower(family: Family) -> Family:
    return dataclasses.replace(family, towers={**family.towers, "connector": ()})


def test_a_tower_that_is_not_stated_is_seen(made: dict[str, Checkpoint]) -> None:
    family = without_a_tower(made["gemma3"].family)
    names = [name for name, _ in made["gemma3"].load().named_parameters()]
    with pytest.raises(InputError, match="no tower for"):
        list(map(family.tower_of, names))


def test_experts_stored_another_way_are_seen(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tensor an expert is not what Qwen's MoE loads: nothing of it would reach the model."""
    family = families.get("qwen3_vl_moe")
    assert family.experts is not None
    apart = dataclasses.replace(family, experts=dataclasses.replace(family.experts, stored="apart"))
    monkeypatch.setitem(families.FAMILIES, family.name, apart)
    root = write_tiny(family.name, tmp_path_factory.mktemp("apart") / "base")
    with pytest.raises(Exception, match=r"experts|fill"):
        Checkpoint(family, root).load()
