"""What earlier datasets bind, what several sources add, and what several labellers say: through prepare."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.prepare import Prepared, prepare
from lensmith.dataset import read_held_out, read_split
from lensmith.errors import InputError
from lensmith.home import Home
from lensmith.recipe import load_recipe
from tests.data_prep.conftest import refused
from tests.data_prep.folder import Folder
from tests.data_prep.similar.pictures import CROPPED, encoded, pages
from tests.data_prep.test_prepare import places


def photograph(seed: int, quality: int = 95, turned: bool = False) -> bytes:
    """A picture with structure at every scale, as JPEG; copies differ in quality or by a quarter turn."""
    draws = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(draws.integers(0, 256, (n, n), np.uint8)).resize((160, 120)), np.float32)
        for n in (3, 6, 12)
    ]
    image = Image.fromarray(np.clip(sum(layers) / 3, 0, 255).astype(np.uint8)).convert("RGB")
    stream = io.BytesIO()
    (image.transpose(Image.Transpose.ROTATE_90) if turned else image).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def shown(folder: Folder, row: str, group: str, data: bytes) -> dict[str, Any]:
    return folder.row(row, group, path=folder.image(f"{row}.jpg", data))


def splits_of(prepared: Prepared, home: Home, *rows: str) -> set[str]:
    found = places(prepared, home)
    return {found[row] for row in rows}


@pytest.mark.parametrize("similar", ["together", "ignore"])
def test_near_copies_of_two_groups_stay_in_one_split(folder: Folder, home: Home, similar: str) -> None:
    folder.fill(groups=30)
    names = [f"pair-{number}" for number in range(8)]
    for number, name in enumerate(names):
        folder.add(shown(folder, f"{name}-a", f"{name}-a", photograph(number)))
        folder.add(shown(folder, f"{name}-b", f"{name}-b", photograph(number, 60, turned=True)))
    prepared = prepare(folder.recipe(f"data.similar={similar}"), home)
    apart = [name for name in names if len(splits_of(prepared, home, f"{name}-a", f"{name}-b")) > 1]
    # Eight pairs whose groups are drawn apart: some lie in two splits unless the copies are noticed.
    assert bool(apart) == (similar == "ignore")
    assert prepared.intake.body["similar"]["pairs"] == (8 if similar == "together" else 0)


def test_rows_of_the_previous_dataset_keep_their_split(folder: Folder, home: Home) -> None:
    folder.fill(groups=30)
    for number in range(6):
        folder.add(shown(folder, f"old-{number}", f"old-{number}", photograph(number)))
    first = prepare(folder.recipe(), home)
    before = places(first, home)
    for number in range(6):
        folder.add(shown(folder, f"copy-{number}", f"copy-{number}", photograph(number, 50)))
    second = prepare(folder.recipe(previous=first.dataset.short), home)
    after = places(second, home)
    assert before.items() <= after.items()
    assert [after[f"copy-{number}"] for number in range(6)] == [
        before[f"old-{number}"] for number in range(6)
    ]
    assert second.dataset.manifest.key != first.dataset.manifest.key


def test_a_new_row_that_ties_two_splits_is_refused_with_both(folder: Folder, home: Home) -> None:
    folder.fill(groups=30)
    first = prepare(folder.recipe(), home)
    before = places(first, home)
    train = next(row for row, split in before.items() if split == "train")
    exam = next(row for row, split in before.items() if split == "held_out")
    group = train.replace("good-", "group-").rsplit("-", 1)[0]
    # The group of a training row, and beside it a turned copy of an exam's picture.
    data = (folder.root / f"images/{exam}.png").read_bytes()
    turned = io.BytesIO()
    Image.open(io.BytesIO(data)).resize((96, 64), Image.Resampling.NEAREST).save(turned, "PNG")
    line = folder.add(folder.row("bridge", group, path=folder.image("bridge.png", turned.getvalue())))
    second = prepare(folder.recipe(previous=first.dataset.id), home)
    assert refused(second)[line] == {"two_splits"}
    said = (second.intake.path / "refused.csv").read_text(encoding="utf-8-sig")
    assert "(train)" in said
    assert f"'{exam}' (held_out)" in said
    assert before.items() <= places(second, home).items()


def test_a_picture_of_an_earlier_exam_is_not_taken(folder: Folder, home: Home, tmp_path: Path) -> None:
    folder.fill(groups=20)
    for number in range(4):
        folder.add(shown(folder, f"photo-{number}", "customer-1", photograph(number)))
    exam = prepare(folder.recipe(split={"validation": 0.1, "held_out": 0.85, "seed": 3}), home).held_out
    sealed = {row.sample.id for row in read_held_out(home, exam, "a test of the guard")}
    assert {f"photo-{number}" for number in range(4)} <= sealed, "choose another seed"
    later = Folder(tmp_path / "later")
    later._pictures = 500
    later.fill(groups=20)
    line = later.add(shown(later, "swallowed", "new-1", photograph(2, 40)))
    # A refused row leads to nothing by its other pictures.
    later.add(shown(later, "innocent", "new-2", photograph(7)))
    beside = {"type": "image", "path": later.image("beside.jpg", photograph(7, 40))}
    torn = shown(later, "torn", "new-3", photograph(1, 40))
    torn["messages"][0]["content"].insert(0, beside)
    last = later.add(torn)
    free = prepare(later.recipe("serve.max_images=2"), home)
    guarded = prepare(later.recipe("serve.max_images=2", exams=[exam.id]), home)
    assert refused(free) == {}
    assert refused(guarded) == {line: {"old_exam"}, last: {"old_exam"}}
    assert (free.intake.body["similar"]["pairs"], guarded.intake.body["similar"]["pairs"]) == (1, 0)
    reads = [
        json.loads(text)["reason"] for text in (home.root / "held_out_reads.jsonl").read_text().splitlines()
    ]
    assert "no new row may repeat its pictures or long answers" in reads


@pytest.mark.slow
def test_a_cropped_page_of_an_earlier_exam_is_not_taken(folder: Folder, home: Home, tmp_path: Path) -> None:
    filled = [encoded(page, "PNG", compress_level=1) for page in pages(29)]
    copy = encoded(CROPPED["3% off"](pages(1)[0]), "JPEG", quality=85)
    for number, data in enumerate([*filled[:28], copy]):
        folder.add(shown(folder, f"page-{number}", f"customer-{number}", data))
    folder.fill(groups=3)
    first = prepare(folder.recipe(split={"validation": 0.02, "held_out": 0.95, "seed": 3}), home)
    assert first.intake.body["similar"]["pairs"] == 1
    sealed = {row.sample.id for row in read_held_out(home, first.held_out, "a test of the guard")}
    assert {"page-0", "page-28"} <= sealed, "choose another seed"
    later = Folder(tmp_path / "later")
    later._pictures = 500
    later.fill(groups=20)
    again = encoded(CROPPED["4% off a corner"](pages(1)[0]), "JPEG", quality=85)
    line = later.add(shown(later, "swallowed", "new-1", again))
    later.add(shown(later, "another", "new-2", filled[28]))
    assert refused(prepare(later.recipe(exams=[first.held_out.id]), home)) == {line: {"old_exam"}}


def test_names_of_earlier_things_are_checked(folder: Folder, home: Home) -> None:
    folder.fill()
    first = prepare(folder.recipe(), home)
    with pytest.raises(InputError, match="is not a dataset"):
        prepare(folder.recipe(previous=first.held_out.id), home)
    with pytest.raises(InputError, match="what is no exam"):
        prepare(folder.recipe(exams=[first.dataset.id]), home)


def two_sources(folder: Folder, tmp_path: Path, **second: object) -> Path:
    """A recipe over the folder and another one of forty rows."""
    folder.fill(groups=30)
    recipe = folder.recipe()
    other = Folder(tmp_path / "other")
    other._pictures = 900
    for number in range(40):
        other.add(other.row(f"more-{number}", f"more-{number}"))
    other.write().rename(other.root / "more.jsonl")
    path = tmp_path / "recipe.yaml"
    content = recipe.model_dump(mode="json")
    content["data"] |= {
        "source": None,
        "sources": [{"path": str(folder.labels)}, {"path": "other/more.jsonl", **second}],
    }
    path.write_text(json.dumps(content))
    return path


def test_a_cap_leaves_good_rows_out(folder: Folder, home: Home, tmp_path: Path) -> None:
    prepared = prepare(load_recipe(two_sources(folder, tmp_path, cap=15)), home)
    taken = places(prepared, home)
    assert len([row for row in taken if row.startswith("more-")]) == 15
    assert len(taken) == 45
    assert prepared.intake.body["left_out"] == {"cap": 25}
    assert prepared.intake.body["refused"]["rows"] == 0
    assert [source["file"] for source in prepared.intake.body["sources"]] == ["labels.jsonl", "more.jsonl"]


def test_a_weight_shows_training_rows_again_and_no_others(folder: Folder, home: Home, tmp_path: Path) -> None:
    prepared = prepare(load_recipe(two_sources(folder, tmp_path, weight=2.0)), home)
    train = read_split(prepared.dataset, "train")
    heavy = [number for number, row in enumerate(train) if row.sample.id.startswith("more-")]
    assert heavy
    assert sorted(train.epoch()) == sorted([*range(len(train)), *heavy])
    validation = read_split(prepared.dataset, "validation")
    assert sorted(validation.epoch()) == list(range(len(validation)))


def test_two_sources_of_one_name_are_refused(folder: Folder, home: Home, tmp_path: Path) -> None:
    path = two_sources(folder, tmp_path)
    content = json.loads(path.read_text())
    content["data"]["sources"][1]["path"] = str(folder.labels)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="two sources have one name"):
        prepare(load_recipe(path), home)


def labelled(folder: Folder, item: str, labeller: str, answer: str, path: str) -> dict[str, object]:
    row = folder.row(f"{item}-{labeller}", item, answer, path)
    return row | {"meta": {"item": item}, "origin": {"labeller": labeller}}


def test_several_labels_of_one_thing_become_one_row(folder: Folder, home: Home) -> None:
    folder.fill(groups=20)
    answers = {"a": ("1", "1", "2"), "b": ("1", "2", "3"), "c": ("4", "4", "4")}
    for item, given in answers.items():
        path = folder.image(f"{item}.png")
        for labeller, answer in zip(("ann", "bob", "eve"), given, strict=True):
            folder.add(labelled(folder, item, labeller, json.dumps({"n": answer}), path))
    prepared = prepare(folder.recipe(labels={"same": "item", "rule": "majority"}), home)
    taken = places(prepared, home)
    assert {row for row in taken if not row.startswith("good-")} == {"a-ann", "c-ann"}
    assert list(refused(prepared).values()) == [{"labels_disagree"}] * 3
    body = prepared.intake.body
    assert body["left_out"] == {"label": 4}
    (field,) = body["agreement"]
    assert (field["field"], field["items"]) == ("n", 3)
    assert field["percent"] == pytest.approx(4 / 9)
    assert body["flagged"]["by_reason"] == {"labels_differ": 1}
    with (prepared.intake.path / "disagreements.csv").open(encoding="utf-8-sig", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert {each["item"] for each in table} == {"a", "b"}
    # Without the setting the same rows contradict each other.
    alone = prepare(folder.recipe(), home)
    assert set().union(*refused(alone).values()) == {"duplicate_row", "contradiction"}
