"""Of a model that is too large to be held a sample is proven, and every byte that no training reached."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.proving import blocks, form, sample
from finetune.proving.definition import LoraDefinition
from lensmith.base import pin_base
from lensmith.dataset import READS_LOG
from lensmith.home import Home
from tests.artifacts import make_full_run, make_held_out
from tests.finetune.merged import (
    Walk,
    as_bfloat16,
    as_shards,
    as_tied,
    lively_base,
    planted,
    recipe_for,
    walk,
)

pytestmark = pytest.mark.slow
Tensors = dict[str, torch.Tensor]


def in_shards_of_bfloat16(base: Path) -> None:
    as_bfloat16(base)
    as_shards(base)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, bank_forms: Path) -> Walk:
    return walk(tmp_path_factory.mktemp("walk"), tiny_base, bank_forms, in_shards_of_bfloat16)


@pytest.fixture(autouse=True)
def too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "WHOLE_BYTES", 0)


def prove(walked: Walk) -> tuple[bool, str]:
    proof = prove_merge(walked.recipe, walked.home, walked.base, walked.run, walked.model, walked.held_out)
    assert "sampled" in proof.statement["form"]
    return proof.passed, "\n".join(proof.statement["findings"])


def test_a_sound_merge_passes(whole: Walk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "DRAWN", 4)
    # Several blocks a matrix.
    monkeypatch.setattr(blocks, "_BLOCK", 64 * 128)
    threads: set[int] = set()
    rows = LoraDefinition.rows

    def noted(self: LoraDefinition, *given: Any) -> torch.Tensor:
        threads.add(torch.get_num_threads())
        return rows(self, *given)

    monkeypatch.setattr(LoraDefinition, "rows", noted)
    proof = prove_merge(whole.recipe, whole.home, whole.base, whole.run, whole.model, whole.held_out)
    assert proof.statement["findings"] == []
    assert proof.passed
    assert threads == {1}
    assert proof.statement["adapter"] == {"tensors": 52, "modules": 26, "used_once": 52}
    weights = proof.statement["weights"]
    assert weights["tensors"] == 64
    assert (weights["merged"], weights["untouched"]) == (26, 38)
    assert weights["matrices"] == 26
    # More than are drawn: each shard, and each kind of module of each tower.
    assert 4 < weights["sampled"] == weights["bit_equal"] == weights["changed"] < 26
    assert weights["drawn"] == 4
    assert weights["all_missed_of"]["1"] == pytest.approx(22 / 26, rel=1e-2)
    assert weights["all_missed_of"]["100"] == 0
    for part in ("loaded", "logits"):
        assert proof.statement[part]["computed"] is False
        assert proof.statement[part]["because"] == "not computed: needs 1 GiB of memory"
    log = whole.home.root / READS_LOG
    assert not log.exists() or "merge proof" not in log.read_text(), "no held-out row was needed"


@pytest.mark.parametrize("free", [0, 1 << 40])
def test_what_does_not_fit_the_memory_is_sampled(
    whole: Walk, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    class Memory:
        available = free

    monkeypatch.setattr(form, "WHOLE_BYTES", 1 << 40)
    monkeypatch.setattr(form.psutil, "virtual_memory", Memory)
    why = form.why_sampled(whole.recipe.base.path)
    assert why is None if free else why and "needs 1 GiB of memory, 0 GiB are free" in why


@pytest.mark.parametrize("kind", ["dora", "full", "tied"])
def test_other_methods_pass(tmp_path: Path, tiny_base: Path, bank_forms: Path, kind: str) -> None:
    if kind == "full":
        root = lively_base(tiny_base, tmp_path / "base", as_bfloat16)
        recipe, home = recipe_for(root, bank_forms, tmp_path / "r.yaml"), Home(tmp_path / "home")
        base = pin_base(recipe, home)
        run = make_full_run(home, base)
        walked = Walk(
            recipe, home, base, run, merge(recipe, home, base, run), make_held_out(home, bank_forms, 4)
        )
    else:
        change = as_tied if kind == "tied" else in_shards_of_bfloat16
        walked = walk(tmp_path, tiny_base, bank_forms, change, dora=kind == "dora")
    assert prove(walked) == (True, "")
    if kind == "full":

        def moved(ours: Tensors, base: Tensors) -> Tensors:
            return ours | {"lm_head.weight": ours["lm_head.weight"] * 1.01}

        passed, text = prove(planted(walked, "moved", on_tensors(moved, walked)))
        assert not passed
        assert "1 merged matrices differ from the definition: lm_head.weight" in text


def on_tensors(change: Callable[[Tensors, Tensors], Tensors], whole: Walk) -> Callable[[Path], None]:
    """Changes the model's tensors, given these and the base's, each in its shard."""

    def fault(root: Path) -> None:
        paths = sorted(root.glob("*.safetensors"))
        place = {name: path for path in paths for name in load_file(path)}
        ours = {name: tensor for path in paths for name, tensor in load_file(path).items()}
        base = {
            name: tensor
            for path in whole.recipe.base.path.glob("*.safetensors")
            for name, tensor in load_file(path).items()
        }
        changed = change(ours, base)
        for path in paths:
            kept = {name: tensor for name, tensor in changed.items() if place.get(name, paths[-1]) == path}
            save_file(kept, path, metadata={"format": "pt"})

    return fault


LAYER = "model.language_model.layers.{}.{}.weight"


def doubled(ours: Tensors, base: Tensors) -> Tensors:
    """As with twice the alpha."""
    return {name: (2 * ours[name].float() - base[name].float()).to(ours[name].dtype) for name in ours}


def dropped(ours: Tensors, base: Tensors) -> Tensors:
    name = LAYER.format(1, "self_attn.o_proj")
    return ours | {name: base[name]}


def from_fp16(ours: Tensors, base: Tensors) -> Tensors:
    return {name: tensor - base[name] + base[name].half().to(tensor.dtype) for name, tensor in ours.items()}


def swapped(ours: Tensors, base: Tensors) -> Tensors:
    one, two = LAYER.format(0, "mlp.gate_proj"), LAYER.format(0, "mlp.up_proj")
    return ours | {one: ours[two], two: ours[one]}


def touched(ours: Tensors, base: Tensors) -> Tensors:
    """The last bit of a tensor that no training reached."""
    name = "model.language_model.embed_tokens.weight"
    changed = ours[name].clone()
    changed.view(torch.int16)[-1, -1] ^= 1
    return ours | {name: changed}


def cast(ours: Tensors, base: Tensors) -> Tensors:
    name = "model.language_model.norm.weight"
    return ours | {name: ours[name].half()}


def nothing(ours: Tensors, base: Tensors) -> Tensors:
    return base


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (doubled, "26 merged matrices differ from the definition"),
        (dropped, f"1 merged matrices differ from the definition: {LAYER.format(1, 'self_attn.o_proj')}"),
        (from_fp16, "tensors that were not trained differ from the base"),
        (swapped, "2 merged matrices differ from the definition: "),
        (touched, "1 tensors that were not trained differ from the base: model.language_model.embed_tokens"),
        (cast, "1 tensors have another shape or dtype: model.language_model.norm.weight"),
        (nothing, "no matrix of the sample differs from the base"),
    ],
)
def test_planted_faults_fail(whole: Walk, change: Callable[[Tensors, Tensors], Tensors], words: str) -> None:
    passed, text = prove(planted(whole, f"sampled-{change.__name__}", on_tensors(change, whole)))
    assert not passed
    assert words in text


def test_an_untied_head_fails(tmp_path: Path, tiny_base: Path, bank_forms: Path) -> None:
    tied = walk(tmp_path, tiny_base, bank_forms, as_tied)

    def untied(ours: Tensors, base: Tensors) -> Tensors:
        return ours | {"lm_head.weight": ours["model.language_model.embed_tokens.weight"] * 0.5}

    passed, text = prove(planted(tied, "untied", on_tensors(untied, tied)))
    assert not passed
    assert "1 tensors are not in the base: lm_head.weight" in text


def test_an_index_that_lies_fails(whole: Walk) -> None:
    def fault(root: Path) -> None:
        (path,) = root.glob("*.index.json")
        index = json.loads(path.read_bytes())
        index["metadata"]["total_size"] += 1
        path.write_text(json.dumps(index))

    passed, text = prove(planted(whole, "lying", fault))
    assert not passed
    assert "does not fit its shards" in text


@pytest.mark.parametrize("lost", [True, False])
def test_an_adapter_with_other_tensors_fails(whole: Walk, lost: bool) -> None:
    name = "adapter_model.safetensors"
    with whole.home.create("run", f"{lost:0>24}", {"base": whole.base}) as draft:
        for path in whole.run.path.iterdir():
            if path.name not in ("manifest.json", "record.json"):
                shutil.copyfile(path, draft.path / path.name)
        tensors = load_file(draft.path / name)
        if lost:
            del tensors[next(iter(tensors))]
        else:
            tensors["base_model.model.of.no.layer.lora_A.weight"] = torch.ones(1, 1)
        save_file(tensors, draft.path / name)
        draft.body.update(whole.run.body)
    other = replace(whole, run=draft.artifact)
    with whole.home.create("model", f"other{lost:0>19}", {"base": whole.base, "run": other.run}) as model:
        for path in whole.model.path.iterdir():
            if path.name not in ("manifest.json", "record.json"):
                shutil.copyfile(path, model.path / path.name)
        model.body.update(whole.model.body)
    passed, text = prove(replace(other, model=model.artifact))
    assert not passed
    assert "is not the one that was trained" in text


@pytest.mark.parametrize("row", [0, -1])
def test_one_element_of_a_block_among_others(whole: Walk, monkeypatch: pytest.MonkeyPatch, row: int) -> None:
    name = LAYER.format(0, "mlp.gate_proj")
    monkeypatch.setattr(blocks, "_BLOCK", 16 * 128)

    def moved(ours: Tensors, base: Tensors) -> Tensors:
        changed = ours[name].clone()
        assert len(blocks.row_blocks(*changed.shape)) > 3
        changed[row, 0] += 1
        return ours | {name: changed}

    passed, text = prove(planted(whole, f"row {row}", on_tensors(moved, whole)))
    assert not passed
    assert f"1 merged matrices differ from the definition: {name}" in text
