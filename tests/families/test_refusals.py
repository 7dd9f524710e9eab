"""Refused: checkpoints of another architecture or that need their own code, adapters that vLLM leaves out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lensmith import families
from lensmith.base import check_base, pin_base
from lensmith.errors import InputError
from lensmith.families.family import Foreign, Tower
from lensmith.home import Home
from lensmith.recipe import Recipe
from serving.build import EngineBuild
from serving.hardware import Gpu, Hardware
from serving.profile import make_profile
from tests.artifacts import make_run
from tests.families.conftest import Checkpoint, towers_of
from tests.family_results import REFUSED, Shows

pytestmark = pytest.mark.slow

UNSERVED = [
    (name, tower)
    for name, family in families.FAMILIES.items()
    for tower in towers_of(name, "lora")
    if tower not in family.vllm_adapts
]
# Applied by vLLM, but not on every device that it is built for.
ELSEWHERE = [
    name for name, family in families.FAMILIES.items() if family.vllm_adapts and family.vllm_no_adapters
]
FOREIGN = [each for family in families.FAMILIES.values() for each in family.foreign]


def with_config(checkpoint: Checkpoint, root: Path, **settings: object) -> Path:
    shutil.copytree(checkpoint.root, root / "base")
    path = root / "base" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | settings))
    return root / "base"


def test_each_family_takes_its_own_checkpoint_alone(made: dict[str, Checkpoint]) -> None:
    for name, checkpoint in made.items():
        for family in families.FAMILIES.values():
            if family.name == name:
                check_base(checkpoint.root, family)
                continue
            with pytest.raises(InputError) as error:
                check_base(checkpoint.root, family)
            assert f"is a {checkpoint.family.model_type!r} checkpoint" in str(error.value)
            assert f"the recipe says family {family.name!r}" in str(error.value)


def test_code_in_a_checkpoint_is_never_run(checkpoint: Checkpoint, tmp_path: Path) -> None:
    root = with_config(checkpoint, tmp_path, auto_map={"AutoConfig": "configuration.Config"})
    (root / "configuration.py").write_text("raise SystemExit('code of the checkpoint ran')")
    if checkpoint.family.ships_code:
        check_base(root, checkpoint.family)
        assert Checkpoint(checkpoint.family, root).load() is not None
    else:
        with pytest.raises(InputError, match="auto_map asks to run code"):
            check_base(root, checkpoint.family)


@pytest.mark.parametrize("foreign", FOREIGN, ids=[each.architecture for each in FOREIGN])
def test_the_native_version_is_named(made: dict[str, Checkpoint], foreign: Foreign, tmp_path: Path) -> None:
    settings = {
        "model_type": foreign.model_type,
        "architectures": [foreign.architecture],
        "auto_map": {"AutoModel": "modeling.Model"},
    }
    root = with_config(made["qwen3_vl"], tmp_path, **settings)
    for family in families.FAMILIES.values():
        with pytest.raises(InputError) as error:
            check_base(root, family)
        assert f"use the native version: {foreign.native}" in str(error.value)


def test_a_family_without_a_published_template_has_one(made: dict[str, Checkpoint], tmp_path: Path) -> None:
    checkpoint = made["deepseek_ocr2"]
    root = with_config(checkpoint, tmp_path)
    template = root / "chat_template.jinja"
    assert template.read_text() == checkpoint.family.template
    template.unlink()
    with pytest.raises(InputError, match=r"put the family's into chat_template\.jinja"):
        check_base(root, checkpoint.family)


@pytest.mark.parametrize(("family", "tower"), UNSERVED)
def test_an_adapter_that_vllm_would_leave_out(
    made: dict[str, Checkpoint], family: str, tower: Tower, shows: Shows
) -> None:
    shows(family, tower, f"serve adapter{REFUSED}", "vLLM would leave it out, merge it")
    content = made[family].recipe("lora", **{tower: "adapt"}).model_dump()
    content["serve"] |= {"mode": "adapter", "tower_connector_lora": True}
    told = f"served in part, without {tower}: merge it"
    if not made[family].family.vllm_adapts:
        told = "so it will be merged: set serve.mode to merged .built for cpu, .*; built for cuda, vLLM takes"
    with pytest.raises(ValueError, match=told):
        Recipe.model_validate(content)


@pytest.mark.parametrize("family", ELSEWHERE)
def test_an_adapter_that_an_engine_for_cpus_cannot_apply(
    made: dict[str, Checkpoint], family: str, tmp_path: Path, shows: Shows
) -> None:
    towers = list(families.get(family).vllm_adapts)
    for tower in towers:
        why = "on CPUs, where vLLM has no kernels for experts beside adapters, merge it; on GPUs untested"
        shows(family, tower, f"serve adapter{REFUSED}", why)
    content = made[family].recipe("lora", **dict.fromkeys(towers, "adapt")).model_dump(mode="json")
    content["serve"] |= {"mode": "adapter", "tower_connector_lora": True, "max_model_len": 1024}
    recipe, home = Recipe.model_validate(content), Home(tmp_path / "home")
    base = pin_base(recipe, home)
    run = make_run(home, base, towers)
    machine = Hardware(cores=1, memory=8 << 30, gpus=(Gpu("NVIDIA H200", 139 << 30),))
    with pytest.raises(InputError, match=r"its CPU engine lacks.*\(merge it: serve.mode: merged\)"):
        make_profile(recipe, run, base, machine, EngineBuild(version="0.32.0", device="cpu"))
    profile = make_profile(recipe, run, base, machine, EngineBuild(version="0.32.0", device="cuda"))
    assert profile.adapter is not None
    assert set(profile.adapter.towers) == set(towers)


# With adapters on, vLLM takes Triton's experts before it asks what this device has. Of each class: what it
# splits an adapter of a joined layer into.
TOLD = """
import json, sys
from types import SimpleNamespace
from vllm.model_executor.layers.fused_moe.oracle import unquantized
from vllm.model_executor.models.registry import ModelRegistry
from vllm.triton_utils import HAS_TRITON
backend, kernels = unquantized.select_unquantized_moe_backend(SimpleNamespace(is_lora_enabled=True))
packed = {name: ModelRegistry.models[name].load_model_cls().packed_modules_mapping for name in sys.argv[1:]}
print(json.dumps({"kernels": kernels.__name__, "triton": HAS_TRITON, "packed": packed}))
"""


@pytest.mark.vllm
def test_what_vllm_s_own_classes_say() -> None:
    """That experts beside an adapter need what a CPU lacks, and which classes leave out an adapter of a layer
    that is one already."""
    joined = {
        family.vllm_architecture: family
        for family in families.FAMILIES.values()
        if any("attn.qkv" in group.names for group in family.linears) and family.vllm_adapts
    }
    told = subprocess.run(
        [sys.executable, "-P", "-c", TOLD, *joined], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr[-2000:]
    found = json.loads(told.stdout.splitlines()[-1])
    assert (found["kernels"], found["triton"]) == ("TritonExperts", False)
    assert len(joined) == 4
    for name, family in joined.items():
        # lora/layers/column_parallel_linear.py: one name, or a layer of query, key and value is not wrapped.
        whole = len(found["packed"][name].get("qkv", [])) == 1
        assert whole == ("vision" in family.vllm_adapts), name
