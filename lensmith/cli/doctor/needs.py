"""What a recipe needs of the machine: its files, its processes' GPUs, memory and disk."""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import SafetensorError, safe_open

from finetune.launcher import Launcher, read_launcher
from lensmith.base import check_base
from lensmith.cli.doctor.check import Check, gib
from lensmith.downloaded import pinned_revision
from lensmith.errors import LensmithError
from lensmith.recipe import Recipe
from lensmith.units import GIB
from serving.hardware import Hardware

_ITEM = {"float32": 4, "bfloat16": 2}
# Weight, gradient and AdamW's two moments in float32 are 16 bytes a parameter; in bfloat16 weight and
# gradient are 2 each, with a float32 copy and two moments: 16 again (ZeRO, arXiv:1910.02054, section 3.1).
_FULL = 16
_GRADIENT_AND_OPTIMIZER = {"float32": 12, "bfloat16": 14}


def launcher_of(recipe: Recipe) -> Launcher | Check:
    """The recipe's launcher config, or what is wrong with it."""
    try:
        return read_launcher(recipe.train.launcher)
    except LensmithError as error:
        return Check("Launcher", "missing", flat(error), "name an accelerate config in train.launcher")


def flat(error: LensmithError) -> str:
    """An error with its problems in one line."""
    return "; ".join([error.summary, *map(str, error.problems)])


def check_files(recipe: Recipe) -> list[Check]:
    """The base and the data."""
    checks = []
    try:
        check_base(recipe.base.path, recipe.model_family)
        checks.append(Check("Base", "ok", str(recipe.base.path)))
        checks.append(_revision(recipe))
    except LensmithError as error:
        checks.append(Check("Base", "missing", flat(error), "download or make it, or set base.path"))
    key = "data.sources" if recipe.data.source is None else "data.source"
    places = [each.path for each in recipe.data.all_sources()]
    checks += [Check("Data", "ok", f"{each}, fetched by prepare") for each in places if isinstance(each, str)]
    wanted = [("Data", each, key) for each in places if isinstance(each, Path)]
    for name, path, setting in (*wanted, ("Gates", recipe.gates, "gates")):
        if path.is_file() or (name == "Data" and path.exists()):
            checks.append(Check(name, "ok", str(path)))
        else:
            checks.append(Check(name, "missing", f"no such file: {path}", f"set {setting}"))
    return checks


def _revision(recipe: Recipe) -> Check:
    name = "Commit of the base"
    if commit := pinned_revision(recipe.base.path, recipe.base.revision):
        return Check(name, "ok", commit)
    found = "not known: the model's card could not say what it was made from"
    return Check(name, "warning", found, "set base.revision to the commit that was downloaded")


def parameters(root: Path) -> int | Check:
    """Parameters of the checkpoint in `root`, from the headers of its files, or what is wrong with them."""
    total = 0
    for path in sorted(root.glob("model*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                # Not a dict: safe_open has keys() but cannot be iterated.
                names = list(file.keys())
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
        except (OSError, SafetensorError) as error:
            found = f"{path} cannot be read: {' '.join(str(error).split())}"
            return Check("Weights of the base", "missing", found, "fetch the whole checkpoint")
    return total


def check_gpu_count(launcher: Launcher, recipe: Recipe, hardware: Hardware) -> Check:
    """The GPUs of one machine's training processes and of one engine."""
    there = len(hardware.gpus)
    if launcher.cpu:
        return Check("GPUs of the recipe", "ok", "none needed: the launcher trains on the CPU")
    training, serving = launcher.processes_a_machine, recipe.serve.gpus
    found = f"{training} for training, {serving} for serving; {there} there"
    if there < max(training, serving):
        mend = f"run it where there are {max(training, serving)}, or set train.launcher to one that fits"
        return Check("GPUs of the recipe", "missing", found, mend)
    return Check("GPUs of the recipe", "ok", found)


def training_bytes(count: int, recipe: Recipe, launcher: Launcher) -> float:
    """The least memory of one training process, in bytes: activations and adapters come on top."""
    item = _ITEM[recipe.train.dtype]
    shards = launcher.processes
    weights = count * item / (shards if launcher.divides_weights else 1)
    if launcher.offload_parameters and not launcher.cpu:
        weights = 0
    if recipe.train.method == "qlora" and not launcher.cpu:
        # At least: were all of it in 4 bits. On a CPU the whole weights lie in the same memory at first.
        return weights / 4 if recipe.train.dtype == "bfloat16" else weights / 8
    if recipe.train.adapts:
        return weights
    rest = count * _GRADIENT_AND_OPTIMIZER[recipe.train.dtype] / (shards if launcher.in_weights_dtype else 1)
    return weights + (0 if launcher.offload_optimizer and not launcher.cpu else rest)


def serving_bytes(count: int, recipe: Recipe, on_gpu: bool) -> float:
    """The least memory that the engine takes on one device, in bytes."""
    weights = count * _ITEM[recipe.serve.dtype]
    if on_gpu:
        return weights / recipe.serve.tensor_parallel
    return weights + recipe.serve.kv_cache_gib * GIB


def check_recipe_memory(
    count: int, recipe: Recipe, launcher: Launcher, hardware: Hardware, free: int
) -> Check:
    """Whether the weights, and what training keeps beside them, fit; the two stages never overlap."""
    name = "Memory of the recipe"
    one = training_bytes(count, recipe, launcher)
    if launcher.cpu:
        training, room, where = one * launcher.processes_a_machine, float(free), "free"
        serving, serving_room = serving_bytes(count, recipe, on_gpu=False), float(free)
    else:
        smallest = min((gpu.memory for gpu in hardware.gpus), default=0)
        training, room, where = one, float(smallest), "on the smallest GPU"
        serving = serving_bytes(count, recipe, on_gpu=True)
        serving_room = smallest * recipe.serve.gpu_memory_utilization
    found = f"at least {gib(training)} to train, {gib(serving)} to serve; {gib(room)} {where}"
    if training > room:
        mend = "shard it with ZeRO-3, use LoRA, or a machine with more memory"
        return Check(name, "missing", found, mend)
    if serving > serving_room:
        mend = "raise serve.tensor_parallel on GPUs, lower serve.kv_cache_gib on a CPU"
        return Check(name, "missing", found, mend)
    return Check(name, "ok", found)


def check_recipe_disk(count: int, recipe: Recipe, free: int) -> Check:
    """Whether the merged model, and a full fine-tune's checkpoints, fit on the disk."""
    train = recipe.train
    merged = count * _ITEM[train.dtype]
    # The last complete ones stay until the next is, that of the best evaluation beside them.
    kept = train.keep_last + 1 + (1 if train.evaluate.every and train.evaluate.keep_best else 0)
    checkpoints = kept * count * _FULL if train.method == "full" else 0
    found = f"at least {gib(merged + checkpoints)} for weights and checkpoints; {gib(free)} free"
    if merged + checkpoints > free:
        mend = "free space, or choose another place: --home DIR"
        return Check("Disk of the recipe", "missing", found, mend)
    return Check("Disk of the recipe", "ok", found)
