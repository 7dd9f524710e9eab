"""What vLLM is started with for the shipped recipes on the hardware in their names, and for more settings."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from lensmith.gpus import KINDS
from lensmith.recipe import Recipe, load_recipe
from serving.build import EngineBuild
from serving.command import engine_argv
from serving.hardware import Gpu, Hardware
from serving.profile import Places, Subject, settled_profile
from serving.profile_file import Profile
from tests.conftest import ROOT

RECIPES = ROOT / "recipes/bank_forms"
GPU_BUILD = EngineBuild(version="0.33.0", device="cuda")
# The GPU that a recipe's name means.
NAMED = {"h100": "h100-80", "h200": "h200-141", "l4": "l4-24"}

# Beside the recipes as they are: recipe, how many GPUs of a kind, what is set.
VARIANTS: dict[str, tuple[str, int, str, Sequence[str]]] = {
    "parsers": ("glm46v_flash_lora_1xh100", 1, "h100-80", ("serve.tools=true", "serve.thinking=true")),
    "calls alone": ("qwen3_vl_8b_lora_1xh100", 1, "a100-80", ("serve.tools=true",)),
    "copies": ("qwen3_vl_8b_lora_1xh100", 8, "l4-24", ("serve.data_parallel=4", "serve.tensor_parallel=2")),
    "FP8 throughout": (
        "qwen3_vl_235b_a22b_lora_8xh200",
        4,
        "h200-141",
        (
            "serve.tensor_parallel=4",
            "serve.quantization=fp8",
            "serve.kv_cache_dtype=fp8",
            "serve.expert_parallel=true",
        ),
    ),
    "the tower cut": ("qwen3_vl_32b_lora_8xh100", 2, "h100-80", ("serve.encoder_parallel=weights",)),
    "experts in slices": ("glm46v_lora_8xh100", 4, "b200-180", ("serve.expert_parallel=false",)),
}


def gpus(kind: str, count: int) -> tuple[Gpu, ...]:
    """So many GPUs of a known kind."""
    return (Gpu(kind, KINDS[kind].memory, KINDS[kind].capability),) * count


def hardware_of(name: str) -> tuple[str, int]:
    """GPU kind and count in a recipe's name."""
    found = re.search(r"_(\d+)x([a-z]+\d+)$", name)
    assert found, name
    return NAMED[found.group(2)], int(found.group(1))


def profile(recipe: Recipe, kind: str, count: int) -> Profile:
    """The profile of a merged model on these GPUs."""
    machine = Hardware(cores=16, memory=128 << 30, gpus=gpus(kind, count))
    return settled_profile(recipe, Subject("merged", "a" * 64, "b" * 64), None, machine, GPU_BUILD)


@functools.cache
def profiles() -> dict[str, Profile]:
    """Every shipped GPU recipe's profile, and the variants', by name."""
    found: dict[str, Profile] = {}
    for path in sorted(RECIPES.glob("*x[hl][0-9]*.yaml")):
        kind, count = hardware_of(path.stem)
        found[path.stem] = profile(load_recipe(path), kind, count)
    for name, (recipe, count, kind, settings) in VARIANTS.items():
        loaded = load_recipe(RECIPES / f"{recipe}.yaml", settings)
        found[f"{name}: {recipe} on {count} x {kind}"] = profile(loaded, kind, count)
    return found


def arguments(profile: Profile, *, proof: bool = False) -> list[str]:
    """What the engine is given, without the interpreter and the program."""
    return engine_argv(profile, Places(Path("/model")), 8000, proof=proof)[3:]


def written(commands: dict[str, list[str]]) -> str:
    """Commands as a file for people: one option a line."""
    lines = []
    for name, words in commands.items():
        lines.append(f"{name}\n")
        for at, word in enumerate(words):
            option = word.startswith("--")
            lines.append(f"{'' if option and at == 0 else chr(10)}  {word}" if option else f" {word}")
        lines.append("\n\n")
    return "".join(lines)
