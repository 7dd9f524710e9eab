"""lensmith doctor: each thing that can be missing is planted, found, and told with its mend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lensmith.cli.doctor import machine, needs, packages
from lensmith.cli.doctor.advisories import check_advisories
from lensmith.cli.doctor.check import Check, can_run
from lensmith.cli.doctor.diagnose import checks_for
from lensmith.cli.doctor.packages import Loaded
from lensmith.recipe import Recipe, load_recipe
from lensmith.train_evaluation import TrainEvaluate
from lensmith.units import GIB
from serving.build import EngineBuild
from serving.hardware import Gpu, Hardware

NO_GPU = Hardware(cores=2, memory=24 * GIB)
ONE_GPU = Hardware(cores=16, memory=128 * GIB, gpus=(Gpu("NVIDIA H200", 140 * GIB),))

RECIPE = """\
version: 1
family: qwen3_vl
base: {path: base}
data: {source: labels.jsonl}
train:
  method: METHOD
  towers: {vision: freeze, connector: freeze, language: MODE}
  launcher: launcher.yaml
  learning_rate: 0.001
release: {name: forms, intended_use: Reading forms.}
gates: gates.yaml
"""
CPU = 'distributed_type: "NO"\nnum_processes: 1\nuse_cpu: true\n'
ZERO3 = "distributed_type: DEEPSPEED\nnum_processes: 8\ndeepspeed_config: {zero_stage: 3}\n"
OFFLOADED = (
    "distributed_type: DEEPSPEED\nnum_processes: 1\n"
    "deepspeed_config: {zero_stage: 3, offload_param_device: cpu, offload_optimizer_device: STATE}\n"
)
CPU_ZERO3 = (
    "distributed_type: DEEPSPEED\nnum_processes: 2\nuse_cpu: true\ndeepspeed_config: {zero_stage: 3}\n"
)


def plant_module(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that Python finds before the installed one."""
    (folder / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def recipe(folder: Path, launcher: str = CPU, method: str = "lora") -> Recipe:
    """A recipe whose files are all there but for the base."""
    path = folder / "recipe.yaml"
    path.write_text(
        RECIPE.replace("METHOD", method).replace("MODE", "train" if method == "full" else "adapt")
    )
    (folder / "launcher.yaml").write_text(launcher)
    (folder / "labels.jsonl").write_text("")
    (folder / "gates.yaml").write_text("")
    return load_recipe(path)


def plant_weights(root: Path, parameters: int) -> None:
    """A safetensors file that states so many bfloat16 parameters; its bytes are a hole in the disk."""
    root.mkdir()
    entry = {"dtype": "BF16", "shape": [parameters // 1000, 1000], "data_offsets": [0, 2 * parameters]}
    header = json.dumps({"weight": entry}).encode()
    with (root / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2 * parameters)


def test_a_package_that_does_not_load_is_told_with_its_own_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = "raise RuntimeError('operator torchvision::nms does not exist')\n"
    plant_module(tmp_path, "torchvision", error, monkeypatch)
    loaded = packages.load_modules(("torchvision", "json"))
    assert loaded["json"] == Loaded("")
    check = packages.check_module("torchvision", loaded["torchvision"], "torchvision")
    assert check.state == "missing"
    assert "RuntimeError: operator torchvision::nms does not exist" in check.found
    assert "make bootstrap" in check.mend


def test_a_package_that_stops_the_interpreter_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_module(tmp_path, "torch", "import os; os.abort()\n", monkeypatch)
    loaded = packages.load_modules(("json", "torch", "vllm"))
    assert loaded["json"].error == ""
    assert loaded["torch"].error == "its import stops the interpreter (exit code -6)"
    assert loaded["vllm"].error.startswith("not tried: torch stops")


def test_a_distribution_that_is_not_installed() -> None:
    check = packages.check_module("vLLM", Loaded(""), "no-such-vllm", "no-such-vllm-cpu")
    assert (check.state, check.found, check.mend) == ("missing", "not installed", "make bootstrap")


def test_a_cpu_torch_beside_gpus_is_a_warning() -> None:
    assert packages.check_torch(Loaded(""), gpus=0).state == "ok"
    beside = packages.check_torch(Loaded(""), gpus=2)
    assert beside.state == "warning"
    assert "LENSMITH_BUILD=cuda" in beside.mend
    assert packages.check_torch(Loaded("", cuda="13.0", gpus=2), gpus=2).state == "ok"
    assert packages.check_torch(Loaded("", cuda="13.0", gpus=0), gpus=2).mend == "update the driver"
    assert packages.check_torch(Loaded("ImportError: libc"), gpus=0).state == "missing"


def test_no_compiler_is_found_by_an_empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    assert packages.check_compiler().state == "ok"
    monkeypatch.setenv("PATH", str(tmp_path))
    check = packages.check_compiler()
    assert check.state == "warning"
    assert check.found.startswith("no c++: ")
    assert "apt-get install g++" in check.mend
    # torch takes $CXX where it is set.
    compiler = tmp_path / "my-c++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", "my-c++")
    assert packages.check_compiler() == Check("C++ compiler", "ok", str(compiler))


def test_the_compiler_matters_where_deepspeed_compiles(tmp_path: Path) -> None:
    lacking = [Check("DeepSpeed", "missing", ""), Check("C++ compiler", "warning", "")]

    def states(launcher: str) -> list[str]:
        return [check.state for check in checks_for(recipe(tmp_path, launcher), lacking)]

    assert states(CPU) == ["warning", "warning"]
    assert states(ZERO3) == ["missing", "warning"]
    assert states(CPU_ZERO3) == ["missing", "warning"]
    offload = ZERO3.replace("3}", "3, offload_optimizer_device: cpu}")
    assert states(offload) == ["missing", "missing"]


def test_deepspeed_told_to_use_what_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")
    check = packages.check_deepspeed(Loaded(""), gpus=0)
    assert (check.state, check.mend) == ("warning", "unset DS_ACCELERATOR: this machine has no GPUs")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert packages.check_deepspeed(Loaded(""), gpus=0).found.endswith("DS_ACCELERATOR=cpu")
    monkeypatch.delenv("DS_ACCELERATOR")
    assert packages.check_deepspeed(Loaded(""), gpus=0).state == "ok"


def test_a_recipe_for_more_gpus_than_there_are(tmp_path: Path) -> None:
    eight = recipe(tmp_path, ZERO3)
    launcher = needs.read_launcher(eight.train.launcher)
    for hardware, there in ((NO_GPU, 0), (ONE_GPU, 1)):
        check = needs.check_gpu_count(launcher, eight, hardware)
        assert check.state == "missing"
        assert check.found == f"8 for training, 1 for serving; {there} there"
        assert "where there are 8" in check.mend
    enough = Hardware(cores=8, memory=GIB, gpus=ONE_GPU.gpus * 8)
    assert needs.check_gpu_count(launcher, eight, enough).state == "ok"
    here = needs.read_launcher(recipe(tmp_path).train.launcher)
    assert needs.check_gpu_count(here, eight, NO_GPU).state == "ok"


def test_parameters_are_counted_without_loading_them(tmp_path: Path) -> None:
    plant_weights(tmp_path / "base", 8_000_000_000)
    assert needs.parameters(tmp_path / "base") == 8_000_000_000
    (tmp_path / "base/model.safetensors").write_bytes(b"no weights")
    broken = needs.parameters(tmp_path / "base")
    assert isinstance(broken, Check)
    assert broken.state == "missing"
    assert "model.safetensors cannot be read: " in broken.found
    assert needs.parameters(tmp_path / "nowhere") == 0


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    count = 8_000_000_000

    def state(launcher: str, method: str, hardware: Hardware) -> str:
        made = recipe(tmp_path, launcher, method)
        read = needs.read_launcher(made.train.launcher)
        return needs.check_recipe_memory(count, made, read, hardware, 24 * GIB).state

    one = "distributed_type: DEEPSPEED\nnum_processes: 1\ndeepspeed_config: {zero_stage: 2}\n"
    small = Hardware(cores=8, memory=GIB, gpus=(Gpu("NVIDIA A10", 24 * GIB),))
    tiny = Hardware(cores=8, memory=GIB, gpus=(Gpu("NVIDIA T4", 16 * GIB),))
    # bfloat16 weights alone: 14.9 GiB; with gradients and AdamW: 119 GiB.
    assert state(one, "lora", small) == "ok"
    assert state(one, "lora", tiny) == "missing"
    held = recipe(tmp_path, one, "qlora")
    # The language model in half a byte a weight; on a CPU the whole weights lie beside it at first.
    assert needs.training_bytes(count, held, needs.read_launcher(held.train.launcher)) == count / 2
    held = recipe(tmp_path, CPU, "qlora")
    assert needs.training_bytes(count, held, needs.read_launcher(held.train.launcher)) == 2 * count
    assert state(one, "full", ONE_GPU) == "ok"
    assert state(one, "full", small) == "missing"
    assert state(ZERO3, "full", small) == "ok"
    # Weights in host memory, and the optimizer beside them; of an adapter nothing else is counted.
    assert state(OFFLOADED.replace("STATE", "cpu"), "full", small) == "ok"
    assert state(OFFLOADED.replace("STATE", "none"), "full", small) == "missing"
    lora = recipe(tmp_path, OFFLOADED.replace("STATE", "none"))
    assert needs.training_bytes(count, lora, needs.read_launcher(lora.train.launcher)) == 0
    assert state(CPU, "lora", NO_GPU) == "ok"
    assert state(CPU_ZERO3, "full", NO_GPU) == "missing"


def test_a_disk_too_small_for_the_recipe(tmp_path: Path) -> None:
    lora, full = recipe(tmp_path), recipe(tmp_path, method="full")
    assert needs.check_recipe_disk(10**9, lora, 2 * GIB).state == "ok"
    assert needs.check_recipe_disk(10**9, lora, GIB).state == "missing"
    assert needs.check_recipe_disk(10**9, full, 16 * GIB).state == "missing"
    assert needs.check_recipe_disk(10**9, full, 33 * GIB).state == "ok"


@pytest.mark.parametrize("more", [{"keep_last": 2}, {"evaluate": TrainEvaluate(every=5)}], ids=str)
def test_every_checkpoint_that_is_kept_needs_its_room(tmp_path: Path, more: dict[str, Any]) -> None:
    full = recipe(tmp_path, method="full")
    keeping = full.model_copy(update={"train": full.train.model_copy(update=more)})
    assert needs.check_recipe_disk(10**9, keeping, 33 * GIB).state == "missing"
    assert needs.check_recipe_disk(10**9, keeping, 48 * GIB).state == "ok"


def test_files_of_the_recipe_that_are_not_there(tmp_path: Path) -> None:
    made = recipe(tmp_path)
    (tmp_path / "labels.jsonl").unlink()
    states = {check.name: check for check in needs.check_files(made)}
    assert {name: check.state for name, check in states.items()} == {
        "Base": "missing",
        "Data": "missing",
        "Gates": "ok",
    }
    assert "no such directory" in states["Base"].found
    assert states["Data"].mend == "set data.source"
    (tmp_path / "launcher.yaml").unlink()
    assert isinstance(needs.launcher_of(made), Check)


def test_a_base_of_no_known_commit_is_a_warning(tmp_path: Path, tiny_base: Path) -> None:
    made = recipe(tmp_path)
    for commit, state in (("", "warning"), ("a" * 40, "ok")):
        base = made.base.model_copy(update={"path": tiny_base, "revision": commit})
        checks = needs.check_files(made.model_copy(update={"base": base}))
        assert {check.name: check.state for check in checks}["Commit of the base"] == state


def test_disk_checks_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert machine.existing(tmp_path / "not/yet") == tmp_path
    assert machine.check_disk(tmp_path / "not/yet").name == "Disk"
    assert not (tmp_path / "not").exists()


def test_online_tracking_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    offline = recipe(tmp_path)
    online = offline.model_copy(update={"train": offline.train.model_copy(update={"wandb": "online"})})
    assert machine.check_wandb(online).state == "warning"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password 0\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert machine.check_wandb(online) == Check("wandb", "ok", "online")
    # The tracker is told the recipe's mode; the environment's does not change it.
    monkeypatch.setenv("WANDB_MODE", "online")
    assert machine.check_wandb(offline) == machine.check_wandb(None) == Check("wandb", "ok", "offline")


def test_only_what_is_missing_stops_a_recipe() -> None:
    assert can_run([Check("a", "ok", ""), Check("b", "warning", "")])
    assert not can_run([Check("a", "ok", ""), Check("b", "missing", "")])


def doctor(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lensmith"), "doctor", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | environment,
        timeout=300,
    )


@pytest.mark.slow
def test_through_the_command_line(tmp_path: Path, tiny_base: Path) -> None:
    recipe(tmp_path)
    (tmp_path / "base").symlink_to(tiny_base)
    here = doctor(tmp_path, "recipe.yaml", "--json")
    told = json.loads(here.stdout)
    assert (here.returncode, told["can_run"]) == (0, True), told
    assert not (tmp_path / "workspace").exists()
    # The same machine with a launcher for eight GPUs and no base.
    recipe(tmp_path, ZERO3)
    (tmp_path / "base").unlink()
    there = doctor(tmp_path, "recipe.yaml")
    assert there.returncode == 2
    assert "recipe.yaml cannot run here" in there.stdout
    assert "Base: download or make it" in there.stdout
    assert "GPUs of the recipe: run it where there are 8" in there.stdout


@pytest.mark.parametrize(
    ("version", "state", "words"),
    [
        ("0.32.0", "ok", "CVE-2026-92365, GHSA-5r3c-5x4v-8gjh"),
        ("0.33.0", "ok", "kept out by settings: CVE-2026-105922, "),
        ("0.29.0", "warning", "open in 0.29.0: "),
        ("0.7.3", "missing", "vLLM 0.7.3 is too old"),
    ],
)
def test_advisories_of_the_installed_vllm_are_named(
    monkeypatch: pytest.MonkeyPatch, version: str, state: str, words: str
) -> None:
    build = EngineBuild(version=version, device="cpu")
    monkeypatch.setattr("lensmith.cli.doctor.advisories.installed_engine", lambda: build)
    check = check_advisories()
    assert check.state == state
    assert words in check.found
    assert bool(check.mend) == (state != "ok")
