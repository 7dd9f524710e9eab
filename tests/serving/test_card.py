"""The model card, against its golden file, and what it must never say."""

from __future__ import annotations

from pathlib import Path

import yaml

from lensmith.artifact import Artifact
from serving.card import model_card
from serving.release_file import Release
from tests.release_artifacts import World

GOLDEN = Path(__file__).parent / "golden"


def golden_release() -> Release:
    return Release.model_validate_json((GOLDEN / "release_v1.json").read_bytes())


def card(world: World, release: Release, run: Artifact | None = None) -> str:
    model = world.model("one")
    return model_card(
        release,
        base_name="Tiny-VL",
        base=world.base,
        run=run or world.run("one"),
        dataset=world.dataset,
        intake=world.intake,
        profile=world.profile(model),
    )


def test_golden_card(world: World) -> None:
    assert card(world, golden_release()) == (GOLDEN / "card_v1.md").read_text()


def test_front_matter_is_what_hubs_read(world: World) -> None:
    front = yaml.safe_load(card(world, golden_release()).split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["base_model"] == "Tiny-VL"
    assert front["pipeline_tag"] == "image-text-to-text"
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert {"type": "field_f1", "name": "Field F1", "value": 0.875} in metrics


def test_a_full_fine_tune_claims_no_rank(world: World) -> None:
    run = world.run("one")
    train = {**run.body["asked"]["train"], "method": "full", "max_steps": 300}
    body = {**run.body, "method": "full", "asked": {**run.body["asked"], "train": train}}
    full = Artifact(run.path, run.manifest.model_copy(update={"body": body}))
    text = card(world, golden_release(), full)
    assert "| method | full fine-tune |" in text
    assert "| steps | 300 (max_steps 300) |" in text
    assert "rank" not in text


def test_what_differs_by_tower_is_told(world: World) -> None:
    run = world.run("one")
    lora = {"variant": "dora", "rank": 16, "alpha": 32.0, "towers": {"vision": {"rank": 4}}}
    train = {**run.body["asked"]["train"], "lora": lora, "tower_learning_rates": {"vision": 1e-5}}
    body = {**run.body, "asked": {**run.body["asked"], "train": train}}
    text = card(world, golden_release(), Artifact(run.path, run.manifest.model_copy(update={"body": body})))
    assert "| method | DoRA, rank 16, alpha 32, dropout 0; vision: rank 4, alpha 32 |" in text
    assert "| learning rate | 0.0002, vision 1e-05 |" in text


def test_preferences_are_told(world: World) -> None:
    run = world.run("one")
    for beta, told in ((None, "0.1"), (0.3, "0.3")):
        train = {**run.body["asked"]["train"], "objective": "dpo", "beta": beta}
        body = {**run.body, "asked": {**run.body["asked"], "train": train}}
        made = Artifact(run.path, run.manifest.model_copy(update={"body": body}))
        text = card(world, golden_release(), made)
        assert f"| objective | answers preferred to rejected ones (DPO, beta {told}) |" in text


def test_an_adapter_is_called_one(world: World) -> None:
    text = card(world, golden_release().model_copy(update={"mode": "adapter"}))
    assert "base_model_relation: adapter" in text
    assert "The adapter is served beside its base." in text


def test_an_undecidable_interval_is_called_so(world: World) -> None:
    release = golden_release()
    exam = release.exam
    scores = {name: score.model_copy(update={"interval": None}) for name, score in exam.scores.items()}
    text = card(world, release.model_copy(update={"exam": exam.model_copy(update={"scores": scores})}))
    assert "0.875 (undecidable)" in text


def test_a_fall_of_an_error_rate_keeps_its_sign(world: World) -> None:
    fall = golden_release().exam.differences["character_error_rate"].interval
    assert fall is not None
    assert fall.upper < 0
    assert "-0.019 (-0.021 to -0.016)" in card(world, golden_release())


def test_without_a_baseline_no_difference_is_claimed(world: World) -> None:
    release = golden_release()
    exam = release.exam.model_copy(update={"baseline": None, "baseline_scores": {}, "differences": {}})
    text = card(world, release.model_copy(update={"exam": exam}))
    assert "difference" not in text


def test_no_place_of_this_machine_is_told(world: World) -> None:
    artifact = world.release("one")
    for name in ("README.md", "release.json", "lineage.json"):
        text = (artifact.path / name).read_text()
        assert str(world.home.root) not in text
        assert "/nowhere" not in text
