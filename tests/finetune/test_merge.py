"""Merged weights equal the definition in every bit, and what cannot be merged is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from finetune.merge import merge
from finetune.merging.adapter_config import rank_and_scale
from lensmith.artifact import Artifact
from lensmith.base import pin_base
from lensmith.errors import InputError, IntegrityError
from lensmith.home import Home
from tests.artifacts import make_full_run, make_run
from tests.finetune.merged import Walk, as_bfloat16, as_shards, as_tied, lively_base, recipe_for, walk

# A walk and its merges are half a minute: too long for the half that runs all the time.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, bank_forms: Path) -> Walk:
    return walk(tmp_path_factory.mktemp("walk"), tiny_base, bank_forms)


def tensors_of(root: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in root.glob("*.safetensors") for name, tensor in load_file(path).items()}


def assert_bit_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor.view(torch.uint8), expected[name].contiguous().view(torch.uint8)), name


def merged_by_peft(base: Path, run: Path) -> dict[str, torch.Tensor]:
    model = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base, dtype="auto"), run)
    return dict(model.merge_and_unload(safe_merge=False).state_dict())


def edited_run(whole: Walk, name: str, *, config: dict[str, Any] | None = None, **others: Any) -> Artifact:
    """The walk's run with changes in its adapter's config or, by `tensors`, in its tensors."""
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = others.get("tensors", lambda t: t)
    with whole.home.create("run", f"{name:0>24}", others.get("inputs", {"base": whole.base})) as draft:
        content = json.loads((whole.run.path / "adapter_config.json").read_bytes()) | (config or {})
        (draft.path / "adapter_config.json").write_text(json.dumps(content))
        save_file(
            change(load_file(whole.run.path / "adapter_model.safetensors")),
            draft.path / "adapter_model.safetensors",
        )
        draft.body.update(whole.run.body)
    return draft.artifact


def refusal(whole: Walk, run: Artifact) -> str:
    before = sorted(whole.home.root.glob("artifacts/model/*"))
    with pytest.raises(InputError) as caught:
        merge(whole.recipe, whole.home, whole.base, run)
    assert sorted(whole.home.root.glob("artifacts/model/*")) == before
    return str(caught.value)


def test_float32_is_bit_equal_to_peft(whole: Walk) -> None:
    assert_bit_equal(tensors_of(whole.model.path), merged_by_peft(whole.recipe.base.path, whole.run.path))
    assert whole.model.body["tensors_changed"] == 26
    assert whole.model.body["dtype"] == "float32"


@pytest.mark.parametrize("change", [as_bfloat16, as_shards, as_tied])
def test_other_bases_are_bit_equal_to_peft(
    tmp_path: Path, tiny_base: Path, bank_forms: Path, change: Callable[[Path], None]
) -> None:
    other = walk(tmp_path, tiny_base, bank_forms, change)
    expected = merged_by_peft(other.recipe.base.path, other.run.path)
    stored = tensors_of(other.recipe.base.path)
    assert_bit_equal(tensors_of(other.model.path), {name: expected[name] for name in stored})
    for path in other.recipe.base.path.glob("*.safetensors"):
        assert load_file(path).keys() == load_file(other.model.path / path.name).keys()
    for path in other.recipe.base.path.glob("*.index.json"):
        index = json.loads((other.model.path / path.name).read_bytes())
        assert index["weight_map"] == json.loads(path.read_bytes())["weight_map"]
        assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in stored.values())


def test_patterns_and_rslora_are_bit_equal_to_peft(whole: Walk) -> None:
    run = make_run(
        whole.home,
        whole.base,
        ("language", "connector"),
        rslora=True,
        rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 6},
        alpha_pattern={"v_proj": 3},
    )
    model = merge(whole.recipe, whole.home, whole.base, run)
    assert_bit_equal(tensors_of(model.path), merged_by_peft(whole.recipe.base.path, run.path))


@pytest.mark.parametrize("change", [None, as_bfloat16, as_tied])
def test_dora_is_bit_equal_to_peft(
    tmp_path: Path, tiny_base: Path, bank_forms: Path, change: Callable[[Path], None] | None
) -> None:
    other = walk(tmp_path, tiny_base, bank_forms, change, dora=True, rslora=True, rank_pattern={"q_proj": 2})
    expected = merged_by_peft(other.recipe.base.path, other.run.path)
    stored = tensors_of(other.recipe.base.path)
    assert_bit_equal(tensors_of(other.model.path), {name: expected[name] for name in stored})
    assert other.model.body["tensors_changed"] == 26


def test_blocks_of_rows_give_the_same_bits(
    whole: Walk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(whole.home, whole.base, dora=True)
    in_one = tensors_of(merge(whole.recipe, whole.home, whole.base, run).path)
    # At least 32 rows a block: 64 inputs to a row.
    monkeypatch.setattr("finetune.merging.shard._BLOCK", 32 * 64)
    monkeypatch.setattr("finetune.merging.shard._ROWS", 32)
    in_blocks = merge(whole.recipe, Home(tmp_path), whole.base, run)
    assert_bit_equal(tensors_of(in_blocks.path), in_one)


def test_a_pattern_fits_the_end_of_a_name() -> None:
    config = {"r": 8, "lora_alpha": 16, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {r"1\.q_proj": 2}}
    assert rank_and_scale(config, "a.0.q_proj") == (4, 4.0)
    assert rank_and_scale(config, "a.1.q_proj") == (4, 0.5)
    assert rank_and_scale(config, "a.1.xq_proj") == (8, 2.0)


def test_the_merged_checkpoint_is_whole(whole: Walk) -> None:
    base, model = whole.recipe.base.path, whole.model.path
    for name in ("chat_template.jinja", "config.json", "generation_config.json", "LICENSE", "tokenizer.json"):
        assert (model / name).read_bytes() == (base / name).read_bytes()
    assert whole.model.body["template"] == whole.base.body["template"]
    assert whole.model.manifest.inputs == {"base": whole.base.id, "run": whole.run.id}
    AutoProcessor.from_pretrained(model)


def test_code_and_pickles_stay_behind(tmp_path: Path, tiny_base: Path, bank_forms: Path) -> None:
    def add(base: Path) -> None:
        for name in ("modeling.py", "pytorch_model.bin", "optimizer.pt", "README.md"):
            (base / name).write_text("x")

    model = walk(tmp_path, tiny_base, bank_forms, add).model
    assert {path.suffix for path in model.path.iterdir()} == {".json", ".jinja", ".safetensors", ""}


def test_the_pixel_budget_is_written(whole: Walk, bank_forms: Path, tmp_path: Path) -> None:
    recipe = recipe_for(
        whole.recipe.base.path,
        bank_forms,
        tmp_path / "recipe.yaml",
        pixels={"min_pixels": 2048, "max_pixels": 16384},
    )
    model = merge(recipe, whole.home, whole.base, whole.run)
    assert model.id != whole.model.id
    size = AutoProcessor.from_pretrained(model.path).image_processor.size
    assert (size["shortest_edge"], size["longest_edge"]) == (2048, 16384)


def test_done_is_not_done_again(whole: Walk) -> None:
    before = (whole.model.path / "manifest.json").stat().st_mtime_ns
    again = merge(whole.recipe, whole.home, whole.base, whole.run)
    assert (again.path / "manifest.json").stat().st_mtime_ns == before


def test_killed_and_run_again_gives_the_same(whole: Walk, tmp_path: Path) -> None:
    home = Home(tmp_path)
    partial = home.artifact_path("model", whole.model.manifest.key)
    partial = partial.with_name(f"{partial.name}.partial")
    partial.mkdir(parents=True)
    (partial / "model.safetensors").write_bytes(b"half")
    (partial / "left.json").write_bytes(b"{}")
    assert merge(whole.recipe, home, whole.base, whole.run).id == whole.model.id


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("target_parameters", ["mlp.experts.gate_up_proj"]),
        ("a_setting_of_the_future", 1),
        ("init_lora_weights", "pissa"),
        ("peft_type", "LOHA"),
    ],
)
def test_what_this_version_does_not_merge_is_refused(whole: Walk, setting: str, value: Any) -> None:
    text = refusal(whole, edited_run(whole, f"setting-{setting}", config={setting: value}))
    assert setting in text


Tensors = dict[str, torch.Tensor]


def without_one(tensors: Tensors) -> Tensors:
    return dict(list(tensors.items())[1:])


def renamed(tensors: Tensors) -> Tensors:
    return {name.replace("language_model", "text_model"): tensor for name, tensor in tensors.items()}


def zero(tensors: Tensors) -> Tensors:
    return {name: tensor * ("lora_B" not in name) for name, tensor in tensors.items()}


def not_a_number(tensors: Tensors) -> Tensors:
    name = next(iter(tensors))
    return tensors | {name: torch.full_like(tensors[name], float("nan"))}


def extra(tensors: Tensors) -> Tensors:
    return tensors | {"base_model.model.lm_head.weight": torch.ones(2, 2)}


def wider(tensors: Tensors) -> Tensors:
    name = next(name for name in tensors if "lora_A" in name)
    return tensors | {name: torch.ones(4, tensors[name].shape[1] + 1)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_one, "has no lora_"),
        (renamed, "the base has no"),
        (zero, "changes nothing"),
        (not_a_number, "NaN"),
        (extra, "has no place here"),
        (wider, "another base"),
        (lambda tensors: {}, "no LoRA tensors"),
    ],
)
def test_broken_adapters_are_refused(
    whole: Walk, change: Callable[[Tensors], Tensors], words: str, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id[:20]
    assert words in refusal(whole, edited_run(whole, name, tensors=change))


MAGNITUDE = "base_model.model.model.visual.blocks.0.attn.qkv.lora_magnitude_vector"


@pytest.mark.parametrize(
    ("config", "change", "words"),
    [
        # A config that says DoRA without its tensors, and tensors that the config does not speak of.
        ({"use_dora": True}, lambda tensors: tensors, "has no lora_magnitude_vector"),
        ({}, lambda tensors: tensors | {MAGNITUDE: torch.ones(192)}, "has no place here"),
    ],
)
def test_magnitudes_and_config_must_agree(
    whole: Walk,
    config: dict[str, Any],
    change: Callable[[Tensors], Tensors],
    words: str,
    request: pytest.FixtureRequest,
) -> None:
    name = request.node.callspec.id[-20:]
    assert words in refusal(whole, edited_run(whole, name, config=config, tensors=change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors | {MAGNITUDE: torch.ones(191)}, "its magnitude is [191]"),
        (lambda tensors: tensors | {MAGNITUDE: torch.ones(192, 1)}, "not a matrix of floats"),
        (lambda tensors: tensors | {f"{MAGNITUDE}.weight": tensors[MAGNITUDE].clone()}, "has no place here"),
        (lambda tensors: {name: t for name, t in tensors.items() if name != MAGNITUDE}, "has no lora_magni"),
    ],
)
def test_broken_magnitudes_are_refused(
    whole: Walk, change: Callable[[Tensors], Tensors], words: str, request: pytest.FixtureRequest
) -> None:
    sound = replace(whole, run=make_run(whole.home, whole.base, dora=True))
    name = request.node.callspec.id[-20:]
    assert words in refusal(sound, edited_run(sound, f"m{name}", tensors=change))


def test_untrained_magnitudes_change_nothing(whole: Walk) -> None:
    run = make_run(whole.home, whole.base, dora=True, scale=0.0)
    base = tensors_of(whole.recipe.base.path)

    def starting(tensors: Tensors) -> Tensors:
        return {
            name: torch.linalg.norm(
                base[name.removeprefix("base_model.model.").replace("lora_magnitude_vector", "weight")], dim=1
            )
            if "magnitude" in name
            else tensor
            for name, tensor in tensors.items()
        }

    sound = replace(whole, run=run)
    assert "changes nothing" in refusal(sound, edited_run(sound, "starting", tensors=starting))


def test_a_wrong_rank_is_refused(whole: Walk) -> None:
    assert "the config says rank 8" in refusal(whole, edited_run(whole, "rank", config={"r": 8}))


@pytest.mark.parametrize(
    "setting", [{"lora_alpha": 16}, {"alpha_pattern": {"q_proj": 16}}, {"use_rslora": True}]
)
def test_another_alpha_than_was_trained_with_is_refused(whole: Walk, setting: dict[str, Any]) -> None:
    """Nothing in the tensors says it: what says it is the run's own manifest."""
    run = edited_run(
        whole, f"alpha-{next(iter(setting))}"[:24], tensors=lambda t: {n: v * 2 for n, v in t.items()}
    )
    path = run.path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | setting))
    before = sorted(whole.home.root.glob("artifacts/model/*"))
    with pytest.raises(IntegrityError, match=r"adapter_config\.json"):
        merge(whole.recipe, whole.home, whole.base, run)
    assert sorted(whole.home.root.glob("artifacts/model/*")) == before


def test_changes_that_rounding_swallows_are_refused(
    tmp_path: Path, tiny_base: Path, bank_forms: Path
) -> None:
    root = lively_base(tiny_base, tmp_path / "base", as_bfloat16)
    recipe, home = recipe_for(root, bank_forms, tmp_path / "r.yaml"), Home(tmp_path / "home")
    base = pin_base(recipe, home)
    with pytest.raises(InputError, match="changes nothing"):
        merge(recipe, home, base, make_run(home, base, scale=1e-9))


def test_a_tied_head_is_not_adapted(tmp_path: Path, tiny_base: Path, bank_forms: Path) -> None:
    def tied_and_stored(base: Path) -> None:
        head = load_file(base / "model.safetensors")["lm_head.weight"]
        as_tied(base)
        tensors = load_file(base / "model.safetensors") | {"lm_head.weight": head}
        save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})

    other = walk(tmp_path, tiny_base, bank_forms, tied_and_stored)
    on_head = {
        "base_model.model.lm_head.lora_A.weight": torch.ones(4, 64),
        "base_model.model.lm_head.lora_B.weight": torch.ones(1024, 4),
    }
    assert "ties to its embeddings" in refusal(other, edited_run(other, "h", tensors=lambda t: t | on_head))


def test_a_run_of_another_base_is_refused(whole: Walk) -> None:
    other = edited_run(whole, "other", inputs={"base": whole.held_out})
    assert "trained on another base" in refusal(whole, other)


def test_a_merged_model_is_not_merged_again(whole: Walk) -> None:
    text = refusal(replace(whole, base=whole.model), whole.run)
    assert "merged twice" in text


def test_a_base_changed_since_it_was_pinned_is_refused(
    tmp_path: Path, tiny_base: Path, bank_forms: Path
) -> None:
    other = walk(tmp_path, tiny_base, bank_forms)
    run = make_run(other.home, other.base, seed=2)
    path = other.recipe.base.path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(IntegrityError, match="not what was pinned"):
        merge(other.recipe, other.home, other.base, run)


def test_full_takes_the_runs_weights_in_the_bases_dtype(
    tmp_path: Path, tiny_base: Path, bank_forms: Path
) -> None:
    root = lively_base(tiny_base, tmp_path / "base", as_bfloat16)
    recipe, home = recipe_for(root, bank_forms, tmp_path / "r.yaml"), Home(tmp_path / "home")
    base = pin_base(recipe, home)
    run = make_full_run(home, base)
    with home.create("run", "float32" * 4, {"base": base}) as draft:
        for path in run.path.iterdir():
            if path.name != "manifest.json":
                (draft.path / path.name).write_bytes(path.read_bytes())
        trained = {name: tensor.float() + 1e-4 for name, tensor in tensors_of(run.path).items()}
        save_file(trained, draft.path / "model.safetensors", metadata={"format": "pt"})
        draft.body.update(run.body)
    model = merge(recipe, home, base, draft.artifact)
    assert_bit_equal(tensors_of(model.path), {name: tensor.bfloat16() for name, tensor in trained.items()})
    assert not (model.path / "metrics.jsonl").exists()
