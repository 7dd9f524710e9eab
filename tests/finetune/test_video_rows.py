"""Videos among images and text, from the labels to a run: planned, packed, previewed and learned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune.plan import plan
from finetune.preview import preview
from lensmith.dataset import read_split
from tests.finetune.conftest import Training, TrainingMaker
from tests.videos import make_clip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def filmed(bank_forms: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Some forms, one as text alone, and as many clips; settings of a recipe on them."""
    out = tmp_path_factory.mktemp("filmed")
    shutil.copytree(bank_forms / "images", out / "images")
    lines: list[str] = []
    for number, line in enumerate((bank_forms / "labels.jsonl").read_text().splitlines()[:24]):
        # Some of the handed-over lines are no JSON.
        if not line.endswith("}"):
            continue
        row = json.loads(line)
        if number % 3 == 0:
            row["messages"][0]["content"] = f"Write form {number} as JSON."
        if number % 3 == 1:
            clip = make_clip(out / f"clip-{number}.mp4", f"{number:02d}", size=(128, 96))
            shown = [{"type": "video", "path": clip.name}, {"type": "text", "text": "Which digits?"}]
            row["messages"][0]["content"] = shown
            row["messages"][-1]["content"] = json.dumps({"digits": f"{number:02d}"})
        lines.append(json.dumps(row) + "\n")
    (out / "labels.jsonl").write_text("".join(lines))
    return {
        "data__source": str(out / "labels.jsonl"),
        "data__text_only": True,
        "data__video": {"fps": 2, "max_frames": 4},
        "data__similar": "ignore",
        "data__split": {"validation": 0.0, "held_out": 0.0},
        "train__max_steps": 3,
        "train__batch_size": 4,
    }


@pytest.fixture(scope="module")
def training(new_training: TrainingMaker, filmed: dict[str, Any]) -> Training:
    training = new_training(**filmed)
    training.run()
    return training


def kinds(training: Training) -> set[tuple[bool, bool]]:
    samples = [row.sample for row in read_split(training.dataset, "train")]
    return {(bool(each.stills), bool(each.videos)) for each in samples}


def test_all_kinds_are_learned(training: Training) -> None:
    assert kinds(training) == {(True, False), (False, True), (False, False)}
    losses = training.losses()
    assert len(losses) == 3
    assert losses[-1] < losses[0]


def test_packed_is_the_same_run(
    new_training: TrainingMaker, filmed: dict[str, Any], training: Training
) -> None:
    packed = new_training(**filmed, train__pack_length=700)
    packed.run()
    assert packed.losses() == pytest.approx(training.losses(), abs=1e-5)


def test_planned_as_it_is_encoded(training: Training) -> None:
    from finetune.encoder import row_encoder

    planned = plan(training.recipe, training.dataset)
    encoder = row_encoder(training.recipe, training.recipe.base.path)
    encoded = [encoder.encode(row) for row in read_split(training.dataset, "train")]
    seen = planned.rows
    assert seen.text_tokens + seen.image_tokens + seen.answer_tokens == sum(
        len(each.labels) for each in encoded
    )
    assert planned.memory.total > 0


def test_previewed_as_groups_of_frames(training: Training) -> None:
    rows = {row.sample.id: row for row in read_split(training.dataset, "train")}
    name = next(name for name, row in rows.items() if row.sample.videos)
    (shown,) = preview(training.recipe, training.base, training.dataset, 1, [name])
    assert shown.sizes == ((128, 96),) * 2
    assert shown.image_tokens == 2 * 4 * 3
    assert "<0.2 seconds>" in shown.prompt or "<0.3 seconds>" in shown.prompt
