"""An adapter that another tool, or another version, has saved: under the names that the class has now."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from finetune.merging.adapter_config import by_pattern, read_config
from finetune.merging.checkpoint import Checkpoint
from finetune.merging.experts import layer_pattern
from finetune.merging.slots import is_there
from finetune.merging.tensor_file import open_tensor_file
from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.errors import InputError, Problem
from lensmith.families.family import Family
from lensmith.families.former_names import FORMER_NAMES, WRAPPERS

_PREFIX = "base_model.model."
# The name of PEFT's one adapter stays in what is saved without PEFT.
_TENSOR = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_[AB]|lora_magnitude_vector)(\.default)?(?P<ending>(\.weight)?)"
)
_WRAPPED = re.compile(rf"(?:^|(?<=\.))({'|'.join(WRAPPERS)})\.")
_BASE_LAYER = re.compile(r"(?P<bare>.+?)(?P<depth>(\.base_layer)*)")
# Chosen by names that are no longer the modules'.
_CHOICES = ("exclude_modules", "layers_pattern", "layers_to_transform")


def rewrite_adapter(source: Path, target: Path, base: Checkpoint, family: Family) -> None:
    """Write the adapter in `source` into the directory `target` as PEFT saves one of today's class.

    Values, ranks and scales stay; every tensor is in `target` once. Raises InputError with every tensor of a
    module that the base has under no name, or that two tensors stand for; and for what `read_config` refuses.
    """
    config = read_config(source, experts=family.experts is not None)
    tensors = load_file(source / ADAPTER_WEIGHTS)
    problems: list[Problem] = []
    names: dict[str, str] = {}
    modules: dict[str, str] = {}
    for name in tensors:
        match = _TENSOR.fullmatch(_WRAPPED.sub("", name))
        saved = match["module"].removeprefix(_PREFIX) if match else ""
        module = _todays(saved, base, family) if match else None
        if match is None:
            problems.append(Problem("is no LoRA matrix of a linear layer: it has no place here", name))
        elif module is None:
            problems.append(Problem("the base has no such module, by this name or an earlier one", name))
        else:
            new = f"{_PREFIX}{module}.{match['part']}{match['ending']}"
            if new in names.values():
                problems.append(Problem(f"stands for {new}, as another tensor does", name))
            names[name], modules[module] = new, saved
    if problems:
        raise InputError(f"the adapter in {source} does not fit the base", problems[:20])
    target.mkdir(parents=True, exist_ok=True)
    save_file({names[name]: tensor for name, tensor in tensors.items()}, target / ADAPTER_WEIGHTS)
    # Of patterns the first that fits counts: they keep their order.
    text = json.dumps(_todays_config(config, modules, family), indent=2)
    (target / ADAPTER_CONFIG).write_text(f"{text}\n", encoding="utf-8")


def _todays(saved: str, base: Checkpoint, family: Family) -> str | None:
    """What the module is called now; None where the base has it under none of its names, or under two."""
    match = _BASE_LAYER.fullmatch(saved)
    assert match is not None
    bare, depth = match["bare"], match["depth"]
    found = _known([bare], base, family) or _known(
        (re.sub(pattern, new, bare, count=1) for pattern, new in FORMER_NAMES), base, family
    )
    return f"{found.pop()}{depth}" if len(found) == 1 else None


def _known(names: Iterable[str], base: Checkpoint, family: Family) -> set[str]:
    """Those of `names` that the class has: under one of its towers, and held by the base."""
    experts = layer_pattern(family.experts) if family.experts else None
    return {
        name
        for name in names
        if family.find_tower(name)
        and ((experts and experts.fullmatch(name)) or is_there(f"{name}.weight", base, family))
    }


def _todays_config(config: dict[str, Any], modules: dict[str, str], family: Family) -> dict[str, Any]:
    """The adapter's config, which names each linear in full; where some have a rank or alpha of their own,
    with each one's. Patterns for experts, which are parameters, come after."""
    experts = layer_pattern(family.experts) if family.experts else None
    linears = {
        module: saved
        for module, saved in sorted(modules.items())
        if experts is None or not experts.match(module)
    }
    own = {
        setting: {module: by_pattern(stated, saved, config[whole]) for module, saved in linears.items()}
        | stated
        for setting, whole in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha"))
        if (stated := config.get(setting))
    }
    chosen = dict.fromkeys(name for name in _CHOICES if name in config)
    return {**config, **chosen, **own, "target_modules": list(linears)}


def tensors_digest(root: Path) -> str:
    """SHA-256 of an adapter's tensors by name, in float32: the same however they were saved."""
    state = hashlib.sha256()
    file = open_tensor_file(root / ADAPTER_WEIGHTS)
    for name in sorted(file.entries):
        values = file.read(name).to(torch.float32)
        state.update(f"{name} {list(values.shape)}\n".encode())
        state.update(values.contiguous().view(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()
