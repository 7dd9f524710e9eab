"""Launcher configs: those we ship load, and what accelerate would silently ignore is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.launcher import method_problems, read_launcher
from lensmith.errors import InputError
from lensmith.recipe import Recipe, load_recipe
from tests.conftest import ROOT, RecipeMaker

SHIPPED = {
    "cpu.yaml": (1, 1, 0),
    "one_gpu.yaml": (1, 1, 0),
    "deepspeed_zero2.yaml": (8, 1, 2),
    "deepspeed_zero2_offload.yaml": (1, 1, 2),
    "deepspeed_zero3.yaml": (8, 1, 3),
    "deepspeed_zero3_offload.yaml": (8, 1, 3),
    "deepspeed_zero3_nodes.yaml": (16, 2, 3),
    "fsdp2.yaml": (8, 1, 0),
}


def test_shipped_configs_load() -> None:
    folder = ROOT / "recipes" / "accelerate"
    found = {path.name: read_launcher(path) for path in folder.glob("*.yaml")}
    assert {name: (each.processes, each.machines, each.zero_stage) for name, each in found.items()} == SHIPPED


def test_accelerate_reads_the_shipped_configs() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    for name, (processes, machines, stage) in SHIPPED.items():
        config = load_config_from_file(str(ROOT / "recipes" / "accelerate" / name))
        assert (config.num_processes, config.num_machines) == (processes, machines)
        if stage:
            assert config.deepspeed_config["zero_stage"] == stage
        assert bool(config.fsdp_config) == (name == "fsdp2.yaml")


@pytest.fixture
def content(deepspeed_config: dict[str, Any]) -> dict[str, Any]:
    settings = {**deepspeed_config["deepspeed_config"], "zero_stage": 3}
    return {**deepspeed_config, "deepspeed_config": settings}


def refused(tmp_path: Path, content: dict[str, Any], *expected: str) -> None:
    path = tmp_path / "launcher.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as error:
        read_launcher(path)
    for text in expected:
        assert text in str(error.value)


def test_two_processes_without_a_way_to_start_them(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["deepspeed_config"]
    refused(tmp_path, {**content, "distributed_type": "NO"}, "num_processes", "starts one process")
    refused(tmp_path, {**content, "distributed_type": "MULTI_CPU"}, "one process a machine")


def test_settings_of_the_recipe(tmp_path: Path, content: dict[str, Any]) -> None:
    content["mixed_precision"] = "bf16"
    content["deepspeed_config"].update(gradient_accumulation_steps=4, gradient_clipping=1.0)
    refused(
        tmp_path,
        content,
        "train.gradient_accumulation",
        "train.max_grad_norm",
        "mixed_precision",
        "train.dtype in the recipe decides",
    )


def test_deepspeed_settings_that_are_ignored(tmp_path: Path, content: dict[str, Any]) -> None:
    refused(tmp_path, {**content, "distributed_type": "MULTI_GPU"}, "ignored with distributed_type MULTI_GPU")
    content["deepspeed_config"].update(zero_stage="auto", deepspeed_config_file="zero.json")
    refused(tmp_path, content, "1, 2 or 3 is needed", "hides settings in another file")


def test_offload_that_is_ignored_or_unknown(tmp_path: Path, content: dict[str, Any]) -> None:
    content["deepspeed_config"].update(offload_optimizer_device="nvme", offload_param_device="cpus")
    refused(tmp_path, content, "'nvme' is not one of none, cpu", "'cpus' is not one of none, cpu")
    content["deepspeed_config"].update(
        zero_stage=2, offload_optimizer_device="cpu", offload_param_device="cpu"
    )
    refused(tmp_path, content, "offload_param_device", "is ignored with ZeRO stage 2")


def test_offload_is_read() -> None:
    folder = ROOT / "recipes" / "accelerate"
    two, three = (read_launcher(folder / f"deepspeed_zero{stage}_offload.yaml") for stage in (2, 3))
    assert (two.offload_optimizer, two.offload_parameters) == (True, False)
    assert (three.offload_optimizer, three.offload_parameters) == (True, True)


def test_numbers(tmp_path: Path, content: dict[str, Any]) -> None:
    refused(tmp_path, {**content, "num_processes": "two"}, "launcher.yaml:", "num_processes", "'two'")
    refused(tmp_path, {**content, "num_processes": 3, "num_machines": 2}, "does not divide over 2 machines")
    del content["num_processes"]
    refused(tmp_path, content, "num_processes")


def test_kind(tmp_path: Path, content: dict[str, Any]) -> None:
    del content["deepspeed_config"]
    refused(tmp_path, {**content, "distributed_type": "TPU"}, "'TPU' is not one of")


@pytest.fixture
def fsdp() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "recipes/accelerate/fsdp2.yaml").read_text())


def test_fsdp2_is_taken_as_it_is_shown(tmp_path: Path, fsdp: dict[str, Any]) -> None:
    shipped = read_launcher(ROOT / "recipes/accelerate/fsdp2.yaml")
    assert (shipped.fsdp, shipped.divides_weights, shipped.division) == (True, True, "FSDP2")
    zero = read_launcher(ROOT / "recipes/accelerate/deepspeed_zero2.yaml")
    assert (zero.fsdp, zero.divides_weights, zero.division) == (False, False, "ZeRO stage 2")
    settings = fsdp["fsdp_config"]
    settings.update(fsdp_version=1, fsdp_offload_params=True, fsdp_state_dict_type="SHARDED_STATE_DICT")
    settings.update(fsdp_backward_prefetch="NO_PREFETCH", fsdp_activation_checkpointing=True)
    # Left out, accelerate would take another value.
    del settings["fsdp_auto_wrap_policy"], settings["fsdp_cpu_ram_efficient_loading"]
    refused(
        tmp_path,
        {**fsdp, "num_processes": 1},
        "fsdp_version: 1 is not 2",
        "fsdp_offload_params: True is not False",
        "set it to false",
        "fsdp_state_dict_type: 'SHARDED_STATE_DICT' is not 'FULL_STATE_DICT'",
        "fsdp_auto_wrap_policy: None is not 'TRANSFORMER_BASED_WRAP'",
        "fsdp_cpu_ram_efficient_loading: None is not False",
        "fsdp_backward_prefetch: was not shown",
        "fsdp_activation_checkpointing: is the recipe's to say",
        "train.gradient_checkpointing",
        "one process divides nothing",
    )
    refused(tmp_path, {**fsdp, "fsdp_config": "on"}, "fsdp_config: must hold settings")


def test_fsdp_that_would_be_left_out(tmp_path: Path, fsdp: dict[str, Any]) -> None:
    said = "accelerate leaves FSDP out on a CPU without a word"
    refused(tmp_path, {**fsdp, "use_cpu": True}, said, "DEEPSPEED with zero_stage 3")
    refused(tmp_path, {**fsdp, "distributed_type": "MULTI_GPU"}, "is ignored with distributed_type MULTI_GPU")


def test_global_batch(tmp_path: Path, content: dict[str, Any], make_recipe: RecipeMaker) -> None:
    path = tmp_path / "launcher.yaml"
    path.write_text(yaml.safe_dump(content))
    recipe = load_recipe(make_recipe(train__batch_size=3, train__gradient_accumulation=4))
    assert read_launcher(path).global_batch(recipe) == 3 * 4 * 2


def told(path: Path, recipe: Recipe) -> str:
    return "\n".join(map(str, method_problems(read_launcher(path), recipe)))


def test_4_bits_under_zero3_or_without_bitsandbytes_are_refused(
    make_recipe: RecipeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ROOT / "recipes" / "accelerate"
    recipe = load_recipe(make_recipe(train__method="qlora"))
    monkeypatch.setattr("finetune.launcher.find_spec", lambda name: name)
    assert told(folder / "deepspeed_zero2.yaml", recipe) == ""
    divided = told(folder / "deepspeed_zero3.yaml", recipe)
    assert "a base in 4 bits cannot be trained so" in divided
    assert "use ZeRO stage 2; or set train.method to lora" in divided
    monkeypatch.setattr("finetune.launcher.find_spec", lambda name: None)
    lacking = told(folder / "deepspeed_zero2.yaml", recipe)
    assert lacking.startswith("bitsandbytes: train.method qlora needs a package that is not installed")
    assert told(folder / "deepspeed_zero3.yaml", recipe) == f"{lacking}\n{divided}"
    assert "cannot be trained so: FSDP2 divides weights" in told(folder / "fsdp2.yaml", recipe)


def test_whole_weights_that_zero3_would_not_save_are_refused(
    make_recipe: RecipeMaker, content: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "launcher.yaml"
    path.write_text(yaml.safe_dump(content))
    towers = dict.fromkeys(("vision", "connector", "language"), "train")
    full = load_recipe(make_recipe(train__method="full", train__towers=towers))
    assert "deepspeed_config.zero3_save_16bit_model: " in told(path, full)
    assert "would be lost" in told(path, full)
    assert told(path, load_recipe(make_recipe())) == ""
    content["deepspeed_config"].update(zero3_save_16bit_model=True)
    path.write_text(yaml.safe_dump(content))
    assert told(path, full) == ""
