"""What benchmarks/merge.py merges: checkpoints of real shapes with random weights, and adapters on them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.sizes import SIZES
from lensmith import families
from lensmith.families.family import Family

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from lensmith.artifact import Artifact

SHARDS, RANK, ALPHA = 4, 16, 32
# Standard deviations: of weights, and of both matrices of an adapter.
SPREAD, CHANGE = 0.02, 0.05
# Random values are drawn once and repeated; no tensor's size divides by their number.
_DRAWN = (16 << 20) + 1


@dataclass(frozen=True)
class Case:
    """A family, and what makes its config: transformers is imported then."""

    family: Family
    config: Callable[[], PreTrainedConfig]


def _dense(layers: int) -> Callable[[], PreTrainedConfig]:
    """Qwen3-VL-2B's config.json, with as many decoder layers."""

    def config() -> PreTrainedConfig:
        from transformers import Qwen3VLConfig

        text = {
            "vocab_size": 151_936,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": layers,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "tie_word_embeddings": True,
        }
        vision = {
            "hidden_size": 1024,
            "depth": 24,
            "intermediate_size": 4096,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "deepstack_visual_indexes": [5, 11, 17],
        }
        return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)

    return config


def _fused() -> PreTrainedConfig:
    """Qwen3-VL-30B-A3B's, with 3 decoder layers for 48."""
    from transformers import Qwen3VLMoeConfig

    size = SIZES["qwen3_vl_30b_a3b"]
    return Qwen3VLMoeConfig(text_config=size.text | {"num_hidden_layers": 3}, vision_config=size.vision)


def _apart() -> PreTrainedConfig:
    """GLM-4.6V's, with a dense and a sparse decoder layer, half of the experts, and 4 layers that see."""
    from transformers import Glm4vMoeConfig

    text = {
        "vocab_size": 151_552,
        "hidden_size": 4096,
        "intermediate_size": 10_944,
        "moe_intermediate_size": 1408,
        "n_routed_experts": 64,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "num_hidden_layers": 2,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
    }
    vision = {"depth": 4, "hidden_size": 1536, "intermediate_size": 10_944, "out_hidden_size": 4096}
    return Glm4vMoeConfig(text_config=text, vision_config=vision)


CASES = {
    "dense": Case(families.get("qwen3_vl"), _dense(28)),
    "double": Case(families.get("qwen3_vl"), _dense(56)),
    "fused": Case(families.get("qwen3_vl_moe"), _fused),
    "apart": Case(families.get("glm4v_moe"), _apart),
}


def make_case(case: Case, folder: Path, adapters: int = 1) -> tuple[int, int]:
    """Write base and runs, each with an adapter, into `folder`: bytes and number of the base's tensors."""
    from finetune.layout import find_places
    from finetune.model import load_skeleton

    base = folder / "base"
    base.mkdir()
    config = case.config()
    config.architectures = [case.family.architecture]
    config.save_pretrained(base)
    model = load_skeleton(base)
    held = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, parts in find_places(held, case.family, model.config.to_dict()).items():
        pieces = [part.shape(held[part.name]) for part in parts]
        shapes[name] = (sum(piece[0] for piece in pieces), *pieces[0][1:])
    _write_base(base, shapes)
    for number in range(adapters):
        _write_run(case, folder, model.config.to_dict(), held, number)
    return sum(2 * math.prod(shape) for shape in shapes.values()), len(shapes)


def open_case(folder: Path) -> tuple[Case, Artifact]:
    """The case that lies in `folder`, and its first run."""
    run = open_runs(folder)[0]
    return CASES[run.body["case"]], run


def open_runs(folder: Path) -> list[Artifact]:
    """The runs of the case, as they were made."""
    from lensmith.home import Home

    return sorted(Home(folder / "home").all("run"), key=lambda each: each.manifest.key)


def _write_base(root: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """The tensors in bfloat16 in `SHARDS` files of about the same size, as they come, and an index."""
    import torch

    drawn = torch.randn(_DRAWN, generator=torch.Generator().manual_seed(1)).mul_(SPREAD)
    values = drawn.bfloat16().view(torch.uint8).numpy().data
    whole = sum(2 * math.prod(shape) for shape in shapes.values())
    shards: list[dict[str, int]] = [{} for _ in range(SHARDS)]
    written = 0
    for name, shape in shapes.items():
        shards[min(written * SHARDS // whole, SHARDS - 1)][name] = 2 * math.prod(shape)
        written += 2 * math.prod(shape)
    index: dict[str, str] = {}
    drawn_at = 0
    for number, sizes in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{SHARDS:05}.safetensors"
        at, header = 0, {}
        for name, size in sizes.items():
            header[name] = {"dtype": "BF16", "shape": list(shapes[name]), "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
        with (root / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            left = at
            while left:
                piece = values[drawn_at : drawn_at + left]
                stream.write(piece)
                left -= len(piece)
                drawn_at = (drawn_at + len(piece)) % len(values)
        index |= dict.fromkeys(sizes, file)
    content = {"metadata": {"total_size": whole}, "weight_map": index}
    (root / "model.safetensors.index.json").write_text(json.dumps(content))


def _write_run(
    case: Case,
    folder: Path,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    number: int,
) -> None:
    """A run with an adapter on every linear layer of all towers and all routed experts, as PEFT saves it."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file

    from lensmith.families.family import TOWERS
    from lensmith.home import Home

    linears = [name for tower in TOWERS for name in case.family.expected_linears(dict(config), tower)]
    experts = case.family.experts
    fused = experts.fused(config) if experts else []
    draw = torch.Generator().manual_seed(2 + number)
    tensors: dict[str, torch.Tensor] = {}

    def add(module: str, a: tuple[int, int], b: tuple[int, int]) -> None:
        for side, shape in (("A", a), ("B", b)):
            value = torch.randn(shape, generator=draw) * CHANGE
            tensors[f"base_model.model.{module}.lora_{side}.weight"] = value

    for name in linears:
        out, into = shapes[f"{name}.weight"]
        add(name, (RANK, into), (out, RANK))
    for name in fused:
        count, out, into = shapes[name]
        module, _, parameter = name.rpartition(".")
        # The parameter that PEFT wraps first lies deepest.
        depth = len(experts.parameters) - 1 - experts.parameters.index(parameter) if experts else 0
        add(module + ".base_layer" * depth, (RANK * count, into), (out, RANK * count))
    with Home(folder / "home").create("run", f"{number:064}", {}) as draft:
        LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,
            target_modules=linears,
            target_parameters=fused or None,
            base_model_name_or_path=str(folder / "base"),
            inference_mode=True,
        ).save_pretrained(str(draft.path))
        save_file(tensors, draft.path / "adapter_model.safetensors", {"format": "pt"})
        name = next(name for name, each in CASES.items() if each is case)
        draft.body.update(method="lora", case=name)
