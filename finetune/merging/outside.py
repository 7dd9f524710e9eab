"""An adapter that another tool, or another version, has saved: under the names that the class has now."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from finetune.merging.adapter_config import by_pattern, read_config
from finetune.merging.checkpoint import Checkpoint
from finetune.merging.experts import layer_pattern
from finetune.merging.slots import is_there
from finetune.merging.tensor_file import TensorFile, bytes_of, header_of, open_tensor_file
from finetune.merging.trained_on import quantized_signs
from finetune.merging.whole import PREFIX, SETTING, biases_are_saved, saved_module
from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.errors import InputError, Problem
from lensmith.families.family import Family
from lensmith.families.former_names import FORMER_NAMES, WRAPPERS

# The name of PEFT's one adapter stays in what is saved without PEFT.
_TENSOR = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_[AB]|lora_magnitude_vector)(\.default)?(?P<ending>(\.weight|\.bias)?)"
)
_COPY = re.compile(r"\.modules_to_save\.default(?=\.)")
_WRAPPED = re.compile(rf"(?:^|(?<=\.))({'|'.join(WRAPPERS)})\.")
_BASE_LAYER = re.compile(r"(?P<bare>.+?)(?P<depth>(\.base_layer)*)")
# PEFT's rows of `trainable_token_indices`.
_NEW_ROWS = "trainable_tokens_delta"
# Chosen by names that are no longer the modules'.
_CHOICES = ("exclude_modules", "layers_pattern", "layers_to_transform")
# Beside an adapter of a training that can go on: no weights.
_STATES = ("optimizer.bin", "scheduler.bin", "training_args.bin")
_COPIED_BYTES = 1 << 20
_PARAMETERS = "target_parameters"


class _Saved(NamedTuple):
    """A tensor as the tool called it: its module, what of it it is, and whether it is held whole. behind: of
    one that `modules_to_save` names, what stands behind that module's name."""

    module: str
    tensor: str
    whole: bool = False
    behind: str | None = None


def rewrite_adapter(
    source: Path, target: Path, base: Checkpoint, family: Family, *, as_trained: bool = False
) -> None:
    """Write the adapter in `source` into the directory `target` as PEFT saves one of today's class.

    Values, ranks and scales stay; every tensor is in `target` once. as_trained: somebody says that the base
    has the values that it was trained on. Raises InputError with every tensor of a module that the base has
    under no name, or that two tensors stand for; for what `read_config` refuses; for files of weights beside
    the adapter's own; and for signs of another base (`quantized_signs`); IntegrityError for a damaged file.
    """
    config = read_config(source, experts=family.experts is not None)
    file = open_tensor_file(source / ADAPTER_WEIGHTS)
    problems = _left_out(source)
    problems += [] if as_trained else quantized_signs(source, config)
    names: dict[str, str] = {}
    modules: dict[str, str] = {}
    kept: dict[str, str] = {}
    for name in file.entries:
        saved = _read_name(name, config)
        module = _todays(saved, base, family) if saved else None
        if name.endswith(_NEW_ROWS):
            what = "holds rows of new tokens, and an adapter does not say which texts they are"
            problems.append(Problem(what, name, "merge with the tool that trained it"))
        elif saved is None:
            problems.append(Problem("is no LoRA matrix of a linear layer: it has no place here", name))
        elif module is None:
            problems.append(Problem("the base has no such module, by this name or an earlier one", name))
        elif _of_one_expert(module, family):
            what = "is of one expert, and the class holds all of a layer's in one tensor"
            problems.append(Problem(what, name, "merge with the tool that trained it"))
        else:
            new = f"{module}.{saved.tensor}"
            if PREFIX + new in names.values():
                problems.append(Problem(f"stands for {PREFIX}{new}, as another tensor does", name))
            names[name] = PREFIX + new
            if not saved.whole:
                modules[module] = saved.module
            if saved.behind is not None:
                before = f"{saved.module}.{saved.tensor}".removesuffix(saved.behind)
                kept[before] = new.removesuffix(saved.behind)
    if problems:
        raise InputError(f"the adapter in {source} does not fit the base", problems[:20])
    target.mkdir(parents=True, exist_ok=True)
    _write_renamed(file, names, target / ADAPTER_WEIGHTS)
    # Of patterns the first that fits counts: they keep their order.
    today = _todays_config(config, modules, family)
    if stated := config.get(SETTING):
        # One that no tensor is of stays: whoever reads the adapter refuses it.
        empty = [each for each in stated if not any(module.endswith(each) for module in kept)]
        today[SETTING] = [*sorted(kept.values()), *empty]
    (target / ADAPTER_CONFIG).write_text(f"{json.dumps(today, indent=2)}\n", encoding="utf-8")


def _write_renamed(source: TensorFile, names: Mapping[str, str], target: Path) -> None:
    """Write `source` to `target` with other names for its tensors, which stay where they lie."""
    with source.path.open("rb") as reader, target.open("wb") as writer:
        writer.write(header_of({names[name]: entry for name, entry in source.entries.items()}))
        reader.seek(len(source.head))
        shutil.copyfileobj(reader, writer, _COPIED_BYTES)


def _left_out(source: Path) -> list[Problem]:
    """Files of weights beside the adapter's own: some tools keep what they trained whole in one, and load
    it beside the adapter."""
    return [
        Problem("holds weights that are not in the adapter", str(path), "merge with the tool that wrote it")
        for path in sorted(source.iterdir())
        if path.suffix in (".safetensors", ".bin") and path.name not in (ADAPTER_WEIGHTS, *_STATES)
    ]


def _read_name(name: str, config: dict[str, Any]) -> _Saved | None:
    """What a tensor of this name is; None for one that the config does not account for."""
    plain = _COPY.sub("", _WRAPPED.sub("", name)).removeprefix(PREFIX)
    if match := _TENSOR.fullmatch(plain):
        # PEFT reads magnitudes with `.weight` too, and saves them without.
        ending = "" if match["part"] == "lora_magnitude_vector" else match["ending"]
        return _Saved(match["module"], f"{match['part']}{ending}")
    module, _, tensor = plain.rpartition(".")
    if kept := saved_module(plain, config.get(SETTING) or []):
        return _Saved(module, tensor, whole=True, behind=plain.removeprefix(kept))
    if biases_are_saved(config) and tensor == "bias":
        return _Saved(module, tensor, whole=True)
    return None


def _of_one_expert(module: str, family: Family) -> bool:
    """Whether it is in a single expert: the class had such in transformers 4, and some bases have on disk."""
    if family.experts is None:
        return False
    return bool(re.match(rf"{layer_pattern(family.experts).pattern}\.\d+\.", module))


def _todays(saved: _Saved, base: Checkpoint, family: Family) -> str | None:
    """What the module is called now; None where the base has it under none of its names, or under two."""
    match = _BASE_LAYER.fullmatch(saved.module)
    assert match is not None
    bare, depth = match["bare"], match["depth"]
    held = saved.tensor if saved.whole else "weight"
    former = (re.sub(pattern, new, bare, count=1) for pattern, new in FORMER_NAMES)
    found = _known([bare], held, base, family) or _known(former, held, base, family)
    return f"{found.pop()}{depth}" if len(found) == 1 else None


def _known(names: Iterable[str], held: str, base: Checkpoint, family: Family) -> set[str]:
    """Those of `names` that the class has: under one of its towers, its tensor `held` in the base."""
    experts = layer_pattern(family.experts) if family.experts else None
    return {
        name
        for name in names
        if family.find_tower(name)
        and ((experts and experts.fullmatch(name)) or is_there(f"{name}.{held}", base, family))
    }


def _todays_config(config: dict[str, Any], modules: dict[str, str], family: Family) -> dict[str, Any]:
    """The adapter's config, which names each linear and each parameter of experts in full; where some have a
    rank or alpha of their own, with each one's."""
    experts = layer_pattern(family.experts) if family.experts else None
    linears = {
        module: saved
        for module, saved in sorted(modules.items())
        if experts is None or not experts.match(module)
    }
    targets = config.get(_PARAMETERS) or []
    routed = {
        each: saved
        for each, saved in _routed(modules, family).items()
        if any(f".{saved}".endswith(f".{target}") for target in targets)
    }
    own = {
        setting: {
            name: by_pattern(stated, saved, config[whole]) for name, saved in (linears | routed).items()
        }
        | stated
        for setting, whole in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha"))
        if (stated := config.get(setting))
    }
    chosen = dict.fromkeys(name for name in _CHOICES if name in config)
    if routed:
        # One that no tensor is of stays: whoever reads the adapter refuses it.
        unfit = [
            each for each in targets if not any(f".{saved}".endswith(f".{each}") for saved in routed.values())
        ]
        chosen[_PARAMETERS] = [*routed, *unfit]
    return {**config, **chosen, **own, "target_modules": list(linears)}


def _routed(modules: Mapping[str, str], family: Family) -> dict[str, str]:
    """By full name of each parameter of experts that some tensor may be of what it was called."""
    if family.experts is None:
        return {}
    layer = layer_pattern(family.experts)
    bare = {_BASE_LAYER.fullmatch(today): _BASE_LAYER.fullmatch(saved) for today, saved in modules.items()}
    return {
        f"{today['bare']}.{name}": f"{saved['bare']}.{name}"
        for today, saved in bare.items()
        if today and saved and layer.fullmatch(today["bare"])
        for name in family.experts.parameters
    }


def tensors_digest(root: Path) -> str:
    """SHA-256 of an adapter's tensors by name, in float32: the same however they were saved."""
    state = hashlib.sha256()
    file = open_tensor_file(root / ADAPTER_WEIGHTS)
    for name in sorted(file.entries):
        state.update(f"{name} {list(file.entries[name].shape)}\n".encode())
        for values in file.blocks(name):
            state.update(bytes_of(values.to(torch.float32)))
    return state.hexdigest()
