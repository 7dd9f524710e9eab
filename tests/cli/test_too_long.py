"""Rows that do not fit are refused by prepare, counted as the real processor makes them."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from finetune.encoder import row_encoder
from lensmith.artifact import Artifact
from lensmith.cli.main import main
from lensmith.dataset import read_held_out, read_split
from lensmith.home import Home
from lensmith.intake import find_intake
from lensmith.recipe import load_recipe
from lensmith.row_file import Row
from tests.conftest import write_recipe
from tests.data_prep.folder import Folder, picture

SIZES = [(48, 32), (200, 120), (640, 480), (333, 77)]


@pytest.fixture
def recipe(tiny_base: Path, tmp_path: Path) -> Path:
    """Rows of all lengths; nothing is too long for the recipe."""
    folder = Folder(tmp_path / "forms")
    for number in range(32):
        place = folder.image(f"{number}.png", picture(number, *SIZES[number % 4]))
        answer = json.dumps({"n": "7" * (1 + number // 4)})
        folder.add(folder.row(f"row-{number}", answer=answer, path=place))
    folder.write()
    wide = {"train__max_length": 4000, "serve__max_model_len": 4000, "data__max_bad": 0.9}
    return write_recipe(tmp_path / "recipe.yaml", tiny_base, tmp_path / "forms", **wide)


def prepared(recipe: Path, home: Home, capsys: pytest.CaptureFixture[str], *settings: str) -> Artifact:
    laid = [part for each in settings for part in ("-s", each)]
    assert main(["prepare", str(recipe), *laid, "--json", "--home", str(home.root)]) == 0
    return home.by_id(json.loads(capsys.readouterr().out)["dataset"])


def lengths(recipe: Path, dataset: Artifact, home: Home) -> dict[str, tuple[int, int]]:
    """Tokens of each row's prompt, and of the whole row, as the processor gives them."""
    read = load_recipe(recipe)
    encoder = row_encoder(read, read.base.path)
    exam = read_held_out(home, home.by_id(dataset.body["held_out"]), "a test of the count")
    files = (read_split(dataset, "train"), read_split(dataset, "validation"), exam)
    found = {}
    for row in (row for file in files for row in file):
        labels = encoder.encode(row).labels
        found[row.sample.id] = int((labels == -100).sum()), len(labels)
    return found


def _sizes(row: Row) -> list[tuple[int, int]]:
    return [Image.open(io.BytesIO(data)).size for data in row.images]


def intake_of(home: Home, dataset: Artifact) -> Artifact:
    intake = find_intake(home, dataset)
    assert intake is not None
    return intake


def refused(home: Home, dataset: Artifact) -> dict[str, str]:
    """What is said of each row that was refused for its length."""
    lines = (intake_of(home, dataset).path / "refused.jsonl").read_text().splitlines()
    return {each["row"]: each["reason"] for each in map(json.loads, lines) if each["code"] == "too_long"}


def test_rows_beyond_the_limits_are_refused_to_the_token(
    recipe: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = prepared(recipe, home, capsys, "data.too_long=refuse")
    assert refused(home, whole) == {}
    tokens = lengths(recipe, whole, home)
    assert len(tokens) == 32
    most = sorted(row for _, row in tokens.values())[20]
    found = refused(home, prepared(recipe, home, capsys, "data.too_long=refuse", f"train.max_length={most}"))
    assert found.keys() == {name for name, (_, row) in tokens.items() if row > most}
    assert found
    for name, what in found.items():
        assert f": has {tokens[name][1]:,} tokens, train.max_length is {most:,}" in what
    asked = sorted(prompt for prompt, _ in tokens.values())[16]
    room = [f"serve.max_model_len={asked + 16}", "serve.max_new_tokens=16"]
    found = refused(home, prepared(recipe, home, capsys, "data.too_long=refuse", *room))
    assert found.keys() == {name for name, (prompt, _) in tokens.items() if prompt > asked}
    assert found


def test_pictures_are_reduced_until_the_row_fits(
    recipe: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = prepared(recipe, home, capsys)
    tokens = lengths(recipe, whole, home)
    most = sorted(row for _, row in tokens.values())[20]
    made = prepared(recipe, home, capsys, "data.too_long=resize", f"train.max_length={most}")
    assert refused(home, made) == {}
    # The exam may name its rows in another order: those of all splits are the same, and all fit.
    after = lengths(recipe, made, home)
    assert after.keys() == tokens.keys()
    longer = {name for name, (_, row) in tokens.items() if row > most}
    assert longer
    assert all(row <= most for _, row in after.values())
    assert {name for name in tokens if after[name] != tokens[name]} == longer
    assert min(after[name][1] for name in longer) > 0.8 * most
    seen = made.body["image_tokens"]["per_row"]
    assert max(each["max"] for each in seen.values()) < most
    assert intake_of(home, made).body["flagged"]["by_reason"] == {"reduced": len(longer)}
    # Nothing is stored that no row shows.
    train = read_split(made, "train")
    assert {each.digest for each in train.images()} == {
        image.digest for row in train for image in row.sample.images
    }
    assert all(
        image.size == each
        for row in train
        for image, each in zip(row.sample.images, _sizes(row), strict=True)
    )


@pytest.mark.slow
def test_pictures_that_are_one_only_when_they_are_smaller(
    tiny_base: Path, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blank pages of sixteen customers, of as many sizes: reduced to what fits, they are one picture."""
    folder = Folder(tmp_path / "forms")
    folder.fill(groups=20)
    for number in range(16):
        blank = io.BytesIO()
        Image.new("RGB", (1280, 960 + number), "white").save(blank, "PNG")
        folder.add(folder.row(f"blank-{number}", path=folder.image(f"blank-{number}.png", blank.getvalue())))
    folder.write()
    small = {"train__max_length": 120, "data__max_bad": 0.9, "data__too_long": "resize"}
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_base, tmp_path / "forms", **small)
    dataset = prepared(recipe, home, capsys)
    lines = (intake_of(home, dataset).path / "refused.jsonl").read_text().splitlines()
    said = {each["row"]: each["reason"] for each in map(json.loads, lines)}
    assert {each["code"] for each in map(json.loads, lines)} == {"image_across_groups"}
    assert 1 <= 16 - len(said) <= 8
    words = r"blank-1.png' at \d+ x \d+.* is, pixel for pixel, the image of row 'blank-0'"
    assert re.search(words, said["blank-1"])


def test_text_alone_that_is_too_long_is_refused(
    recipe: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    argument = ["-s", "data.too_long=resize", "-s", "train.max_length=10"]
    assert main(["prepare", str(recipe), *argument, "--home", str(home.root)]) == 2
    assert "The row has more tokens than is taught or served" in capsys.readouterr().err


def test_they_are_left_to_training_where_the_recipe_says_nothing(
    recipe: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = prepared(recipe, home, capsys, "train.max_length=50")
    assert refused(home, dataset) == {}
    again = prepared(recipe, home, capsys, "train.max_length=60")
    assert again.id == dataset.id


def test_there_must_be_a_base_to_count_with(
    recipe: Path, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["-s", "data.too_long=refuse", "-s", f"base.path={tmp_path / 'none'}"]
    assert main(["prepare", str(recipe), *settings, "--home", str(home.root)]) == 2
    assert "needs the base's tokenizer" in capsys.readouterr().err
