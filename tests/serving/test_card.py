"""The model card, against its golden file, and what it must never say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from lensmith.adapter_files import ADAPTER_WEIGHTS
from lensmith.artifact import Artifact
from serving.card import model_card
from serving.merged_in import read_others
from serving.release_file import Release
from tests.release_artifacts import World

GOLDEN = Path(__file__).parent / "golden"


def golden_release() -> Release:
    return Release.model_validate_json((GOLDEN / "release_v1.json").read_bytes())


def card(
    world: World,
    release: Release,
    run: Artifact | None = None,
    model: Artifact | None = None,
) -> str:
    model = model or world.model("one")
    return model_card(
        release,
        base_name="Tiny-VL",
        base=world.base,
        run=run or world.run("one"),
        model=model,
        others=read_others(world.home, model),
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


def test_figures_of_proofs_are_told_as_people_read_them(world: World) -> None:
    release = golden_release()
    facts = {"logits": {"noise": 1.82397814993962e-05, "largest": 17.434896}, "rows": 1024, "whole": True}
    first = release.proofs[0].model_copy(update={"facts": facts})
    text = card(world, release.model_copy(update={"proofs": [first, *release.proofs[1:]]}))
    assert "- logits.largest: 17.4\n- logits.noise: 1.82e-05\n- rows: 1,024\n- whole: True\n" in text


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


def outside(world: World, name: str, **stated: Any) -> Artifact:
    """Another's adapter, and what the card beside it states."""
    source = {"adapter_config.json": "c" * 64, ADAPTER_WEIGHTS: "d" * 64}
    files = {ADAPTER_WEIGHTS: name.encode()}
    return world.artifact("adapter", name, {"base": world.base}, files, source=source, **stated)


def combined(world: World, others: Sequence[Artifact], **combination: Any) -> Artifact:
    """A model of the world's run and `others`."""
    roles = {f"adapter_{number}": each for number, each in enumerate(others, 1)}
    inputs = {"base": world.base, "run": world.run("one"), **roles}
    name = f"combined {[each.id for each in others]} {combination}"
    return world.artifact("model", name, inputs, {"config.json": b"{}"}, combination=combination)


TIES = {"method": "ties", "density": 0.5, "seed": None}


def test_every_adapter_that_was_merged_is_named(world: World) -> None:
    stated = {"licence": "cc-by-nc-4.0", "datasets": ["acme/receipts", "acme/bills"]}
    others = [world.run("two"), outside(world, "stated", **stated), outside(world, "silent")]
    model = combined(world, others, weights=[0.7, 0.5, 0.3, -1.0], **TIES)
    text = card(world, golden_release(), model=model)
    own, data = world.run("one").short, f"`dataset-{world.dataset.id[:12]}`"
    file = f"from outside ({ADAPTER_WEIGHTS} SHA-256 `dddddddddddd`)"
    lensmith = f"Lensmith: rank 16, alpha 32 | {data} | Apache-2.0, the base's"
    for line in (
        "What 4 adapters add to the base's weights was combined by TIES (arXiv 2306.01708), density 0.5. ",
        f"| `{own}`, this fine-tune | 0.7 | {lensmith} |",
        f"| `{others[0].short}` | 0.5 | {lensmith} |",
        f"| `{others[1].short}`, {file} | 0.3 | others | acme/receipts, acme/bills | cc-by-nc-4.0 |",
        f"| `{others[2].short}`, {file} | -1 | others | not stated | not stated |",
        "The adapter is merged into the base's weights, together with 3 more.",
        "Licence: Apache-2.0, the base's; of what was merged in: cc-by-nc-4.0. All of them hold.",
    ):
        assert line in text
    for number, each in enumerate(others, 1):
        assert f"| merged in, {number} | `{each.id}` |" in text
    front = yaml.safe_load(text.split("---")[1])
    assert (front["license"], front["license_name"]) == ("other", "apache-2.0 and cc-by-nc-4.0")


@pytest.mark.parametrize(
    ("combination", "told"),
    [
        ({"method": "linear", "density": None, "seed": None}, "combined as their weighted sum. "),
        ({"method": "dare_linear", "density": 0.25, "seed": 17}, "weighted sum, density 0.25, seed 17. "),
        ({"method": "dare_ties", "density": 0.25, "seed": 3}, "2306.01708), density 0.25, seed 3. "),
    ],
)
def test_a_method_is_told_with_its_settings(world: World, combination: dict[str, Any], told: str) -> None:
    model = combined(world, [world.run("two")], weights=[1.0, 0.5], **combination)
    text = card(world, golden_release(), model=model)
    assert told in text
    assert yaml.safe_load(text.split("---")[1])["license"] == "apache-2.0"


def test_others_come_in_the_recipe_s_order(world: World) -> None:
    others = [world.run(f"number {number}") for number in range(12)]
    model = combined(world, others, weights=[1.0] * 13, **TIES)
    assert read_others(world.home, model) == others
