"""What a LoRA adapter holds, read from its two files without torch."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.errors import InputError, Problem
from lensmith.families.family import Family, Tower
from lensmith.families.layout import AS_IN_CLASS
from serving.engine_adapter import engine_rank

# PEFT's standard layout: base_model.model.<module>.lora_A.weight
_PREFIX = "base_model.model."
_PARTS = (".lora_A.weight", ".lora_B.weight")

# Keys of PEFT's config whose effect vLLM 0.32 does not apply (lora/peft_helper.py), with the values that mean
# "not used". target_parameters: it reads one family's experts alone, by kernels that no test here can run.
# trainable_token_indices: it does not know the key. init_lora_weights: the named starts, of which some change
# the base (PiSSA, OLoRA, CorDA, LoftQ) and none is one of ours.
NOT_APPLIED: dict[str, tuple[Any, ...]] = {
    "use_dora": (None, False),
    "lora_bias": (None, False),
    "bias": (None, "none"),
    "modules_to_save": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, {}, []),
    "init_lora_weights": (None, True, False, "gaussian"),
    "alora_invocation_tokens": (None, []),
    "layer_replication": (None, []),
    "use_bdlora": (None, False, {}),
    "use_qalora": (None, False),
}


@dataclass(frozen=True)
class Adapter:
    """rank: the largest of any module of vLLM's. modules: how many linears of each tower it changes."""

    rank: int
    modules: dict[Tower, int]


def read_adapter(folder: Path, family: Family) -> Adapter:
    """The facts of the adapter in `folder`.

    Raises InputError where there is none, where it has tensors of no known tower, or parts that vLLM
    would leave out whatever its options.
    """
    missing = [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} holds no adapter",
            [Problem("is missing", name, "serve.mode: merged serves whole weights") for name in missing],
        )
    config = json.loads((folder / ADAPTER_CONFIG).read_bytes())
    problems = [
        Problem(
            f"{key} is {config[key]!r}, vLLM does not apply it",
            ADAPTER_CONFIG,
            "merge it: serve.mode: merged",
        )
        for key, unused in NOT_APPLIED.items()
        if key in config and config[key] not in unused
    ]
    modules: set[str] = set()
    for name in tensor_names(folder / ADAPTER_WEIGHTS):
        part = next((part for part in _PARTS if name.endswith(part)), None)
        if part is None or not name.startswith(_PREFIX):
            problems.append(Problem("is no LoRA matrix of a linear layer", f"{ADAPTER_WEIGHTS} {name}"))
        else:
            modules.add(name.removeprefix(_PREFIX).removesuffix(part))
    towers: Counter[Tower] = Counter()
    for module in sorted(modules):
        tower = family.find_tower(module)
        if tower is None:
            problems.append(Problem(f"is in no tower of {family.title}", f"{ADAPTER_WEIGHTS} {module}"))
        else:
            towers[tower] += 1
    if problems:
        raise InputError(f"the adapter in {folder} cannot be served as an adapter", problems)
    if family.vllm_names is AS_IN_CLASS:
        rank = max([config["r"], *(config.get("rank_pattern") or {}).values()])
    else:
        rank = engine_rank(folder, family.vllm_names)
    return Adapter(rank, dict(towers))


def tensor_names(path: Path) -> list[str]:
    """The names of the tensors in a safetensors file: 8 bytes of length, then a JSON header."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > path.stat().st_size:
            raise InputError(f"{path} is not a safetensors file", [Problem("is truncated", str(path))])
        header = json.loads(stream.read(length))
    return sorted(name for name in header if name != "__metadata__")
