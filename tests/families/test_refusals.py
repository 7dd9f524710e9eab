"""Refused: checkpoints of another architecture or that need their own code, adapters that vLLM leaves out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lensmith import families
from lensmith.base import check_base
from lensmith.errors import InputError
from lensmith.families.family import Foreign, Tower
from lensmith.recipe import Recipe
from tests.families.conftest import Checkpoint, towers_of
from tests.family_results import REFUSED, Shows

pytestmark = pytest.mark.slow

UNSERVED = [
    (name, tower)
    for name, family in families.FAMILIES.items()
    for tower in towers_of(name, "lora")
    if tower not in family.vllm_adapts
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
    with pytest.raises(ValueError, match=f"served in part, without {tower}: merge it"):
        Recipe.model_validate(content)
