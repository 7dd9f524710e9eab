"""Each family's runs become merged models that are proven, and what goes wrong on the way is found."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from merge_adapter import merge as merge_adapter
from safetensors.torch import load_file, save_file

from finetune import layout
from finetune.layout import Places
from finetune.merge import merge
from finetune.merge_proof import prove_merge
from finetune.merging import lora
from finetune.merging.checkpoint import open_checkpoint
from finetune.merging.slots import Slot, Slots, Wanted, find_slots
from finetune.model import load_model, load_skeleton
from finetune.proving import form, sample
from lensmith import families
from lensmith.artifact import Artifact
from lensmith.attestation import Attestation
from lensmith.base import pin_base
from lensmith.files import digest_file
from lensmith.home import Home
from tests.artifacts import make_held_out, make_run
from tests.families.conftest import Checkpoint, towers_of
from tests.family_results import Shows
from tests.finetune.merged import Walk, planted

pytestmark = pytest.mark.slow

WEIGHTS = "model.safetensors"
# A tensor on disk that holds more than one weight of the class, or one under another name, by family.
MOVED = {
    "gemma3": "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
    "deepseek_ocr2": "model.sam_model.blocks.0.attn.qkv.weight",
    "molmo2": "model.transformer.blocks.0.self_attn.att_proj.weight",
}


@pytest.fixture(scope="module")
def walks(
    made: dict[str, Checkpoint], bank_forms: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Walk]:
    """A family's base, a random adapter on all its linears, and their merged model."""
    walked: dict[str, Walk] = {}

    def walk(family: str) -> Walk:
        if family not in walked:
            towers = towers_of(family, "lora")
            recipe = made[family].recipe("lora", **dict.fromkeys(towers, "adapt"))
            home = Home(tmp_path_factory.mktemp(family) / "home")
            base = pin_base(recipe, home)
            run = make_run(home, base, towers)
            model = merge(recipe, home, base, run)
            walked[family] = Walk(recipe, home, base, run, model, make_held_out(home, bank_forms, 4))
        return walked[family]

    return walk


def prove(walked: Walk) -> Attestation:
    return prove_merge(walked.recipe, walked.home, walked.base, walked.run, walked.model, walked.held_out)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_an_adapter_on_every_linear_is_merged(
    walks: Callable[[str], Walk], family: str, shows: Shows
) -> None:
    shows(family, "", "merge")
    walked = walks(family)
    for tower, modules in walked.run.body["modules"].items():
        shows(family, tower, "merge")
        assert modules > 0
    proof = prove(walked)
    assert proof.statement["findings"] == []
    assert proof.passed
    adapted = sum(walked.run.body["modules"].values())
    assert proof.statement["adapter"]["modules"] == adapted
    weights, loaded = proof.statement["weights"], proof.statement["loaded"]
    assert weights["bit_equal"] == weights["tensors"]
    assert weights["changed"] == weights["merged"] == walked.model.body["tensors_changed"] <= adapted
    assert loaded["bit_equal"] == loaded["weights"] > adapted
    assert proof.statement["logits"]["max_abs_difference"] > 0


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_tensor_left_as_it_was_is_found(walks: Callable[[str], Walk], family: str) -> None:
    walked = walks(family)
    base, merged = (load_file(path / WEIGHTS) for path in (walked.recipe.base.path, walked.model.path))
    changed = sorted(name for name in base if not base[name].equal(merged[name]))
    name = MOVED.get(family, changed[0])
    assert name in changed

    def dropped(root: Path) -> None:
        save_file(load_file(root / WEIGHTS) | {name: base[name]}, root / WEIGHTS, metadata={"format": "pt"})

    proof = prove(planted(walked, "dropped", dropped))
    assert not proof.passed
    text = "\n".join(proof.statement["findings"])
    assert f"merged tensors differ from the definition: {name}" in text
    assert "weights are not what was trained, once loaded" in text
    assert "logits differ" in text


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_sample_is_proven_without_holding_the_model(
    walks: Callable[[str], Walk], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked = walks(family)
    monkeypatch.setattr(form, "WHOLE_BYTES", 0)
    proof = prove(walked)
    assert proof.statement["findings"] == []
    weights = proof.statement["weights"]
    assert weights["form"] == "sampled"
    assert weights["bit_equal"] == weights["changed"] == weights["matrices"] <= sample.DRAWN
    assert weights["merged"] == walked.model.body["tensors_changed"]
    assert proof.statement["adapter"]["modules"] == sum(walked.run.body["modules"].values())


@pytest.mark.parametrize("family", families.FAMILIES)
def test_an_adapter_from_outside_is_merged_and_proven_without_a_home(
    walks: Callable[[str], Walk], family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    walked = walks(family)
    merge_adapter(walked.run.path, walked.recipe.base.path, family, tmp_path / "out")
    told = re.search(r"proven: (\d+) of (\d+) merged matrices", capsys.readouterr().out)
    assert told
    assert told[1] == told[2] != "0"
    for shard in walked.model.path.glob("*.safetensors"):
        assert digest_file(tmp_path / "out" / shard.name) == digest_file(shard)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_wrong_map_is_found_by_who_does_not_use_it(
    walks: Callable[[str], Walk], family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two adapted weights of one shape are taken for each other, by merge and by its proof."""
    walked, right, right_slots = walks(family), layout.find_places, lora.find_slots

    def swapped(places: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
        one, two = [
            disk
            for disk, name in names.items()
            if name.startswith("model.language_model.layers.") and name.endswith("self_attn.q_proj.weight")
        ][:2]
        return places | {one: places[two], two: places[one]}

    def wrong(*given: object) -> Places:
        places = right(*given)  # pyright: ignore[reportArgumentType]
        return swapped(places, {disk: parts[0].name for disk, parts in places.items()})

    def wrong_slots(*given: object) -> Slots:
        slots = right_slots(*given)  # pyright: ignore[reportArgumentType]
        return swapped(slots, {disk: each[0].part.name for disk, each in slots.items()})

    monkeypatch.setattr(layout, "find_places", wrong)
    monkeypatch.setattr(lora, "find_slots", wrong_slots)
    with walked.home.create("model", "a" * 24, {"base": walked.base, "run": walked.run}) as draft:
        _merge_into(draft.path, walked)
        draft.body.update(walked.model.body)
    proof = prove(Walk(walked.recipe, walked.home, walked.base, walked.run, draft.artifact, walked.held_out))
    assert not proof.passed
    text = "\n".join(proof.statement["findings"])
    assert "merged tensors differ" not in text
    assert "weights are not what was trained, once loaded" in text
    assert "logits differ" in text


@pytest.mark.parametrize("family", families.FAMILIES)
def test_headers_say_where_weights_lie_as_the_class_does(walks: Callable[[str], Walk], family: str) -> None:
    """Merging asks the files' headers and the layout; transformers' class says the same of every matrix."""
    root, known = walks(family).recipe.base.path, families.get(family)
    places, shapes = layout.read_places(root, known)
    config = load_skeleton(root).config.to_dict()
    fused = known.experts.fused(config) if known.experts else []
    there = {part.name for parts in places.values() for part in parts}
    wanted = {
        name: Wanted(shapes[name], name, name in fused) for name in there if len(shapes[name]) in (2, 3)
    }
    slots = find_slots(wanted, open_checkpoint(root), known)
    assert slots == {
        disk: tuple(Slot(part, part.shape(shapes[part.name])[0]) for part in parts)
        for disk, parts in places.items()
        if parts[0].name in wanted
    }
    # One alone of those that lie together finds its place without the others.
    for name, each in wanted.items():
        for disk, alone in find_slots({name: each}, open_checkpoint(root), known).items():
            assert alone == slots[disk]


def _merge_into(target: Path, walked: Walk) -> None:
    from finetune.merging.companions import copy_companions
    from finetune.merging.weights import write_merged

    write_merged(
        walked.recipe.base.path,
        walked.recipe.model_family,
        walked.run,
        target,
        walked.home.work_path("again"),
    )
    copy_companions(walked.recipe.base.path, target, None)


def full_run(walked: Walk) -> Artifact:
    """A run of method full as training leaves it: transformers writes the whole model, every weight moved."""
    import torch

    model = load_model(walked.recipe.base.path, torch.float32)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01 * torch.randn(weight.shape, generator=draw))
    with walked.home.create("run", "b" * 24, {"base": walked.base}) as draft:
        model.save_pretrained(draft.path)
        draft.body.update(
            method="full", template=walked.base.body["template"], seed=3, steps=1, final_loss=1.0
        )
    return draft.artifact


@pytest.mark.parametrize("family", families.FAMILIES)
def test_whole_weights_take_the_published_layout(
    walks: Callable[[str], Walk], family: str, shows: Shows
) -> None:
    """Fused experts are turned back, Molmo2's embeddings cut where its vocabulary ends."""
    shows(family, "", "merge full")
    walked = walks(family)
    run = full_run(walked)
    model = merge(walked.recipe, walked.home, walked.base, run)
    proof = prove(Walk(walked.recipe, walked.home, walked.base, run, model, walked.held_out))
    assert proof.statement["findings"] == []
    assert proof.passed
    assert proof.statement["loaded"]["bit_equal"] == proof.statement["loaded"]["weights"]
    base, merged = (load_file(path / WEIGHTS) for path in (walked.recipe.base.path, model.path))
    assert {n: t.shape for n, t in base.items()} == {n: t.shape for n, t in merged.items()}
