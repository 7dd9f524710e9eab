"""Modules that an outside adapter holds whole, and biases, are merged as PEFT merges them, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import merge_adapter
import pytest
import torch
from merge_adapter import merge
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from finetune.merging.checkpoint import Checkpoint
from finetune.merging.weights import Merged
from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.errors import InputError
from lensmith.families.family import Family
from lensmith.tokens import PixelBudget
from tests.finetune.merged import as_bfloat16, as_tied, lively_base

pytestmark = pytest.mark.slow

WEIGHTS = "model.safetensors"
Tensors = dict[str, torch.Tensor]
Written = Callable[[Path, Family, Path, Path, Path], Merged]
Rewritten = Callable[..., None]
Copied = Callable[[Path, Path, PixelBudget | None], None]
Fault = Callable[[Written], Written]
# All linears of the vision blocks have a bias, none of the language model.
VISION = r".*visual\.blocks\.\d+\.(attn\.(qkv|proj)|mlp\.linear_fc[12])"
LANGUAGE = ["q_proj", "down_proj"]
FORMS: dict[str, dict[str, Any]] = {
    "modules": {
        "target_modules": LANGUAGE,
        "modules_to_save": ["lm_head", "embed_tokens", "visual.merger", "patch_embed"],
    },
    "lora bias": {"target_modules": VISION, "lora_bias": True, "use_rslora": True, "lora_alpha": 3},
    "biases of layers": {"target_modules": VISION, "bias": "lora_only"},
    "all biases": {"target_modules": LANGUAGE, "bias": "all", "modules_to_save": ["lm_head"]},
}


def trained(base: Path, folder: Path, **settings: Any) -> Path:
    """An adapter as PEFT saves it, every weight that it trains moved."""
    model = AutoModelForImageTextToText.from_pretrained(base, dtype="auto")
    adapted = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 8} | settings))
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn(weight.shape, generator=draw).to(weight.dtype))
    adapted.save_pretrained(folder)
    return folder


def merged_by_peft(base: Path, adapter: Path) -> Tensors:
    model = PeftModel.from_pretrained(
        AutoModelForImageTextToText.from_pretrained(base, dtype="auto"), adapter
    )
    return dict(model.merge_and_unload(safe_merge=False).state_dict())


@pytest.mark.parametrize("change", [None, as_bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_bit_equal_to_peft(
    tmp_path: Path, tiny_base: Path, form: str, change: Callable[[Path], None] | None
) -> None:
    base = lively_base(tiny_base, tmp_path / "base", change)
    adapter = trained(base, tmp_path / "adapter", **FORMS[form])
    merge(adapter, base, "qwen3_vl", tmp_path / "out")
    stored, found = (load_file(root / WEIGHTS) for root in (base, tmp_path / "out"))
    expected = merged_by_peft(base, adapter)
    for name, tensor in found.items():
        # PEFT keeps whole modules in float32 beside a base of fewer digits.
        wanted = expected[name].to(stored[name].dtype)
        assert tensor.dtype == stored[name].dtype
        assert torch.equal(tensor, wanted), name
    held = [name for name in load_file(adapter / ADAPTER_WEIGHTS) if ".lora_A." not in name]
    moved = {name for name in stored if not torch.equal(stored[name], found[name])}
    assert len(moved) == len(held)


def edited(adapter: Path, folder: Path, change: Callable[[Tensors], Tensors], **config: Any) -> Path:
    folder.mkdir()
    save_file(change(load_file(adapter / ADAPTER_WEIGHTS)), folder / ADAPTER_WEIGHTS)
    stated = json.loads((adapter / ADAPTER_CONFIG).read_bytes()) | config
    (folder / ADAPTER_CONFIG).write_text(json.dumps(stated))
    return folder


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: each for name, each in tensors.items() if part not in name}


def times(part: str, factor: float) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {n: each * factor if part in n else each for n, each in tensors.items()}


def cut(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {n: each[1:].clone() if part in n else each for n, each in tensors.items()}


def same(tensors: Tensors) -> Tensors:
    return tensors


@pytest.mark.parametrize(
    ("form", "change", "config", "words"),
    [
        ("modules", without("lm_head"), {}, "modules_to_save names it, and no tensor is of it"),
        ("modules", same, {"modules_to_save": ["lm_head"]}, "it has no place here"),
        ("modules", times("lm_head", float("nan")), {}, "holds NaN or infinite values"),
        ("modules", cut("lm_head"), {}, "the adapter belongs to another base"),
        ("lora bias", without("blocks.0.attn.qkv.lora_B.bias"), {}, "lora_bias is on, and it has none"),
        ("lora bias", same, {"lora_bias": False}, "it has no place here"),
        ("biases of layers", same, {"bias": "none"}, "it has no place here"),
    ],
)
def test_what_is_not_whole_or_not_said_is_refused(
    adapters: dict[str, Path],
    tmp_path: Path,
    form: str,
    change: Callable[[Tensors], Tensors],
    config: dict[str, Any],
    words: str,
) -> None:
    adapter = edited(adapters[form], tmp_path / "edited", change, **config)
    with pytest.raises(InputError) as caught:
        merge(adapter, adapters["base"], "qwen3_vl", tmp_path / "out")
    assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> dict[str, Path]:
    """By form an adapter, and their base."""
    root = tmp_path_factory.mktemp("whole")
    base = lively_base(tiny_base, root / "base")
    forms = ("modules", "lora bias", "biases of layers")
    return {"base": base} | {form: trained(base, root / form, **FORMS[form]) for form in forms}


def test_magnitudes_by_their_former_name(tmp_path: Path, tiny_base: Path) -> None:
    """With `.weight`, as PEFT reads it too, and without settings that a version did not know yet."""
    base = lively_base(tiny_base, tmp_path / "base")
    adapter = trained(base, tmp_path / "adapter", target_modules=LANGUAGE, use_dora=True)
    former = edited(adapter, tmp_path / "former", of_former_name)
    config = json.loads((former / ADAPTER_CONFIG).read_bytes())
    known = ("peft_type", "r", "lora_alpha", "target_modules", "use_dora", "bias")
    (former / ADAPTER_CONFIG).write_text(json.dumps({name: config[name] for name in known}))
    for source in (adapter, former):
        merge(source, base, "qwen3_vl", tmp_path / f"{source.name}-merged")
    one, other = (load_file(tmp_path / f"{name}-merged" / WEIGHTS) for name in ("adapter", "former"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def of_former_name(tensors: Tensors) -> Tensors:
    ending = "lora_magnitude_vector"
    return {name + ".weight" * name.endswith(ending): each for name, each in tensors.items()}


def flipped(name: str) -> Fault:
    """One bit of a weight, where it was written."""

    def plant(write: Written) -> Written:
        def written(root: Path, family: Family, adapter: Path, target: Path, work: Path) -> Merged:
            merged = write(root, family, adapter, target, work)
            tensors = load_file(target / WEIGHTS)
            tensors[name].view(-1).view(torch.uint8)[-4] ^= 1
            save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
            return merged

        return written

    return plant


def doubled(write: Written) -> Written:
    """Alpha, as the merge reads it."""

    def written(root: Path, family: Family, adapter: Path, target: Path, work: Path) -> Merged:
        config = (adapter / ADAPTER_CONFIG).read_text()
        twice = json.loads(config) | {"lora_alpha": 2 * json.loads(config)["lora_alpha"]}
        (adapter / ADAPTER_CONFIG).write_text(json.dumps(twice))
        merged = write(root, family, adapter, target, work)
        (adapter / ADAPTER_CONFIG).write_text(config)
        return merged

    return written


def dropped(rewrite: Rewritten) -> Rewritten:
    """A module, out of tensors and settings alike."""

    def rewritten(source: Path, target: Path, base: Checkpoint, family: Family, **given: bool) -> None:
        rewrite(source, target, base, family, **given)
        config = json.loads((target / ADAPTER_CONFIG).read_bytes())
        module = config["target_modules"].pop()
        (target / ADAPTER_CONFIG).write_text(json.dumps(config))
        tensors = without(f"{module}.lora")(load_file(target / ADAPTER_WEIGHTS))
        save_file(tensors, target / ADAPTER_WEIGHTS)

    return rewritten


def edited_config(copy: Copied) -> Copied:
    def copied(root: Path, target: Path, pixels: PixelBudget | None) -> None:
        copy(root, target, pixels)
        (target / "generation_config.json").write_text("{}")

    return copied


QKV = "model.visual.blocks.0.attn.qkv"
DIFFER = "merged matrices differ from the definition: "
FAULTS: dict[str, tuple[str, str, Any, str]] = {
    "a delta": ("lora bias", "merge_adapter", flipped(f"{QKV}.weight"), f"1 {DIFFER}{QKV}.weight"),
    "a bias of B": ("lora bias", "merge_adapter", flipped(f"{QKV}.bias"), f"1 {DIFFER}{QKV}.bias"),
    "a bias": ("biases of layers", "merge_adapter", flipped(f"{QKV}.bias"), f"1 {DIFFER}{QKV}.bias"),
    "a whole module": ("modules", "merge_adapter", flipped("lm_head.weight"), f"1 {DIFFER}lm_head.weight"),
    "what stays": (
        "lora bias",
        "merge_adapter",
        flipped("lm_head.weight"),
        "1 tensors that were not trained differ from the base: lm_head.weight",
    ),
    "alpha doubled": ("lora bias", "merge_adapter", doubled, f"16 {DIFFER}"),
    "a dropped module": ("lora bias", "rewrite_adapter", dropped, "re-keying lost 3 tensors"),
    "a file beside": ("lora bias", "copy_companions", edited_config, "1 files differ from the base's"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_not_proven_is_not_made(
    adapters: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    form, step, fault, words = FAULTS[name]
    monkeypatch.setattr(merge_adapter, step, fault(getattr(merge_adapter, step)))
    given = [str(adapters[form]), "--base", str(adapters["base"]), "--family", "qwen3_vl"]
    assert merge_adapter.main([*given, "--out", str(tmp_path / "out")]) == 4
    told = capsys.readouterr()
    assert words in told.err
    assert "proven" not in told.out
    # Nothing that could be taken for the outcome.
    assert [each.name for each in tmp_path.iterdir()] == ["out.adapter"]


def test_a_tied_head_is_not_taken_apart(tmp_path: Path, tiny_base: Path, adapters: dict[str, Path]) -> None:
    tied = lively_base(tiny_base, tmp_path / "tied", as_tied)
    kept = FORMS["modules"]["modules_to_save"][1:]
    adapter = edited(adapters["modules"], tmp_path / "edited", without("lm_head"), modules_to_save=kept)
    with pytest.raises(InputError, match="ties its output head to its embeddings"):
        merge(adapter, tied, "qwen3_vl", tmp_path / "out")


@pytest.mark.parametrize("name", ["non_lora_state_dict.bin", "vit.safetensors"])
def test_weights_beside_the_adapter_are_not_left_out(
    adapters: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """As some trainers keep what they trained whole; what a training needs to go on is no weight."""
    adapter = edited(adapters["lora bias"], tmp_path / "edited", same)
    (adapter / "training_args.bin").write_bytes(b"x")
    merge(adapter, adapters["base"], "qwen3_vl", tmp_path / "whole")
    (adapter / name).write_bytes(b"x")
    with pytest.raises(InputError, match="holds weights that are not in the adapter"):
        merge(adapter, adapters["base"], "qwen3_vl", tmp_path / "out")
