"""lensmith plan: memory by part, GPUs by name, and bases of which only the configuration is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from lensmith import families
from lensmith.base import check_base
from lensmith.cli.main import main
from lensmith.cli.verbs.plan import adapter_room, engine_limits
from lensmith.errors import InputError
from lensmith.recipe import Recipe
from tests.conftest import recipe_content


@pytest.fixture(scope="module")
def bare(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base without its weights."""
    out = tmp_path_factory.mktemp("bare") / "base"
    return Path(shutil.copytree(tiny_base, out, ignore=shutil.ignore_patterns("*.safetensors*")))


def recipe(base: Path, forms: Path, folder: Path) -> list[str]:
    """What follows the verb: a recipe on `base`, and a home."""
    content = recipe_content(base, forms)
    content["train"].update(batch_size=4, gradient_checkpointing=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return [str(folder / "recipe.yaml"), "--home", str(folder / "home")]


@pytest.mark.slow
def test_a_base_without_weights_is_planned_for_gpus(
    bare: Path, bank_forms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = recipe(bare, bank_forms, tmp_path)
    assert main(["prepare", *words]) == 0
    capsys.readouterr()
    assert main(["plan", *words, "--gpu", "h100-80,1.2"]) == 0
    out, err = capsys.readouterr()
    assert "planned from its configuration" in err
    for part in ("weights", "gradients", "optimizer", "buffers", "activations", "logits"):
        assert f"memory, {part}" in out
    assert "GiB at most" in out
    assert "h100-80 (79.65 GiB): fits" in out
    assert "train.gradient_checkpointing: false\n" in out, "faster, so no cost is told"
    # Less than what is kept free.
    assert "1.2 GiB (1.20 GiB): does not fit" in out
    assert "no setting of this launcher's kind fits" in out

    assert main(["plan", *words, "--json", "--gpu", "l4-24"]) == 0
    planned = json.loads(capsys.readouterr().out)["plan"]
    memory = planned["memory"]
    parts = sum(memory[part] for part in ("weights", "optimizer", "at_once"))
    assert memory["total"] == parts
    (proposal,) = planned["proposals"]
    assert proposal["spare"] == proposal["gpu"]["memory"] - memory["total"] - memory["reserve"] > 0
    # The whole global batch at a time, nothing computed twice.
    assert proposal["changes"]["train.gradient_checkpointing"] == "false"


def test_a_gpu_that_nobody_knows_is_told_before_anything_is_read(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *recipe(bare, tmp_path / "none", tmp_path), "--gpu", "h100,potato"]) == 2
    err = capsys.readouterr().err
    assert "'h100': is no GPU known here" in err
    assert "'potato'" in err
    assert "h200-141" in err


def test_what_a_plan_needs_of_a_base_is_said(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *recipe(tmp_path / "none", tmp_path, tmp_path)]) == 2
    assert "--exclude '*.safetensors'" in capsys.readouterr().err
    family = families.get("qwen3_vl")
    check_base(bare, family, weights=False)
    with pytest.raises(InputError, match="no safetensors weights"):
        check_base(bare, family)


def test_the_commit_of_a_base_is_asked_for_before_anything_is_planned(
    tiny_base: Path, bank_forms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*recipe(tiny_base, bank_forms, tmp_path), "-s", "base.revision=COMMIT"]
    for verb in ("plan", "train"):
        assert main([verb, *words]) == 2
        assert "base.revision" in capsys.readouterr().err
    assert not list((tmp_path / "home").rglob("manifest.json"))


def test_what_the_engine_cannot_serve_is_told() -> None:
    """Before anything is trained; of a family without known limits there is nothing to tell."""
    told = engine_limits(families.get("molmo2"))
    assert told.startswith("\nvLLM and Molmo2:\n- images, built for cpu: ")
    assert all(f"- {limit}\n" in told for limit in families.get("molmo2").vllm_limits)
    assert engine_limits(families.get("qwen3_vl")) == ""


def test_the_slot_that_an_adapter_takes_is_told(bare: Path, bank_forms: Path) -> None:
    content = recipe_content(bare, bank_forms)
    content["train"]["lora"] = {"rank": 9, "alpha": 8.0, "towers": {"vision": {"rank": 40}}}
    assert adapter_room(Recipe.model_validate(content)) == ""
    content["serve"] |= {"mode": "adapter", "tower_connector_lora": True}
    assert adapter_room(Recipe.model_validate(content)) == "rank 40, vLLM keeps room for 64"
    content["serve"]["live"] = {"max_adapters": 3, "max_rank": 100}
    told = adapter_room(Recipe.model_validate(content))
    assert told == "rank 40, vLLM keeps room for 128; for 3 adapters live"
