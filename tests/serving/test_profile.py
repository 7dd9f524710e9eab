"""Deriving a profile: what is written, what is refused, what an edit does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from lensmith import families
from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.artifact import verify
from lensmith.base import checkpoint_path
from lensmith.errors import InputError, IntegrityError
from lensmith.families.layout import Layout
from lensmith.home import Home
from lensmith.serve_settings import Live
from lensmith.units import GIB
from lensmith.video_settings import VideoSampling
from serving.adapter import tensor_names
from serving.build import EngineBuild
from serving.engine_files import NO_FILES
from serving.hardware import Gpu, Hardware
from serving.profile import derive_profile, find_places, make_profile, read_profile, weight_bytes
from serving.profile_file import PROFILE_FILE, Profile, Room, Videos, parse_profile, write_profile
from serving.request_room import check_room
from tests.conftest import FORM_SCHEMA
from tests.serving.exam import CPU, CPU_BUILD
from tests.serving.small import (
    CONFIG,
    small_base,
    small_model,
    small_recipe,
    small_run,
    write_checkpoint,
)

GOLDEN = Path(__file__).parent / "golden"
GPU_BUILD = EngineBuild(version="0.33.0", device="cuda")
ONE_GPU = Hardware(cores=16, memory=128 << 30, gpus=(Gpu("NVIDIA H200", 139 << 30, (9, 0)),))


def without_ids(text: str) -> str:
    return re.sub(r"\b[0-9a-f]{64}\b|(?<=serves )[0-9a-f]{12}", "ID", text)


def check_golden(profile: Profile, name: str, folder: Path) -> None:
    write_profile(folder, profile)
    assert without_ids((folder / PROFILE_FILE).read_text()) == (GOLDEN / name).read_text()
    assert parse_profile(folder / PROFILE_FILE) == profile


def test_an_adapter_beside_its_base_is_of_an_engine_that_is_known(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path, mode="adapter", tower_connector_lora=True)
    base = small_base(home, recipe)
    run = small_run(home, base, ["language"])
    later = EngineBuild(version="0.34.0", device="cpu")
    with pytest.raises(InputError, match=r"not known for vLLM 0\.34\.0 and Qwen3-VL"):
        make_profile(recipe, run, base, CPU, later)
    assert make_profile(recipe, run, base, CPU, CPU_BUILD).adapter


def test_merged_on_a_cpu(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path)
    base = small_base(home, recipe)
    model = small_model(home, base, small_run(home, base, ["language"]))
    check_golden(make_profile(recipe, model, base, CPU, CPU_BUILD), "merged_cpu.yaml", tmp_path)


def test_videos_are_taken_as_they_were_prepared(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path, max_videos=2, max_model_len=4096)
    base = small_base(home, recipe)
    model = small_model(home, base, small_run(home, base, ["language"]))
    asked = {"fps": 0.5, "max_frames": 8, "max_pixels": 65_536, "max_bytes": 9_000_000}
    filmed = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"video": VideoSampling(**asked)})}
    )
    profile = make_profile(filmed, model, base, CPU, CPU_BUILD)
    assert profile.videos == Videos(per_prompt=2, **asked)
    write_profile(tmp_path, profile)
    assert parse_profile(tmp_path / PROFILE_FILE) == profile
    # Two videos of four groups of 64 tokens and a time each.
    tight = filmed.model_copy(update={"serve": recipe.serve.model_copy(update={"max_model_len": 600})})
    with pytest.raises(InputError) as error:
        make_profile(tight, model, base, CPU, CPU_BUILD)
    assert "videos may take 608 tokens" in str(error.value)
    with pytest.raises(InputError, match="what is trained could not be served") as told:
        check_room(tight, checkpoint_path(base))
    assert told.value.problems == error.value.problems


def test_adapter_on_a_gpu(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path, dtype="bfloat16", tower_connector_lora=True)
    base = small_base(home, recipe)
    run = small_run(home, base, ["vision", "language"], rank_pattern={"o_proj": 9})
    check_golden(make_profile(recipe, run, base, ONE_GPU, GPU_BUILD), "adapter_gpu.yaml", tmp_path)


def test_a_profile_from_before_gpus_were_shared_out_still_opens(tmp_path: Path) -> None:
    old = parse_profile(GOLDEN / "adapter_gpu_before_shares.yaml")
    new = parse_profile(GOLDEN / "adapter_gpu.yaml")
    assert old.cuda is not None
    assert new.cuda is not None
    assert old.cuda == new.cuda.model_copy(update={"gpu": ""})
    assert old.model_copy(update={"cuda": new.cuda}) == new


def test_guided_answers_are_offered_of_what_was_trained_not_of_the_base(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path, guided_json=True)
    base = small_base(home, recipe)
    model = small_model(home, base, small_run(home, base, ["language"]))
    profile = make_profile(recipe, model, base, CPU, CPU_BUILD)
    assert profile.guided is not None
    assert json.loads(profile.guided.answer_schema) == FORM_SCHEMA
    write_profile(tmp_path, profile)
    assert parse_profile(tmp_path / PROFILE_FILE) == profile
    assert make_profile(recipe, base, base, CPU, CPU_BUILD).guided is None


def test_deriving_again_finds_the_same_artifact(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path)
    base = small_base(home, recipe)
    profile = derive_profile(recipe, home, base, base, CPU)
    assert derive_profile(recipe, home, base, base, CPU).path == profile.path
    assert read_profile(profile).mode == "base"
    other = recipe.model_copy(update={"serve": recipe.serve.model_copy(update={"max_new_tokens": 8})})
    assert derive_profile(other, home, base, base, CPU).id != profile.id


def test_memory_that_is_not_needed_makes_no_other_profile(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path)
    base = small_base(home, recipe)
    profile = derive_profile(recipe, home, base, base, CPU)
    assert derive_profile(recipe, home, base, base, replace(CPU, memory=CPU.memory * 2)).id == profile.id
    assert derive_profile(recipe, home, base, base, replace(CPU, gpus=ONE_GPU.gpus)).id == profile.id
    assert len(home.all("profile")) == 1
    with pytest.raises(InputError, match=r"GiB of 0\.0"):
        derive_profile(recipe, home, base, base, replace(CPU, memory=1 << 20))


@pytest.mark.parametrize("tower", ["vision", "connector"])
def test_an_adapter_that_would_be_applied_in_part_is_refused(tmp_path: Path, home: Home, tower: str) -> None:
    recipe = small_recipe(tmp_path)
    base = small_base(home, recipe)
    run = small_run(home, base, ["language", tower])
    with pytest.raises(InputError) as caught:
        derive_profile(recipe, home, run, base, CPU)
    assert f"{tower} modules without enable_tower_connector_lora" in str(caught.value)
    assert "merge it" in str(caught.value)
    assert home.all("profile") == []


def test_the_tower_option_or_the_language_alone_is_whole(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path)
    base = small_base(home, recipe)
    language = make_profile(recipe, small_run(home, base, ["language"]), base, CPU, CPU_BUILD)
    assert language.adapter is not None
    assert not language.adapter.tower_connector
    recipe = small_recipe(tmp_path, tower_connector_lora=True)
    run = small_run(home, base, ["vision", "connector", "language"])
    whole = make_profile(recipe, run, base, CPU, CPU_BUILD)
    assert whole.adapter is not None
    assert whole.adapter.towers == ["vision", "connector", "language"]
    assert whole.adapter.tower_connector
    assert whole.adapter.max_rank == 8
    assert whole.adapter.room is None


def test_a_live_profile_has_room_for_what_the_recipe_says(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path, mode="adapter", tower_connector_lora=True)
    base = small_base(home, recipe)
    live = Live(max_adapters=4, max_rank=20)
    recipe = recipe.model_copy(update={"serve": recipe.serve.model_copy(update={"live": live})})
    profile = make_profile(recipe, small_run(home, base, ["language"]), base, CPU, CPU_BUILD)
    assert profile.adapter is not None
    assert profile.adapter.room == Room(max_adapters=4, at_once=4)
    assert profile.adapter.max_rank == 32
    # A run whose recipe said another rank than its adapter has.
    above = small_run(home, base, ["language"], rank_pattern={"o_proj": 21})
    with pytest.raises(InputError, match=r"serve\.live\.max_rank: the adapter has rank 21, 20 is the most"):
        make_profile(recipe, above, base, CPU, CPU_BUILD)


def test_all_that_does_not_fit_is_said_together(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path, max_model_len=300, kv_cache_gib=64.0)
    config = {**CONFIG, "text_config": {**CONFIG["text_config"], "max_position_embeddings": 256}}
    (recipe.base.path / "config.json").write_text(json.dumps(config))
    base = small_base(home, recipe)
    with pytest.raises(InputError) as caught:
        make_profile(recipe, base, base, CPU, CPU_BUILD)
    assert "256 tokens" in str(caught.value)
    assert "64.0 GiB of 8.0" in str(caught.value)
    assert "serve.max_model_len: 300 tokens, base has positions for 256" in str(caught.value)


def test_too_few_or_too_small_gpus(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path, tensor_parallel=2)
    base = small_base(home, recipe)
    with pytest.raises(InputError, match="2 GPUs are asked for, this machine has 1"):
        make_profile(recipe, base, base, ONE_GPU, GPU_BUILD)
    small = Hardware(cores=4, memory=GIB, gpus=(Gpu("tiny", 64),))
    with pytest.raises(InputError, match="may be used"):
        make_profile(small_recipe(tmp_path), base, base, small, GPU_BUILD)


@pytest.mark.parametrize("stated", [["Qwen2VLForConditionalGeneration"], None])
def test_weights_of_another_architecture_are_refused(
    tmp_path: Path, home: Home, stated: list[str] | None
) -> None:
    recipe = small_recipe(tmp_path)
    base = small_base(home, recipe)
    (recipe.base.path / "config.json").write_text(json.dumps(CONFIG | {"architectures": stated}))
    with pytest.raises(InputError, match="vLLM serves Qwen3-VL as Qwen3VLForConditionalGeneration"):
        make_profile(recipe, base, base, CPU, CPU_BUILD)


def test_weights_are_counted_in_the_dtype_served(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint")
    stored = (folder / "model.safetensors").stat().st_size
    assert weight_bytes(folder, "bfloat16") == stored
    assert weight_bytes(folder, "float32") == 2 * stored


def test_an_edited_profile_is_refused(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path)
    base = small_base(home, recipe)
    profile = derive_profile(recipe, home, base, base, CPU)
    path = profile.path / PROFILE_FILE
    path.write_text(path.read_text().replace("max_pixels: 262144", "max_pixels: 131072"))
    with pytest.raises(IntegrityError, match="not what its manifest says"):
        read_profile(profile)


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    text = (GOLDEN / "merged_cpu.yaml").read_text()
    path = tmp_path / PROFILE_FILE
    path.write_text(text + "trust_remote_code: true\n")
    with pytest.raises(InputError, match="trust_remote_code"):
        parse_profile(path)


def test_what_is_served_is_found_by_id(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path, tower_connector_lora=True)
    base = small_base(home, recipe)
    run = small_run(home, base, ["vision"])
    places = find_places(base, make_profile(recipe, run, base, CPU, CPU_BUILD), home)
    assert places.checkpoint == recipe.base.path
    assert places.adapter == run.path
    profile = make_profile(recipe, run, base, CPU, CPU_BUILD).model_copy(update={"mode": "merged"})
    with pytest.raises(IntegrityError, match="is a run"):
        find_places(base, profile, home)


def test_what_vllm_reads_in_place_of_the_checkpoint_s_lies_in_the_profile(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hub_form(config: Mapping[str, Any]) -> dict[str, Any]:
        return {"architectures": ["AnotherForCausalLM"], "model_type": "another", "was": config["model_type"]}

    recipe = small_recipe(tmp_path)
    base = small_base(home, recipe)
    plain = derive_profile(recipe, home, base, base, CPU)
    assert find_places(plain, read_profile(plain), home).files == NO_FILES
    family = replace(
        recipe.model_family, vllm_config=hub_form, vllm_architecture="AnotherForCausalLM", leads=True
    )
    monkeypatch.setitem(families.FAMILIES, family.name, family)
    artifact = derive_profile(recipe, home, base, base, CPU)
    assert artifact.id != plain.id
    files = find_places(artifact, read_profile(artifact), home).files
    assert files.config is not None
    assert json.loads((files.config / "config.json").read_bytes())["was"] == "qwen3_vl"
    assert files.template is not None
    assert "{{ messages }}" in files.template.read_text()
    verify(artifact)
    wrong = replace(family, vllm_architecture="YetAnotherForCausalLM")
    monkeypatch.setitem(families.FAMILIES, family.name, wrong)
    with pytest.raises(InputError, match="architectures is"):
        derive_profile(recipe, home, base, base, CPU)


def test_an_adapter_in_vllm_s_names_is_held_and_served(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = Layout(renames=((r"^model\.visual\.", "tower."),))
    family = replace(families.get("qwen3_vl"), vllm_names=named)
    monkeypatch.setitem(families.FAMILIES, "qwen3_vl", family)
    recipe = small_recipe(tmp_path, tower_connector_lora=True)
    base = small_base(home, recipe)
    with home.create("run", "a" * 24, {"base": base}) as draft:
        (draft.path / ADAPTER_CONFIG).write_text('{"r": 2, "lora_alpha": 4}')
        module = "base_model.model.model.visual.merger.linear_fc1"
        parts = {"A": np.ones((2, 3), np.float32), "B": np.ones((4, 2), np.float32)}
        tensors = {f"{module}.lora_{side}.weight": part for side, part in parts.items()}
        save_file(tensors, draft.path / ADAPTER_WEIGHTS)
        draft.body.update(method="lora", template=base.body["template"])
    artifact = derive_profile(recipe, home, draft.artifact, base, CPU)
    places = find_places(artifact, read_profile(artifact), home)
    assert places.adapter == artifact.path / "engine" / "adapter"
    assert {name.split(".lora_")[0] for name in tensor_names(places.adapter / ADAPTER_WEIGHTS)} == {
        "base_model.model.tower.merger.linear_fc1"
    }
    # As it is, it would be found in no module of the engine: an edit of the one that is served is seen.
    (places.adapter / ADAPTER_CONFIG).write_text("{}")
    with pytest.raises(IntegrityError):
        read_profile(artifact)
