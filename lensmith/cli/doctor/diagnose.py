"""All checks together."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import psutil

from lensmith.cli.doctor import machine, needs, packages
from lensmith.cli.doctor.advisories import check_advisories
from lensmith.cli.doctor.check import Check
from lensmith.errors import InputError
from lensmith.recipe import Recipe
from serving.build import DISTRIBUTIONS
from serving.hardware import Hardware, read_hardware


def diagnose(recipe: Recipe | None, home_root: Path) -> list[Check]:
    """What this machine has and lacks; with a recipe, also whether that recipe can run here."""
    checks = []
    try:
        hardware = read_hardware()
        checks.append(machine.check_gpus(hardware.gpus))
    except InputError as error:
        hardware = Hardware(cores=1, memory=psutil.virtual_memory().total)
        checks.append(Check("GPUs", "missing", needs.flat(error), "look at `nvidia-smi` and dmesg"))
    checks = [*_packages(len(hardware.gpus)), *checks]
    checks += [machine.check_memory(hardware), machine.check_disk(home_root), machine.check_wandb(recipe)]
    return checks if recipe is None else [*checks_for(recipe, checks), *_needs(recipe, hardware, home_root)]


def _packages(gpus: int) -> list[Check]:
    loaded = packages.load_modules()
    return [
        packages.check_python(),
        packages.check_torch(loaded["torch"], gpus),
        packages.check_module("torchvision", loaded["torchvision"], "torchvision"),
        packages.check_module("transformers", loaded["transformers"], "transformers"),
        packages.check_module("vLLM", loaded["vllm"], *DISTRIBUTIONS),
        check_advisories(),
        packages.check_deepspeed(loaded["deepspeed"], gpus),
        packages.check_compiler(),
    ]


def checks_for(recipe: Recipe, checks: list[Check]) -> list[Check]:
    """The machine's checks as this recipe sees them: DeepSpeed matters only where its launcher uses it."""
    launcher = needs.launcher_of(recipe)
    if isinstance(launcher, Check):
        return checks
    deepspeed = launcher.kind == "DEEPSPEED"
    # Its optimizer in host memory.
    compiles = deepspeed and launcher.offload_optimizer
    seen = []
    for check in checks:
        if check.name == "DeepSpeed" and check.state == "missing" and not deepspeed:
            check = dataclasses.replace(check, state="warning")
        if check.name == "C++ compiler" and check.state == "warning" and compiles:
            check = dataclasses.replace(check, state="missing")
        seen.append(check)
    return seen


def _needs(recipe: Recipe, hardware: Hardware, home_root: Path) -> list[Check]:
    checks = needs.check_files(recipe)
    launcher = needs.launcher_of(recipe)
    if isinstance(launcher, Check):
        return [*checks, launcher]
    checks.append(Check("Launcher", "ok", f"{launcher.kind}, {launcher.processes} processes"))
    checks.append(needs.check_gpu_count(launcher, recipe, hardware))
    count = needs.parameters(recipe.base.path)
    if isinstance(count, Check):
        checks.append(count)
    # Without any weights the base's own check says so.
    elif count:
        free = machine.free_memory(hardware)
        checks.append(needs.check_recipe_memory(count, recipe, launcher, hardware, free))
        disk = shutil.disk_usage(machine.existing(home_root)).free
        checks.append(needs.check_recipe_disk(count, recipe, disk))
    return checks
