"""Adapters of other tools and versions are merged under the names that the class has now, whole or not."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.adapted import load_trained
from finetune.merged_adapters import MERGED
from finetune.merging.adapter import read_adapter
from finetune.merging.adapter_config import rank_and_scale
from finetune.merging.checkpoint import open_checkpoint
from finetune.merging.experts import shape_of
from finetune.merging.lora import plan_lora
from finetune.merging.outside import rewrite_adapter
from lensmith import families
from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.errors import InputError
from lensmith.families.family import TOWERS
from lensmith.files import digest_file
from tests.finetune.merged import walk

ROOT = Path(__file__).resolve().parents[2]
CONFIG: dict[str, Any] = {
    "text_config": {
        "num_hidden_layers": 2,
        "first_k_dense_replace": 1,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
    "vision_config": {"depth": 2, "num_hidden_layers": 2, "deepstack_visual_indexes": [1]},
}
PREFIX = "base_model.model."
Tensors = dict[str, torch.Tensor]
Rename = Callable[[str], str]


def side_by_side(name: str) -> str:
    """Qwen-VL in transformers 4.51."""
    return name.replace(f"{PREFIX}model.language_model.", f"{PREFIX}model.").replace(
        "model.model.visual", "model.visual"
    )


def head_inside(name: str) -> str:
    """Gemma 3, and all that is built like LLaVA, in transformers 4.51."""
    name = re.sub(r"model\.model\.language_model\.", "model.language_model.model.", name)
    name = name.replace("model.model.vision_tower.", "model.vision_tower.vision_model.")
    return name.replace("model.model.multi_modal_projector", "model.multi_modal_projector")


def deeper_tower(name: str) -> str:
    """Gemma 3 in transformers 4.52 to 4.57."""
    return name.replace("model.vision_tower.", "model.vision_tower.vision_model.")


def twice_inside(name: str) -> str:
    """A language model that kept its own `model` inside the vision-language one."""
    return name.replace("model.language_model.", "model.language_model.model.")


def wrapped(name: str) -> str:
    """Saved without PEFT's own function, from a compiled model under FSDP and DDP."""
    name = name.replace(".weight", ".default.weight").replace("layers.", "layers._checkpoint_wrapped_module.")
    return f"module._orig_mod.{name}"


def as_it_is(name: str) -> str:
    """PEFT with transformers 4.52 or later, ms-swift, LLaMA-Factory and Unsloth."""
    return name


# How PEFT's `target_parameters` name routed experts: in full, or by the end of their names.
BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
# What tools write beside PEFT's own, where modules are chosen by a pattern of old names.
SWIFT = {"target_modules": r"^(model)(?!.*(lm_head|visual)).*\.(q_proj|up_proj)$", "modules_to_save": []}
UNSLOTH = {
    "target_modules": r"(?:.*?(?:vision|language).*?(?:self_attn|mlp).*?(?:q_proj|up_proj))",
    "auto_mapping": {"base_model_class": "X", "parent_library": "transformers", "unsloth_fixed": True},
    "task_type": "CAUSAL_LM",
}
FACTORY = {
    "target_modules": ["q_proj", "up_proj"],
    "exclude_modules": "visual",
    "layers_to_transform": [0, 1],
}
LAYOUTS: dict[str, tuple[str, Rename, dict[str, Any]]] = {
    "qwen_4.51": ("qwen3_vl", side_by_side, {}),
    "qwen_5": ("qwen3_vl", as_it_is, {}),
    "qwen_swift": ("qwen3_vl", as_it_is, SWIFT),
    "qwen_swift_4.51": ("qwen3_vl", side_by_side, SWIFT),
    "qwen_factory_4.51": ("qwen3_vl", side_by_side, FACTORY),
    "qwen_unsloth": ("qwen3_vl", as_it_is, UNSLOTH),
    "qwen_inside": ("qwen3_vl", twice_inside, {}),
    "qwen_wrapped": ("qwen3_vl", wrapped, {}),
    "glm_4.51": ("glm4v", side_by_side, {}),
    "gemma_4.51": ("gemma3", head_inside, FACTORY),
    "gemma_4.52": ("gemma3", deeper_tower, {}),
    "gemma_5": ("gemma3", as_it_is, UNSLOTH),
    "qwen_moe_swift": ("qwen3_vl_moe", as_it_is, SWIFT | {"target_parameters": BOTH}),
    "qwen_moe_unsloth": ("qwen3_vl_moe", as_it_is, UNSLOTH | {"target_parameters": BOTH[::-1]}),
    "qwen_moe_factory_4.51": ("qwen3_vl_moe", side_by_side, FACTORY | {"target_parameters": BOTH}),
    "qwen_moe_wrapped": ("qwen3_vl_moe", wrapped, {"target_parameters": BOTH}),
    "qwen_moe_inside": ("qwen3_vl_moe", twice_inside, {"target_parameters": BOTH}),
    "glm_moe_swift": ("glm4v_moe", as_it_is, SWIFT | {"target_parameters": BOTH}),
    "glm_moe_unsloth": ("glm4v_moe", as_it_is, UNSLOTH | {"target_parameters": BOTH}),
    "glm_moe_factory_4.51": ("glm4v_moe", side_by_side, FACTORY | {"target_parameters": BOTH}),
    "glm_moe_wrapped": ("glm4v_moe", wrapped, {"target_parameters": BOTH}),
}


def linears_of(family: str) -> list[str]:
    known = families.get(family)
    return [name for tower in TOWERS for name in known.expected_linears(CONFIG, tower)]


def make_base(root: Path, family: str, *more: str) -> Path:
    """A checkpoint with the family's linears, and `more` weights, under their published names."""
    root.mkdir()
    weights = [*(f"{name}.weight" for name in linears_of(family)), *more]
    names = [families.get(family).layout.disk_name(name) for name in weights]
    save_file({name: torch.zeros(6, 4) for name in names}, root / "model.safetensors")
    return root


def make_adapter(family: str) -> Tensors:
    """By today's names, each tensor unlike the others."""
    tensors: Tensors = {}
    for number, name in enumerate(linears_of(family)):
        tensors[f"{PREFIX}{name}.lora_A.weight"] = torch.full((2, 4), number + 0.25)
        tensors[f"{PREFIX}{name}.lora_B.weight"] = torch.full((6, 2), number + 0.5)
    for number, name in enumerate(experts_of(family)):
        # PEFT wraps a layer's first parameter, then that wrapper for the second.
        module, _, parameter = name.rpartition(".")
        wrapper = f"{PREFIX}{module}{'.base_layer' if parameter == 'gate_up_proj' else ''}"
        tensors[f"{wrapper}.lora_A.weight"] = torch.full((3 * 2, 4), -number - 0.25)
        tensors[f"{wrapper}.lora_B.weight"] = torch.full((6, 2 * 3), -number - 0.5)
    return tensors


def experts_of(family: str) -> list[str]:
    """Fused parameters of a layer's three experts, in full."""
    experts = families.get(family).experts
    return experts.fused(CONFIG) if experts else []


def save(root: Path, tensors: Tensors, config: dict[str, Any]) -> Path:
    root.mkdir()
    save_file(tensors, root / ADAPTER_WEIGHTS)
    stated = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]} | config
    (root / ADAPTER_CONFIG).write_text(json.dumps(stated))
    return root


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_tensor_comes_under_its_name(tmp_path: Path, name: str) -> None:
    family, rename, config = LAYOUTS[name]
    base, expected = make_base(tmp_path / "base", family), make_adapter(family)
    saved = {rename(each): tensor for each, tensor in expected.items()}
    assert name.endswith(("5", "swift", "unsloth")) or saved.keys() != expected.keys()
    source = save(tmp_path / "saved", saved, config)
    rewrite_adapter(source, tmp_path / "out", open_checkpoint(base), families.get(family))
    found = load_file(tmp_path / "out" / ADAPTER_WEIGHTS)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[each], expected[each]) for each in expected)
    stated = json.loads((tmp_path / "out" / ADAPTER_CONFIG).read_bytes())
    assert stated["target_modules"] == sorted(linears_of(family))
    assert not any(stated.get(each) for each in ("exclude_modules", "layers_to_transform"))
    if experts_of(family):
        adapter = read_adapter(tmp_path / "out", families.get(family).experts)
        assert sorted(adapter.experts) == sorted(experts_of(family))
        for number, each in enumerate(experts_of(family)):
            delta = adapter.experts[each]
            assert adapter.file.read(delta.a)[0, 0] == -number - 0.25, "of this parameter, not of the other"
            assert shape_of(adapter.file, delta) == (3, 6, 4)


def test_experts_keep_their_ranks_and_scales_by_the_names_that_the_tool_knew(tmp_path: Path) -> None:
    """Named in full, as a pattern or a target: by today's names they would be left to the default."""
    family = families.get("qwen3_vl_moe")
    tensors = {twice_inside(name): each for name, each in make_adapter(family.name).items()}
    old = [twice_inside(PREFIX + each).removeprefix(PREFIX) for each in experts_of(family.name)]
    assert old != experts_of(family.name)
    config = {"target_parameters": old, "alpha_pattern": {f"^{old[0]}": 64, "experts.down_proj": 2}}
    base = make_base(tmp_path / "base", family.name)
    source = save(tmp_path / "saved", tensors, config)
    rewrite_adapter(source, tmp_path / "out", open_checkpoint(base), family)
    adapter = read_adapter(tmp_path / "out", family.experts)
    scales = [adapter.experts[each].scale for each in experts_of(family.name)]
    assert scales == [32.0, 1.0, 2.0, 1.0]
    stated = json.loads((tmp_path / "out" / ADAPTER_CONFIG).read_bytes())
    assert sorted(stated["target_parameters"]) == sorted(experts_of(family.name))


@pytest.mark.parametrize("parameter", ["gate_up_proj", "down_proj"])
def test_of_one_adapted_parameter_the_wrapper_is_the_only_one(tmp_path: Path, parameter: str) -> None:
    """Its name says no more: which one it is, the config does."""
    family = families.get("qwen3_vl_moe")
    tensors = {name: each for name, each in make_adapter(family.name).items() if ".base_layer" not in name}
    base = make_base(tmp_path / "base", family.name)
    source = save(tmp_path / "saved", tensors, {"target_parameters": [f"experts.{parameter}"]})
    rewrite_adapter(source, tmp_path / "out", open_checkpoint(base), family)
    adapter = read_adapter(tmp_path / "out", family.experts)
    assert sorted(adapter.experts) == [each for each in sorted(experts_of(family.name)) if parameter in each]


def test_an_adapted_parameter_without_its_tensors_is_refused(tmp_path: Path) -> None:
    """Or tensors of a parameter that the config does not name: another version's names for it."""
    family = families.get("qwen3_vl_moe")
    base = make_base(tmp_path / "base", family.name)
    whole = make_adapter(family.name)
    half = {name: each for name, each in whole.items() if ".base_layer" not in name}
    for number, (tensors, config, words) in enumerate(
        [
            (half, {"target_parameters": BOTH}, "has no lora_A and lora_B"),
            (whole, {"target_parameters": BOTH[:1]}, "mlp.experts"),
            (whole, {}, "mlp.experts"),
        ]
    ):
        source, out = save(tmp_path / f"saved{number}", tensors, config), tmp_path / f"out{number}"
        rewrite_adapter(source, out, open_checkpoint(base), family)
        with pytest.raises(InputError) as caught:
            plan_lora(open_checkpoint(base), family, out)
        assert words in str(caught.value)


def test_ranks_and_scales_stay_with_their_modules(tmp_path: Path) -> None:
    """Patterns are of the names that the tool knew, and the first that fits counts."""
    base, expected = make_base(tmp_path / "base", "qwen3_vl"), make_adapter("qwen3_vl")
    patterns = {r"model\.layers\.1\.self_attn\.q_proj": 8, "q_proj": 3, r"visual\.blocks\.0\..*": 5}
    config = {"rank_pattern": patterns, "alpha_pattern": patterns}
    source = save(tmp_path / "saved", {side_by_side(each): t for each, t in expected.items()}, config)
    rewrite_adapter(source, tmp_path / "out", open_checkpoint(base), families.get("qwen3_vl"))
    stated = json.loads((tmp_path / "out" / ADAPTER_CONFIG).read_bytes())
    before = json.loads((source / ADAPTER_CONFIG).read_bytes())
    for name in linears_of("qwen3_vl"):
        old = side_by_side(f"{PREFIX}{name}").removeprefix(PREFIX)
        assert rank_and_scale(stated, name) == rank_and_scale(before, old), name
    assert rank_and_scale(stated, "model.language_model.layers.1.self_attn.q_proj")[0] == 8


HELD = ("lm_head.weight", "model.language_model.embed_tokens.weight", "model.visual.blocks.0.attn.qkv.bias")
COPY = ".modules_to_save.default.weight"


@pytest.mark.parametrize(
    ("rename", "embeddings"),
    [
        (as_it_is, "language_model.embed_tokens"),
        (side_by_side, "model.embed_tokens"),
        (wrapped, "embed_tokens"),
    ],
)
def test_what_is_held_whole_comes_under_its_name(tmp_path: Path, rename: Rename, embeddings: str) -> None:
    """Modules that PEFT copied, and biases of those that it wrapped; the config names the modules in full."""
    base = make_base(tmp_path / "base", "qwen3_vl", *HELD)
    expected = make_adapter("qwen3_vl")
    for number, name in enumerate(HELD):
        expected[PREFIX + name] = torch.full((6,) if name.endswith("bias") else (6, 4), number + 0.75)
    saved = {rename(each.replace("qkv.bias", "qkv.base_layer.bias")): t for each, t in expected.items()}
    if rename is wrapped:
        saved = {
            name.replace(".default.weight", COPY) if "lora" not in name else name: each
            for name, each in saved.items()
        }
        assert sum(COPY in name for name in saved) == 2
    config = {"modules_to_save": ["lm_head", embeddings], "bias": "lora_only"}
    source = save(tmp_path / "saved", saved, config)
    rewrite_adapter(source, tmp_path / "out", open_checkpoint(base), families.get("qwen3_vl"))
    found = load_file(tmp_path / "out" / ADAPTER_WEIGHTS)
    named = {each.replace("qkv.bias", "qkv.base_layer.bias"): tensor for each, tensor in expected.items()}
    assert found.keys() == named.keys()
    assert all(torch.equal(found[each], named[each]) for each in named)
    stated = json.loads((tmp_path / "out" / ADAPTER_CONFIG).read_bytes())
    assert stated["modules_to_save"] == ["lm_head", "model.language_model.embed_tokens"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: t | {f"{PREFIX}model.text.layers.0.q_proj.lora_A.weight": torch.ones(2, 4)},
            "no such module",
        ),
        (
            lambda t: {name.replace("layers.1.", "layers.7."): each for name, each in t.items()},
            "no such module",
        ),
        (lambda t: t | {f"{PREFIX}model.lm_head.weight": torch.ones(2, 4)}, "it has no place here"),
        (
            lambda t: t | {side_by_side(name): each.clone() for name, each in t.items()},
            "as another tensor does",
        ),
    ],
)
def test_what_fits_nowhere_or_twice_is_refused(
    tmp_path: Path, change: Callable[[Tensors], Tensors], words: str
) -> None:
    base, tensors = make_base(tmp_path / "base", "qwen3_vl"), change(make_adapter("qwen3_vl"))
    source = save(tmp_path / "saved", tensors, {})
    with pytest.raises(InputError) as caught:
        rewrite_adapter(source, tmp_path / "out", open_checkpoint(base), families.get("qwen3_vl"))
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inside", ["model.language_model.", "model.language_model.model.", "model."])
def test_an_expert_by_itself_is_refused(tmp_path: Path, inside: str) -> None:
    """transformers 4 had a linear an expert, as GLM-4.6V has it on disk; to PEFT it is in no module now."""
    expert = "layers.1.mlp.experts.3.gate_proj"
    base = make_base(tmp_path / "base", "glm4v_moe", f"model.language_model.{expert}.weight")
    name = f"{PREFIX}{inside}{expert}.lora_A.weight"
    source = save(tmp_path / "saved", make_adapter("glm4v_moe") | {name: torch.ones(2, 4)}, {})
    with pytest.raises(InputError) as caught:
        rewrite_adapter(source, tmp_path / "out", open_checkpoint(base), families.get("glm4v_moe"))
    (problem,) = caught.value.problems
    assert (problem.where, problem.what.split(",")[0]) == (name, "is of one expert")


def test_rows_of_new_tokens_are_refused_by_their_name(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", "qwen3_vl", "model.language_model.embed_tokens.weight")
    name = f"{PREFIX}model.language_model.embed_tokens.token_adapter.trainable_tokens_delta"
    config = {"trainable_token_indices": {"embed_tokens": [5]}}
    source = save(tmp_path / "saved", make_adapter("qwen3_vl") | {name: torch.ones(1, 4)}, config)
    with pytest.raises(InputError, match="holds rows of new tokens"):
        rewrite_adapter(source, tmp_path / "out", open_checkpoint(base), families.get("qwen3_vl"))


@pytest.mark.slow
def test_from_the_command_line_to_the_same_weights(
    tmp_path: Path, tiny_base: Path, bank_forms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An adapter in the names of transformers 4.51: merged as our own run of it, and PEFT loads it whole."""
    ours = walk(tmp_path / "ours", tiny_base, bank_forms, rank_pattern={"q_proj": 2})
    tensors = load_file(ours.run.path / ADAPTER_WEIGHTS)
    config = json.loads((ours.run.path / ADAPTER_CONFIG).read_bytes())
    old = save(tmp_path / "old", {side_by_side(each): t for each, t in tensors.items()}, config)
    spec = importlib.util.spec_from_file_location("merge_adapter", ROOT / "scripts/merge_adapter.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    base, out = ours.recipe.base.path, tmp_path / "merged"
    given = [str(old), "--base", str(base), "--family", "qwen3_vl", "--out", str(out)]
    assert script.main(given) == 0
    told = capsys.readouterr().out
    assert "26 of 64 tensors changed, float32" in told
    assert "proven: 26 of 26 merged matrices, computed again" in told
    assert "taken to be trained on the base as it is" in told
    (kept,) = json.loads((out / MERGED).read_bytes())
    assert kept["tensors_sha256"] == ours.model.body["adapters"][0]
    assert kept["source"] == {each.name: digest_file(each) for each in old.iterdir()}
    assert kept["proof"]["adapter"] == {"tensors": 52, "modules": 26, "used_once": 52}
    assert kept["proof"]["shards"] == {"model.safetensors": digest_file(out / "model.safetensors")}
    merged, expected = (load_file(each / "model.safetensors") for each in (out, ours.model.path))
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], expected[name]) for name in expected)
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged", "merged.adapter", "old", "ours"]
    load_trained(base, tmp_path / "merged.adapter", torch.float32)
    assert script.main(given) == 2
    assert "would be written over" in capsys.readouterr().err
    # Into what holds it already, by whatever name: what was merged here, and what a run of ours became.
    for number, holds in enumerate((out, ours.model.path)):
        again = [str(old), "--base", str(holds), "--family", "qwen3_vl", "--out", str(tmp_path / str(number))]
        assert script.main(again) == 2
        assert f"is already merged into {holds}" in capsys.readouterr().err
        assert not (tmp_path / str(number)).exists()
