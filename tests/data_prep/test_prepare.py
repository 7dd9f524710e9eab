"""The program: labelled rows in; a dataset, its sealed held-out set and their intake out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, get_ident
from typing import Any

import pytest

from data_prep import prepare as program
from data_prep.asked import Asked
from data_prep.prepare import Prepared, find_prepared, prepare
from data_prep.refusal import Flaw
from data_prep.screening import Screening
from data_prep.workbook import Workbook
from lensmith.artifact import verify
from lensmith.dataset import read_held_out, read_split
from lensmith.errors import InputError, IntegrityError
from lensmith.home import Home
from lensmith.intake import find_intake
from lensmith.row_file import Row, RowFile, images_file
from tests.conftest import ROOT, RecipeMaker
from tests.data_prep.conftest import BankForms, line_of, refused
from tests.data_prep.folder import Folder, picture
from tests.data_prep.killed import STATUS

EXPECTED = {
    "missing image": {"image_missing"},
    "truncated jpeg": {"image_unreadable"},
    "empty answer": {"empty_answer"},
    "image token in the label": {"markup"},
    "broken json": {"not_json"},
    "repeated row": {"duplicate_row"},
    "copied image in a group": {"duplicate_row"},
    "copied image across groups": {"image_across_groups"},
}


def all_rows(prepared: Prepared, home: Home) -> dict[str, list[Row]]:
    return {
        "train": list(read_split(prepared.dataset, "train")),
        "validation": list(read_split(prepared.dataset, "validation")),
        "held_out": list(read_held_out(home, prepared.held_out, "a test of prepare")),
    }


def places(prepared: Prepared, home: Home) -> dict[str, str]:
    rows = all_rows(prepared, home)
    return {row.sample.id: split for split, taken in rows.items() for row in taken}


def assert_nothing_left(home: Home) -> None:
    """No artifact, whole or in part, and no unfinished work."""
    assert home.all() == []
    left = {path.name for path in home.root.iterdir() if path.is_dir() and any(path.iterdir())}
    assert left == {"cache", "locks"}


def test_every_planted_row_is_refused_and_nothing_else(forms: BankForms) -> None:
    expected = {flaw.line: EXPECTED[flaw.flaw] for flaw in forms.planted}
    assert refused(forms.prepared) == expected
    body = forms.prepared.intake.body
    assert body["refused"]["rows"] == len(expected)
    taken = sum(forms.prepared.dataset.body["rows"].values())
    assert taken == body["sources"][0]["rows"] - len(expected)
    assert {flaw.flaw for flaw in forms.planted} == EXPECTED.keys()


def test_a_later_copy_names_the_row_it_copies(forms: BankForms) -> None:
    reasons = {
        line_of(record["place"]): record["reason"]
        for record in map(json.loads, (forms.prepared.intake.path / "refused.jsonl").read_text().splitlines())
    }
    copies = [flaw for flaw in forms.planted if flaw.flaw.startswith(("copied", "repeated"))]
    assert len(copies) == 6
    assert all(f"'{flaw.ids[-1]}' (labels.jsonl:" in reasons[flaw.line] for flaw in copies)


def test_groups_stay_together_and_images_are_what_they_state(forms: BankForms) -> None:
    rows = all_rows(forms.prepared, forms.home)
    groups = {split: {row.sample.group for row in taken} for split, taken in rows.items()}
    assert not groups["train"] & groups["held_out"]
    assert not groups["train"] & groups["validation"]
    body = forms.prepared.dataset.body
    assert {split: len(taken) for split, taken in rows.items()} == body["rows"]
    assert {split: len(each) for split, each in groups.items()} == body["groups"]
    assert forms.prepared.held_out.body["rows"] == body["rows"]["held_out"]
    row = rows["train"][0]
    assert json.loads(row.sample.answer).keys() == {"account", "amount", "date"}
    assert all(data.startswith(b"\x89PNG") for data in row.images)


def test_all_three_verify_and_belong_together(forms: BankForms) -> None:
    dataset, held_out, intake = forms.prepared.dataset, forms.prepared.held_out, forms.prepared.intake
    assert forms.home.verify(dataset) == [dataset]
    assert forms.home.verify(held_out) == [held_out]
    assert forms.home.verify(intake) == [intake, dataset, held_out]
    assert find_intake(forms.home, dataset) == intake
    assert dataset.body["held_out"] == held_out.id
    assert set(dataset.body["leaks"]) == {
        "train and validation",
        "train and held_out",
        "validation and held_out",
    }
    assert all(set(shared.values()) == {0} for shared in dataset.body["leaks"].values())


def test_every_row_that_is_learned_is_listed_with_its_place(forms: BankForms) -> None:
    lines = (forms.prepared.intake.path / "taken.jsonl").read_text().splitlines()
    listed = {record["row"]: record for record in map(json.loads, lines)}
    rows = all_rows(forms.prepared, forms.home)
    wanted = {row.sample.id: split for split in ("train", "validation") for row in rows[split]}
    assert {row: record["split"] for row, record in listed.items()} == wanted
    handed = (forms.recipe.data.source or Path()).read_bytes().splitlines()
    assert all(json.loads(handed[line_of(each["place"]) - 1])["id"] == row for row, each in listed.items())


def test_a_dataset_is_its_rows_wherever_they_come_from(folder: Folder, home: Home) -> None:
    """Another name, another order of keys and one more bad row: the same rows, so the same dataset."""
    folder.fill()
    first = prepare(folder.recipe(), home)
    folder.lines = [json.dumps(dict(reversed(json.loads(line).items()))).encode() for line in folder.lines]
    folder.add(b"broken")
    again = prepare(folder.recipe(), home)
    assert again.intake.body["refused"]["rows"] == 1
    assert (again.dataset.id, again.held_out.id) == (first.dataset.id, first.held_out.id)
    assert again.intake.id != first.intake.id
    assert again.dataset.manifest.key != first.dataset.manifest.key
    row = json.loads(folder.lines[0])
    row["meta"] = {"seen": "twice"}
    folder.lines[0] = json.dumps(row).encode()
    other = prepare(folder.recipe(), home)
    assert (other.dataset.id, other.held_out.id) != (first.dataset.id, first.held_out.id)


def test_image_tokens_are_counted_with_the_base_s_own_grid(forms: BankForms) -> None:
    tokens = forms.prepared.dataset.body["image_tokens"]
    assert tokens["grid"]["factor"] == 32
    # A form is 256 x 128 pixels.
    assert tokens["per_row"]["train"]["median"] == 32
    assert forms.prepared.dataset.body["images"]["pixels"]["max"] == 256 * 128


def test_the_held_out_rows_are_not_in_the_dataset(forms: BankForms) -> None:
    held_out = list(
        read_held_out(forms.home, forms.prepared.held_out, "test that the loader cannot reach it")
    )
    ids = {row.sample.id for row in held_out}
    for path in (forms.prepared.dataset.path / "data").glob("train.arrow"):
        assert not ids & {row.sample.id for row in RowFile(path)}
    with pytest.raises(InputError):
        read_split(forms.prepared.held_out, "train")
    with pytest.raises(InputError):
        read_held_out(forms.home, forms.prepared.dataset, "take the dataset for the exam")


def test_datasets_loads_it_with_decoded_images(forms: BankForms, tmp_path: Path) -> None:
    import datasets
    from PIL import Image

    def load(path: Path) -> datasets.Dataset:
        return datasets.load_dataset(
            "arrow", data_files=str(path), split="train", cache_dir=str(tmp_path / path.name)
        )

    path = forms.prepared.dataset.path / "data/train.arrow"
    train, pictures = load(path), load(images_file(path))
    assert len(train) == forms.prepared.dataset.body["rows"]["train"]
    assert json.loads(train[0]["messages"])[-1]["role"] == "assistant"
    picture = pictures[train[0]["images"][0]]
    assert isinstance(picture["image"], Image.Image)
    assert (picture["image"].mode, picture["image"].size) == ("RGB", (256, 128))
    assert json.loads(train[0]["messages"])[0]["content"][0]["digest"] == picture["digest"]


def test_nothing_names_a_place_on_this_machine(forms: BankForms) -> None:
    for artifact in (forms.prepared.dataset, forms.prepared.held_out, forms.prepared.intake):
        for path in artifact.path.rglob("*"):
            if path.is_file() and path.name != "record.json":
                assert str(forms.home.root.parent).encode() not in path.read_bytes(), path


def test_all_flaws_of_a_row_and_of_the_file_are_listed(folder: Folder, home: Home) -> None:
    folder.fill()
    bad = folder.row("good-0-0", path="../x.png", answer="<|im_end|>")
    several = folder.add(bad)
    broken = folder.add(b'{"id": ')
    absolute = folder.add(folder.row("b", path="/etc/passwd"))
    prepared = prepare(folder.recipe(), home)
    assert refused(prepared) == {
        several: {"image_path", "markup", "empty_answer", "duplicate_id"},
        broken: {"not_json"},
        absolute: {"image_path"},
    }
    assert prepared.intake.body["refused"]["rows"] == 3
    assert prepared.intake.body["refused"]["by_reason"]["image_path"] == 2


def test_a_group_that_only_looks_like_another_is_refused(folder: Folder, home: Home) -> None:
    """Kept, the rows of one customer could lie in two splits. Capitals may mean another customer: a flag."""
    folder.fill()
    folder.add(folder.row("capitals", "GROUP-3"))
    lines = [
        folder.add(folder.row(f"row-{at}", group)) for at, group in enumerate(("group-1 ", "\u00a0group-2"))
    ]
    prepared = prepare(folder.recipe(), home)
    assert refused(prepared) == {line: {"schema"} for line in lines}
    (flagged,) = (prepared.intake.path / "flagged.jsonl").read_text().splitlines()
    assert (json.loads(flagged)["row"], json.loads(flagged)["code"]) == ("capitals", "group_spelling")


def test_a_link_out_of_the_folder_is_not_followed(folder: Folder, home: Home, tmp_path: Path) -> None:
    folder.fill()
    (tmp_path / "secret.png").write_bytes(picture(5))
    (folder.root / "images/link.png").symlink_to(tmp_path / "secret.png")
    line = folder.add(folder.row("link", path="images/link.png"))
    assert refused(prepare(folder.recipe(), home)) == {line: {"image_path"}}


def test_a_row_that_serving_would_refuse_is_not_taken(folder: Folder, home: Home) -> None:
    folder.fill()
    pair = folder.row("pair")
    pair["messages"][0]["content"].insert(0, {"type": "image", "path": folder.image("back.png")})
    line = folder.add(pair)
    one = prepare(folder.recipe(), home)
    assert refused(one) == {line: {"too_many_images"}}
    text = (one.intake.path / "refused.csv").read_text()
    assert "2 images, a request may show 1" in text
    assert "raise serve.max_images, or give fewer images" in text
    # The setting decides which rows are taken: what was prepared under another does not count.
    two = prepare(folder.recipe("serve.max_images=2"), home)
    assert refused(two) == {}
    assert two.dataset.id != one.dataset.id
    assert find_prepared(folder.recipe(), home) == one


def test_too_many_bad_rows_write_nothing_and_say_why(folder: Folder, home: Home) -> None:
    folder.fill()
    for number in range(11):
        folder.add(folder.row(f"empty-{number}", answer=""))
    folder.add(b"broken")
    with pytest.raises(
        InputError, match=r"12 of 24 rows are refused \(50.0%\), data.max_bad allows 49.0%"
    ) as caught:
        prepare(folder.recipe(max_bad=0.49), home)
    said = [str(problem) for problem in caught.value.problems]
    assert said[:2] == ["The answer is empty: 11 rows", "The line is not JSON: 1 row"]
    assert said[2].startswith("labels.jsonl:13: ")
    assert (
        said[-1] == "and 2 more rows (to have them all in refused.csv: lensmith prepare RECIPE --max-bad 12)"
    )
    assert_nothing_left(home)
    assert prepare(folder.recipe(max_bad=12), home).intake.body["refused"]["rows"] == 12


def test_no_rows_left_for_a_split(folder: Folder, home: Home) -> None:
    folder.fill(groups=1, each=5)
    with pytest.raises(InputError, match="do not fill every split") as caught:
        prepare(folder.recipe(), home)
    assert [problem.where for problem in caught.value.problems] == ["validation", "held_out"]
    assert_nothing_left(home)


def test_missing_data(folder: Folder, home: Home) -> None:
    recipe = folder.recipe()
    folder.labels.unlink()
    for ask in (prepare, find_prepared):
        with pytest.raises(InputError, match="missing"):
            ask(recipe, home)


def test_a_second_call_does_nothing(folder: Folder, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.fill()
    recipe = folder.recipe()
    assert find_prepared(recipe, home) is None
    first = prepare(recipe, home)

    def refuse(*arguments: object) -> None:
        raise AssertionError("it worked again")

    monkeypatch.setattr(program, "read_rows", refuse)
    assert prepare(recipe, home) == first
    assert find_prepared(recipe, home) == first


def test_of_two_calls_at_once_one_works_and_the_other_waits(
    folder: Folder, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.fill()
    recipe = folder.recipe()
    both, ask, read, read_by = Barrier(2), program.ask, program.read_rows, list[int]()

    def then_meet(*arguments: Any) -> Asked:
        asked = ask(*arguments)
        both.wait(60)
        return asked

    def note(*arguments: Any) -> None:
        read_by.append(get_ident())
        read(*arguments)

    monkeypatch.setattr(program, "ask", then_meet)
    monkeypatch.setattr(program, "read_rows", note)
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: prepare(recipe, home), range(2))
    assert first == second
    assert len(read_by) == 1


def test_workers_need_no_file_of_the_schema(folder: Folder, home: Home, tmp_path: Path) -> None:
    folder.fill()
    file = tmp_path / "schema.json"
    file.write_text('{"type": "object", "required": ["n"]}')
    asked = program.ask(folder.recipe(answer="json", answer_schema={"file": str(file)}), home)
    file.unlink()
    Screening(asked.recipe)
    inline = folder.recipe(answer="json", answer_schema={"inline": {"type": "object", "required": ["n"]}})
    assert program.ask(inline, home).dataset_key == asked.dataset_key


def test_the_key_follows_the_data_and_not_the_place(folder: Folder, home: Home, tmp_path: Path) -> None:
    folder.fill()
    first = prepare(folder.recipe(), home)
    moved = Folder(tmp_path / "elsewhere" / "handed-over")
    shutil.rmtree(moved.root)
    shutil.copytree(folder.root, moved.root, copy_function=shutil.copy2)
    moved.lines = folder.lines
    assert prepare(moved.recipe(), Home(tmp_path / "other")).dataset.manifest == first.dataset.manifest

    image = folder.root / "images/good-0-0.png"
    os.utime(image, ns=(1, 1))
    touched = prepare(folder.recipe(), home)
    assert touched.dataset.manifest.key != first.dataset.manifest.key
    assert touched.dataset.id == first.dataset.id
    image.write_bytes(picture(777))
    assert prepare(folder.recipe(), home).dataset.id != first.dataset.id
    folder.fill(groups=1)
    assert find_prepared(folder.recipe(), home) is None


def test_the_exam_is_the_same_for_another_family_and_validation_share(folder: Folder, home: Home) -> None:
    folder.fill(groups=40)
    recipe = folder.recipe()
    first = prepare(recipe, home)
    other = recipe.model_copy(update={"family": "glm4v"})
    second = prepare(other, home)
    third = prepare(folder.recipe(split={"validation": 0.3, "held_out": 0.3, "seed": 17}), home)
    assert len({first.dataset.id, second.dataset.id, third.dataset.id}) == 3
    assert first.held_out.id == second.held_out.id == third.held_out.id


def test_the_pixel_budget_changes_the_figures_and_not_the_exam(
    make_recipe: RecipeMaker, home: Home, forms: BankForms
) -> None:
    from lensmith.recipe import load_recipe

    small = {"min_pixels": 1024, "max_pixels": 8192}
    path = make_recipe(pixels=small, data__source=str(forms.recipe.data.source))
    prepared = prepare(load_recipe(path), home)
    assert prepared.dataset.body["image_tokens"]["per_row"]["train"]["max"] == 8
    assert prepared.dataset.id != forms.prepared.dataset.id
    assert prepared.held_out.id == forms.prepared.held_out.id


def test_adding_rows_moves_none_of_the_old_ones(folder: Folder, home: Home) -> None:
    folder.fill(groups=15)
    before = places(prepare(folder.recipe(), home), home)
    folder.add(*(folder.row(f"new-{number}", f"new-group-{number % 9}") for number in range(30)))
    after = places(prepare(folder.recipe(), home), home)
    assert len(after) == 45
    assert before.items() <= after.items()


def test_an_image_that_changes_while_it_is_read(
    folder: Folder, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.fill()
    recipe = folder.recipe()
    judge = program.judge_rows

    def then_change(book: Workbook, more: Mapping[int, Flaw]) -> None:
        judge(book, more)
        (folder.root / "images/good-3-0.png").write_bytes(picture(888))

    monkeypatch.setattr(program, "judge_rows", then_change)
    with pytest.raises(InputError, match="changed while it was read"):
        prepare(recipe, home)
    assert home.all() == []


def test_a_dataset_of_another_exam_is_not_taken(folder: Folder, home: Home) -> None:
    folder.fill()
    recipe = folder.recipe()
    prepared = prepare(recipe, home)
    shutil.rmtree(prepared.held_out.path)
    with home.create("held_out", prepared.held_out.manifest.key, {}) as draft:
        draft.body.update(rows=0)
    with pytest.raises(IntegrityError, match="do not belong together"):
        find_prepared(recipe, home)


def test_the_exam_alone_can_be_made_again(folder: Folder, home: Home) -> None:
    folder.fill()
    recipe = folder.recipe()
    first = prepare(recipe, home)
    for artifact in (first.held_out, first.dataset, first.intake):
        shutil.rmtree(artifact.path)
        assert find_prepared(recipe, home) is None
        again = prepare(recipe, home)
        assert again == first


@pytest.mark.slow
def test_killed_before_any_rename_it_ends_the_same(folder: Folder, tmp_path: Path) -> None:
    folder.fill()
    folder.add(b"broken")
    recipe = folder.recipe()
    whole = prepare(recipe, Home(tmp_path / "whole"))
    home = Home(tmp_path / "home")
    kills = 0
    while True:
        command = [sys.executable, "-m", "tests.data_prep.killed", str(folder.root.with_suffix(".yaml"))]
        done = subprocess.run([*command, str(home.root), str(kills + 1)], cwd=ROOT, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == STATUS
        kills += 1
        for artifact in home.all():
            verify(artifact)
        again = prepare(recipe, home)
        assert (again.dataset.manifest, again.held_out.manifest) == (
            whole.dataset.manifest,
            whole.held_out.manifest,
        )
        assert not list(home.root.rglob("*.partial"))
        assert not list(home.root.rglob("*.tmp"))
        shutil.rmtree(home.root)
    # Card and report; manifest and directory of each artifact. Other files have their name from the start.
    assert kills >= 6


def test_no_torch_is_needed() -> None:
    heavy = {"torch", "transformers", "datasets"}
    code = f"import sys, data_prep.prepare; sys.exit(bool({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
